//! Quarantine: chunks whose frames are damaged, and the blobs that they break.

use super::{bytes32, unsigned};
use crate::StoreError;
use crate::types::{BlobId, CacheId, DamagedChunk, DomainId};
use firn_chunks::pack::Placed;
use firn_chunks::{ChunkId, ChunkListView};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::{BTreeSet, HashSet};

/// Holds of an entry none of whose blobs is broken; for use after a `WHERE` on `entries`.
macro_rules! servable {
    () => {
        " NOT EXISTS (SELECT 1 FROM entry_blobs JOIN broken_blobs ON broken_blobs.blob = entry_blobs.blob
             WHERE entry_blobs.entry = entries.sequence) "
    };
}
pub(crate) use servable;

/// A frame where it was found damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) pack: i64,
    pub(crate) offset: u64,
}

/// A valid chunk at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkAt {
    pub(crate) domain: DomainId,
    pub(crate) id: ChunkId,
    pub(crate) place: Place,
    pub(crate) frame_length: u32,
    pub(crate) checksum: u64,
}

/// What a blob lacks, as [`listing`] finds it.
pub(crate) type Broken = (DomainId, BlobId, ChunkId);

/// Whether any chunk is in quarantine.
pub(crate) fn any(connection: &Connection) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM damage LIMIT 1")?
        .exists([])?)
}

/// Valid chunks of a pack from an offset on, at most `limit`.
pub(crate) fn chunks_from(
    connection: &Connection,
    from: Place,
    limit: usize,
) -> Result<Vec<ChunkAt>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT domain, id, \"offset\", frame_length, checksum, pack FROM chunks
         WHERE pack = ? AND \"offset\" >= ? AND state = 1 ORDER BY \"offset\" LIMIT ?",
    )?;
    let values = params![from.pack, super::signed(from.offset), limit as i64];
    let rows = statement.query_map(values, chunk_at)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A row of domain, id, offset, frame length, checksum and pack.
fn chunk_at(row: &Row<'_>) -> rusqlite::Result<ChunkAt> {
    Ok(ChunkAt {
        domain: DomainId(row.get(0)?),
        id: ChunkId(bytes32(row, 1)?),
        place: Place {
            pack: row.get(5)?,
            offset: unsigned(row, 2)?,
        },
        frame_length: row.get(3)?,
        checksum: row.get::<_, i64>(4)? as u64,
    })
}

/// Chunks in quarantine whose frames may be there, after one of them, in order.
pub(crate) fn in_quarantine(
    connection: &Connection,
    after: Option<&(DomainId, ChunkId)>,
    limit: usize,
) -> Result<Vec<ChunkAt>, StoreError> {
    let (domain, chunk): (i64, &[u8]) =
        after.map_or((i64::MIN, &[]), |(domain, chunk)| (domain.0, &chunk.0));
    let mut statement = connection.prepare_cached(
        "SELECT chunks.domain, id, chunks.\"offset\", chunks.frame_length, chunks.checksum, chunks.pack
         FROM damage JOIN chunks ON chunks.domain = damage.domain AND id = chunk
         WHERE (damage.domain, chunk) > (?, ?) AND state = 3 ORDER BY damage.domain, chunk LIMIT ?",
    )?;
    let rows = statement.query_map(params![domain, chunk, limit as i64], chunk_at)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Those that lie in one pack, from an offset on, in order.
pub(crate) fn in_quarantine_of(
    connection: &Connection,
    pack: i64,
    from: u64,
    limit: usize,
) -> Result<Vec<ChunkAt>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT domain, id, \"offset\", frame_length, checksum, pack FROM chunks
         WHERE pack = ? AND \"offset\" >= ? AND state = 3 ORDER BY \"offset\" LIMIT ?",
    )?;
    let rows = statement.query_map(params![pack, super::signed(from), limit as i64], chunk_at)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether a blob that is here lists a chunk whose frame lies damaged in a pack.
pub(crate) fn is_needed_of(connection: &Connection, pack: i64) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM chunks JOIN broken_blobs
                 ON broken_blobs.chunk = chunks.id AND broken_blobs.domain = chunks.domain
             JOIN blobs ON blobs.id = blob WHERE chunks.pack = ? AND state = 3 LIMIT 1",
        )?
        .exists([pack])?)
}

