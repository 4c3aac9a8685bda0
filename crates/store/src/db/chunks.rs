//! Chunks, packs and pins.

use super::log::{self, Event};
use super::{signed, unsigned};
use crate::StoreError;
use crate::types::DomainId;
use firn_chunks::pack::Placed;
use firn_chunks::{ChunkId, EncoderId, FrameRecord};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// A chunk that may be relied on.
pub(crate) const VALID: i64 = 1;

/// Where a chunk's frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) id: ChunkId,
    pub(crate) pack: i64,
    pub(crate) offset: u64,
    pub(crate) frame_length: u32,
    pub(crate) raw_length: u32,
    pub(crate) checksum: u64,
}

/// A pack's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackRow {
    pub(crate) id: i64,
    pub(crate) domain_name: String,
    pub(crate) name: String,
    pub(crate) durable_length: u64,
    pub(crate) sealed_length: u64,
}

impl PackRow {
    /// The pack's file.
    pub(crate) fn key(&self) -> String {
        crate::layout::pack_key(&self.domain_name, &self.name)
    }
}

/// Changes whenever a valid chunk may have ceased to be one. Who looked chunks up in a snapshot with one
/// value may rely on them in the writer's transaction while it is the same (rules 5 and 8).
pub(crate) fn condemnations(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'condemnations'")?
        .query_row([], |row| row.get(0))?)
}

/// See [`condemnations`].
pub(crate) fn condemn(connection: &Connection) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE meta SET value = value + 1 WHERE name = 'condemnations'")?
        .execute([])?;
    Ok(())
}

fn length(row: &Row<'_>, column: usize) -> rusqlite::Result<u32> {
    row.get(column)
}

/// Where a chunk lies, if it is valid.
pub(crate) fn locate_one(
    connection: &Connection,
    domain: DomainId,
    id: ChunkId,
) -> Result<Option<Located>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT pack, \"offset\", frame_length, raw_length, checksum FROM chunks
             WHERE domain = ? AND id = ? AND state = 1",
        )?
        .query_row(params![domain.0, id.0], |row| {
            Ok(Located {
                id,
                pack: row.get(0)?,
                offset: unsigned(row, 1)?,
                frame_length: length(row, 2)?,
                raw_length: length(row, 3)?,
                checksum: row.get::<_, i64>(4)? as u64,
            })
        })
        .optional()?)
}

/// Where a chunk lies, or lay before it was damaged: pack, offset and length of its frame.
pub(crate) fn place(
    connection: &Connection,
    domain: DomainId,
    id: ChunkId,
) -> Result<Option<(i64, u64, u32)>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT pack, \"offset\", frame_length FROM chunks
             WHERE domain = ? AND id = ? AND state IN (1, 3)",
        )?
        .query_row(params![domain.0, id.0], |row| {
            Ok((row.get(0)?, unsigned(row, 1)?, length(row, 2)?))
        })
        .optional()?)
}

/// Which of `ids` are valid, and where.
pub(crate) fn locate(
    connection: &Connection,
    domain: DomainId,
    mut ids: impl Iterator<Item = ChunkId>,
) -> Result<Vec<Option<Located>>, StoreError> {
    let mut located = Vec::with_capacity(ids.size_hint().0);
    ids.try_for_each(|id| {
        located.push(locate_one(connection, domain, id)?);
        Ok::<_, StoreError>(())
    })?;
    Ok(located)
}

/// Which of `ids` are valid. Looks them up in order of id, which keeps to few pages.
pub(crate) fn present(
    connection: &Connection,
    domain: DomainId,
    ids: &[ChunkId],
) -> Result<Vec<bool>, StoreError> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by_key(|index| ids[*index]);
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM chunks WHERE domain = ? AND id = ? AND state = 1")?;
    let mut found = vec![false; ids.len()];
    for index in order {
        found[index] = statement.exists(params![domain.0, ids[index].0])?;
    }
    Ok(found)
}

