//! Sessions for uploads that bring none of their own (`nix copy`, docker).
//!
//! One session a cache is shared by the uploads of some minutes, so that a closure of small
//! paths does not cost a transaction each for opening and closing. A session that was handed
//! out lives, renewed, until its last upload is over.

use crate::{ServiceError, access::Cache, sync::lock};
use firn_store::{CacheId, Session, Store};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// After this time new uploads get a new session, so that the old one's pins go.
const SHARED_FOR: Duration = Duration::from_secs(300);
/// How often a session in use is renewed, at the least …
const RENEW_EVERY: Duration = Duration::from_secs(30);

/// … and how many times in its life: a short one ends before that.
const RENEWALS: u32 = 3;

/// How long a session waits for its next renewal.
pub(crate) fn renewal(session: &Session, at_least_every: Duration) -> Duration {
    at_least_every.min(session.expires_in / RENEWALS)
}

/// A session, closed when the last of its users drops it.
pub(crate) struct SharedSession {
    store: Store,
    session: Session,
    opened: Instant,
    renewed: Mutex<Instant>,
}

impl SharedSession {
    /// The session.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Shows a sign of life if the last was some time ago.
    pub(crate) fn keep_alive(&self) -> Result<(), ServiceError> {
        let mut renewed = lock(&self.renewed);
        if renewed.elapsed() >= renewal(&self.session, RENEW_EVERY) {
            self.store.session_touch(&self.session.id)?;
            *renewed = Instant::now();
        }
        Ok(())
    }
}

impl Drop for SharedSession {
    fn drop(&mut self) {
        if let Err(error) = self.store.session_close(&self.session.id) {
            tracing::debug!(%error, "closing an upload session failed; it will expire");
        }
    }
}

/// The sessions now shared, by cache.
pub(crate) struct SharedSessions {
    store: Store,
    current: Mutex<HashMap<CacheId, Arc<SharedSession>>>,
}

impl SharedSessions {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            current: Mutex::new(HashMap::new()),
        }
    }

    /// A live session for an upload into `cache`.
    pub(crate) fn get(&self, cache: &Cache) -> Result<Arc<SharedSession>, ServiceError> {
        let mut current = lock(&self.current);
        if let Some(shared) = current.get(&cache.row.id)
            && shared.opened.elapsed() < SHARED_FOR
            && shared.keep_alive().is_ok()
        {
            return Ok(shared.clone());
        }
        let shared = Arc::new(SharedSession {
            store: self.store.clone(),
            session: self.store.session_open(&cache.row)?,
            opened: Instant::now(),
            renewed: Mutex::new(Instant::now()),
        });
        current.insert(cache.row.id, shared.clone());
        Ok(shared)
    }

    /// Lets go of sessions that nobody uses or that are old.
    pub(crate) fn sweep(&self) {
        let let_go: Vec<_> = {
            let mut current = lock(&self.current);
            let old: Vec<CacheId> = current
                .iter()
                .filter(|(_, shared)| {
                    Arc::strong_count(shared) == 1 && shared.opened.elapsed() > RENEW_EVERY
                })
                .map(|(id, _)| *id)
                .collect();
            old.iter().filter_map(|id| current.remove(id)).collect()
        };
        drop(let_go);
    }
}
