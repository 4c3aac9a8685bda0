//! Packs in which little or nothing is valid any more.

use crate::StoreError;
use crate::db::chunks::VALID;
use crate::db::{now_ms, unsigned};
use crate::types::DomainId;
use firn_chunks::pack::Placed;
use rusqlite::{Connection, OptionalExtension as _, params};

/// A pack, with what is valid in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackUse {
    pub(crate) id: i64,
    pub(crate) domain: DomainId,
    pub(crate) domain_name: String,
    pub(crate) name: String,
    pub(crate) durable_length: u64,
    /// 0: it has no trailer yet.
    pub(crate) sealed_length: u64,
    pub(crate) chunks: u64,
    pub(crate) frame_bytes: u64,
    /// Its file is deleted, or about to be.
    pub(crate) deleting: bool,
    /// Milliseconds since a chunk in it was last condemned or moved away, if any was.
    pub(crate) condemned_for: Option<i64>,
}

impl PackUse {
    /// The pack's file.
    pub(crate) fn key(&self) -> String {
        crate::layout::pack_key(&self.domain_name, &self.name)
    }

    /// Bytes on the disk.
    pub(crate) fn length(&self) -> u64 {
        self.durable_length.max(self.sealed_length)
    }
}

/// All packs, the oldest first.
pub(crate) fn all(connection: &Connection) -> Result<Vec<PackUse>, StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT packs.id, domain, domains.name, packs.name, durable_length, sealed_length, chunks, frame_bytes,
             state, ",
        now_ms!(),
        " - condemned_at_ms FROM packs JOIN domains ON domains.id = domain ORDER BY packs.id"
    ))?;
    let rows = statement.query_map([], |row| {
        Ok(PackUse {
            id: row.get(0)?,
            domain: DomainId(row.get(1)?),
            domain_name: row.get(2)?,
            name: row.get(3)?,
            durable_length: unsigned(row, 4)?,
            sealed_length: unsigned(row, 5)?,
            chunks: unsigned(row, 6)?,
            frame_bytes: unsigned(row, 7)?,
            deleting: row.get::<_, i64>(8)? != 1,
            condemned_for: row.get(9)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The grace of a pack that holds nothing, and from which nothing was ever taken away, begins now.
pub(crate) fn note_empty(connection: &Connection, pack: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(concat!(
            "UPDATE packs SET condemned_at_ms = ",
            now_ms!(),
            " WHERE id = ? AND condemned_at_ms IS NULL"
        ))?
        .execute([pack])?;
    Ok(())
}

/// Whether a chunk is valid in a pack, by its rows. In a sealed pack in which none is, one may become so again only
/// out of quarantine, until the pack is being deleted: a chunk that is sent again lies elsewhere.
pub(crate) fn holds_valid(connection: &Connection, pack: i64) -> Result<bool, StoreError> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT 1 FROM chunks WHERE pack = ? AND state = ? LIMIT 1")?
        .query_row(params![pack, VALID], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

/// Says that a pack's file is about to be deleted; false if something in it is valid again, or needed.
pub(crate) fn mark_deleting(connection: &Connection, pack: i64) -> Result<bool, StoreError> {
    let marked = connection
        .prepare_cached(
            "UPDATE packs SET state = 2 WHERE id = ?1 AND sealed_length > 0 AND (state = 2 OR chunks = 0
                 AND NOT EXISTS (SELECT 1 FROM chunks WHERE pack = ?1 AND chunks.state = ?2))",
        )?
        .execute(params![pack, VALID])?;
    Ok(marked > 0)
}

/// Whether a pack's file is deleted or about to be, or its row is gone too.
pub(crate) fn is_deleted(connection: &Connection, pack: i64) -> Result<bool, StoreError> {
    let state: Option<i64> = connection
        .prepare_cached("SELECT state FROM packs WHERE id = ?")?
        .query_row([pack], |row| row.get(0))
        .optional()?;
    Ok(state != Some(1))
}

/// Deletes at most `limit` rows of chunks of a pack whose file is gone, and, after the last, its own. True if it
/// is done.
pub(crate) fn delete_rows(
    connection: &Connection,
    pack: i64,
    limit: usize,
) -> Result<bool, StoreError> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM chunks WHERE (domain, id) IN (SELECT domain, id FROM chunks WHERE pack = ?1 LIMIT ?2)
                 AND pack = ?1 AND state <> ?3",
        )?
        .execute(params![pack, limit as i64, VALID])?;
    if deleted == limit {
        return Ok(false);
    }
    connection
        .prepare_cached("DELETE FROM packs WHERE id = ? AND state = 2")?
        .execute([pack])?;
    Ok(true)
}

/// The next frames of a pack that are valid, from `first` on, in order.
pub(crate) fn valid_frames(
    connection: &Connection,
    pack: i64,
    first: u64,
    limit: usize,
) -> Result<Vec<Placed>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT \"offset\", id, raw_length, frame_length, encoder, flags, checksum FROM chunks
         WHERE pack = ? AND \"offset\" >= ? AND state = ? ORDER BY \"offset\" LIMIT ?",
    )?;
    let values = params![pack, crate::db::signed(first), VALID, limit as i64];
    let rows = statement.query_map(values, crate::db::chunks::placed)?;
    Ok(rows.collect::<Result<_, _>>()?)
}
