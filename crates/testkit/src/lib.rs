//! For tests only: what tests of several crates share.

pub mod damage;
pub mod rigs;
pub mod server;
pub mod shared_store;
pub mod soak;

pub use server::TestServer;
