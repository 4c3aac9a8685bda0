//! Upload sessions, on the database's clock (rule 10).

use super::{Database, Durability, millis, now_ms};
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

/// Ends one, and the upload that it may be; ending it twice is no fault. Its pins count no more from here on;
/// [`reap_all`] clears them away.
pub(crate) fn close(connection: &Connection, id: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE sessions SET expires_at_ms = 0 WHERE token = ?")?
        .execute([id])?;
    Ok(())
}

/// Rows of pins, and of uploads' chunks, deleted at once: each may be large, and the writer is everybody's.
const ROWS_REAPED_MAX: usize = 16;

/// What [`reap`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reaped {
    /// Sessions that are gone.
    sessions: usize,
    /// There is more to do.
    more: bool,
}

/// Clears away sessions that have ended, or some of what is theirs. To be called until there is no more.
fn reap(connection: &Connection) -> Result<Reaped, StoreError> {
    let limit = [ROWS_REAPED_MAX as i64];
    let pins = connection
        .prepare_cached(concat!(
            "DELETE FROM pins WHERE id IN (SELECT pins.id FROM sessions JOIN pins ON session = sessions.id
                 WHERE expires_at_ms <= ",
            now_ms!(),
            " LIMIT ?)"
        ))?
        .execute(limit)?;
    let pieces = connection
        .prepare_cached(concat!(
            "DELETE FROM upload_chunks WHERE id IN (SELECT upload_chunks.id FROM sessions
                 JOIN upload_chunks ON upload = sessions.id WHERE expires_at_ms <= ",
            now_ms!(),
            " LIMIT ?)"
        ))?
        .execute(limit)?;
    connection
        .prepare_cached(concat!(
            "DELETE FROM uploads WHERE session IN (SELECT id FROM sessions WHERE expires_at_ms <= ",
            now_ms!(),
            ") AND NOT EXISTS (SELECT 1 FROM upload_chunks WHERE upload = uploads.session)"
        ))?
        .execute([])?;
    // Those that ended between the statements have rows still, and stay for the next time.
    let sessions = connection
        .prepare_cached(concat!(
            "DELETE FROM sessions WHERE expires_at_ms <= ",
            now_ms!(),
            " AND NOT EXISTS (SELECT 1 FROM pins WHERE session = sessions.id)
             AND NOT EXISTS (SELECT 1 FROM uploads WHERE session = sessions.id)"
        ))?
        .execute([])?;
    Ok(Reaped {
        sessions,
        more: pins == ROWS_REAPED_MAX || pieces == ROWS_REAPED_MAX,
    })
}

/// Clears away all sessions that have ended, in as many short transactions as it takes; gives their number.
pub(crate) fn reap_all(db: &Database) -> Result<usize, StoreError> {
    let mut sessions = 0;
    loop {
        let reaped = db.write(Durability::Ordered, reap)?;
        sessions += reaped.sessions;
        if !reaped.more {
            return Ok(sessions);
        }
    }
}
