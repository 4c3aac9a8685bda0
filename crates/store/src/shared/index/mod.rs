//! The local index of a store without a server: what its live segments tell, in SQLite. Several processes may
//! use it at once. It holds nothing that cannot be read again, so one that is damaged or of another version is
//! thrown away.
//!
//! ```text
//! <folder>/index/index.db    with -wal and -shm beside it; `PRAGMA user_version` is the version
//! ```

mod apply;
mod query;
mod state;

pub(super) use apply::{Taken, is_sound};
pub(super) use state::{Known, LiveSegment, Signer, time_of};

use crate::StoreError;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Of the tables and of what stands in them.
const VERSION: u32 = 1;
const SCHEMA: &str = include_str!("schema.sql");
/// Another process may take in many large segments in one transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);
/// Of pages a connection may keep: many frames are put in at once, all over the table.
const CACHE_KIB: i64 = 32 << 10;
const CONNECT_TRIES: u32 = 200;
const CONNECT_PAUSE: Duration = Duration::from_millis(25);
/// Connections kept open between uses.
const IDLE_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Index {
    /// Holds nothing but the database.
    folder: PathBuf,
    idle: Mutex<Idle>,
}

/// Connections not in use, all to the database of this generation.
#[derive(Debug, Default)]
struct Idle {
    generation: u64,
    connections: Vec<Connection>,
}

impl Index {
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let index = Self {
            folder: folder.join("index"),
            idle: Mutex::default(),
        };
        if let Err(error) = index.read(|_| Ok(())) {
            if !is_damage(&error) {
                return Err(error);
            }
            index.throw_away()?;
            index.read(|_| Ok(()))?;
        }
        Ok(index)
    }

    /// Runs in a snapshot.
    pub(super) fn read<T>(
        &self,
        run: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.transaction(TransactionBehavior::Deferred, run)
    }

    /// Runs in a transaction that is written whole or not at all.
    pub(super) fn write<T>(
        &self,
        run: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.transaction(TransactionBehavior::Immediate, run)
    }

    fn transaction<T>(
        &self,
        behavior: TransactionBehavior,
        run: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (generation, idle) = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            (idle.generation, idle.connections.pop())
        };
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let transaction = connection.transaction_with_behavior(behavior)?;
        let result = run(&transaction)?;
        transaction.commit()?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.generation == generation && idle.connections.len() < IDLE_MAX {
            idle.connections.push(connection);
        }
        Ok(result)
    }

    /// Another process may be making the database, which a waiting connection is not always let wait for.
    fn connect(&self) -> Result<Connection, StoreError> {
        for _ in 0..CONNECT_TRIES {
            match self.connect_once() {
                Err(error) if is_busy(&error) => std::thread::sleep(CONNECT_PAUSE),
                result => return result,
            }
        }
        self.connect_once()
    }

    fn connect_once(&self) -> Result<Connection, StoreError> {
        std::fs::create_dir_all(&self.folder)
            .map_err(|error| StoreError::io(&self.folder, error))?;
        let mut connection = Connection::open(self.folder.join("index.db"))?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.set_prepared_statement_cache_capacity(32);
        let version = user_version(&connection)?;
        if version == VERSION {
            return Ok(connection);
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match user_version(&transaction)? {
            0 => {
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            VERSION => {}
            found => {
                return Err(StoreError::FormatVersion {
                    path: self.folder.clone(),
                    found: found.to_string(),
                    known: VERSION,
                });
            }
        }
        transaction.commit()?;
        Ok(connection)
    }

    /// Begins anew. The database's folder goes as a whole, so that no journal of the old one meets the new one;
    /// a process that has it open goes on with what it has.
    pub(super) fn throw_away(&self) -> Result<(), StoreError> {
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.generation += 1;
            idle.connections.clear();
        }
        let random = crate::layout::random_hex(8)?;
        let aside = self
            .folder
            .with_file_name(format!("index.damaged-{random}"));
        match std::fs::rename(&self.folder, &aside) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io(&self.folder, error)),
        }
        std::fs::remove_dir_all(&aside).map_err(|error| StoreError::io(&aside, error))
    }
}

fn user_version(connection: &Connection) -> Result<u32, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn is_busy(error: &StoreError) -> bool {
    matches!(error, StoreError::Database(error)
        if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
}

/// Whether an index that failed so is to be made anew.
pub(super) fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::FormatVersion { .. } => true,
        StoreError::Database(error) => match error {
            rusqlite::Error::SqliteFailure(failure, message) => {
                matches!(
                    failure.code,
                    ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
                ) || message
                    .as_deref()
                    .is_some_and(|message| message.starts_with("no such table"))
            }
            // A row that does not hold what this program writes.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..) => true,
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests;
