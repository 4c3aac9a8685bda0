//! For tests only: what tests of several crates share.

pub mod crowd;
pub mod damage;
pub mod folder;
pub mod hostile;
pub mod large;
mod noise;
pub mod power;
pub mod rigs;
pub mod server;
pub mod shared_store;
pub mod slow;
pub mod small_disk;
pub mod soak;

pub use noise::noise;
pub use server::TestServer;
pub use small_disk::SmallDisk;
