//! The queue: a small SQLite file that the watcher and Nix's hook share.
//!
//! ```text
//! queue(path PRIMARY KEY, added_at, attempts, not_before)   seconds since 1970
//! meta(name PRIMARY KEY, value)                             last_id: the row id of the Nix database to go on from
//! ```

use crate::ci::error::{CiError, Result};
use firn_formats::nix::StorePath;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Tries of one path before it is given up.
pub(super) const ATTEMPTS_MAX: u32 = 8;
const BACKOFF_FIRST_SECONDS: i64 = 2;
const BACKOFF_MAX_SECONDS: i64 = 300;

/// A path that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Its name.
    pub path: StorePath,
    /// How often it was tried.
    pub attempts: u32,
}

/// The queue of one store.
#[derive(Debug)]
pub struct Queue {
    connection: Connection,
    path: PathBuf,
}

impl Queue {
    /// Where the queue of a store lies when nothing else is said: below `XDG_STATE_HOME`.
    pub fn default_path(storage: &str, cache: &str) -> Option<PathBuf> {
        let set = |name: &str| crate::ci::event::process_environment(name).map(PathBuf::from);
        let home = || set("HOME").map(|home| home.join(".local/state"));
        let state = set("XDG_STATE_HOME").or_else(home)?;
        let name = firn_formats::Sha256::of(format!("{storage}\n{cache}").as_bytes()).hex();
        Some(state.join(format!("firn/queue-{}.sqlite", &name[..16])))
    }

    /// Opens a queue, or makes it.
    ///
    /// # Errors
    /// If the file cannot be had.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| CiError::io(parent, source))?;
        }
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS queue (
                     path TEXT PRIMARY KEY, added_at INTEGER NOT NULL,
                     attempts INTEGER NOT NULL DEFAULT 0, not_before INTEGER NOT NULL DEFAULT 0
                 ) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)
                     WITHOUT ROWID;",
            )?;
            Ok(connection)
        };
        Ok(Self {
            connection: open().map_err(|source| fault(path, source))?,
            path: path.to_path_buf(),
        })
    }

    fn fault(&self, source: rusqlite::Error) -> CiError {
        fault(&self.path, source)
    }

    /// The row id of the Nix database up to which paths were queued.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn last_id(&self) -> Result<Option<i64>> {
        self.connection
            .query_row("SELECT value FROM meta WHERE name = 'last_id'", [], |row| {
                row.get(0)
            })
            .optional()
            .map_err(|source| self.fault(source))
    }

    /// Queues paths, each once, and remembers how far the Nix database was read; both or neither.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add(&mut self, paths: &[StorePath], last_id: Option<i64>) -> Result<()> {
        let now = now();
        let path = self.path.clone();
        let mut add = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction()?;
            for path in paths {
                transaction
                    .prepare_cached("INSERT OR IGNORE INTO queue (path, added_at) VALUES (?1, ?2)")?
                    .execute(params![path.to_string(), now])?;
            }
            if let Some(last_id) = last_id {
                transaction.execute(
                    "INSERT OR REPLACE INTO meta (name, value) VALUES ('last_id', ?1)",
                    [last_id],
                )?;
            }
            transaction.commit()
        };
        add().map_err(|source| fault(&path, source))
    }

    /// The next paths whose time has come, oldest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next(&self, paths_max: u32) -> Result<Vec<Queued>> {
        let read = || -> rusqlite::Result<Vec<(String, u32)>> {
            self.connection
                .prepare_cached(
                    "SELECT path, attempts FROM queue WHERE not_before <= ?1
                     ORDER BY added_at, path LIMIT ?2",
                )?
                .query_map(params![now(), paths_max], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect()
        };
        let rows = read().map_err(|source| self.fault(source))?;
        Ok(rows
            .into_iter()
            .filter_map(|(path, attempts)| {
                let path = StorePath::parse_base_name(&path).ok()?;
                Some(Queued { path, attempts })
            })
            .collect())
    }

    /// How many wait, those that failed and wait for another try included.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn waiting(&self) -> Result<u64> {
        self.connection
            .query_row("SELECT count(*) FROM queue", [], |row| row.get::<_, i64>(0))
            .map(i64::unsigned_abs)
            .map_err(|source| self.fault(source))
    }

    /// Takes out paths that are done.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn done(&mut self, paths: &[StorePath]) -> Result<()> {
        self.change(paths, |connection, path| {
            connection.execute("DELETE FROM queue WHERE path = ?1", [path])
        })
    }

    /// Paths that could not be sent wait longer each time. Those that were tried too often are given up.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn failed(&mut self, paths: &[Queued]) -> Result<Vec<StorePath>> {
        let (given_up, again): (Vec<Queued>, Vec<Queued>) = paths
            .iter()
            .cloned()
            .partition(|queued| queued.attempts + 1 >= ATTEMPTS_MAX);
        let again: Vec<StorePath> = again.into_iter().map(|queued| queued.path).collect();
        let given_up: Vec<StorePath> = given_up.into_iter().map(|queued| queued.path).collect();
        let now = now();
        self.change(&again, |connection, path| {
            connection.execute(
                "UPDATE queue SET attempts = attempts + 1,
                     not_before = ?2 + min(?3, ?4 << attempts) WHERE path = ?1",
                params![path, now, BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS],
            )
        })?;
        self.done(&given_up)?;
        Ok(given_up)
    }

    fn change(
        &mut self,
        paths: &[StorePath],
        change: impl Fn(&Connection, &str) -> rusqlite::Result<usize>,
    ) -> Result<()> {
        let file = self.path.clone();
        let mut all = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction()?;
            for path in paths {
                change(&transaction, &path.to_string())?;
            }
            transaction.commit()
        };
        all().map_err(|source| fault(&file, source))
    }
}

