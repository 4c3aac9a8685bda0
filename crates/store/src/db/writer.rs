//! The one thread that writes to the database.
//!
//! Whatever is queued goes into one transaction, each operation in a savepoint of its
//! own, so that one caller's failure does not undo another's work and one sync serves all.
//!
//! After a failed sync of the log the system takes its pages for clean: a later sync succeeds without writing them,
//! and a checkpoint that relied on it could be cut off halfway. So after any I/O error the log is written once more,
//! byte for byte, and synced, before anything else is committed or answered; and so it is when a store is opened,
//! since the process before may have ended in between. For that reason SQLite never makes a checkpoint by itself:
//! it would keep the error of one to itself.

use super::log_file::LogFile;
use crate::failpoint::{Point, reach};
use crate::{StoreError, layout};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rusqlite::Connection;
use std::io;
use std::sync::Mutex;
use std::thread::JoinHandle;

/// Most operations in one transaction.
const GROUP_MAX: usize = 256;
/// Pages in the log after which it is brought into the database, which makes the writer wait for two syncs: 16 MiB.
const CHECKPOINT_FRAMES: i64 = (16 << 20) / 4096;

/// Whether an answer may go out before the disk has the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Synced before the answer: what makes something visible, or promises it.
    Synced,
    /// Synced by the next synced operation at the latest: sessions, pins, valid chunks, leased
    /// blobs and leased entries, on which nothing lasting relies before a publication, itself
    /// synced, comes after them.
    Ordered,
}

type Answer = Box<dyn FnOnce(Option<StoreError>) + Send>;
/// Given the connection, or why there is no transaction.
type Operation = Box<dyn FnOnce(Result<&Connection, StoreError>) -> (Outcome, Answer) + Send>;

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Keep,
    Undo,
    /// Undo it; and the disk failed.
    DiskFailed,
}

struct Job {
    durability: Durability,
    operation: Operation,
}

/// The writer's end that callers hold.
pub(crate) struct Writer {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn closed() -> StoreError {
    StoreError::Io {
        path: "the store".into(),
        source: io::Error::new(io::ErrorKind::BrokenPipe, "it is closed"),
    }
}

impl Writer {
    /// Starts the thread on a connection.
    pub(crate) fn start(connection: Connection, log: LogFile) -> Result<Self, StoreError> {
        let (sender, receiver) = unbounded();
        let mut committer = Committer {
            connection,
            log,
            in_doubt: false,
            synced: None,
        };
        let thread = std::thread::Builder::new()
            .name("firn-db".into())
            .spawn(move || committer.serve(&receiver))
            .map_err(|error| StoreError::io("thread firn-db", error))?;
        Ok(Self {
            jobs: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs an operation in a savepoint; its result comes back when its transaction is committed.
    pub(crate) fn write<T, F>(&self, durability: Durability, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, receiver) = bounded(1);
        let operation: Operation = Box::new(move |connection| {
            let result = connection.and_then(operation);
            let outcome = match &result {
                Ok(_) => Outcome::Keep,
                Err(error) if disk_failed(error) => Outcome::DiskFailed,
                Err(_) => Outcome::Undo,
            };
            let answer: Answer = Box::new(move |failure| {
                // A caller who is gone needs no answer.
                let _ = sender.send(match failure {
                    // An operation that failed by itself says why.
                    Some(error) if result.is_ok() => Err(error),
                    _ => result,
                });
            });
            (outcome, answer)
        });
        let jobs = lock(&self.jobs).clone().ok_or_else(closed)?;
        jobs.send(Job {
            durability,
            operation,
        })
        .map_err(|_| closed())?;
        drop(jobs);
        receiver.recv().map_err(|_| closed())?
    }

    /// Lets the thread finish what is queued and ends it.
    pub(crate) fn stop(&self) {
        drop(lock(&self.jobs).take());
        if let Some(thread) = lock(&self.thread).take() {
            // The thread's panic has been reported by the runtime already.
            let _ = thread.join();
        }
    }
}

/// Locks past a panic of another holder: the data behind our mutexes is whole between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether a sync may have failed. A full disk refuses writes, and says so by another error.
fn disk_failed(error: &StoreError) -> bool {
    matches!(error, StoreError::Database(error)
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure))
}

/// What the thread has in hand.
struct Committer {
    connection: Connection,
    log: LogFile,
    /// The disk failed, so pages of the log may be lost that a sync would not write again.
    in_doubt: bool,
    /// Whether commits are synced now, if that is known.
    synced: Option<bool>,
}

impl Committer {
    fn serve(&mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut group = vec![first];
            group.extend(jobs.try_iter().take(GROUP_MAX - 1));
            self.run_group(group);
            self.checkpoint_if_due();
        }
        let end = self.remove_doubt().and_then(|()| {
            let truncate = "PRAGMA wal_checkpoint(TRUNCATE)";
            Ok(self.connection.execute_batch(truncate)?)
        });
        if let Err(error) = end {
            tracing::warn!(%error, "checkpointing the database");
        }
    }

    /// See the module: the log is written once more if it is in doubt.
    fn remove_doubt(&mut self) -> Result<(), StoreError> {
        if self.in_doubt {
            self.log.write_again()?;
            self.in_doubt = false;
            tracing::info!("wrote the database's log again after an error of the disk");
        }
        Ok(())
    }

