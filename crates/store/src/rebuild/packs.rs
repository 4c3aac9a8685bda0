//! What lies in the packs: against what segments tell of them.

use super::pack_row;
use crate::db::{self, caches, chunks};
use crate::files::{Folder, ReadFile};
use crate::types::{DomainId, RebuildReport};
use crate::{StoreError, layout, presence};
use firn_chunks::pack::{self, Placed};
use firn_chunks::{Decoder, EncoderId, FrameRecord, frame};
use rusqlite::{Connection, params};
use std::collections::HashMap;

/// A trailer's length is told by at most this many bytes at the end.
const TAIL_BYTES: u64 = pack::END_BYTES as u64;

/// Forgets chunks that do not lie in a pack that is here.
const FORGET_UNHELD: &str =
    "DELETE FROM chunks WHERE NOT EXISTS (SELECT 1 FROM pack_files WHERE pack_files.pack = chunks.pack
        AND \"offset\" + frame_length <= length);";

/// A pack that is here.
struct Held {
    key: String,
    domain: DomainId,
    row: i64,
}

/// Looks at every pack file: forgets frames that are not in it, adds those that no segment told of.
pub(super) fn read_packs(
    folder: &Folder,
    connection: &Connection,
    report: &mut RebuildReport,
) -> Result<(), StoreError> {
    let held = held(folder, connection)?;
    // First of all what lies in no pack is forgotten: a chunk may have been copied to another one, of which no
    // segment has told yet.
    connection.execute_batch(FORGET_UNHELD)?;
    let mut wrong = 0;
    for pack in &held {
        let Some(found) = open_and_read(folder, pack, report)? else {
            continue;
        };
        report.packs += 1;
        connection.execute(
            "UPDATE pack_files SET length = ? WHERE pack = ?",
            params![db::signed(found.durable_length), pack.row],
        )?;
        wrong += forget_untrue(folder, connection, pack, &found)?;
        add(connection, pack, &found)?;
        connection.execute(
            "UPDATE packs SET durable_length = ?, sealed_length = ? WHERE id = ?",
            params![
                db::signed(found.durable_length),
                db::signed(found.sealed_length),
                pack.row
            ],
        )?;
    }
    if wrong > 0 {
        tracing::warn!(frames = wrong, "segments told of frames where others lie");
        // A chunk whose place was told wrongly may lie in a pack that was looked at before.
        for pack in &held {
            if let Some(found) = open_and_read(folder, pack, &mut RebuildReport::default())? {
                add(connection, pack, &found)?;
            }
        }
    }
    connection.execute_batch(FORGET_UNHELD)?;
    connection.execute_batch(
        "DELETE FROM packs WHERE id NOT IN (SELECT pack FROM pack_files);
         UPDATE packs SET (chunks, raw_bytes, frame_bytes) = (SELECT count(*),
             coalesce(sum(raw_length), 0), coalesce(sum(frame_length), 0) FROM chunks WHERE pack = packs.id);",
    )?;
    report.chunks = connection.query_row("SELECT count(*) FROM chunks", [], |row| {
        db::unsigned(row, 0)
    })?;
    Ok(())
}

/// The packs that are here, each with a row. Refused if there is none, though segments name some, and no mark says that
/// their place is there: all would be forgotten.
fn held(folder: &Folder, connection: &Connection) -> Result<Vec<Held>, StoreError> {
    connection.execute_batch(
        "CREATE TEMP TABLE pack_files (pack INTEGER PRIMARY KEY, length INTEGER NOT NULL) STRICT;",
    )?;
    let keys = layout::packs(folder)?;
    let named = connection.prepare("SELECT 1 FROM packs")?.exists([])?;
    if keys.is_empty() && named && presence::foreign_mark(folder)?.is_none() {
        return Err(StoreError::Away(folder.path(layout::PACKS)));
    }
    let mut held = Vec::new();
    for key in keys {
        let Some((domain, name)) = layout::parse_pack_key(&key) else {
            tracing::warn!(file = %key, "not a pack");
            continue;
        };
        let Some(file) = folder.open_read(&key)? else {
            continue;
        };
        let domain = caches::domain(connection, &domain)?;
        let row = pack_row(connection, domain, &name)?;
        connection.execute(
            "INSERT INTO pack_files VALUES (?, ?)",
            params![row, db::signed(file.length()?)],
        )?;
        held.push(Held { key, domain, row });
    }
    Ok(held)
}

fn open_and_read(
    folder: &Folder,
    pack: &Held,
    report: &mut RebuildReport,
) -> Result<Option<FoundPack>, StoreError> {
    match folder.open_read(&pack.key)? {
        Some(file) => read_pack(&file, &pack.key, report).map(Some),
        None => Ok(None),
    }
}

