//! For tests only: what tests of several crates share.

pub mod damage;
pub mod hostile;
pub mod large;
pub mod rigs;
pub mod server;
pub mod shared_store;
pub mod slow;
pub mod soak;

pub use server::TestServer;