fn fault(path: &Path, source: rusqlite::Error) -> CiError {
    CiError::Queue {
        path: path.to_path_buf(),
        source,
    }
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(digit: char) -> StorePath {
        let text = format!("{}-x", String::from(digit).repeat(32));
        StorePath::parse_base_name(&text).expect("a path")
    }

    #[test]
    fn a_queue_outlives_its_process_and_holds_each_path_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("deep/queue.sqlite");
        let mut queue = Queue::open(&file).expect("a queue");
        assert_eq!(queue.last_id().expect("read"), None);
        queue
            .add(&[path('1'), path('2'), path('1')], Some(7))
            .expect("added");
        let mut other = Queue::open(&file).expect("the hook's");
        other.add(&[path('2'), path('3')], None).expect("added");
        drop(queue);
        let mut queue = Queue::open(&file).expect("again");
        assert_eq!(queue.last_id().expect("read"), Some(7));
        assert_eq!(queue.waiting().expect("read"), 3);
        let next: Vec<StorePath> = queue
            .next(2)
            .expect("read")
            .into_iter()
            .map(|queued| queued.path)
            .collect();
        assert_eq!(next, [path('1'), path('2')]);
        queue.done(&next).expect("done");
        assert_eq!(queue.waiting().expect("read"), 1);
    }

    #[test]
    fn what_failed_waits_and_is_given_up_at_last() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut queue = Queue::open(&dir.path().join("q")).expect("a queue");
        queue.add(&[path('1')], None).expect("added");
        let first = queue.next(9).expect("read");
        assert!(queue.failed(&first).expect("noted").is_empty());
        assert_eq!(queue.next(9).expect("read"), [], "its time has not come");
        assert_eq!(queue.waiting().expect("read"), 1);
        let last = Queued {
            path: path('1'),
            attempts: ATTEMPTS_MAX - 1,
        };
        assert_eq!(queue.failed(&[last]).expect("noted"), [path('1')]);
        assert_eq!(queue.waiting().expect("read"), 0);
    }
}
