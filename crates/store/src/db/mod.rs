//! The database: one writer thread, many readers, one module a kind of row.

pub(crate) mod blobs;
pub(crate) mod caches;
pub(crate) mod chunks;
pub(crate) mod collection;
pub(crate) mod damage;
pub(crate) mod entries;
pub(crate) mod log;
mod log_file;
pub(crate) mod lookups;
pub(crate) mod readers;
pub(crate) mod remade;
pub(crate) mod retention;
pub(crate) mod schema;
pub(crate) mod sessions;
pub(crate) mod staged;
pub(crate) mod uploads;
pub(crate) mod writer;

pub(crate) use writer::{Durability, lock};

use crate::clock::{Clock, TimeSources};
use crate::files::Folder;
use crate::{StoreError, layout};
use log_file::LogFile;
use readers::Readers;
use rusqlite::{Connection, Row};
use std::path::Path;
use std::sync::Arc;
use writer::Writer;

/// The store's clock in milliseconds (rule 10), for use inside statements; see `crate::clock`.
macro_rules! now_ms {
    () => {
        "firn_now_ms()"
    };
}
pub(crate) use now_ms;

/// Statements each connection keeps prepared.
const STATEMENTS_CACHED: usize = 64;

/// The database of an open store.
pub(crate) struct Database {
    writer: Writer,
    readers: Readers,
    clock: Arc<Clock>,
}

impl Database {
    /// Opens or creates the folder's database.
    pub(crate) fn open(folder: &Arc<Folder>, time: TimeSources) -> Result<Self, StoreError> {
        folder.touch(layout::DATABASE)?;
        let path = folder.path(layout::DATABASE);
        let log = LogFile::new(folder);
        log.write_again()?;
        let connection = open_for_writing(&path)?;
        use_write_ahead_log(&connection, &path)?;
        let clock = Clock::resume(&connection, time)?;
        clock.install(&connection)?;
        // A full disk does not keep a store from being opened: the next start counts from the same mark.
        if let Err(error) = clock.mark(&connection) {
            tracing::warn!(%error, "writing down the store's time");
        }
        Ok(Self {
            writer: Writer::start(connection, log)?,
            readers: Readers::new(path, clock.clone()),
            clock,
        })
    }

    /// The store's clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Writes down how far the clock has come, if that is due, and says if wall time has gone elsewhere.
    pub(crate) fn keep_time(&self) -> Result<(), StoreError> {
        self.clock.tell();
        match self.clock.is_due() {
            true => self.mark_time(Durability::Ordered),
            false => Ok(()),
        }
    }

    /// Puts the clock forward to wall time, for good; gives the milliseconds.
    pub(crate) fn confirm_time(&self) -> Result<i64, StoreError> {
        let forward = self.clock.confirm();
        self.mark_time(Durability::Synced)?;
        Ok(forward)
    }

    fn mark_time(&self, durability: Durability) -> Result<(), StoreError> {
        let clock = self.clock.clone();
        self.write(durability, move |connection| clock.mark(connection))
    }

    /// Runs `read` on a reader's connection; each statement sees the newest commit.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.readers.with(read)
    }

    /// Runs `read` in one snapshot.
    pub(crate) fn snapshot<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.readers.with(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let result = read(&transaction)?;
            transaction.finish()?;
            Ok(result)
        })
    }

    /// See [`Writer::write`].
    pub(crate) fn write<T, F>(&self, durability: Durability, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.write(durability, operation)
    }

    /// Ends the writer.
    pub(crate) fn stop(&self) {
        if let Err(error) = self.mark_time(Durability::Ordered) {
            tracing::warn!(%error, "writing down the store's time");
        }
        self.writer.stop();
    }
}

/// SQLite says which journal it took. Without shared memory, as on many network file systems, it takes another than
/// the one that readers beside a writer, and what is synced when, rely on.
fn use_write_ahead_log(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    // To its end: the change is committed after its row, and that can fail.
    let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = statement.query([])?;
    let mut taken = String::new();
    while let Some(row) = rows.next()? {
        taken = row.get(0)?;
    }
    match taken.eq_ignore_ascii_case("wal") {
        true => Ok(()),
        false => Err(StoreError::NoWriteAheadLog {
            path: path.to_owned(),
            taken,
        }),
    }
}

/// A connection with the pragmas that every writing one needs, at the newest schema.
pub(crate) fn open_for_writing(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    connection.pragma_update(None, "foreign_keys", true)?;
    // The WAL is cut back to this after a burst. The writer says when it is checkpointed.
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    // What a savepoint must remember to be undone; in a file it would be half of all that is written.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    schema::migrate(&mut connection)?;
    Ok(connection)
}

/// 32 bytes of a column.
pub(crate) fn bytes32(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; 32]> {
    row.get(column)
}

/// Lengths and counts are never negative in the database; one that is reads as 0.
pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column)
        .map(|value| u64::try_from(value).unwrap_or(0))
}

/// As the database stores lengths.
pub(crate) fn signed(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// A duration in the database's milliseconds.
pub(crate) fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// Figures of the whole store, those since the start of the process excepted.
pub(crate) fn stats(connection: &Connection) -> Result<crate::types::Stats, StoreError> {
    let (blobs, blob_identity_bytes) = blobs::totals(connection)?;
    let stats = connection.query_row(
        "SELECT coalesce(sum(chunks), 0), coalesce(sum(raw_bytes), 0), coalesce(sum(frame_bytes), 0), count(*),
             (SELECT count(*) FROM sessions) FROM packs",
        [],
        |row| {
            Ok(crate::types::Stats {
                chunks: unsigned(row, 0)?,
                chunk_raw_bytes: unsigned(row, 1)?,
                chunk_stored_bytes: unsigned(row, 2)?,
                packs: unsigned(row, 3)?,
                sessions: unsigned(row, 4)?,
                blobs,
                blob_identity_bytes,
                ..Default::default()
            })
        },
    )?;
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d14_a_database_without_a_write_ahead_log_is_refused() {
        // One in memory has no log, as one on a file system that cannot share memory.
        let connection = Connection::open_in_memory().unwrap();
        let refused = use_write_ahead_log(&connection, Path::new("firn.db"));
        let Err(StoreError::NoWriteAheadLog { taken, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(taken, "memory");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("firn.db");
        use_write_ahead_log(&Connection::open(&path).unwrap(), &path).unwrap();
    }
}