/// A chunk in quarantine turned out to be good: it is valid again where it lies, and the blobs that it broke are
/// whole. False if it is not in quarantine there any more, or its pack is being deleted. Who found it missing before
/// learns of it by `condemnations`: they may have its frame at hand, which is not to be stored beside it.
pub(crate) fn restore(connection: &Connection, chunk: &ChunkAt) -> Result<bool, StoreError> {
    let changed = connection
        .prepare_cached(
            "UPDATE chunks SET state = 1 WHERE domain = ?1 AND id = ?2 AND state = 3 AND pack = ?3
                 AND \"offset\" = ?4 AND EXISTS (SELECT 1 FROM packs WHERE packs.id = ?3 AND packs.state = 1)",
        )?
        .execute(params![
            chunk.domain.0,
            chunk.id.0,
            chunk.place.pack,
            super::signed(chunk.place.offset)
        ])?;
    if changed == 0 {
        return Ok(false);
    }
    connection
        .prepare_cached(
            "UPDATE packs SET (chunks, raw_bytes, frame_bytes) =
                 (SELECT packs.chunks + 1, packs.raw_bytes + c.raw_length, packs.frame_bytes + c.frame_length
                  FROM chunks AS c WHERE c.domain = ? AND c.id = ?)
             WHERE id = ?",
        )?
        .execute(params![chunk.domain.0, chunk.id.0, chunk.place.pack])?;
    mend_broken(connection, chunk.domain, chunk.id)?;
    connection
        .prepare_cached("DELETE FROM damage WHERE domain = ? AND chunk = ?")?
        .execute(params![chunk.domain.0, chunk.id.0])?;
    super::chunks::condemn(connection)?;
    Ok(true)
}

/// The blobs that a chunk broke have the frame again that they were made of.
fn mend_broken(connection: &Connection, domain: DomainId, id: ChunkId) -> Result<(), StoreError> {
    for statement in [
        "UPDATE broken_blobs SET why = why & 2 WHERE domain = ? AND chunk = ?",
        "DELETE FROM broken_blobs WHERE domain = ? AND chunk = ? AND why = 0",
    ] {
        connection
            .prepare_cached(statement)?
            .execute(params![domain.0, id.0])?;
    }
    Ok(())
}

/// The greatest id of a blob so far.
pub(crate) fn newest_blob(connection: &Connection) -> Result<i64, StoreError> {
    Ok(
        connection.query_row("SELECT coalesce(max(id), 0) FROM blobs", [], |row| {
            row.get(0)
        })?,
    )
}

/// Blobs made after `after` that list any of these chunks.
pub(crate) fn listing(
    connection: &Connection,
    chunks: &HashSet<(DomainId, ChunkId)>,
    after: i64,
) -> Result<Vec<Broken>, StoreError> {
    let mut found = Vec::new();
    let mut statement = connection.prepare_cached(
        "SELECT id, domain, list FROM blobs JOIN blob_lists ON blob = id WHERE id > ?",
    )?;
    let mut rows = statement.query([after])?;
    while let Some(row) = rows.next()? {
        let (blob, domain) = (BlobId(row.get(0)?), DomainId(row.get(1)?));
        let bytes = row.get_ref(2)?;
        // A list that does not decode serves nothing as it is; checking the structure names it.
        let Some(list) = bytes
            .as_blob()
            .ok()
            .and_then(|list| ChunkListView::new(list).ok())
        else {
            continue;
        };
        let lacks: BTreeSet<ChunkId> = list
            .chunks(0)
            .map(|chunk| chunk.id)
            .filter(|id| chunks.contains(&(domain, *id)))
            .collect();
        found.extend(lacks.into_iter().map(|id| (domain, blob, id)));
    }
    Ok(found)
}

/// Takes a chunk out of the valid ones, if it is still the one that was looked at.
pub(crate) fn quarantine(
    connection: &Connection,
    chunk: &ChunkAt,
    found_by: &str,
) -> Result<bool, StoreError> {
    let changed = connection
        .prepare_cached(
            "UPDATE chunks SET state = 3 WHERE domain = ? AND id = ? AND state = 1 AND pack = ? AND \"offset\" = ?",
        )?
        .execute(params![
            chunk.domain.0,
            chunk.id.0,
            chunk.place.pack,
            super::signed(chunk.place.offset)
        ])?;
    if changed == 0 {
        return Ok(false);
    }
    let place = params![chunk.domain.0, chunk.id.0, found_by];
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO damage
                 (domain, chunk, pack, \"offset\", frame_length, raw_length, checksum, found_by)
             SELECT domain, id, pack, \"offset\", frame_length, raw_length, checksum, ?3
             FROM chunks WHERE domain = ?1 AND id = ?2",
        )?
        .execute(place)?;
    // A pack's sums are of what is valid in it.
    connection
        .prepare_cached(concat!(
            "UPDATE packs SET (chunks, raw_bytes, frame_bytes) =
                 (SELECT packs.chunks - 1, packs.raw_bytes - c.raw_length, packs.frame_bytes - c.frame_length
                  FROM chunks AS c WHERE c.domain = ? AND c.id = ?),
                 condemned_at_ms = ",
            super::now_ms!(),
            " WHERE id = ?"
        ))?
        .execute(params![chunk.domain.0, chunk.id.0, chunk.place.pack])?;
    super::chunks::condemn(connection)?;
    Ok(true)
}

/// Records what a damaged chunk breaks.
pub(crate) fn break_blobs(connection: &Connection, broken: &[Broken]) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO broken_blobs (blob, domain, chunk, why) VALUES (?, ?, ?, 1)
         ON CONFLICT (blob, chunk) DO UPDATE SET why = why | 1",
    )?;
    for (domain, blob, chunk) in broken {
        insert.execute(params![blob.0, domain.0, chunk.0])?;
    }
    Ok(())
}

