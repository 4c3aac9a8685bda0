//! Compaction: what lives is written anew, and the segments before it are deleted.
//!
//! The database is walked in short snapshots while others write. What changes meanwhile is in the log, so in
//! segments with later names, which are read over what was written here. The parts
//! have one time, that of the beginning, and a number; the last one, written when all others are durable, says which
//! segments they cover. Until it is there they say nothing new; from then on a reader passes the covered ones over.

use super::{SegmentWriter, WRITER, blob, next_time, write_all};
use crate::db::collection::packs;
use crate::db::{self, Durability, caches, entries, lock, now_ms};
use crate::failpoint::{Point, reach};
use crate::files::Folder;
use crate::types::BlobId;
use crate::{CollectionStep, StoreError, layout};
use firn_chunks::segment::{self, Covers, Preamble, Record, encode, encode_with};
use rusqlite::{Connection, params};
use std::collections::HashSet;
use std::time::Duration;

/// Raw bytes after which a part ends.
const PART_BYTES: usize = 16 << 20;
/// Blobs, or entries, read in one snapshot.
const READ_MAX: usize = 512;
/// So many segments beside the last compaction's are too many …
const TAIL_MAX: u64 = 32;
/// … and so many bytes of them too few to care.
const TAIL_BYTES_MIN: u64 = 256 << 10;
/// The number of the part that says what is covered.
const COVERING: u16 = u16::MAX;

/// Whether the segments hold much that is told twice or gone.
pub(crate) fn is_due(writer: &SegmentWriter) -> Result<bool, StoreError> {
    let known = covers(&writer.folder)?;
    let live: Vec<String> = names(&writer.folder)?
        .into_iter()
        .filter(|name| !known.contains(name))
        .collect();
    let mut bytes = 0;
    for name in &live {
        bytes += writer.folder.length(name)?.unwrap_or(0);
    }
    let (compacted_records, compacted_bytes, records) = writer.db.snapshot(figures)?;
    let tail = bytes.saturating_sub(compacted_bytes);
    let many = live.len() as u64 > TAIL_MAX + compacted_bytes / (1 << 20);
    Ok(many
        || tail > TAIL_BYTES_MIN.max(compacted_bytes / 2)
        || (bytes > TAIL_BYTES_MIN && records < compacted_records / 4 * 3))
}

fn figures(connection: &Connection) -> Result<(u64, u64, u64), StoreError> {
    Ok(connection.query_row(
        "SELECT (SELECT value FROM meta WHERE name = 'compacted_records'),
             (SELECT value FROM meta WHERE name = 'compacted_bytes'),
             (SELECT count(*) FROM blobs) + (SELECT count(*) FROM entries)
                 + (SELECT coalesce(sum(chunks), 0) FROM packs)",
        [],
        |row| {
            Ok((
                db::unsigned(row, 0)?,
                db::unsigned(row, 1)?,
                db::unsigned(row, 2)?,
            ))
        },
    )?)
}

/// All segments by name, which is by time.
fn names(folder: &Folder) -> Result<Vec<String>, StoreError> {
    let mut names = folder.list(layout::SEGMENTS)?;
    names.retain(|name| name.ends_with(".seg"));
    Ok(names)
}

/// The segments that others cover, by key.
pub(crate) fn covers(folder: &Folder) -> Result<HashSet<String>, StoreError> {
    let mut covered = HashSet::new();
    for name in names(folder)? {
        if layout::segment_number(&name) != Some(COVERING) {
            continue;
        }
        let bytes = folder.read(&name)?.unwrap_or_default();
        // One that is damaged covers nothing; who reads segments says so.
        let Ok(segment) = segment::decode(&bytes) else {
            continue;
        };
        let names = segment
            .covers
            .into_iter()
            .flat_map(|covers| covers.segments);
        covered.extend(names.map(|name| format!("{}/{name}", layout::SEGMENTS)));
    }
    Ok(covered)
}

