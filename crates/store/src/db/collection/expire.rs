//! Entries and blobs whose leases have ended and that nothing keeps.

use crate::StoreError;
use crate::db::log::{self, Event};
use crate::db::now_ms;
use crate::types::BlobId;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::HashSet;

/// An entry with a lease stays beyond it while an entry of the same cache that lasts names one of its blobs: a
/// manifest keeps the digests and the keys of its layers, a narinfo the name its NAR came under. Two leased ones
/// do not keep each other.
macro_rules! unkept {
    () => {
        concat!(
            "lease_until_ms <= ",
            now_ms!(),
            " AND NOT EXISTS (SELECT 1 FROM entry_blobs AS mine
                 JOIN entry_blobs AS other ON other.blob = mine.blob
                 JOIN entries AS keeper ON keeper.sequence = other.entry
                 WHERE mine.entry = entries.sequence AND keeper.cache = entries.cache
                     AND keeper.lease_until_ms IS NULL)"
        )
    };
}

/// Where a walk over leased entries stands.
pub(crate) type LeasePosition = (i64, i64);

/// Of the next `limit` entries whose lease has ended, those that nothing keeps; and where to go on.
pub(crate) fn entries(
    connection: &Connection,
    after: LeasePosition,
    limit: usize,
) -> Result<(Vec<i64>, Option<LeasePosition>), StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT sequence, lease_until_ms, ",
        unkept!(),
        " FROM entries WHERE lease_until_ms <= ",
        now_ms!(),
        " AND lease_until_ms >= ?1 AND (lease_until_ms > ?1 OR sequence > ?2)
         ORDER BY lease_until_ms, sequence LIMIT ?3"
    ))?;
    let mut rows = statement.query(params![after.0, after.1, limit as i64])?;
    let (mut found, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let sequence = row.get(0)?;
        if row.get(2)? {
            found.push(sequence);
        }
        last = Some((row.get(1)?, sequence));
    }
    Ok((found, last))
}

/// Takes an entry away, with a tombstone, if still nothing keeps it.
pub(crate) fn remove_entry(connection: &Connection, sequence: i64) -> Result<bool, StoreError> {
    let found = connection
        .prepare_cached(concat!(
            "SELECT (SELECT name FROM caches WHERE id = cache), kind, key FROM entries WHERE sequence = ? AND ",
            unkept!()
        ))?
        .query_row([sequence], |row| {
            Ok(Event::EntryDeleted {
                cache: row.get(0)?,
                kind: row.get(1)?,
                key: row.get(2)?,
            })
        })
        .optional()?;
    let Some(tombstone) = found else {
        return Ok(false);
    };
    for statement in [
        "DELETE FROM entry_blobs WHERE entry = ?",
        "DELETE FROM uses WHERE entry = ?",
        "DELETE FROM entries WHERE sequence = ?",
    ] {
        connection.prepare_cached(statement)?.execute([sequence])?;
    }
    log::append(connection, &tombstone)?;
    Ok(true)
}

/// Of the next `limit` blobs, those that no entry names, but for those in `removed`, and no lease covers; and where
/// to go on.
pub(crate) fn blobs(
    connection: &Connection,
    after: BlobId,
    limit: usize,
    removed: &HashSet<i64>,
) -> Result<(Vec<BlobId>, Option<BlobId>), StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT id, lease_until_ms <= ",
        now_ms!(),
        " FROM blobs WHERE id > ? ORDER BY id LIMIT ?"
    ))?;
    let mut names = connection.prepare_cached("SELECT entry FROM entry_blobs WHERE blob = ?")?;
    let mut rows = statement.query(params![after.0, limit as i64])?;
    let (mut found, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let id = BlobId(row.get(0)?);
        last = Some(id);
        if !row.get::<_, bool>(1)? {
            continue;
        }
        let mut entries = names.query([id.0])?;
        let mut named = false;
        while let Some(entry) = entries.next()?
            && !named
        {
            named = !removed.contains(&entry.get(0)?);
        }
        if !named {
            found.push(id);
        }
    }
    Ok((found, last))
}

/// Deletes a blob's rows if still no entry names it and no lease covers it. After that nobody publishes it
/// without inserting it again, under a greater id (rule 6).
pub(crate) fn remove_blob(connection: &Connection, id: BlobId) -> Result<bool, StoreError> {
    let removed = connection
        .prepare_cached(concat!(
            "DELETE FROM blob_lists WHERE blob = ?1
                 AND NOT EXISTS (SELECT 1 FROM entry_blobs WHERE blob = ?1)
                 AND EXISTS (SELECT 1 FROM blobs WHERE id = ?1 AND lease_until_ms <= ",
            now_ms!(),
            ")"
        ))?
        .execute([id.0])?;
    if removed == 0 {
        return Ok(false);
    }
    connection
        .prepare_cached("DELETE FROM blobs WHERE id = ?")?
        .execute([id.0])?;
    Ok(true)
}
