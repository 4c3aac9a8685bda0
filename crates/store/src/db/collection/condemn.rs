//! Condemning chunks, and moving them from pack to pack.

use super::mark::ValidChunk;
use crate::StoreError;
use crate::db::chunks::VALID;
use crate::db::log::{self, Event};
use crate::db::{now_ms, signed};
use crate::types::DomainId;
use firn_chunks::pack::Placed;
use rusqlite::{Connection, params};
use std::collections::HashMap;

/// The state of a chunk that may not be relied on.
const CONDEMNED: i64 = 2;

/// Chunks of a pack that ceased to be valid in it.
#[derive(Debug, Clone, Copy, Default)]
struct Gone {
    chunks: i64,
    raw_bytes: i64,
    frame_bytes: i64,
}

impl Gone {
    fn add(&mut self, raw_length: u32, frame_length: u32) {
        self.chunks += 1;
        self.raw_bytes += i64::from(raw_length);
        self.frame_bytes += i64::from(frame_length);
    }
}

/// Condemns chunks, in the transaction that has found that nothing needs them (rule 6). Who looked them up
/// before learns of it by `condemnations`. Gives their number and the length of their frames.
pub(crate) fn condemn(
    connection: &Connection,
    chunks: &[ValidChunk],
) -> Result<(u64, u64), StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE chunks SET state = ? WHERE domain = ? AND id = ? AND state = ? AND pack = ?",
    )?;
    let mut gone: HashMap<i64, Gone> = HashMap::new();
    let (mut count, mut bytes) = (0, 0);
    for chunk in chunks {
        let values = params![CONDEMNED, chunk.domain.0, chunk.id.0, VALID, chunk.pack];
        if statement.execute(values)? == 1 {
            let pack = gone.entry(chunk.pack).or_default();
            pack.add(chunk.raw_length, chunk.frame_length);
            count += 1;
            bytes += u64::from(chunk.frame_length);
        }
    }
    for (pack, gone) in gone {
        take_off(connection, pack, gone)?;
    }
    if count > 0 {
        connection
            .prepare_cached("UPDATE meta SET value = value + 1 WHERE name = 'condemnations'")?
            .execute([])?;
    }
    Ok((count, bytes))
}

fn take_off(connection: &Connection, pack: i64, gone: Gone) -> Result<(), StoreError> {
    connection
        .prepare_cached(concat!(
            "UPDATE packs SET chunks = chunks - ?, raw_bytes = raw_bytes - ?, frame_bytes = frame_bytes - ?,
                 condemned_at_ms = ",
            now_ms!(),
            " WHERE id = ?"
        ))?
        .execute(params![
            gone.chunks,
            gone.raw_bytes,
            gone.frame_bytes,
            pack
        ])?;
    Ok(())
}

/// Frames that were copied, as they are, from one pack to another, where they are durable.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) domain: DomainId,
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Where each lay, and where it lies now.
    pub(crate) frames: Vec<(u64, Placed)>,
    /// The length of `to`, synced (rule 1).
    pub(crate) durable_length: u64,
}

/// Gives chunks their new places. They are as valid as before and their frames the same, so whoever looked them
/// up needs not look again. Gives how many were moved.
pub(crate) fn relocate(connection: &Connection, moved: &Moved) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE chunks SET pack = ?1, \"offset\" = ?2
         WHERE domain = ?3 AND id = ?4 AND state = ?5 AND pack = ?6 AND \"offset\" = ?7",
    )?;
    let mut gone = Gone::default();
    for (offset, placed) in &moved.frames {
        let record = &placed.record;
        let changed = statement.execute(params![
            moved.to,
            signed(placed.offset),
            moved.domain.0,
            record.id.0,
            VALID,
            moved.from,
            signed(*offset)
        ])?;
        if changed == 1 {
            gone.add(record.raw_length, record.frame_length);
        }
    }
    take_off(connection, moved.from, gone)?;
    connection
        .prepare_cached(
            "UPDATE packs SET durable_length = ?, chunks = chunks + ?, raw_bytes = raw_bytes + ?,
             frame_bytes = frame_bytes + ? WHERE id = ?",
        )?
        .execute(params![
            signed(moved.durable_length),
            gone.chunks,
            gone.raw_bytes,
            gone.frame_bytes,
            moved.to
        ])?;
    if let (Some((_, first)), Some((_, last))) = (moved.frames.first(), moved.frames.last()) {
        let event = Event::Frames {
            pack: moved.to,
            first: signed(first.offset),
            last: signed(last.offset) + 1,
        };
        log::append(connection, &event)?;
    }
    Ok(u64::try_from(gone.chunks).unwrap_or(0))
}