/// Of chunks in quarantine: checksum and length of the frame that was lost.
pub(crate) fn lost(
    connection: &Connection,
    domain: DomainId,
    id: ChunkId,
) -> Result<Option<(u64, u32)>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT checksum, frame_length FROM damage WHERE domain = ? AND chunk = ?")?
        .query_row(params![domain.0, id.0], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
        })
        .optional()?)
}

/// Changes whenever a chunk gets another frame than it had.
pub(crate) fn reframings(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'reframings'")?
        .query_row([], |row| row.get(0))?)
}

/// Before a chunk gets its frame: if it was in quarantine, the blobs that it broke are whole again, or, if this
/// is another frame, wait for their digests to be made anew.
pub(crate) fn heal(
    connection: &Connection,
    domain: DomainId,
    placed: &Placed,
) -> Result<(), StoreError> {
    let id = placed.record.id;
    let Some((checksum, length)) = lost(connection, domain, id)? else {
        return Ok(());
    };
    let same = (checksum, length) == (placed.record.checksum, placed.record.frame_length);
    let values = params![domain.0, id.0];
    if same {
        mend_broken(connection, domain, id)?;
    } else {
        connection
            .prepare_cached("UPDATE broken_blobs SET why = 2 WHERE domain = ? AND chunk = ?")?
            .execute(values)?;
        connection.execute(
            "UPDATE meta SET value = value + 1 WHERE name = 'reframings'",
            [],
        )?;
        super::chunks::condemn(connection)?;
    }
    connection
        .prepare_cached("DELETE FROM damage WHERE domain = ? AND chunk = ?")?
        .execute(values)?;
    Ok(())
}

/// Whether any blob that is here lists a chunk in quarantine.
pub(crate) fn breaks_any(
    connection: &Connection,
    chunk: &DamagedChunk,
) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM broken_blobs JOIN blobs ON blobs.id = blob
             WHERE broken_blobs.chunk = ? AND broken_blobs.domain = ?",
        )?
        .exists(params![chunk.id.0, chunk.domain.0])?)
}

/// Whether a blob cannot be served as its row says.
pub(crate) fn is_broken(connection: &Connection, blob: BlobId) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM broken_blobs WHERE blob = ?")?
        .exists([blob.0])?)
}

/// Blobs all of whose chunks are here, but with other frames than were hashed.
pub(crate) fn to_remake(connection: &Connection, limit: usize) -> Result<Vec<BlobId>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT blob FROM broken_blobs AS b JOIN blobs ON blobs.id = blob
         WHERE why = 2 AND NOT EXISTS (SELECT 1 FROM broken_blobs WHERE blob = b.blob AND why <> 2) LIMIT ?",
    )?;
    let rows = statement.query_map([limit as i64], |row| row.get(0).map(BlobId))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A blob has been made anew.
pub(crate) fn mend(connection: &Connection, blob: BlobId) -> Result<(), StoreError> {
    connection.execute("DELETE FROM broken_blobs WHERE blob = ?", [blob.0])?;
    Ok(())
}

/// Forgets what was said of chunks and blobs that are gone.
pub(crate) fn tidy(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch(
        "DELETE FROM broken_blobs WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE id = blob);
         DELETE FROM damage WHERE NOT EXISTS (SELECT 1 FROM chunks
                 WHERE chunks.domain = damage.domain AND chunks.id = damage.chunk AND state = 3)
             AND NOT EXISTS (SELECT 1 FROM broken_blobs WHERE broken_blobs.chunk = damage.chunk);",
    )?;
    Ok(())
}

/// A cache of each domain in which a chunk is in quarantine.
pub(crate) fn caches_lacking(
    connection: &Connection,
    chunk: ChunkId,
) -> Result<Vec<CacheId>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT min(caches.id) FROM damage JOIN caches ON caches.domain = damage.domain
         WHERE chunk = ? AND NOT deleting GROUP BY damage.domain",
    )?;
    let rows = statement.query_map([chunk.0], |row| row.get(0).map(CacheId))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// All chunks in quarantine, after one of them, in order.
pub(crate) fn all(
    connection: &Connection,
    after: Option<&(DomainId, ChunkId)>,
    limit: usize,
) -> Result<Vec<DamagedChunk>, StoreError> {
    let (domain, chunk) = after.map_or((i64::MIN, [0; 32]), |(domain, chunk)| (domain.0, chunk.0));
    let mut statement = connection.prepare_cached(
        "SELECT domain, chunk, pack, \"offset\", frame_length, raw_length, found_by, found_at FROM damage
         WHERE (domain, chunk) > (?, ?) ORDER BY domain, chunk LIMIT ?",
    )?;
    let rows = statement.query_map(params![domain, chunk, limit as i64], |row| {
        Ok(DamagedChunk {
            domain: DomainId(row.get(0)?),
            id: ChunkId(bytes32(row, 1)?),
            pack: row.get(2)?,
            offset: unsigned(row, 3)?,
            frame_length: row.get(4)?,
            raw_length: row.get(5)?,
            found_by: row.get(6)?,
            found_at: row.get(7)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
