//! The database made anew from segments and packs.
//!
//! Segments are read in the order they were written, later records over earlier ones; what they do not tell of
//! packs, or tell wrongly, comes from the packs' trailers, and of packs without one from their frames, each decoded
//! and hashed.
//! The new database is built beside the old and takes its place when it is whole.

mod packs;

pub(crate) use packs::read_trailer;

use crate::clock::{Clock, TimeSources};
use crate::db::blobs::NewBlob;
use crate::db::{self, blobs, caches, chunks, now_ms};
use crate::failpoint::{Point, reach};
use crate::files::Folder;
use crate::segments::compact;
use crate::types::EntryKind;
use crate::types::{DomainId, Options, RebuildReport};
use crate::{StoreError, layout};
use firn_chunks::pack::Placed;
use firn_chunks::segment::{self, BlobRecord, Record};
use firn_formats::Sha256;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::time::Duration;

/// Where the new database grows.
const TEMPORARY: &str = "firn.db.rebuild";
/// Left between the greatest sequence that segments know and the first new one: publications that no
/// segment had heard of may have used the numbers after it.
const SEQUENCE_GAP: i64 = 1 << 20;

/// Entries as segments tell them, until their blobs are known to be whole.
const STAGING: &str = "
    CREATE TEMP TABLE staged (cache TEXT NOT NULL, kind INTEGER NOT NULL, key TEXT NOT NULL,
        value BLOB NOT NULL, blobs BLOB NOT NULL, sequence INTEGER NOT NULL, at INTEGER NOT NULL,
        deleted INTEGER NOT NULL, PRIMARY KEY (cache, kind, key)) STRICT, WITHOUT ROWID;";

/// Rebuilds the database of a closed folder.
pub(crate) fn rebuild(options: &Options, time: TimeSources) -> Result<RebuildReport, StoreError> {
    let folder = Folder::open(&options.dir)?;
    let _lock = folder.lock()?;
    layout::check_version(&folder)?;
    folder.delete(TEMPORARY)?;
    folder.delete(&format!("{TEMPORARY}-journal"))?;
    folder.touch(TEMPORARY)?;
    let mut connection = db::open_for_writing(&folder.path(TEMPORARY))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    keep_time(&folder, &connection, time)?;
    connection.execute_batch(STAGING)?;
    let mut report = RebuildReport::default();
    let transaction = connection.transaction()?;
    let mut sequence = 0;
    let covered = compact::covers(&folder)?;
    for key in folder.list(layout::SEGMENTS)? {
        if key.ends_with(".seg") && !covered.contains(&key) {
            sequence = sequence.max(read_segment(&folder, &transaction, &key, &mut report)?);
        }
    }
    packs::read_packs(&folder, &transaction, &mut report)?;
    drop_incomplete_blobs(&transaction, &mut report, options.lease)?;
    place_entries(&transaction, &mut report, options.lease)?;
    grow_sequence(&transaction, sequence)?;
    forget_uses(&transaction)?;
    transaction.commit()?;
    connection
        .close()
        .map_err(|(_, error)| StoreError::from(error))?;
    replace(&folder)?;
    Ok(report)
}

/// The store's clock goes on from where the old database had it, or, if that cannot be read, from the newest segment.
fn keep_time(
    folder: &Folder,
    connection: &Connection,
    time: TimeSources,
) -> Result<(), StoreError> {
    let old = folder.path(layout::DATABASE);
    let newest = folder.list(layout::SEGMENTS)?;
    let newest = newest
        .iter()
        .filter_map(|key| layout::segment_time(key))
        .max();
    let clock = Clock::carry(&old, newest.map(|micros| micros / 1000), connection, time)?;
    clock.install(connection)
}

/// Moves the old database aside and the new one in. In between there is none, and a store without one does not
/// open: an old database without the end of its log, or a new one with a foreign log, would.
fn replace(folder: &Folder) -> Result<(), StoreError> {
    folder.sync(TEMPORARY)?;
    reach(Point::DatabaseRebuilt)?;
    let aside = format!("{}.replaced-{}", layout::DATABASE, layout::random_hex(4)?);
    folder.rename(layout::DATABASE, &aside)?;
    // The log goes with the database it belongs to: a foreign one would be replayed into the new.
    folder.rename(
        &format!("{}-wal", layout::DATABASE),
        &format!("{aside}-wal"),
    )?;
    folder.delete(&format!("{}-shm", layout::DATABASE))?;
    reach(Point::DatabaseMovedAside)?;
    folder.rename(TEMPORARY, layout::DATABASE)?;
    reach(Point::DatabaseReplaced)
}

