//! The GitHub Actions cache: entries with keys, scopes and a quota a repository.
//!
//! | module | what it does |
//! |---|---|
//! | `entry` | an entry, and how the store keeps it |
//! | `lookup` | finding an entry, and why none was found |
//! | `history` | what was looked for, and what went, for people |
//! | `upload` | reservations and parts |
//! | `finish` | the one transaction that makes an entry visible |
//! | `decoded` | archives that are stored as what is in them |
//! | `keep` | quotas and retention |
//! | `room` | what saves that are under way will take |
//! | `shared` | what other repositories of a cache saved, where they share |
//! | `transfer` | how long it took to download what was found |
//! | `replace` | leave to replace an entry |
//!
//! An entry is immutable: its key, version and scope name the same bytes for as long as it is there. A repository is
//! `owner/name` inside a Firn cache; nothing here crosses from one to another. Who may do what is decided before:
//! these functions do as they are told.

mod decoded;
mod entry;
mod finish;
mod history;
mod keep;
mod lookup;
mod replace;
mod room;
mod shared;
mod transfer;
mod upload;

pub use entry::{Entry, Form};
pub use history::{Gone, Looked, Outcome};
pub use keep::{ActionsConfig, Usage};
pub use lookup::{Hit, MissReason};
pub use upload::{ActionsError, ENTRY_BYTES_MAX, Part, Save, Uploading};

use crate::retention::Uses;
use crate::sessions::SharedSessions;
use crate::{Access, Cache, Retention, ServiceError};
use firn_formats::actions::RepositoryName;
use firn_store::Store;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A repository inside a cache.
#[derive(Clone)]
pub struct Repository {
    /// The cache.
    pub cache: Arc<Cache>,
    /// `owner/name`.
    pub name: RepositoryName,
}

/// The service. Its entries are those of [`firn_store::EntryKind::ActionsEntry`].
pub struct Actions {
    store: Store,
    access: Arc<Access>,
    retention: Arc<Retention>,
    uses: Arc<Uses>,
    sessions: SharedSessions,
    notes: history::Notes,
    transfers: transfer::Transfers,
    /// Uploads that are being committed.
    committing: Mutex<HashSet<String>>,
    committed: std::sync::Condvar,
    /// Milliseconds after which a reservation that no byte came for ends.
    idle_ms: AtomicU64,
    room: room::Room,
    /// Entries by the numbers of the uploads that they were made of, for clients that finish once more.
    finished: quick_cache::sync::Cache<u64, u64>,
}

/// See [`Actions::set_idle`].
const IDLE_MS: u64 = 300_000;
/// Uploads that are remembered when they are over.
const FINISHED_MAX: usize = 4096;

/// Whether an entry of the store is one of these.
pub(crate) fn is_sound(entry: &firn_store::Entry) -> bool {
    Entry::of_store(entry).is_ok()
}

/// A time as HTTP's headers have it.
pub fn http_date(seconds: i64) -> Option<String> {
    let at = jiff::Timestamp::from_second(seconds).ok()?;
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&at)
        .ok()
}

impl Actions {
    pub(crate) fn new(
        store: Store,
        access: Arc<Access>,
        retention: Arc<Retention>,
        uses: Arc<Uses>,
    ) -> Self {
        Self {
            sessions: SharedSessions::new(store.clone()),
            store,
            access,
            retention,
            uses,
            notes: history::Notes::default(),
            transfers: transfer::Transfers::new(),
            committing: Mutex::default(),
            committed: std::sync::Condvar::new(),
            idle_ms: AtomicU64::new(IDLE_MS),
            room: room::Room::default(),
            finished: quick_cache::sync::Cache::new(FINISHED_MAX),
        }
    }

    /// Ends reservations that no byte came for in this time, from now on.
    pub fn set_idle(&self, idle: Duration) {
        let ms = u64::try_from(idle.as_millis()).unwrap_or(IDLE_MS);
        self.idle_ms.store(ms, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms.load(Ordering::Relaxed))
    }

    /// Tells the database what was looked for. To be called now and then, and before the end.
    ///
    /// # Errors
    /// If the store fails.
    pub fn flush(&self) -> Result<(), ServiceError> {
        self.notes.flush(&self.store)
    }

    /// Ends uploads that no byte came for, and notes what was looked for. To be called now and then.
    pub(crate) fn sweep(&self) {
        if let Err(error) = self.flush() {
            tracing::warn!(error = error.chain(), "noting what was looked for");
        }
        match self.store.staged_reap() {
            Ok(0) => {}
            Ok(ended) => tracing::info!(ended, "uploads of Actions entries were abandoned"),
            Err(error) => tracing::error!(%error, "clearing away abandoned uploads"),
        }
        self.sessions.sweep();
    }
}
