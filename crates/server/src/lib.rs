//! HTTP: one module a door, configuration, metrics, starting and stopping.
//!
//! [`start`] needs no async world: it brings its own runtime, so that the program and tests use
//! it alike.

mod actions;
mod api;
mod app;
mod auth;
mod body;
mod check;
pub mod config;
mod gate;
mod idle;
mod keeper;
pub mod limits;
mod listen;
pub mod logging;
pub mod loopback;
mod metrics;
mod nix;
mod operations;
mod query;
mod registry;
mod running;
mod scrub;
mod stream;
mod upload;
mod welcome;

pub use check::{backup, check, view as check_view};
pub use config::Config;
pub use firn_store::{BackupReport, RebuildReport, StoreError};
pub use limits::Limits;
pub use running::{Running, StartError, StopSignals, rebuild, start, welcome};
