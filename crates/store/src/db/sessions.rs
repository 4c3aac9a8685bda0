//! Upload sessions, on the database's clock (rule 10).

use super::{millis, now_ms};
use crate::types::{CacheId, CacheRow, DomainId, Session};
use crate::{StoreError, layout};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::time::Duration;

/// Opens one.
pub(crate) fn open(
    connection: &Connection,
    cache: &CacheRow,
    ttl: Duration,
) -> Result<Session, StoreError> {
    let id = layout::random_hex(16)?;
    let found = super::caches::expect(connection, cache.id)?;
    connection
        .prepare_cached(concat!(
            "INSERT INTO sessions (token, cache, domain, expires_at_ms) VALUES (?, ?, ?, ",
            now_ms!(),
            " + ?)"
        ))?
        .execute(params![id, found.id.0, found.domain.0, millis(ttl)])?;
    Ok(Session {
        id,
        cache: found.id,
        domain: found.domain,
        expires_in: ttl,
    })
}

/// A live session.
pub(crate) fn find(connection: &Connection, id: &str) -> Result<Session, StoreError> {
    connection
        .prepare_cached(concat!(
            "SELECT cache, domain, expires_at_ms - ",
            now_ms!(),
            " AS rest FROM sessions WHERE token = ? AND rest > 0"
        ))?
        .query_row([id], |row| {
            Ok(Session {
                id: id.to_owned(),
                cache: CacheId(row.get(0)?),
                domain: DomainId(row.get(1)?),
                expires_in: Duration::from_millis(super::unsigned(row, 2)?),
            })
        })
        .optional()?
        .ok_or_else(|| StoreError::SessionGone(id.to_owned()))
}

/// The row of a live session.
pub(crate) fn row(connection: &Connection, id: &str) -> Result<i64, StoreError> {
    connection
        .prepare_cached(concat!(
            "SELECT id FROM sessions WHERE token = ? AND expires_at_ms > ",
            now_ms!()
        ))?
        .query_row([id], |row| row.get(0))
        .optional()?
        .ok_or_else(|| StoreError::SessionGone(id.to_owned()))
}

/// Puts a live session's end off to `ttl` from now.
pub(crate) fn renew(connection: &Connection, id: &str, ttl: Duration) -> Result<(), StoreError> {
    let row = row(connection, id)?;
    connection
        .prepare_cached(concat!(
            "UPDATE sessions SET expires_at_ms = ",
            now_ms!(),
            " + ? WHERE id = ?"
        ))?
        .execute(params![millis(ttl), row])?;
    Ok(())
}

/// Ends one, and the upload that it may be; ending it twice is no fault.
pub(crate) fn close(connection: &Connection, id: &str) -> Result<(), StoreError> {
    let row: Option<i64> = connection
        .prepare_cached("SELECT id FROM sessions WHERE token = ?")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    let Some(row) = row else { return Ok(()) };
    for statement in [
        "DELETE FROM upload_chunks WHERE upload = ?",
        "DELETE FROM uploads WHERE session = ?",
        "DELETE FROM pins WHERE session = ?",
        "DELETE FROM sessions WHERE id = ?",
    ] {
        connection.prepare_cached(statement)?.execute([row])?;
    }
    Ok(())
}

/// Ends those that have expired.
pub(crate) fn reap(connection: &Connection) -> Result<usize, StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT token FROM sessions WHERE expires_at_ms <= ",
        now_ms!()
    ))?;
    let expired = statement
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    for token in &expired {
        close(connection, token)?;
    }
    Ok(expired.len())
}
