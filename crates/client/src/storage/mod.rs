//! Working on a store without a server: a folder, a bucket or a registry (`--storage`).

mod check;
mod location;
mod push;
pub mod registry;

pub use check::check_storage;
pub use firn_store::{
    EntryKind,
    shared::{
        Expire, ExpirePaths, ExpiredEntry, GcOptions, GcPlan, GcReport, PackFile, SharedStore,
    },
};
pub use location::{StorageLocation, believes_all_writers, open_storage, open_storage_with_cache};
pub(crate) use location::{shared_options, signing_key, trusted_keys};
pub(crate) use push::push_work;
pub use push::{StoragePushReport, push_to_storage};

/// How this machine is called in what it writes.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