/// Writes what lives as new segments. Gives their number; `None` if it was told to stop.
pub(crate) fn write(
    writer: &SegmentWriter,
    go_on: &dyn Fn(CollectionStep) -> bool,
) -> Result<Option<u64>, StoreError> {
    let (at, covered) = {
        // What the log holds by now goes before, so that nothing older is written under a later name.
        let _writing = lock(&writer.writing);
        write_all(&writer.db, &writer.folder)?;
        let at = writer.db.write(Durability::Synced, next_time)?;
        (at, names(&writer.folder)?)
    };
    reach(Point::CompactionBegun)?;
    let mut parts = Parts {
        writer,
        at,
        number: 0,
        records: Vec::new(),
        raw_bytes: 0,
        records_total: 0,
        bytes_total: 0,
    };
    for source in [add_caches, add_packs, add_blobs, add_entries] {
        let mut after = 0;
        while let Some(last) = source(writer, &mut parts, after)? {
            if !go_on(CollectionStep::Compact) {
                return Ok(None);
            }
            after = last;
        }
    }
    parts.flush()?;
    let names = covered.iter();
    let covers = Covers {
        segments: names
            .filter_map(|name| Some(name.rsplit_once('/')?.1.to_owned()))
            .collect(),
        dropped: true,
    };
    let preamble = Preamble {
        writer: WRITER,
        at: at / 1_000_000,
        covers: &[covers],
        key: None,
    };
    parts.put(COVERING, &encode_with(&preamble, &[]))?;
    reach(Point::CompactionWritten)?;
    let totals = (parts.records_total, parts.bytes_total);
    writer.db.write(Durability::Ordered, move |connection| {
        connection.execute(
            "UPDATE meta SET value = CASE name WHEN 'compacted_records' THEN ? ELSE ? END
             WHERE name IN ('compacted_records', 'compacted_bytes')",
            params![db::signed(totals.0), db::signed(totals.1)],
        )?;
        Ok(())
    })?;
    Ok(Some(u64::from(parts.number) + 1))
}

/// Deletes segments that were covered for the grace, the oldest first. Gives how many, and whether it was done.
pub(crate) fn delete_covered(
    writer: &SegmentWriter,
    grace: Duration,
    go_on: &dyn Fn(CollectionStep) -> bool,
) -> Result<(u64, bool), StoreError> {
    let folder = &writer.folder;
    let mut deleted = 0;
    let names = names(folder)?;
    let now: i64 = writer.db.read(|connection| {
        Ok(
            connection.query_row(concat!("SELECT ", now_ms!(), " * 1000"), [], |row| {
                row.get(0)
            })?,
        )
    })?;
    let Some(last) = names
        .iter()
        .rfind(|name| layout::segment_number(name) == Some(COVERING))
    else {
        return Ok((0, true));
    };
    let age = now - layout::segment_time(last).unwrap_or(now);
    if age < i64::try_from(grace.as_micros()).unwrap_or(i64::MAX) {
        return Ok((0, true));
    }
    let covered = covers(folder)?;
    for name in names.iter().filter(|name| covered.contains(*name)) {
        if !go_on(CollectionStep::DeleteSegment) {
            return Ok((deleted, false));
        }
        folder.delete(name)?;
        reach(Point::CoveredDeleted)?;
        deleted += 1;
    }
    Ok((deleted, true))
}

/// Segments under construction, one after the other.
struct Parts<'a> {
    writer: &'a SegmentWriter,
    at: i64,
    number: u16,
    records: Vec<Record>,
    raw_bytes: usize,
    records_total: u64,
    bytes_total: u64,
}