    fn begin(&mut self, wants: bool) -> Result<(), StoreError> {
        self.remove_doubt()?;
        if self.synced != Some(wants) {
            self.synced = None;
            let mode = if wants { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", mode)?;
            self.synced = Some(wants);
        }
        Ok(self.connection.execute_batch("BEGIN IMMEDIATE")?)
    }

    /// Runs the operations in one transaction.
    fn run_group(&mut self, group: Vec<Job>) {
        let wants = group.iter().any(|job| job.durability == Durability::Synced);
        let mut failure = self.begin(wants).err();
        let mut answers = Vec::with_capacity(group.len());
        for job in group {
            if let Some(error) = &failure {
                answers.push((job.operation)(Err(error.duplicate())).1);
                continue;
            }
            let (outcome, answer, error) = run_one(&self.connection, job.operation);
            self.in_doubt |= outcome == Outcome::DiskFailed;
            answers.push(answer);
            failure = error;
        }
        if failure.is_none() && self.in_doubt {
            // Its sync would say nothing of what the log lost in one of the operations.
            let error = io::Error::other("the disk failed in the same transaction");
            failure = Some(StoreError::io(layout::DATABASE, error));
        }
        if failure.is_none() {
            failure = commit(&self.connection).err();
        }
        if failure.is_some() && !self.connection.is_autocommit() {
            // It failed already; a rollback that fails too leaves the next BEGIN to say so.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.in_doubt |= failure.as_ref().is_some_and(disk_failed);
        for answer in answers {
            answer(failure.as_ref().map(StoreError::duplicate));
        }
    }

    /// After the answers: what they promise is in the log. Nobody waits for it but who comes next.
    fn checkpoint_if_due(&mut self) {
        if self.in_doubt {
            return;
        }
        let frames = |mode: &str| -> Result<i64, StoreError> {
            let mut statement = self.connection.prepare_cached(mode)?;
            Ok(statement.query_row([], |row| row.get(1))?)
        };
        let done = match frames("PRAGMA wal_checkpoint(NOOP)") {
            Ok(length) if length < CHECKPOINT_FRAMES => return,
            Ok(_) => frames("PRAGMA wal_checkpoint(PASSIVE)"),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.in_doubt |= disk_failed(&error);
            tracing::warn!(%error, "checkpointing the database");
        }
    }
}

fn commit(connection: &Connection) -> Result<(), StoreError> {
    reach(Point::TransactionFilled)?;
    connection.execute_batch("COMMIT")?;
    reach(Point::TransactionCommitted)
}

/// Runs one operation in a savepoint. An error means that the whole transaction is lost.
fn run_one(connection: &Connection, operation: Operation) -> (Outcome, Answer, Option<StoreError>) {
    if let Err(error) = connection.execute_batch("SAVEPOINT operation") {
        let error = StoreError::from(error);
        let (outcome, answer) = operation(Err(error.duplicate()));
        return (outcome, answer, Some(error));
    }
    let (outcome, answer) = operation(Ok(connection));
    if connection.is_autocommit() {
        // A full disk and I/O errors end the transaction, with what others did in it.
        let error = io::Error::new(io::ErrorKind::StorageFull, "the transaction was lost");
        return (outcome, answer, Some(StoreError::Full(error)));
    }
    let end = match outcome {
        Outcome::Keep => "RELEASE operation",
        Outcome::Undo | Outcome::DiskFailed => "ROLLBACK TO operation; RELEASE operation",
    };
    let error = connection.execute_batch(end).err().map(Into::into);
    (outcome, answer, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Folder;
    use std::sync::Arc;

    fn writer() -> Writer {
        let connection = Connection::open_in_memory().unwrap();
        let schema = "CREATE TABLE t (n INTEGER PRIMARY KEY)";
        connection.execute_batch(schema).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        Writer::start(connection, LogFile::new(&Arc::new(folder))).unwrap()
    }

    fn insert(connection: &Connection, n: u32) -> Result<(), StoreError> {
        connection.execute("INSERT INTO t VALUES (?)", [n])?;
        Ok(())
    }

    #[test]
    fn a_failed_operation_is_undone_alone() {
        let writer = writer();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let writer = &writer;
                scope.spawn(move || {
                    for round in 0..50 {
                        let n = thread * 100 + round;
                        let fails = n % 3 == 0;
                        let durability = if n % 2 == 0 {
                            Durability::Synced
                        } else {
                            Durability::Ordered
                        };
                        let result = writer.write(durability, move |connection| {
                            insert(connection, n)?;
                            match fails {
                                true => Err(StoreError::Conflict("on purpose".into())),
                                false => Ok(n),
                            }
                        });
                        assert_eq!(result.is_ok(), !fails);
                    }
                });
            }
        });
        let kept = writer.write(Durability::Synced, |connection| {
            let mut statement = connection.prepare("SELECT n FROM t")?;
            let rows = statement.query_map([], |row| row.get::<_, u32>(0))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        });
        let expected: Vec<u32> = (0..8)
            .flat_map(|thread| (0..50).map(move |round| thread * 100 + round))
            .filter(|n| n % 3 != 0)
            .collect();
        assert_eq!(kept.unwrap(), expected);
    }

    #[test]
    fn a_lost_transaction_is_an_error_for_all_in_it_and_the_next_one_works() {
        let writer = writer();
        let lost = writer.write(Durability::Synced, |connection| {
            insert(connection, 1)?;
            connection.execute_batch("ROLLBACK")?;
            Ok(())
        });
        assert!(matches!(lost, Err(StoreError::Full(_))), "{lost:?}");
        let next = writer.write(Durability::Synced, |connection| insert(connection, 1));
        assert!(next.is_ok());
    }

    #[test]
    fn a_stopped_writer_refuses() {
        let writer = writer();
        writer.stop();
        let refused = writer.write(Durability::Ordered, |connection| insert(connection, 1));
        assert!(matches!(refused, Err(StoreError::Io { .. })));
    }
}
