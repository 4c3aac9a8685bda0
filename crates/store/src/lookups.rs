//! What was looked for, and how that went: for those who ask why something missed.

use crate::db::{Durability, lookups};
use crate::{CacheId, LookupRow, Store, StoreError};

/// # Errors
/// As of all operations.
#[allow(clippy::missing_errors_doc)]
impl Store {
    /// Remembers look-ups, in one transaction. They may be lost in a crash.
    pub fn record_lookups(&self, rows: Vec<LookupRow>) -> Result<(), StoreError> {
        self.inner.db.write(Durability::Ordered, move |connection| {
            lookups::record(connection, &rows)
        })
    }

    /// What an owner looked for, the newest first.
    pub fn lookups(
        &self,
        cache: CacheId,
        owner: &str,
        limit: usize,
    ) -> Result<Vec<LookupRow>, StoreError> {
        self.inner
            .db
            .read(|connection| lookups::list(connection, cache, owner, limit))
    }
}
