//! What retention decides from: uses, blobs and their sizes, and the log of what it took away.

use super::{entries, now_ms, signed, unsigned};
use crate::StoreError;
use crate::types::{
    BlobId, CacheId, EntryKind, Evicted, EvictionReason, EvictionSummary, HeldBlob, HeldEntry, Use,
};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// Evictions that are remembered.
const EVICTIONS_MAX: i64 = 100_000;

/// Notes uses. Those of entries that are gone are passed over.
pub(crate) fn record_uses(connection: &Connection, uses: &[Use]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "INSERT INTO uses (entry, at_ms)
         SELECT sequence, ",
        now_ms!(),
        " - ?4 FROM entries WHERE cache = ?1 AND kind = ?2 AND key = ?3
         ON CONFLICT (entry) DO UPDATE SET at_ms = max(at_ms, excluded.at_ms)"
    ))?;
    for used in uses {
        let age = super::millis(used.age);
        statement.execute(params![used.cache.0, used.kind as u16, used.key, age])?;
    }
    Ok(())
}

/// The database's time in milliseconds, and the newest sequence there is.
pub(crate) fn now_and_newest(connection: &Connection) -> Result<(i64, u64), StoreError> {
    Ok(connection.query_row(
        concat!(
            "SELECT ",
            now_ms!(),
            ", coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'log'), 0)"
        ),
        [],
        |row| Ok((row.get(0)?, unsigned(row, 1)?)),
    )?)
}

/// Every entry of a kind whose key begins with `prefix`, in order of key; with its value if asked.
pub(crate) fn each_entry(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    prefix: &str,
    values: bool,
    take: &mut dyn FnMut(HeldEntry),
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT sequence, key, CASE WHEN ?3 THEN value ELSE x'' END,
             max(created_at * 1000, coalesce((SELECT at_ms FROM uses WHERE entry = sequence), 0)),
             coalesce(lease_until_ms > ",
        now_ms!(),
        ", 0), lease_until_ms IS NOT NULL, created_at * 1000,
             (SELECT group_concat(blob) FROM (SELECT blob FROM entry_blobs WHERE entry = sequence ORDER BY position))
         FROM entries WHERE cache = ?1 AND kind = ?2 AND key >= ?4 AND key < ?5 ORDER BY key"
    ))?;
    let end = format!("{prefix}\u{10FFFF}");
    let mut rows = statement.query(params![cache.0, kind as u16, values, prefix, end])?;
    while let Some(row) = rows.next()? {
        take(HeldEntry {
            sequence: unsigned(row, 0)?,
            key: row.get(1)?,
            value: Bytes::from(row.get::<_, Vec<u8>>(2)?),
            used_at_ms: row.get(3)?,
            leased: row.get(4)?,
            lapses: row.get(5)?,
            published_at_ms: row.get(6)?,
            blobs: entries::blob_ids(row, 7)?,
        });
    }
    Ok(())
}

/// Every blob that an entry of the cache names, once.
pub(crate) fn each_blob(
    connection: &Connection,
    cache: CacheId,
    take: &mut dyn FnMut(HeldBlob),
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT id, zstd_length, lease_until_ms > ",
        now_ms!(),
        " FROM blobs WHERE id IN
             (SELECT blob FROM entries JOIN entry_blobs ON entry = sequence WHERE cache = ?)"
    ))?;
    let mut rows = statement.query([cache.0])?;
    while let Some(row) = rows.next()? {
        take(HeldBlob {
            id: BlobId(row.get(0)?),
            stored_bytes: unsigned(row, 1)?,
            leased: row.get(2)?,
        });
    }
    Ok(())
}

/// Whether an entry is still the one that was planned for: not published again, used no later than `used_at_ms`,
/// and, where `leases` count, under no lease (rule 5).
pub(crate) fn may_go(
    connection: &Connection,
    sequence: u64,
    used_at_ms: i64,
    leases: bool,
) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached(concat!(
            "SELECT 1 FROM entries WHERE sequence = ?1
                 AND coalesce(lease_until_ms, 0) <= ",
            now_ms!(),
            " AND coalesce((SELECT at_ms FROM uses WHERE entry = ?1), 0) <= ?2
                 AND NOT (?3 AND EXISTS (SELECT 1 FROM entry_blobs JOIN blobs ON blobs.id = blob
                     WHERE entry = ?1 AND blobs.lease_until_ms > ",
            now_ms!(),
            "))"
        ))?
        .exists(params![signed(sequence), used_at_ms, leases])?)
}

