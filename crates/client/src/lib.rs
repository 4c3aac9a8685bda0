//! The client: the local Nix store, pushing, pulling, other registries.
//!
//! Blocking, on threads. It never touches the terminal: progress goes to a [`progress::Progress`],
//! failures to [`ClientError`].

pub mod api;
pub mod ci;
mod command;
pub mod credentials;
pub mod error;
mod files;
pub mod http;
pub mod image;
pub mod local_store;
mod memory;
pub mod nix_config;
mod parallel;
pub mod progress;
pub mod pull;
pub mod push;
pub mod registry;
pub mod repair;
pub mod resolve;
pub mod status;
pub mod storage;
pub mod substituter;
pub mod watch;

pub use error::ClientError;
