//! A pool of connections that only read.

use super::{STATEMENTS_CACHED, lock};
use crate::StoreError;
use crate::clock::Clock;
use rusqlite::{Connection, OpenFlags};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Connections kept; more are opened under load and closed after it.
const IDLE_MAX: usize = 16;

pub(crate) struct Readers {
    path: PathBuf,
    clock: Arc<Clock>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf, clock: Arc<Clock>) -> Self {
        Self {
            path,
            clock,
            idle: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let pooled = lock(&self.idle).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => self.open()?,
        };
        let result = read(&connection);
        // One that is in a transaction still would read an old snapshot for ever.
        if connection.is_autocommit() {
            let mut idle = lock(&self.idle);
            if idle.len() < IDLE_MAX {
                idle.push(connection);
            }
        }
        result
    }

    fn open(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "mmap_size", 256 << 20)?;
        connection.pragma_update(None, "cache_size", -1024)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        self.clock.install(&connection)?;
        Ok(connection)
    }
}
