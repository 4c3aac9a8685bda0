//! Pack files and the rows that speak of them.

use super::{FindingKind, Findings};
use crate::StoreError;
use crate::db::chunks::{self, PackRow};
use crate::db::damage::{self, Place};
use crate::layout;
use crate::rebuild::read_trailer;
use crate::store::Inner;
use firn_chunks::pack::{self, Placed};
use rusqlite::OptionalExtension as _;
use std::collections::HashMap;

pub(super) fn check(inner: &Inner, found: &mut Findings) -> Result<(), StoreError> {
    let mut after = 0;
    loop {
        let next = inner
            .db
            .read(|connection| chunks::pack_after(connection, after))?;
        let Some(row) = next else { break };
        after = row.id;
        found.report.packs += 1;
        one(inner, &row, found)?;
    }
    orphans(inner, found)
}

/// Says that the packs' place is not there, and what cannot be served because of it.
pub(super) fn away(
    inner: &Inner,
    error: &StoreError,
    found: &mut Findings,
) -> Result<(), StoreError> {
    let detail = format!("{}; nothing is known to be lost", error.chain());
    let finding = found.add(FindingKind::PacksAway, layout::PACKS, detail);
    let mut after = 0;
    while let Some(row) = inner
        .db
        .read(|connection| chunks::pack_after(connection, after))?
    {
        after = row.id;
        found.report.packs += 1;
        let frames = frames_of(inner, &row, found)?;
        touched(inner, &row, &frames, |_| true, finding, found)?;
    }
    Ok(())
}

fn frames_of(
    inner: &Inner,
    row: &PackRow,
    found: &mut Findings,
) -> Result<Vec<Placed>, StoreError> {
    let frames = inner
        .db
        .read(|connection| chunks::of_pack(connection, row.id, 0, i64::MAX))?;
    found.report.chunks += frames.len() as u64;
    Ok(frames)
}

/// A row as it is now: a pack may be collected, or grow, while it is looked at.
fn again(inner: &Inner, row: &PackRow) -> Result<bool, StoreError> {
    let now = inner
        .db
        .read(|connection| chunks::pack(connection, row.id))?;
    Ok(now.as_ref() == Some(row))
}

fn one(inner: &Inner, row: &PackRow, found: &mut Findings) -> Result<(), StoreError> {
    let frames = frames_of(inner, row, found)?;
    match looked_at(inner, row, &frames, found) {
        Err(error @ (StoreError::Io { .. } | StoreError::Away(_))) if again(inner, row)? => {
            let detail = format!(
                "it cannot be read: {}; nothing is known to be lost",
                error.chain()
            );
            let finding = found.add(FindingKind::PackUnreadable, row.key(), detail);
            touched(inner, row, &frames, |_| true, finding, found)
        }
        looked_at => looked_at,
    }
}

fn looked_at(
    inner: &Inner,
    row: &PackRow,
    frames: &[Placed],
    found: &mut Findings,
) -> Result<(), StoreError> {
    let key = row.key();
    let Some(length) = inner.folder.length(&key)? else {
        let first = Place {
            pack: row.id,
            offset: 0,
        };
        let valid = inner
            .db
            .read(|connection| damage::chunks_from(connection, first, 1))?;
        // Its row comes before its file, and goes after it.
        if valid.is_empty() {
            let detail = "it has no file, and nothing that is needed lies in it";
            if row.durable_length > 0 && again(inner, row)? {
                found.add(FindingKind::Orphan, &key, detail);
            }
        } else if again(inner, row)? && inner.presence.is_lost(row)? {
            let detail = format!("its file is not here; {} chunks lay in it", frames.len());
            let finding = found.add(FindingKind::PackLost, &key, detail);
            suspect(inner, row, frames, |_| true, finding, found)?;
        }
        return Ok(());
    };
    let (said, short) = match row.sealed_length {
        0 => (row.durable_length, length < row.durable_length),
        sealed => (sealed, length != sealed),
    };
    if short && again(inner, row)? {
        let detail = format!("it has {length} bytes, and its row says {said}");
        let finding = found.add(FindingKind::PackLength, &key, detail);
        let outside = |placed: &Placed| end(placed) > length;
        return suspect(inner, row, frames, outside, finding, found);
    }
    let outside = frames
        .iter()
        .find(|placed| end(placed) > row.durable_length);
    if let Some(placed) = outside
        && again(inner, row)?
    {
        let detail = format!(
            "chunk {} ends at byte {}, and the pack at {}",
            placed.record.id,
            end(placed),
            row.durable_length
        );
        found.add(FindingKind::ChunkRow, &key, detail);
    }
    index(inner, row, frames, length, found)
}

