//! Wire formats of Nix, OCI and Firn.
//!
//! Pure: no I/O, no async, no clock. Every parser here reads foreign bytes, so
//! each has limits, returns typed errors, and never panics.

pub mod actions;
pub mod admin;
pub mod http;
pub mod layer;
pub mod nix;
pub mod oci;
pub mod pull;
pub mod push;
pub mod sha256;
pub mod tar;

pub use sha256::Sha256;