impl Parts<'_> {
    fn push(&mut self, record: Record) -> Result<(), StoreError> {
        let (records, bytes) = match &record {
            Record::Cache { config, .. } => (0, config.len()),
            Record::Pack { frames, .. } => (frames.len(), frames.len() * 64),
            Record::Blob(blob) => (1, blob.list.chunks.len() * 36),
            Record::Entry { value, key, .. } => (1, value.len() + key.len()),
        };
        self.records.push(record);
        self.records_total += records as u64;
        self.raw_bytes += 128 + bytes;
        match self.raw_bytes >= PART_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.records.is_empty() {
            return Ok(());
        }
        let bytes = encode(WRITER, self.at / 1_000_000, &self.records);
        self.put(self.number, &bytes)?;
        self.records.clear();
        self.raw_bytes = 0;
        self.number = (self.number + 1).min(COVERING - 1);
        Ok(())
    }

    fn put(&mut self, number: u16, bytes: &[u8]) -> Result<(), StoreError> {
        let random = format!("{number:04x}{}", layout::random_hex(6)?);
        self.bytes_total += bytes.len() as u64;
        // What the part says must be in the database for good, as in any segment: rows that were read a moment ago
        // may be on no disk yet.
        self.writer.db.write(Durability::Synced, next_time)?;
        self.writer
            .folder
            .put_atomic(&layout::segment_key(self.at, &random), bytes)
    }
}

fn add_caches(
    writer: &SegmentWriter,
    parts: &mut Parts<'_>,
    _: i64,
) -> Result<Option<i64>, StoreError> {
    for cache in writer.db.read(caches::all)? {
        parts.push(Record::Cache {
            name: cache.name,
            domain: cache.domain_name,
            config: cache.config,
            at: parts.at / 1_000_000,
            deleted: false,
        })?;
    }
    Ok(None)
}

fn add_packs(
    writer: &SegmentWriter,
    parts: &mut Parts<'_>,
    after: i64,
) -> Result<Option<i64>, StoreError> {
    let next = writer.db.snapshot(|connection| {
        let Some(pack) = db::chunks::pack_after(connection, after)? else {
            return Ok(None);
        };
        let frames = packs::valid_frames(connection, pack.id, 0, usize::MAX >> 1)?;
        Ok(Some((pack, frames)))
    })?;
    let Some((pack, frames)) = next else {
        return Ok(None);
    };
    let id = pack.id;
    if !frames.is_empty() {
        parts.push(Record::Pack {
            domain: pack.domain_name,
            pack: pack.name,
            sealed_length: pack.sealed_length,
            frames,
        })?;
    }
    Ok(Some(id))
}

fn add_blobs(
    writer: &SegmentWriter,
    parts: &mut Parts<'_>,
    after: i64,
) -> Result<Option<i64>, StoreError> {
    let ids = writer.db.read(|connection| {
        ids(
            connection,
            "SELECT id FROM blobs WHERE id > ? ORDER BY id LIMIT ?",
            after,
        )
    })?;
    for id in &ids {
        // One at a time: a list may be many megabytes.
        if let Some(record) = writer
            .db
            .snapshot(|connection| blob(connection, BlobId(*id)))?
        {
            parts.push(record)?;
        }
    }
    Ok(ids.last().copied())
}

fn add_entries(
    writer: &SegmentWriter,
    parts: &mut Parts<'_>,
    after: i64,
) -> Result<Option<i64>, StoreError> {
    let (last, records) = writer.db.snapshot(|connection| {
        let ids = ids(
            connection,
            "SELECT sequence FROM entries WHERE sequence > ? ORDER BY sequence LIMIT ?",
            after,
        )?;
        let records = ids
            .iter()
            .map(|sequence| entries::by_sequence(connection, *sequence))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((ids.last().copied(), records))
    })?;
    for record in records.into_iter().flatten() {
        parts.push(record)?;
    }
    Ok(last)
}

fn ids(connection: &Connection, query: &str, after: i64) -> Result<Vec<i64>, StoreError> {
    let mut statement = connection.prepare_cached(query)?;
    let rows = statement.query_map(params![after, READ_MAX as i64], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
