//! What was looked for and how that went: the newest of it, for those who ask why.

use super::unsigned;
use crate::StoreError;
use crate::types::{CacheId, LookupRow};
use bytes::Bytes;
use rusqlite::{Connection, params};

/// Look-ups that are remembered of an owner, and of all.
const OWNER_MAX: i64 = 5_000;
const ALL_MAX: i64 = 200_000;

/// Remembers look-ups, and forgets the oldest if there are too many.
pub(crate) fn record(connection: &Connection, rows: &[LookupRow]) -> Result<(), StoreError> {
    let mut insert = connection
        .prepare_cached("INSERT INTO lookups (cache, owner, at, detail) VALUES (?, ?, ?, ?)")?;
    for row in rows {
        insert.execute(params![row.cache.0, row.owner, row.at, &row.detail[..]])?;
    }
    let mut owners: Vec<(i64, &str)> = rows.iter().map(|row| (row.cache.0, &*row.owner)).collect();
    owners.sort_unstable();
    owners.dedup();
    let mut trim = connection.prepare_cached(
        "DELETE FROM lookups WHERE cache = ?1 AND owner = ?2 AND id <=
             (SELECT id FROM lookups WHERE cache = ?1 AND owner = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
    )?;
    for (cache, owner) in owners {
        trim.execute(params![cache, owner, OWNER_MAX])?;
    }
    connection
        .prepare_cached("DELETE FROM lookups WHERE id <= (SELECT max(id) FROM lookups) - ?")?
        .execute([ALL_MAX])?;
    Ok(())
}

/// An owner's look-ups, the newest first.
pub(crate) fn list(
    connection: &Connection,
    cache: CacheId,
    owner: &str,
    limit: usize,
) -> Result<Vec<LookupRow>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT at, detail FROM lookups WHERE cache = ? AND owner = ? ORDER BY id DESC LIMIT ?",
    )?;
    let rows = statement.query_map(params![cache.0, owner, limit], |row| {
        Ok(LookupRow {
            cache,
            owner: owner.to_owned(),
            at: i64::try_from(unsigned(row, 0)?).unwrap_or(0),
            detail: Bytes::from(row.get::<_, Vec<u8>>(1)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