/// Records that a session relies on chunks (rule 5).
pub(crate) fn pin(
    connection: &Connection,
    session: i64,
    domain: DomainId,
    ids: &[u8],
) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    connection
        .prepare_cached("INSERT INTO pins (session, domain, chunks) VALUES (?, ?, ?)")?
        .execute(params![session, domain.0, ids])?;
    Ok(())
}

/// Frames that were appended to a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) pack: i64,
    pub(crate) domain: DomainId,
    pub(crate) frames: Vec<Placed>,
    /// The pack's length, synced (rule 1).
    pub(crate) durable_length: u64,
}

/// Makes the chunks of durable frames valid (rule 1: the caller has synced the pack).
pub(crate) fn insert(connection: &Connection, appended: &Appended) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (appended.frames.first(), appended.frames.last()) else {
        return Ok(());
    };
    let healing = super::damage::any(connection)?;
    for placed in &appended.frames {
        if healing {
            super::damage::heal(connection, appended.domain, placed)?;
        }
        insert_one(connection, appended.domain, appended.pack, placed)?;
    }
    let sum = |length: fn(&Placed) -> u32| -> i64 {
        appended
            .frames
            .iter()
            .map(|placed| i64::from(length(placed)))
            .sum()
    };
    connection
        .prepare_cached(
            "UPDATE packs SET durable_length = ?, chunks = chunks + ?, raw_bytes = raw_bytes + ?,
             frame_bytes = frame_bytes + ? WHERE id = ?",
        )?
        .execute(params![
            signed(appended.durable_length),
            appended.frames.len() as i64,
            sum(|placed| placed.record.raw_length),
            sum(|placed| placed.record.frame_length),
            appended.pack
        ])?;
    let event = Event::Frames {
        pack: appended.pack,
        first: signed(first.offset),
        last: signed(last.offset) + 1,
    };
    log::append(connection, &event)?;
    Ok(())
}

/// A condemned or damaged chunk that is sent again gets its new place; the old bytes are the collector's.
pub(crate) fn insert_one(
    connection: &Connection,
    domain: DomainId,
    pack: i64,
    placed: &Placed,
) -> Result<(), StoreError> {
    let record = &placed.record;
    connection
        .prepare_cached(
            "INSERT INTO chunks (domain, id, pack, \"offset\", frame_length, raw_length, encoder, flags,
                 checksum, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (domain, id) DO UPDATE SET pack = excluded.pack, \"offset\" = excluded.\"offset\",
                 frame_length = excluded.frame_length, raw_length = excluded.raw_length,
                 encoder = excluded.encoder, flags = excluded.flags, checksum = excluded.checksum,
                 state = excluded.state
             WHERE state <> 1",
        )?
        .execute(params![
            domain.0,
            record.id.0,
            pack,
            signed(placed.offset),
            record.frame_length,
            record.raw_length,
            record.encoder.0,
            record.flags,
            record.checksum as i64,
            VALID
        ])?;
    Ok(())
}

/// The frames of a pack that lie in `[first, last)`, in order.
pub(crate) fn of_pack(
    connection: &Connection,
    pack: i64,
    first: i64,
    last: i64,
) -> Result<Vec<Placed>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT \"offset\", id, raw_length, frame_length, encoder, flags, checksum FROM chunks
         WHERE pack = ? AND \"offset\" >= ? AND \"offset\" < ? ORDER BY \"offset\"",
    )?;
    let rows = statement.query_map(params![pack, first, last], placed)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A row of offset, id, lengths, encoder, flags and checksum.
pub(crate) fn placed(row: &Row<'_>) -> rusqlite::Result<Placed> {
    Ok(Placed {
        offset: unsigned(row, 0)?,
        record: FrameRecord {
            id: ChunkId(super::bytes32(row, 1)?),
            raw_length: length(row, 2)?,
            frame_length: length(row, 3)?,
            encoder: EncoderId(row.get(4)?),
            flags: row.get(5)?,
            checksum: row.get::<_, i64>(6)? as u64,
        },
    })
}

