//! Rows of what is staged: bytes on their way in, in parts.

use super::{caches, millis, now_ms, signed, unsigned};
use crate::types::{CacheId, CacheRow, Staged, StagedPart};
use crate::{StoreError, layout};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::time::Duration;

const COLUMNS: &str = "SELECT id, token, cache, owner, key, note FROM staged";

fn staged(row: &Row<'_>) -> rusqlite::Result<Staged> {
    Ok(Staged {
        number: unsigned(row, 0)?,
        id: row.get(1)?,
        cache: CacheId(row.get(2)?),
        owner: row.get(3)?,
        key: row.get(4)?,
        note: row.get::<_, Vec<u8>>(5)?.into(),
    })
}

/// Begins one. `Conflict` if the key is taken by one that lives, `TooManyUploads` if its owner has too many.
pub(crate) fn begin(
    connection: &Connection,
    cache: &CacheRow,
    owner: &str,
    key: &str,
    note: &[u8],
    idle: Duration,
    open_max: usize,
) -> Result<Staged, StoreError> {
    caches::expect(connection, cache.id)?;
    end_expired(connection)?;
    let open: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM staged WHERE cache = ? AND owner = ? AND key IS NOT NULL",
        )?
        .query_row(params![cache.id.0, owner], |row| row.get(0))?;
    let taken = connection
        .prepare_cached("SELECT 1 FROM staged WHERE cache = ? AND key = ?")?
        .exists(params![cache.id.0, key])?;
    if taken {
        return Err(StoreError::Conflict(key.to_owned()));
    }
    if usize::try_from(open).is_ok_and(|open| open >= open_max) {
        return Err(StoreError::TooManyUploads(open_max));
    }
    let id = layout::random_hex(16)?;
    connection
        .prepare_cached(concat!(
            "INSERT INTO staged (token, cache, owner, key, note, expires_at_ms) VALUES (?, ?, ?, ?, ?, ",
            now_ms!(),
            " + ?)"
        ))?
        .execute(params![id, cache.id.0, owner, key, note, millis(idle)])?;
    Ok(Staged {
        number: u64::try_from(connection.last_insert_rowid()).unwrap_or(0),
        id,
        cache: cache.id,
        owner: owner.to_owned(),
        key: key.to_owned(),
        note: note.to_vec().into(),
    })
}

fn one(
    connection: &Connection,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<Option<Staged>, StoreError> {
    let now = now_ms!();
    Ok(connection
        .prepare_cached(&format!(
            "{COLUMNS} WHERE {condition} AND key IS NOT NULL AND expires_at_ms > {now}"
        ))?
        .query_row(values, staged)
        .optional()?)
}

/// A live one, by its id.
pub(crate) fn by_id(connection: &Connection, id: &str) -> Result<Option<Staged>, StoreError> {
    one(connection, "token = ?", [id])
}

/// A live one, by its number.
pub(crate) fn by_number(
    connection: &Connection,
    number: u64,
) -> Result<Option<Staged>, StoreError> {
    one(connection, "id = ?", [signed(number)])
}

/// A live one, by the key that it holds.
pub(crate) fn by_key(
    connection: &Connection,
    cache: CacheId,
    key: &str,
) -> Result<Option<Staged>, StoreError> {
    one(connection, "cache = ? AND key = ?", params![cache.0, key])
}

fn row(connection: &Connection, id: &str) -> Result<i64, StoreError> {
    let found = by_id(connection, id)?.ok_or_else(|| StoreError::SessionGone(id.to_owned()))?;
    Ok(signed(found.number))
}

/// Puts the end of a live one off.
pub(crate) fn touch(connection: &Connection, id: &str, idle: Duration) -> Result<(), StoreError> {
    let row = row(connection, id)?;
    connection
        .prepare_cached(concat!(
            "UPDATE staged SET expires_at_ms = ",
            now_ms!(),
            " + ? WHERE id = ?"
        ))?
        .execute(params![millis(idle), row])?;
    Ok(())
}

/// Replaces the note of a live one.
pub(crate) fn set_note(connection: &Connection, id: &str, note: &[u8]) -> Result<(), StoreError> {
    let row = row(connection, id)?;
    connection
        .prepare_cached("UPDATE staged SET note = ? WHERE id = ?")?
        .execute(params![note, row])?;
    Ok(())
}

/// Gives a live one a part whose file is durable; the file of the one in whose place it comes is returned.
pub(crate) fn put_part(
    connection: &Connection,
    id: &str,
    part: &StagedPart,
    idle: Duration,
) -> Result<Option<String>, StoreError> {
    touch(connection, id, idle)?;
    let row = row(connection, id)?;
    let old = connection
        .prepare_cached("SELECT file FROM staged_parts WHERE staged = ? AND name = ?")?
        .query_row(params![row, part.name], |row| row.get(0))
        .optional()?;
    connection
        .prepare_cached(
            "INSERT INTO staged_parts (staged, name, file, length) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (staged, name) DO UPDATE SET file = ?3, length = ?4",
        )?
        .execute(params![row, part.name, part.file, signed(part.length)])?;
    Ok(old)
}

/// The parts of a live one, in the order in which their names first came.
pub(crate) fn parts(connection: &Connection, id: &str) -> Result<Vec<StagedPart>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT name, file, length FROM staged_parts WHERE staged = ? ORDER BY id",
    )?;
    let rows = statement.query_map([row(connection, id)?], |row| {
        Ok(StagedPart {
            name: row.get(0)?,
            file: row.get(1)?,
            length: unsigned(row, 2)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Bytes that an owner has staged.
pub(crate) fn bytes(
    connection: &Connection,
    cache: CacheId,
    owner: &str,
) -> Result<u64, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT coalesce(sum(length), 0) FROM staged_parts WHERE staged IN
                 (SELECT id FROM staged WHERE cache = ? AND owner = ?)",
        )?
        .query_row(params![cache.0, owner], |row| unsigned(row, 0))?)
}

/// Ends one; its key is free at once. Ending it twice is no fault.
pub(crate) fn end(connection: &Connection, id: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE staged SET key = NULL WHERE token = ?")?
        .execute([id])?;
    Ok(())
}

/// Ends those of a cache.
pub(crate) fn end_all_of(connection: &Connection, cache: CacheId) -> Result<(), StoreError> {
    connection.execute("UPDATE staged SET key = NULL WHERE cache = ?", [cache.0])?;
    Ok(())
}

/// Ends those whose time is over; gives their number.
pub(crate) fn end_expired(connection: &Connection) -> Result<usize, StoreError> {
    Ok(connection
        .prepare_cached(concat!(
            "UPDATE staged SET key = NULL WHERE key IS NOT NULL AND expires_at_ms <= ",
            now_ms!()
        ))?
        .execute([])?)
}

/// Files of those that have ended.
pub(crate) fn ended_files(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT file FROM staged_parts WHERE staged IN (SELECT id FROM staged WHERE key IS NULL)",
    )?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Forgets parts by their files, and what has ended and has no more parts.
pub(crate) fn forget(connection: &Connection, files: &[String]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("DELETE FROM staged_parts WHERE file = ?")?;
    for file in files {
        statement.execute([file])?;
    }
    connection.execute(
        "DELETE FROM staged WHERE key IS NULL
             AND NOT EXISTS (SELECT 1 FROM staged_parts WHERE staged = staged.id)",
        [],
    )?;
    Ok(())
}

/// Every part there is, with its length.
pub(crate) fn all_parts(connection: &Connection) -> Result<Vec<(String, u64)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT file, length FROM staged_parts")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
