//! Entries and their publication: the one point of visibility (rule 3).

use super::damage::servable;
use super::log::{self, Event};
use super::{caches, millis, now_ms, sessions};
use crate::StoreError;
use crate::types::{
    BlobId, CacheId, CacheUsage, Entry, EntryKind, IfExists, NewEntry, Publication, PublishedEntry,
};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::time::Duration;

/// An entry with its blobs in one statement, which is one snapshot: between two, it could be replaced.
macro_rules! columns {
    () => {
        "SELECT sequence, key, value, created_at, (SELECT group_concat(blob) FROM
             (SELECT blob FROM entry_blobs WHERE entry = sequence ORDER BY position)) FROM entries "
    };
}

/// Ids joined by commas.
pub(crate) fn blob_ids(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<BlobId>> {
    Ok(match row.get_ref(column)?.as_str_or_null() {
        Ok(Some(text)) => text
            .split(',')
            .filter_map(|id| id.parse().ok())
            .map(BlobId)
            .collect(),
        _ => Vec::new(),
    })
}

fn entry(row: &Row<'_>, kind: EntryKind) -> rusqlite::Result<Entry> {
    let blobs = blob_ids(row, 4)?;
    Ok(Entry {
        sequence: super::unsigned(row, 0)?,
        kind,
        key: row.get(1)?,
        value: Bytes::from(row.get::<_, Vec<u8>>(2)?),
        blobs,
        created_at: row.get(3)?,
    })
}

/// One entry.
pub(crate) fn get(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    key: &str,
) -> Result<Option<Entry>, StoreError> {
    Ok(connection
        .prepare_cached(concat!(
            columns!(),
            "WHERE cache = ? AND kind = ? AND key = ? AND",
            servable!()
        ))?
        .query_row(params![cache.0, kind as u16, key], |row| entry(row, kind))
        .optional()?)
}

fn sequence(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    key: &str,
) -> Result<Option<i64>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT sequence FROM entries WHERE cache = ? AND kind = ? AND key = ?")?
        .query_row(params![cache.0, kind as u16, key], |row| row.get(0))
        .optional()?)
}

/// Whether there is an entry, servable or not.
pub(crate) fn exists(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    key: &str,
) -> Result<bool, StoreError> {
    sequence(connection, cache, kind, key).map(|found| found.is_some())
}

/// The blobs of an entry, in order.
pub(crate) fn blobs_of(connection: &Connection, sequence: i64) -> Result<Vec<BlobId>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT blob FROM entry_blobs WHERE entry = ? ORDER BY position")?;
    let rows = statement.query_map([sequence], |row| row.get(0).map(BlobId))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether an entry's blobs can be served: one whose cannot is as good as not there.
fn is_servable(connection: &Connection, sequence: i64) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached(concat!(
            "SELECT 1 FROM entries WHERE sequence = ? AND",
            servable!()
        ))?
        .exists([sequence])?)
}

/// As [`sequence`], of entries that can be served.
fn servable_sequence(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    key: &str,
) -> Result<Option<i64>, StoreError> {
    match sequence(connection, cache, kind, key)? {
        Some(found) if is_servable(connection, found)? => Ok(Some(found)),
        _ => Ok(None),
    }
}

/// Which of many keys exist and can be served.
pub(crate) fn present(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    keys: &[impl AsRef<str>],
) -> Result<Vec<bool>, StoreError> {
    keys.iter()
        .map(|key| {
            servable_sequence(connection, cache, kind, key.as_ref()).map(|found| found.is_some())
        })
        .collect()
}

