//! Segments: the index that follows the database, so that a store survives the loss of it.

pub(crate) mod compact;

use crate::db::log::{Event, Logged};
use crate::db::{
    Database, Durability, blobs, caches, chunks, entries, lock, log, now_ms, sessions,
};
use crate::failpoint::{Point, reach};
use crate::files::Folder;
use crate::types::BlobId;
use crate::{StoreError, layout};
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use firn_chunks::segment::{BlobRecord, Record, encode};
use rusqlite::Connection;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Log rows in one segment.
const EVENTS_MAX: usize = 4096;
/// Who wrote a segment, by the program's version.
const WRITER: &str = concat!("firn-store/", env!("CARGO_PKG_VERSION"));

/// Writes what the log holds, from time to time and when told.
pub(crate) struct SegmentWriter {
    db: Arc<Database>,
    folder: Arc<Folder>,
    /// Held by who writes out the log.
    writing: Arc<Mutex<()>>,
    thread: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl SegmentWriter {
    /// Starts the thread, which also ends expired sessions.
    pub(crate) fn start(
        db: Arc<Database>,
        folder: Arc<Folder>,
        interval: Duration,
    ) -> Result<Self, StoreError> {
        after_all_that_are_here(&db, &folder)?;
        let (stop, stopped) = bounded::<()>(0);
        let (thread_db, thread_folder) = (db.clone(), folder.clone());
        let writing = Arc::new(Mutex::new(()));
        let thread_writing = writing.clone();
        let thread = std::thread::Builder::new()
            .name("firn-segments".into())
            .spawn(move || {
                while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                    tend(&thread_db, &thread_folder, &thread_writing);
                }
            })
            .map_err(|error| StoreError::io("thread firn-segments", error))?;
        Ok(Self {
            db,
            folder,
            writing,
            thread: Mutex::new(Some((stop, thread))),
        })
    }

    /// Ends the thread and writes what is left.
    pub(crate) fn stop(&self) -> Result<(), StoreError> {
        if let Some((stop, thread)) = lock(&self.thread).take() {
            drop(stop);
            // The thread's panic has been reported by the runtime already.
            let _ = thread.join();
        }
        let _writing = lock(&self.writing);
        write_all(&self.db, &self.folder)
    }
}

fn tend(db: &Database, folder: &Folder, writing: &Mutex<()>) {
    let reaped = sessions::reap_all(db);
    let reaped = reaped.and_then(|count| reach(Point::SessionsReaped).map(|()| count));
    match reaped {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "ended expired sessions"),
        Err(error) => tracing::warn!(%error, "ending expired sessions"),
    }
    if let Err(error) = db.keep_time() {
        tracing::warn!(%error, "writing down the store's time");
    }
    let _writing = lock(writing);
    if let Err(error) = write_all(db, folder) {
        tracing::warn!(%error, "writing a segment");
    }
}

/// Writes segments until the log is empty.
pub(crate) fn write_all(db: &Database, folder: &Folder) -> Result<(), StoreError> {
    while write_one(db, folder)? {}
    Ok(())
}

fn write_one(db: &Database, folder: &Folder) -> Result<bool, StoreError> {
    let (events, records) = db.snapshot(|connection| {
        let events = log::read(connection, EVENTS_MAX)?;
        let records = records(connection, &events)?;
        Ok((events, records))
    })?;
    let Some(last) = events.last().map(|event| event.position) else {
        return Ok(false);
    };
    // Synced: what the segment says must be in the database for good, or a power cut could leave a segment that
    // names frames which recovery then cuts off.
    let at = db.write(Durability::Synced, next_time)?;
    reach(Point::SegmentBegun)?;
    if !records.is_empty() {
        let key = layout::segment_key(at, &layout::random_hex(8)?);
        folder.put_atomic(&key, &encode(WRITER, at / 1_000_000, &records))?;
    }
    reach(Point::SegmentWritten)?;
    // A crash before this writes the same records again, which changes nothing.
    db.write(Durability::Ordered, move |connection| {
        log::trim(connection, last)
    })?;
    reach(Point::LogTrimmed)?;
    Ok(true)
}

