//! What Firn's doors do, apart from HTTP: access, the Nix cache, the registry, the Actions cache and pushing.
//!
//! Synchronous and without a web framework; bodies come as [`std::io::Read`] and leave as
//! [`firn_store::BlobReader`]. The server brings these calls to blocking threads.

pub mod access;
pub mod actions;
pub mod budget;
pub mod check;
pub mod document;
pub mod error;
pub mod nix_cache;
pub mod push;
pub mod registry;
pub mod retention;
mod secret_file;
mod sessions;
mod sync;
pub mod zstd_tar;

pub use access::{Access, Cache, Identity, Refusal};
pub use actions::Actions;
pub use error::ServiceError;
pub use nix_cache::NixCache;
pub use push::Push;
pub use registry::Registry;
pub use retention::Retention;

use budget::Budget;
use firn_store::Store;
use std::path::Path;
use std::sync::Arc;

/// All services over one store.
pub struct Services {
    /// What all of them hold in memory for clients.
    pub budget: Budget,
    /// The store below them.
    pub store: Store,
    /// Caches, keys, tokens.
    pub access: Arc<Access>,
    /// The Nix binary cache.
    pub nix_cache: Arc<NixCache>,
    /// The OCI registry.
    pub registry: Registry,
    /// The push protocol.
    pub push: Push,
    /// The GitHub Actions cache.
    pub actions: Actions,
    /// What caches keep.
    pub retention: Arc<Retention>,
}

impl Services {
    /// Loads caches, keys and tokens from the store and from `dir`; on the first start makes
    /// the cache `main`, its key and the admin token.
    ///
    /// # Errors
    /// If the store or the folder of secrets cannot be read or written.
    pub fn open(store: Store, dir: &Path) -> Result<Self, ServiceError> {
        store.on_remade(check::remade);
        let budget = budget::memory();
        let access = Arc::new(Access::open(store.clone(), dir)?);
        let narinfos = Arc::new(nix_cache::Narinfos::new());
        let uses = Arc::new(retention::Uses::new());
        let retention = Arc::new(Retention::new(
            store.clone(),
            access.clone(),
            narinfos.clone(),
            uses.clone(),
        ));
        let nix_cache = Arc::new(NixCache::new(
            store.clone(),
            narinfos,
            uses.clone(),
            retention.clone(),
            budget.clone(),
        ));
        let push = Push::new(
            store.clone(),
            nix_cache.clone(),
            access.clone(),
            retention.clone(),
            budget.clone(),
        );
        Ok(Self {
            registry: Registry::new(
                store.clone(),
                access.clone(),
                uses.clone(),
                retention.clone(),
                budget.clone(),
            ),
            actions: Actions::new(store.clone(), access.clone(), retention.clone(), uses),
            push,
            retention,
            budget,
            store,
            access,
            nix_cache,
        })
    }

    /// Drops what clients left behind: idle sessions and uploads; notes what was used. To be called now and then.
    pub fn sweep(&self) {
        if let Err(error) = self.retention.flush() {
            tracing::warn!(error = error.chain(), "noting what was used");
        }
        self.access.retire_keys();
        self.access.finish_deletions();
        self.push.sweep();
        self.registry.sweep();
        self.actions.sweep();
        self.nix_cache.sweep();
    }
}