/// Takes an entry away, by its sequence.
pub(crate) fn remove(
    connection: &Connection,
    cache: CacheId,
    cache_name: &str,
    sequence: u64,
) -> Result<(), StoreError> {
    let found = connection
        .prepare_cached("SELECT kind, key FROM entries WHERE sequence = ? AND cache = ?")?
        .query_row(params![signed(sequence), cache.0], |row| {
            Ok((row.get(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    match found {
        Some((kind, key)) => {
            entries::remove_row(connection, cache_name, kind, &key, signed(sequence), true)
        }
        None => Ok(()),
    }
}

/// Remembers an eviction, and forgets the oldest if there are too many.
pub(crate) fn remember(
    connection: &Connection,
    cache: CacheId,
    evicted: &Evicted,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO evictions (cache, kind, key, name, reason, bytes, used_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            cache.0,
            evicted.kind as u16,
            evicted.key,
            evicted.name,
            evicted.reason as u8,
            signed(evicted.bytes),
            evicted.used_at
        ])?;
    let newest = connection.last_insert_rowid();
    connection
        .prepare_cached("DELETE FROM evictions WHERE id <= ?")?
        .execute([newest - EVICTIONS_MAX])?;
    Ok(())
}

const EVICTED: &str = "SELECT kind, key, name, at, reason, bytes, used_at FROM evictions";

fn evicted(row: &Row<'_>) -> rusqlite::Result<Evicted> {
    Ok(Evicted {
        kind: EntryKind::from_number(row.get(0)?).unwrap_or(EntryKind::Narinfo),
        key: row.get(1)?,
        name: row.get(2)?,
        at: row.get(3)?,
        reason: EvictionReason::from_number(row.get(4)?),
        bytes: unsigned(row, 5)?,
        used_at: row.get(6)?,
    })
}

/// The last eviction of an entry.
pub(crate) fn last_eviction(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    key: &str,
) -> Result<Option<Evicted>, StoreError> {
    Ok(connection
        .prepare_cached(&format!(
            "{EVICTED} WHERE cache = ? AND kind = ? AND key = ? ORDER BY id DESC LIMIT 1"
        ))?
        .query_row(params![cache.0, kind as u16, key], evicted)
        .optional()?)
}

/// A cache's evictions, the newest first. Those of Actions entries are for their repositories only.
pub(crate) fn evictions(
    connection: &Connection,
    cache: CacheId,
    limit: usize,
) -> Result<Vec<Evicted>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(&format!(
        "{EVICTED} WHERE cache = ? AND kind <> ? ORDER BY id DESC LIMIT ?"
    ))?;
    let actions = EntryKind::ActionsEntry as u16;
    let rows = statement.query_map(params![cache.0, actions, limit], evicted)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Evictions of entries whose keys begin with `prefix`, the newest first.
pub(crate) fn evictions_below(
    connection: &Connection,
    cache: CacheId,
    kind: EntryKind,
    prefix: &str,
    limit: usize,
) -> Result<Vec<Evicted>, StoreError> {
    let end = format!("{prefix}\u{10FFFF}");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(&format!(
        "{EVICTED} WHERE cache = ? AND kind = ? AND key >= ? AND key < ? ORDER BY id DESC LIMIT ?"
    ))?;
    let values = params![cache.0, kind as u16, prefix, end, limit];
    let rows = statement.query_map(values, evicted)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// All that is remembered of a cache's evictions, summed up.
pub(crate) fn eviction_summary(
    connection: &Connection,
    cache: CacheId,
) -> Result<EvictionSummary, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT count(*) FILTER (WHERE kind = 1), count(*) FILTER (WHERE kind = 10),
                 coalesce(sum(bytes), 0), max(at) FROM evictions WHERE cache = ? AND kind <> ?",
        )?
        .query_row(params![cache.0, EntryKind::ActionsEntry as u16], |row| {
            Ok(EvictionSummary {
                paths: unsigned(row, 0)?,
                images: unsigned(row, 1)?,
                bytes: unsigned(row, 2)?,
                last_at: row.get(3)?,
            })
        })?)
}
