//! Uploads that outlive the process; see `crate::uploads`.

use super::sessions;
use crate::StoreError;
use crate::types::{CacheRow, Session};
use firn_chunks::{ChunkId, ChunkRef};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::time::Duration;

/// A chunk in a row: its id and its raw length.
const CHUNK_BYTES: usize = 32 + 4;

/// What is durable of an upload.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) session: Session,
    pub(crate) owner: String,
    pub(crate) chunks: Vec<ChunkRef>,
    /// The bytes behind the last chunk.
    pub(crate) tail: Vec<u8>,
}

/// Opens one; with `open_max` of the cache open already, the one idle for longest gives way if that
/// is longer than `fresh`.
pub(crate) fn open(
    connection: &Connection,
    cache: &CacheRow,
    owner: &str,
    idle: Duration,
    fresh: Duration,
    open_max: usize,
) -> Result<Session, StoreError> {
    make_room(connection, cache, idle.saturating_sub(fresh), open_max)?;
    let session = sessions::open(connection, cache, idle)?;
    connection
        .prepare_cached(
            "INSERT INTO uploads (session, cache, owner, tail)
             SELECT id, cache, ?2, x'' FROM sessions WHERE token = ?1",
        )?
        .execute(params![session.id, owner])?;
    Ok(session)
}

fn make_room(
    connection: &Connection,
    cache: &CacheRow,
    rest: Duration,
    open_max: usize,
) -> Result<(), StoreError> {
    let full = connection
        .prepare_cached(concat!(
            "SELECT 1 FROM uploads JOIN sessions ON sessions.id = session
             WHERE uploads.cache = ? AND expires_at_ms > ",
            super::now_ms!(),
            " LIMIT 1 OFFSET ?"
        ))?
        .exists(params![
            cache.id.0,
            i64::try_from(open_max.saturating_sub(1)).unwrap_or(i64::MAX)
        ])?;
    if !full {
        return Ok(());
    }
    // A touched session ends later, so the one to end first is the one idle for longest.
    let oldest: Option<String> = connection
        .prepare_cached(concat!(
            "SELECT token FROM uploads JOIN sessions ON sessions.id = session
             WHERE uploads.cache = ?1 AND expires_at_ms > ",
            super::now_ms!(),
            " AND expires_at_ms < ",
            super::now_ms!(),
            " + ?2 ORDER BY expires_at_ms LIMIT 1"
        ))?
        .query_row(params![cache.id.0, super::millis(rest)], |row| row.get(0))
        .optional()?;
    match oldest {
        Some(token) => sessions::close(connection, &token),
        None => Err(StoreError::TooManyUploads(open_max)),
    }
}

/// Adds stored chunks, and puts `tail` behind them.
pub(crate) fn advance(
    connection: &Connection,
    id: &str,
    chunks: &[ChunkRef],
    tail: &[u8],
) -> Result<(), StoreError> {
    let row = sessions::row(connection, id)?;
    if !chunks.is_empty() {
        let mut encoded = Vec::with_capacity(chunks.len() * CHUNK_BYTES);
        for chunk in chunks {
            encoded.extend_from_slice(&chunk.id.0);
            encoded.extend_from_slice(&chunk.raw_length.to_le_bytes());
        }
        connection
            .prepare_cached("INSERT INTO upload_chunks (upload, chunks) VALUES (?, ?)")?
            .execute(params![row, encoded])?;
    }
    let changed = connection
        .prepare_cached("UPDATE uploads SET tail = ? WHERE session = ?")?
        .execute(params![tail, row])?;
    match changed {
        0 => Err(StoreError::SessionGone(id.to_owned())),
        _ => Ok(()),
    }
}

/// A live upload.
pub(crate) fn find(connection: &Connection, id: &str) -> Result<Row, StoreError> {
    let session = sessions::find(connection, id)?;
    let gone = || StoreError::SessionGone(id.to_owned());
    let (row, owner, tail) = connection
        .prepare_cached(
            "SELECT session, owner, tail FROM uploads
             JOIN sessions ON sessions.id = session WHERE token = ?",
        )?
        .query_row([id], |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?
        .ok_or_else(gone)?;
    let mut statement = connection
        .prepare_cached("SELECT chunks FROM upload_chunks WHERE upload = ? ORDER BY id")?;
    let pieces = statement
        .query_map([row], |row| row.get::<_, Vec<u8>>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Row {
        session,
        owner,
        chunks: pieces.iter().flat_map(|piece| decode(piece)).collect(),
        tail,
    })
}

fn decode(piece: &[u8]) -> impl Iterator<Item = ChunkRef> {
    piece.as_chunks::<CHUNK_BYTES>().0.iter().map(|encoded| {
        let mut id = [0; 32];
        let mut length = [0; 4];
        id.copy_from_slice(&encoded[..32]);
        length.copy_from_slice(&encoded[32..]);
        ChunkRef {
            id: ChunkId(id),
            raw_length: u32::from_le_bytes(length),
        }
    })
}