fn add(connection: &Connection, pack: &Held, found: &FoundPack) -> Result<(), StoreError> {
    found
        .frames
        .iter()
        .try_for_each(|placed| chunks::insert_one(connection, pack.domain, pack.row, placed))
}

/// Forgets what segments told of a pack and its own word does not confirm, unless the bytes do: a segment may have been
/// written before a power cut took what it names, and recovery gave the place to others. Says how many.
fn forget_untrue(
    folder: &Folder,
    connection: &Connection,
    pack: &Held,
    found: &FoundPack,
) -> Result<u64, StoreError> {
    let told: HashMap<u64, &Placed> = found
        .frames
        .iter()
        .map(|placed| (placed.offset, placed))
        .collect();
    let mut forgotten = 0;
    for row in chunks::of_pack(connection, pack.row, 0, i64::MAX)? {
        let confirmed = told.get(&row.offset).is_some_and(|placed| {
            (placed.record.id, placed.record.frame_length)
                == (row.record.id, row.record.frame_length)
        });
        if !confirmed && !has_its_bytes(folder, pack, &row)? {
            connection
                .prepare_cached("DELETE FROM chunks WHERE domain = ? AND id = ?")?
                .execute(params![pack.domain.0, row.record.id.0])?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

fn has_its_bytes(folder: &Folder, pack: &Held, placed: &Placed) -> Result<bool, StoreError> {
    let Some(file) = folder.open_read(&pack.key)? else {
        return Ok(false);
    };
    let mut bytes = vec![0; placed.record.frame_length as usize];
    match file.read_exact_at(&mut bytes, placed.offset) {
        Ok(()) => Ok(frame::checksum(&bytes) == placed.record.checksum),
        Err(StoreError::Damaged(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

struct FoundPack {
    frames: Vec<Placed>,
    /// Where the last whole frame ends.
    durable_length: u64,
    sealed_length: u64,
}

fn read_pack(
    file: &ReadFile,
    key: &str,
    report: &mut RebuildReport,
) -> Result<FoundPack, StoreError> {
    let length = file.length()?;
    if let Some((frames, trailer)) = read_trailer(file, length)? {
        return Ok(FoundPack {
            frames,
            durable_length: length - trailer,
            sealed_length: length,
        });
    }
    tracing::info!(pack = %key, "walking a pack that was never sealed");
    report.packs_walked += 1;
    walk(file, length)
}

/// The frames of a sealed pack, and its trailer's length; `None` without a whole trailer.
pub(crate) fn read_trailer(
    file: &ReadFile,
    length: u64,
) -> Result<Option<(Vec<Placed>, u64)>, StoreError> {
    let tail_length = TAIL_BYTES.min(length);
    let mut tail = vec![0; tail_length as usize];
    file.read_exact_at(&mut tail, length - tail_length)?;
    let Ok(trailer) = pack::trailer_length(&tail) else {
        return Ok(None);
    };
    if trailer > length {
        return Ok(None);
    }
    let mut bytes = vec![0; trailer as usize];
    file.read_exact_at(&mut bytes, length - trailer)?;
    Ok(pack::read_trailer(&bytes)
        .ok()
        .map(|frames| (frames, trailer)))
}

/// Reads frame after frame, up to the first that is not whole.
fn walk(file: &ReadFile, length: u64) -> Result<FoundPack, StoreError> {
    let mut decoder = Decoder::new();
    let mut raw = Vec::new();
    let mut frames = Vec::new();
    let mut offset = 0;
    let mut window = Vec::new();
    while offset < length {
        // No frame is longer; skippable frames in a pack are small.
        let take = (length - offset).min(frame::FRAME_BYTES_MAX as u64);
        window.resize(take as usize, 0);
        file.read_exact_at(&mut window, offset)?;
        let Ok(frame_length) = pack::frame_length(&window) else {
            break;
        };
        let Some(bytes) = window.get(..frame_length as usize) else {
            break;
        };
        if decoder.decode(bytes, &mut raw).is_ok() {
            frames.push(Placed {
                offset,
                record: FrameRecord {
                    id: firn_chunks::ChunkId::of(&raw),
                    raw_length: raw.len() as u32,
                    frame_length: bytes.len() as u32,
                    encoder: EncoderId::FOREIGN,
                    flags: 0,
                    checksum: frame::checksum(bytes),
                },
            });
        } else if !is_skippable(bytes) {
            break;
        }
        offset += frame_length;
    }
    Ok(FoundPack {
        frames,
        durable_length: offset,
        sealed_length: 0,
    })
}

/// The magic numbers 0x184D2A50 to 0x184D2A5F (RFC 8878, 3.1.2).
fn is_skippable(bytes: &[u8]) -> bool {
    matches!(bytes, [low, 0x2A, 0x4D, 0x18, ..] if low & 0xF0 == 0x50)
}
