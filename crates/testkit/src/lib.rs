//! For tests only: what tests of several crates share.

pub mod rigs;
pub mod server;

pub use server::TestServer;