/// Makes a pack's row; its file comes after.
pub(crate) fn pack_create(
    connection: &Connection,
    domain: DomainId,
    name: &str,
) -> Result<i64, StoreError> {
    connection.execute(
        "INSERT INTO packs (domain, name) VALUES (?, ?)",
        params![domain.0, name],
    )?;
    Ok(connection.last_insert_rowid())
}

/// The pack has its trailer, synced.
pub(crate) fn pack_seal(
    connection: &Connection,
    pack: i64,
    sealed_length: u64,
) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE packs SET sealed_length = ? WHERE id = ?",
        params![signed(sealed_length), pack],
    )?;
    log::append(connection, &Event::PackSealed { pack })?;
    Ok(())
}

/// Forgets a pack that holds nothing. Foreign keys refuse if a chunk lies in it after all.
pub(crate) fn pack_forget(connection: &Connection, pack: i64) -> Result<(), StoreError> {
    connection.execute("DELETE FROM packs WHERE id = ?", [pack])?;
    Ok(())
}

const PACK_COLUMNS: &str =
    "SELECT packs.id, domains.name, packs.name, durable_length, sealed_length
    FROM packs JOIN domains ON domains.id = domain";

fn pack_row(row: &Row<'_>) -> rusqlite::Result<PackRow> {
    Ok(PackRow {
        id: row.get(0)?,
        domain_name: row.get(1)?,
        name: row.get(2)?,
        durable_length: unsigned(row, 3)?,
        sealed_length: unsigned(row, 4)?,
    })
}

/// A pack by its row.
pub(crate) fn pack(connection: &Connection, id: i64) -> Result<Option<PackRow>, StoreError> {
    Ok(connection
        .prepare_cached(&format!("{PACK_COLUMNS} WHERE packs.id = ?"))?
        .query_row([id], pack_row)
        .optional()?)
}

/// The newest packs that hold something.
pub(crate) fn packs_newest(
    connection: &Connection,
    limit: usize,
) -> Result<Vec<PackRow>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "{PACK_COLUMNS} WHERE durable_length > 0 AND state = 1 ORDER BY packs.id DESC LIMIT ?"
    ))?;
    let rows = statement.query_map([limit as i64], pack_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// All packs in which a valid chunk lies, or a damaged one, and those that are open.
pub(crate) fn packs_in_use(connection: &Connection) -> Result<Vec<PackRow>, StoreError> {
    let mut statement = connection.prepare(&format!(
        "{PACK_COLUMNS} WHERE packs.sealed_length = 0
             OR EXISTS (SELECT 1 FROM chunks WHERE pack = packs.id AND state IN (1, 3))"
    ))?;
    let rows = statement.query_map([], pack_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The row of a pack by name.
pub(crate) fn pack_by_name(connection: &Connection, name: &str) -> Result<Option<i64>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT id FROM packs WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}

/// The domain of a pack.
pub(crate) fn pack_domain(connection: &Connection, id: i64) -> Result<DomainId, StoreError> {
    Ok(connection
        .prepare_cached("SELECT domain FROM packs WHERE id = ?")?
        .query_row([id], |row| row.get(0).map(DomainId))?)
}

/// The first pack in use after one.
pub(crate) fn pack_after(
    connection: &Connection,
    after: i64,
) -> Result<Option<PackRow>, StoreError> {
    Ok(connection
        .prepare_cached(&format!(
            "{PACK_COLUMNS} WHERE packs.id > ? AND state = 1 ORDER BY packs.id LIMIT 1"
        ))?
        .query_row([after], pack_row)
        .optional()?)
}

/// Packs without a trailer.
pub(crate) fn packs_open(connection: &Connection) -> Result<Vec<PackRow>, StoreError> {
    let mut statement =
        connection.prepare(&format!("{PACK_COLUMNS} WHERE packs.sealed_length = 0"))?;
    let rows = statement.query_map([], pack_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}