/// Entries whose keys begin with `prefix`, after `after`, in byte order.
pub(crate) fn list(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    // Keys compare as bytes: everything with the prefix lies between it and the prefix's successor. U+10FFFF
    // is the greatest character, and no key holds it.
    let end = format!("{prefix}\u{10FFFF}");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(concat!(
        columns!(),
        "WHERE cache = ?1 AND kind = ?2 AND key >= ?3 AND key < ?4 AND key > ?5 AND",
        servable!(),
        "ORDER BY key LIMIT ?6"
    ))?;
    // The empty key sorts first, and no entry has it.
    let start = after.unwrap_or("");
    let rows = statement.query_map(
        params![cache.0, kind as u16, prefix, end, start, limit],
        |row| entry(row, kind),
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The newest of the entries whose keys begin with `prefix`.
pub(crate) fn newest(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    prefix: &str,
) -> Result<Option<Entry>, StoreError> {
    let end = format!("{prefix}\u{10FFFF}");
    // The sign keeps SQLite to the range of keys: by sequence it could walk through all there is.
    Ok(connection
        .prepare_cached(concat!(
            columns!(),
            "WHERE cache = ?1 AND kind = ?2 AND key >= ?3 AND key < ?4 AND",
            servable!(),
            "ORDER BY +sequence DESC LIMIT 1"
        ))?
        .query_row(params![cache.0, kind as u16, prefix, end], |row| {
            entry(row, kind)
        })
        .optional()?)
}

/// Keys that begin with `prefix` and end with `suffix`, servable or not.
pub(crate) fn around(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    prefix: &str,
    suffix: &str,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let end = format!("{prefix}\u{10FFFF}");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT key FROM entries WHERE cache = ? AND kind = ? AND key >= ? AND key < ?
             AND substr(key, -length(?5)) = ?5 LIMIT ?",
    )?;
    let values = params![cache.0, kind as u16, prefix, end, suffix, limit];
    let rows = statement.query_map(values, |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// As [`of_sequence`], of entries that can be served.
pub(crate) fn servable_of_sequence(
    connection: &Connection,
    cache: CacheId,
    sequence: i64,
    kind: EntryKind,
) -> Result<Option<Entry>, StoreError> {
    match is_servable(connection, sequence)? {
        true => of_sequence(connection, cache, sequence, kind),
        false => Ok(None),
    }
}

/// One entry by its sequence.
pub(crate) fn of_sequence(
    connection: &Connection,
    cache: CacheId,
    sequence: i64,
    kind: EntryKind,
) -> Result<Option<Entry>, StoreError> {
    Ok(connection
        .prepare_cached(concat!(
            columns!(),
            "WHERE sequence = ? AND cache = ? AND kind = ?"
        ))?
        .query_row(params![sequence, cache.0, kind as u16], |row| {
            entry(row, kind)
        })
        .optional()?)
}

/// What was published in a cache after `sequence`, in order, each of one of `kinds`.
pub(crate) fn since(
    connection: &Connection,
    cache: CacheId,
    sequence: i64,
    kinds: &[EntryKind],
) -> Result<Vec<Entry>, StoreError> {
    // The signs keep SQLite to the range of sequences, which is short; the index over caches is not.
    let mut statement = connection.prepare_cached(concat!(
        columns!(),
        "WHERE sequence > ?1 AND +cache = ?2 AND +kind = ?3 ORDER BY sequence"
    ))?;
    let mut found = Vec::new();
    for kind in kinds {
        let rows = statement.query_map(params![sequence, cache.0, *kind as u16], |row| {
            entry(row, *kind)
        })?;
        for row in rows {
            found.push(row?);
        }
    }
    Ok(found)
}

/// Entries whose keys begin with `prefix` and that have this value.
pub(crate) fn with_value(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    prefix: &str,
    value: &[u8],
) -> Result<Vec<Entry>, StoreError> {
    let end = format!("{prefix}\u{10FFFF}");
    let mut statement = connection.prepare_cached(concat!(
        columns!(),
        "WHERE cache = ?1 AND kind = ?2 AND key >= ?3 AND key < ?4 AND value = ?5"
    ))?;
    let values = params![cache.0, kind as u16, prefix, end, value];
    let rows = statement.query_map(values, |row| entry(row, kind))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// An entry of a kind in the cache that names a blob of the entry `sequence`.
pub(crate) fn naming_the_same(
    connection: &Connection,
    cache: CacheId,
    sequence: i64,
    kind: EntryKind,
) -> Result<Option<Entry>, StoreError> {
    Ok(connection
        .prepare_cached(concat!(
            columns!(),
            "WHERE cache = ?2 AND kind = ?3 AND sequence IN
                 (SELECT other.entry FROM entry_blobs AS mine JOIN entry_blobs AS other ON other.blob = mine.blob
                  WHERE mine.entry = ?1) LIMIT 1"
        ))?
        .query_row(params![sequence, cache.0, kind as u16], |row| {
            entry(row, kind)
        })
        .optional()?)
}

/// Makes a publication visible, in the caller's transaction.
pub(crate) fn publish(
    connection: &Connection,
    session: Option<&str>,
    cache: CacheId,
    publication: &Publication,
) -> Result<Vec<PublishedEntry>, StoreError> {
    if let Some(id) = session {
        sessions::row(connection, id)?;
    }
    let cache = caches::expect(connection, cache)?;
    for (kind, key) in &publication.deletions {
        remove(connection, &cache.name, cache.id, *kind, key, true)?;
    }
    let published = publication
        .entries
        .iter()
        .map(|new| put(connection, &cache, new))
        .collect::<Result<Vec<_>, _>>()?;
    // Rule 4: looked up after all are in, so that those of the same publication count.
    for (kind, key) in publication.entries.iter().flat_map(|new| &new.requires) {
        if servable_sequence(connection, cache.id, *kind, key)?.is_none() {
            return Err(StoreError::MissingEntry(key.clone()));
        }
    }
    Ok(published)
}

fn put(
    connection: &Connection,
    cache: &crate::types::CacheRow,
    new: &NewEntry,
) -> Result<PublishedEntry, StoreError> {
    let existing = sequence(connection, cache.id, new.kind, &new.key)?;
    // One that cannot be served is nobody's to keep: what is published now can be.
    let if_exists = match existing {
        Some(existing) if !is_servable(connection, existing)? => IfExists::Replace,
        _ => new.if_exists,
    };
    match (existing, if_exists) {
        (Some(existing), IfExists::Keep) => {
            keep(connection, existing, new.lease)?;
            return Ok(PublishedEntry::Kept);
        }
        (Some(_), IfExists::Refuse) => return Err(StoreError::Conflict(new.key.clone())),
        (Some(_), IfExists::Replace) => {
            remove(connection, &cache.name, cache.id, new.kind, &new.key, false)?;
        }
        (None, _) => {}
    }
    let sequence = log::append(connection, &Event::Entry)?;
    let lease = new.lease.map(millis);
    connection
        .prepare_cached(concat!(
            "INSERT INTO entries (sequence, cache, kind, key, value, lease_until_ms)
             VALUES (?, ?, ?, ?, ?, ",
            now_ms!(),
            " + ?)"
        ))?
        .execute(params![
            sequence,
            cache.id.0,
            new.kind as u16,
            new.key,
            &new.value[..],
            lease
        ])?;
    for (position, blob) in new.blobs.iter().enumerate() {
        // Rule 2: a blob's row is there only if it is complete and hashed; and of this cache's domain only.
        let inserted = connection
            .prepare_cached(
                "INSERT INTO entry_blobs (entry, position, blob)
                 SELECT ?, ?, id FROM blobs WHERE id = ? AND domain = ?",
            )?
            .execute(params![sequence, position as i64, blob.0, cache.domain.0])?;
        if inserted == 0 {
            return Err(StoreError::MissingEntry(format!("blob {}", blob.0)));
        }
    }
    let number = sequence.unsigned_abs();
    Ok(match existing {
        Some(_) => PublishedEntry::Replaced(number),
        None => PublishedEntry::New(number),
    })
}

/// Rule 5: who is told that the entry was kept may rely on it as on its own.
fn keep(connection: &Connection, sequence: i64, lease: Option<Duration>) -> Result<(), StoreError> {
    connection
        .prepare_cached(concat!(
            "UPDATE entries SET lease_until_ms = max(lease_until_ms, ",
            now_ms!(),
            " + ?2) WHERE sequence = ?1 AND lease_until_ms IS NOT NULL"
        ))?
        .execute(params![sequence, lease.map(millis)])?;
    Ok(())
}

/// Takes an entry away; with a tombstone unless another takes its place.
pub(crate) fn remove(
    connection: &Connection,
    cache_name: &str,
    cache: CacheId,
    kind: EntryKind,
    key: &str,
    tombstone: bool,
) -> Result<(), StoreError> {
    match sequence(connection, cache, kind, key)? {
        Some(row) => remove_row(connection, cache_name, kind as u16, key, row, tombstone),
        None => Ok(()),
    }
}

/// As [`remove`], the row being known.
pub(crate) fn remove_row(
    connection: &Connection,
    cache_name: &str,
    kind: u16,
    key: &str,
    sequence: i64,
    tombstone: bool,
) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM entry_blobs WHERE entry = ?",
        "DELETE FROM uses WHERE entry = ?",
        "DELETE FROM entries WHERE sequence = ?",
    ] {
        connection.prepare_cached(statement)?.execute([sequence])?;
    }
    if tombstone {
        let event = Event::EntryDeleted {
            cache: cache_name.to_owned(),
            kind,
            key: key.to_owned(),
        };
        log::append(connection, &event)?;
    }
    Ok(())
}

/// Whether leases of these entries, or behind them, end within `within`; see [`renew`].
pub(crate) fn lease_ends_soon(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    keys: &[String],
    within: Duration,
) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT 1 FROM entries LEFT JOIN entry_blobs ON entry = sequence LEFT JOIN blobs ON blobs.id = blob
         WHERE cache = ? AND kind = ? AND key = ?
             AND min(coalesce(blobs.lease_until_ms, entries.lease_until_ms),
                 coalesce(entries.lease_until_ms, blobs.lease_until_ms)) < ",
        now_ms!(),
        " + ?"
    ))?;
    for key in keys {
        if statement.exists(params![cache.0, kind as u16, key, millis(within)])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Renews the leases of the blobs of these entries (rule 5), and of the entries that have one.
pub(crate) fn renew(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    keys: &[String],
    lease: Duration,
) -> Result<(), StoreError> {
    let mut blobs = connection.prepare_cached(concat!(
        "UPDATE blobs SET lease_until_ms = max(lease_until_ms, ",
        now_ms!(),
        " + ?4) WHERE id IN (SELECT blob FROM entries JOIN entry_blobs ON entry = sequence
             WHERE cache = ?1 AND kind = ?2 AND key = ?3)"
    ))?;
    let mut entries = connection.prepare_cached(concat!(
        "UPDATE entries SET lease_until_ms = max(lease_until_ms, ",
        now_ms!(),
        " + ?4) WHERE cache = ?1 AND kind = ?2 AND key = ?3 AND lease_until_ms IS NOT NULL"
    ))?;
    for key in keys {
        let values = params![cache.0, kind as u16, key, millis(lease)];
        blobs.execute(values)?;
        entries.execute(values)?;
    }
    Ok(())
}

/// Figures of a cache.
pub(crate) fn usage(connection: &Connection, cache: CacheId) -> Result<CacheUsage, StoreError> {
    let count = |kind: EntryKind| {
        connection.query_row(
            "SELECT count(*) FROM entries WHERE cache = ? AND kind = ?",
            params![cache.0, kind as u16],
            |row| super::unsigned(row, 0),
        )
    };
    Ok(CacheUsage {
        narinfos: count(EntryKind::Narinfo)?,
        manifests: count(EntryKind::Manifest)?,
        roots: count(EntryKind::Root)?,
        stored_bytes: connection.query_row(
            "SELECT coalesce(sum(zstd_length), 0) FROM blobs WHERE id IN
                 (SELECT blob FROM entries JOIN entry_blobs ON entry = sequence WHERE cache = ?)",
            [cache.0],
            |row| super::unsigned(row, 0),
        )?,
    })
}

/// An entry by its sequence, for segments: with its cache's name and its blobs' lists.
pub(crate) fn by_sequence(
    connection: &Connection,
    sequence: i64,
) -> Result<Option<firn_chunks::segment::Record>, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT caches.name, kind, key, value, created_at
             FROM entries JOIN caches ON caches.id = cache WHERE sequence = ?",
        )?
        .query_row([sequence], |row| {
            Ok(firn_chunks::segment::Record::Entry {
                cache: row.get(0)?,
                kind: row.get(1)?,
                key: row.get(2)?,
                value: row.get(3)?,
                blobs: Vec::new(),
                sequence: u64::try_from(sequence).unwrap_or(0),
                at: row.get(4)?,
                deleted: false,
            })
        })
        .optional()?;
    let mut statement = connection.prepare_cached(
        "SELECT list_id FROM entry_blobs JOIN blobs ON blobs.id = blob WHERE entry = ? ORDER BY position",
    )?;
    let rows = statement.query_map([sequence], |row| super::bytes32(row, 0))?;
    let lists = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(found.map(|mut record| {
        if let firn_chunks::segment::Record::Entry { blobs, .. } = &mut record {
            *blobs = lists;
        }
        record
    }))
}