fn end(placed: &Placed) -> u64 {
    placed.offset + u64::from(placed.record.frame_length)
}

/// Remembers chunks that are lost, and why.
fn suspect(
    inner: &Inner,
    row: &PackRow,
    frames: &[Placed],
    lost: impl Fn(&Placed) -> bool,
    finding: usize,
    found: &mut Findings,
) -> Result<(), StoreError> {
    for placed in frames.iter().filter(|placed| lost(placed)) {
        found.suspects.push(Place {
            pack: row.id,
            offset: placed.offset,
        });
    }
    touched(inner, row, frames, lost, finding, found)
}

/// Remembers chunks that cannot be read, and why.
fn touched(
    inner: &Inner,
    row: &PackRow,
    frames: &[Placed],
    touched: impl Fn(&Placed) -> bool,
    finding: usize,
    found: &mut Findings,
) -> Result<(), StoreError> {
    let domain = inner
        .db
        .read(|connection| chunks::pack_domain(connection, row.id))?;
    for placed in frames.iter().filter(|placed| touched(placed)) {
        found.chunks.insert((domain, placed.record.id), finding);
    }
    Ok(())
}

/// Header, trailer, and whether the rows say the same.
fn index(
    inner: &Inner,
    row: &PackRow,
    frames: &[Placed],
    length: u64,
    found: &mut Findings,
) -> Result<(), StoreError> {
    let key = row.key();
    let Some(file) = inner.folder.open_read(&key)? else {
        return Ok(());
    };
    let mut header = vec![0; pack::HEADER_BYTES.min(usize::try_from(length).unwrap_or(usize::MAX))];
    file.read_exact_at(&mut header, 0)?;
    if row.durable_length > 0
        && let Err(error) = pack::check_header(&header)
    {
        found.add(
            FindingKind::PackIndex,
            &key,
            format!("its header is damaged: {error}"),
        );
    }
    if row.sealed_length == 0 {
        return Ok(());
    }
    let Some((told, _)) = read_trailer(&file, length)? else {
        let detail = "its trailer is damaged; a rebuild would walk its frames";
        found.add(FindingKind::PackIndex, &key, detail);
        return Ok(());
    };
    let told: HashMap<u64, &Placed> = told.iter().map(|placed| (placed.offset, placed)).collect();
    for placed in frames {
        if told.get(&placed.offset) != Some(&placed) && again(inner, row)? {
            let detail = format!(
                "the row of chunk {} at byte {} is not what the pack's trailer says",
                placed.record.id, placed.offset
            );
            found.add(FindingKind::ChunkRow, &key, detail);
        }
    }
    Ok(())
}

/// Files that no row names. A row comes before its file, so one without is nobody's.
fn orphans(inner: &Inner, found: &mut Findings) -> Result<(), StoreError> {
    let keys = match layout::packs(&inner.folder) {
        Ok(keys) => keys,
        Err(error @ StoreError::Io { .. }) => {
            let detail = format!("it cannot be listed: {}", error.chain());
            found.add(FindingKind::PackUnreadable, layout::PACKS, detail);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for key in keys {
        let known = match layout::parse_pack_key(&key) {
            Some((_, name)) => inner.db.read(|connection| {
                let found = connection
                    .prepare_cached("SELECT 1 FROM packs WHERE name = ?")?
                    .query_row([name], |_| Ok(()))
                    .optional()?;
                Ok(found.is_some())
            })?,
            None => false,
        };
        // Listed before it was collected, perhaps.
        if !known && inner.folder.length(&key)?.is_some() {
            found.add(FindingKind::Orphan, key, "no row names this file");
        }
    }
    Ok(())
}
