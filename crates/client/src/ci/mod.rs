//! A CI job around a store without a server: find the entry of a key, remember what there was, send what is
//! new, tell what it was worth.
//!
//! Nix itself is served by the loopback substituter, whether a key matches or not: keys say what to prefetch
//! and what other folders there are, never what may be used.

pub mod entry;
pub mod error;
pub mod event;
pub mod folder;
mod glob;
pub mod hash_files;
pub mod nix;
pub mod runner;
pub mod save;
pub mod state;
pub mod summary;

pub use error::CiError;
pub use glob::{Base, GlobError};

pub(crate) use glob::Segment;