/// Microseconds by the store's clock, always later than the segment before: segments sort by name.
fn next_time(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row(
        concat!(
            "UPDATE meta SET value = max(value + 1, ",
            now_ms!(),
            " * 1000) WHERE name = 'segment_at' RETURNING value"
        ),
        [],
        |row| row.get(0),
    )?)
}

/// A database that was made anew does not know the time of the last segment, which may be ahead of the clock: the next
/// one must sort after it all the same.
fn after_all_that_are_here(db: &Database, folder: &Folder) -> Result<(), StoreError> {
    let segments = folder.list(layout::SEGMENTS)?;
    let times = segments.iter().filter_map(|key| layout::segment_time(key));
    let Some(last) = times.max() else {
        return Ok(());
    };
    let known: i64 = db.read(|connection| {
        let value = "SELECT value FROM meta WHERE name = 'segment_at'";
        Ok(connection.query_row(value, [], |row| row.get(0))?)
    })?;
    if known >= last {
        return Ok(());
    }
    db.write(Durability::Ordered, move |connection| {
        connection.execute(
            "UPDATE meta SET value = max(value, ?) WHERE name = 'segment_at'",
            [last],
        )?;
        Ok(())
    })
}

/// Records in the order of the log. What has gone again since then is left out.
fn records(connection: &Connection, events: &[Logged]) -> Result<Vec<Record>, StoreError> {
    let mut records = Vec::with_capacity(events.len());
    for logged in events {
        records.extend(record(connection, logged)?);
    }
    Ok(records)
}

fn record(connection: &Connection, logged: &Logged) -> Result<Option<Record>, StoreError> {
    Ok(match &logged.event {
        Event::Cache(id) => caches::by_id(connection, *id)?.map(|row| Record::Cache {
            name: row.name,
            domain: row.domain_name,
            config: row.config,
            at: logged.at,
            deleted: false,
        }),
        Event::CacheDeleted { name } => Some(Record::Cache {
            name: name.clone(),
            domain: String::new(),
            config: Vec::new(),
            at: logged.at,
            deleted: true,
        }),
        Event::Frames { pack, first, last } => {
            let frames = chunks::of_pack(connection, *pack, *first, *last)?;
            chunks::pack(connection, *pack)?.map(|row| Record::Pack {
                domain: row.domain_name,
                pack: row.name,
                sealed_length: 0,
                frames,
            })
        }
        Event::PackSealed { pack } => chunks::pack(connection, *pack)?.map(|row| Record::Pack {
            domain: row.domain_name,
            pack: row.name,
            sealed_length: row.sealed_length,
            frames: Vec::new(),
        }),
        Event::Blob(id) => blob(connection, *id)?,
        Event::Entry => entries::by_sequence(connection, logged.position)?,
        Event::EntryDeleted { cache, kind, key } => Some(Record::Entry {
            cache: cache.clone(),
            kind: *kind,
            key: key.clone(),
            value: Vec::new(),
            blobs: Vec::new(),
            sequence: u64::try_from(logged.position).unwrap_or(0),
            at: logged.at,
            deleted: true,
        }),
    })
}

fn blob(connection: &Connection, id: BlobId) -> Result<Option<Record>, StoreError> {
    let Some(info) = blobs::by_id(connection, id)? else {
        return Ok(None);
    };
    Ok(Some(Record::Blob(BlobRecord {
        domain: caches::domain_name(connection, info.domain)?,
        flags: 0,
        list: blobs::list(connection, id)?,
        identity_sha256: info.identity_sha256.0,
        zstd_sha256: info.zstd_sha256.0,
        zstd_length: info.zstd_length,
    })))
}