/// The version of segments that this program reads.
const SEGMENT_VERSION: u32 = 1;

fn read_segment(
    folder: &Folder,
    connection: &Connection,
    key: &str,
    report: &mut RebuildReport,
) -> Result<i64, StoreError> {
    let bytes = folder.read(key)?.unwrap_or_default();
    if let Some(version) = segment::later_version(&bytes) {
        // It is not damaged, so nothing may be made without what it tells.
        return Err(StoreError::FormatVersion {
            path: folder.path(key),
            found: version.to_string(),
            known: SEGMENT_VERSION,
        });
    }
    let segment = match segment::decode(&bytes) {
        Ok(segment) => segment,
        Err(error) => {
            // What it alone knew is lost; the rest need not be.
            tracing::error!(segment = %key, %error, "skipping a damaged segment");
            return Ok(0);
        }
    };
    report.segments += 1;
    let mut greatest = 0;
    for record in segment.records {
        match record {
            Record::Cache {
                name,
                domain,
                config,
                deleted,
                ..
            } => apply_cache(connection, &name, &domain, &config, deleted)?,
            Record::Pack {
                domain,
                pack,
                frames,
                ..
            } => apply_pack(connection, &domain, &pack, &frames)?,
            Record::Blob(blob) => apply_blob(connection, &blob)?,
            Record::Entry { sequence, .. } => {
                greatest = greatest.max(db_sequence(sequence));
                stage_entry(connection, &record)?;
            }
        }
    }
    Ok(greatest)
}

fn db_sequence(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX - SEQUENCE_GAP * 2)
}

fn apply_cache(
    connection: &Connection,
    name: &str,
    domain: &str,
    config: &[u8],
    deleted: bool,
) -> Result<(), StoreError> {
    if deleted {
        connection.execute("DELETE FROM caches WHERE name = ?", [name])?;
        connection.execute("DELETE FROM staged WHERE cache = ?", [name])?;
        return Ok(());
    }
    let domain = caches::domain(connection, domain)?;
    connection.execute(
        "INSERT INTO caches (name, domain, config) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET domain = ?2, config = ?3",
        params![name, domain.0, config],
    )?;
    Ok(())
}

fn pack_row(connection: &Connection, domain: DomainId, name: &str) -> Result<i64, StoreError> {
    let found = connection
        .prepare_cached("SELECT id FROM packs WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    match found {
        Some(id) => Ok(id),
        None => chunks::pack_create(connection, domain, name),
    }
}

fn apply_pack(
    connection: &Connection,
    domain: &str,
    name: &str,
    frames: &[Placed],
) -> Result<(), StoreError> {
    let domain = caches::domain(connection, domain)?;
    let pack = pack_row(connection, domain, name)?;
    let mut forget = connection.prepare_cached("DELETE FROM chunks WHERE domain = ? AND id = ?")?;
    for placed in frames {
        // A chunk that was condemned and sent again lies where the later record says.
        forget.execute(params![domain.0, placed.record.id.0])?;
        chunks::insert_one(connection, domain, pack, placed)?;
    }
    Ok(())
}

fn apply_blob(connection: &Connection, record: &BlobRecord) -> Result<(), StoreError> {
    let domain = caches::domain(connection, &record.domain)?;
    let new = NewBlob {
        domain,
        list_id: record.list.id(),
        chunks: u32::try_from(record.list.chunks.len()).unwrap_or(u32::MAX),
        list: record.list.encode(),
        identity_sha256: Sha256(record.identity_sha256),
        identity_length: record.list.raw_length(),
        zstd_sha256: Sha256(record.zstd_sha256),
        zstd_length: record.zstd_length,
    };
    let blob = blobs::put(connection, &new, Duration::ZERO)?;
    // One that was collected and came again may have other frames.
    blobs::set_zstd(connection, blob.id, new.zstd_sha256, new.zstd_length)
}

fn stage_entry(connection: &Connection, record: &Record) -> Result<(), StoreError> {
    let Record::Entry {
        cache,
        kind,
        key,
        value,
        blobs,
        sequence,
        at,
        deleted,
    } = record
    else {
        return Ok(());
    };
    connection
        .prepare_cached(
            "INSERT INTO staged VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (cache, kind, key) DO UPDATE SET value = ?4, blobs = ?5, sequence = ?6, at = ?7,
                 deleted = ?8 WHERE sequence < ?6",
        )?
        .execute(params![
            cache,
            kind,
            key,
            value,
            blobs.concat(),
            db_sequence(*sequence),
            at,
            deleted
        ])?;
    Ok(())
}

