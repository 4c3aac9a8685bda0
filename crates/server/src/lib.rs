//! HTTP: one module a door, configuration, metrics, starting and stopping.
//!
//! [`start`] needs no async world: it brings its own runtime, so that the program and tests use
//! it alike.

mod api;
mod app;
mod auth;
mod body;
pub mod config;
mod listen;
pub mod logging;
pub mod loopback;
mod metrics;
mod nix;
mod operations;
mod registry;
mod running;
mod upload;
mod welcome;

pub use config::Config;
pub use firn_store::{RebuildReport, StoreError};
pub use running::{Running, StartError, StopSignals, rebuild, start, welcome};
