//! What is live: the chunks of all blobs, and all that is pinned.

use crate::StoreError;
use crate::db::chunks::VALID;
use crate::db::now_ms;
use crate::types::DomainId;
use firn_chunks::{ChunkId, ChunkList};
use rusqlite::{Connection, params};

/// How far the log of blobs, and that of pins, has been read: by their ids, which are never used again (rule 6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) blob: i64,
    pub(crate) pin: i64,
}

/// Hands the chunks of the blobs after `after` to `take`, until some `ids_max` have been. Gives the last blob's
/// id, and whether there may be more.
pub(crate) fn blobs(
    connection: &Connection,
    after: i64,
    ids_max: usize,
    skip: &dyn Fn(i64) -> bool,
    take: &mut dyn FnMut(DomainId, ChunkId),
) -> Result<(i64, bool), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, domain, list FROM blobs JOIN blob_lists ON blob = id WHERE id > ? ORDER BY id",
    )?;
    let mut rows = statement.query(params![after])?;
    let (mut last, mut ids) = (after, 0);
    while let Some(row) = rows.next()? {
        let (id, domain) = (row.get(0)?, DomainId(row.get(1)?));
        last = id;
        if !skip(id) {
            let list = ChunkList::decode(row.get_ref(2)?.as_blob().unwrap_or_default())
                .map_err(|error| StoreError::Damaged(format!("list of blob {id}: {error}")))?;
            ids += list.chunks.len();
            list.chunks.iter().for_each(|chunk| take(domain, chunk.id));
        }
        ids += 1;
        if ids >= ids_max {
            return Ok((last, true));
        }
    }
    Ok((last, false))
}

/// As [`blobs`], of what sessions pin: those that are alive and, with `ended`, those that were not cleared away yet.
pub(crate) fn pins(
    connection: &Connection,
    after: i64,
    ids_max: usize,
    ended: bool,
    take: &mut dyn FnMut(DomainId, ChunkId),
) -> Result<(i64, bool), StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT id, domain, chunks FROM pins WHERE id > ? AND (? OR EXISTS (SELECT 1 FROM sessions
             WHERE sessions.id = session AND expires_at_ms > ",
        now_ms!(),
        ")) ORDER BY id"
    ))?;
    let mut rows = statement.query(params![after, ended])?;
    let (mut last, mut ids) = (after, 0);
    while let Some(row) = rows.next()? {
        let domain = DomainId(row.get(1)?);
        let pinned = row.get_ref(2)?.as_blob().unwrap_or_default();
        for id in pinned.as_chunks::<32>().0 {
            take(domain, ChunkId(*id));
        }
        ids += 1 + pinned.len() / 32;
        last = row.get(0)?;
        if ids >= ids_max {
            return Ok((last, true));
        }
    }
    Ok((last, false))
}

/// A valid chunk, as the walk over them finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValidChunk {
    pub(crate) domain: DomainId,
    pub(crate) id: ChunkId,
    pub(crate) pack: i64,
    pub(crate) raw_length: u32,
    pub(crate) frame_length: u32,
}

/// The next `limit` rows of chunks after one; hands on those that are valid. Gives the last, `None` at the end.
pub(crate) fn chunks(
    connection: &Connection,
    after: Option<(DomainId, ChunkId)>,
    limit: usize,
    take: &mut dyn FnMut(ValidChunk),
) -> Result<Option<(DomainId, ChunkId)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT domain, id, pack, raw_length, frame_length, state FROM chunks WHERE (domain, id) > (?, ?)
         ORDER BY domain, id LIMIT ?",
    )?;
    // The empty id sorts before all.
    let (domain, id): (i64, &[u8]) = match &after {
        Some((domain, id)) => (domain.0, &id.0),
        None => (i64::MIN, &[]),
    };
    let mut rows = statement.query(params![domain, id, limit as i64])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let chunk = ValidChunk {
            domain: DomainId(row.get(0)?),
            id: ChunkId(row.get(1)?),
            pack: row.get(2)?,
            raw_length: row.get(3)?,
            frame_length: row.get(4)?,
        };
        last = Some((chunk.domain, chunk.id));
        if row.get::<_, i64>(5)? == VALID {
            take(chunk);
        }
    }
    Ok(last)
}

/// Some number of chunks in what was published and pinned since.
pub(crate) fn behind(connection: &Connection, seen: Seen) -> Result<i64, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT (SELECT coalesce(sum(chunks), 0) FROM blobs WHERE id > ?1)
                 + (SELECT coalesce(sum(length(chunks)), 0) / 32 FROM pins WHERE id > ?2)",
        )?
        .query_row(params![seen.blob, seen.pin], |row| row.get(0))?)
}