/// A blob is kept if every chunk is here and the frames add up to the representation that was hashed.
fn drop_incomplete_blobs(
    connection: &Connection,
    report: &mut RebuildReport,
    lease: Duration,
) -> Result<(), StoreError> {
    let ids: Vec<i64> = connection
        .prepare("SELECT id FROM blobs")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in ids.into_iter().map(crate::types::BlobId) {
        if is_complete(connection, id)? {
            report.blobs += 1;
            blobs::renew(connection, id, lease)?;
        } else {
            connection.execute("DELETE FROM blob_lists WHERE blob = ?", [id.0])?;
            connection.execute("DELETE FROM blobs WHERE id = ?", [id.0])?;
        }
    }
    Ok(())
}

fn is_complete(connection: &Connection, id: crate::types::BlobId) -> Result<bool, StoreError> {
    let Some(blob) = blobs::by_id(connection, id)? else {
        return Ok(false);
    };
    let list = blobs::list(connection, id)?;
    let ids = list.chunks.iter().map(|chunk| chunk.id);
    let located = chunks::locate(connection, blob.domain, ids)?;
    let mut zstd_length = 0;
    for (chunk, located) in list.chunks.iter().zip(located) {
        match located {
            Some(located) if located.raw_length == chunk.raw_length => {
                zstd_length += u64::from(located.frame_length);
            }
            _ => return Ok(false),
        }
    }
    Ok(zstd_length == blob.zstd_length)
}

/// Makes the staged entries visible whose blobs are all here.
fn place_entries(
    connection: &Connection,
    report: &mut RebuildReport,
    lease: Duration,
) -> Result<(), StoreError> {
    let mut staged = connection.prepare(
        "SELECT caches.id, caches.domain, kind, key, value, blobs, sequence, at FROM staged
         JOIN caches ON caches.name = cache WHERE NOT deleted ORDER BY sequence",
    )?;
    let mut rows = staged.query([])?;
    let kept_by_others = EntryKind::KEPT_BY_OTHERS.map(|kind| kind as u16);
    while let Some(row) = rows.next()? {
        let domain = DomainId(row.get(1)?);
        let lists: Vec<u8> = row.get(5)?;
        let mut ids = Vec::new();
        for list in lists.as_chunks::<32>().0 {
            ids.extend(blobs::by_list(
                connection,
                domain,
                firn_chunks::ListId(*list),
            )?);
        }
        if ids.len() * 32 != lists.len() {
            report.entries_dropped += 1;
            continue;
        }
        let sequence: i64 = row.get(6)?;
        connection
            .prepare_cached(
                concat!(
                    "INSERT INTO entries (sequence, cache, kind, key, value, created_at, lease_until_ms)
                     VALUES (?, ?, ?, ?, ?, ?, ",
                    now_ms!(),
                    " + ?)"
                ),
            )?
            .execute(params![
                sequence,
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(2)?,
                row.get::<_, String>(3)?,
                row.get::<_, Vec<u8>>(4)?,
                row.get::<_, i64>(7)?,
                // Segments do not tell of leases.
                kept_by_others.contains(&row.get(2)?).then(|| db::millis(lease))
            ])?;
        for (position, blob) in ids.iter().enumerate() {
            connection
                .prepare_cached("INSERT INTO entry_blobs (entry, position, blob) VALUES (?, ?, ?)")?
                .execute(params![sequence, position as i64, blob.id.0])?;
        }
        report.entries += 1;
    }
    Ok(())
}

/// When entries were last used is not known any more: they count as used now, or retention would take what was
/// saved long ago and is used every day. Numbers of what is staged go on far from those that were told to clients.
fn forget_uses(connection: &Connection) -> Result<(), StoreError> {
    connection.execute(
        concat!(
            "INSERT INTO uses (entry, at_ms) SELECT sequence, ",
            now_ms!(),
            " FROM entries"
        ),
        [],
    )?;
    connection.execute(
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('staged', unixepoch())",
        [],
    )?;
    Ok(())
}

/// New publications get greater sequences than any before the loss. The log starts empty: the segments know
/// all that is here.
fn grow_sequence(connection: &Connection, greatest: i64) -> Result<(), StoreError> {
    connection.execute("DELETE FROM log", [])?;
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'log'", [])?;
    connection.execute(
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('log', ?)",
        [greatest.saturating_add(SEQUENCE_GAP)],
    )?;
    Ok(())
}
