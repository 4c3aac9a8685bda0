//! Blobs: their lists, and whether the chunks are here and add up.

use super::{FindingKind, Findings};
use crate::StoreError;
use crate::db::{bytes32, damage, unsigned};
use crate::store::Inner;
use crate::types::{BlobId, DomainId};
use firn_chunks::{ChunkId, ChunkList, ListId};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Blobs looked at in one snapshot.
const BATCH: i64 = 64;

struct Row {
    id: BlobId,
    domain: DomainId,
    list_id: ListId,
    identity_length: u64,
    zstd_length: u64,
    list: Option<Vec<u8>>,
}

pub(super) fn check(inner: &Inner, found: &mut Findings) -> Result<(), StoreError> {
    let mut after = 0;
    loop {
        let count = inner.db.snapshot(|connection| {
            let rows = rows(connection, after)?;
            for row in &rows {
                one(connection, row, found)?;
            }
            after = rows.last().map_or(after, |row| row.id.0);
            Ok(rows.len())
        })?;
        found.report.blobs += count as u64;
        if count == 0 {
            return Ok(());
        }
    }
}

fn rows(connection: &Connection, after: i64) -> Result<Vec<Row>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, domain, list_id, identity_length, zstd_length, list
         FROM blobs LEFT JOIN blob_lists ON blob = id WHERE id > ? ORDER BY id LIMIT ?",
    )?;
    let rows = statement.query_map(params![after, BATCH], |row| {
        Ok(Row {
            id: BlobId(row.get(0)?),
            domain: DomainId(row.get(1)?),
            list_id: ListId(bytes32(row, 2)?),
            identity_length: unsigned(row, 3)?,
            zstd_length: unsigned(row, 4)?,
            list: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn one(connection: &Connection, row: &Row, found: &mut Findings) -> Result<(), StoreError> {
    let fault = |found: &mut Findings, detail: String| {
        let finding = found.add(FindingKind::Blob, format!("blob {}", row.id.0), detail);
        found.blobs.entry(row.id.0).or_default().push(finding);
    };
    let list = match row.list.as_deref().map(ChunkList::decode) {
        None => {
            fault(found, "its list is not here".to_owned());
            return Ok(());
        }
        Some(Err(error)) => {
            fault(found, format!("its list does not decode: {error}"));
            return Ok(());
        }
        Some(Ok(list)) => list,
    };
    if list.id() != row.list_id {
        fault(found, "its list is another than its id says".to_owned());
    }
    let (mut raw, mut stored, mut whole) = (0, 0, true);
    for chunk in &list.chunks {
        let state = state(connection, row.domain, chunk.id)?;
        if let Some(finding) = found.chunks.get(&(row.domain, chunk.id)).copied() {
            let findings = found.blobs.entry(row.id.0).or_default();
            if !findings.contains(&finding) {
                findings.push(finding);
            }
            whole = false;
            continue;
        }
        let wrong = match state {
            None => Some("is not here"),
            Some((state, _, _)) if state != 1 => Some("is not valid"),
            Some((_, length, _)) if length != chunk.raw_length => {
                Some("has another length than listed")
            }
            Some((_, raw_length, frame_length)) => {
                raw += u64::from(raw_length);
                stored += u64::from(frame_length);
                None
            }
        };
        if let Some(wrong) = wrong {
            // The first that is wrong is enough to know.
            if std::mem::take(&mut whole) {
                fault(found, format!("chunk {} {wrong}", chunk.id));
            }
        }
    }
    if whole && (raw, stored) != (row.identity_length, row.zstd_length) {
        fault(
            found,
            format!(
                "its chunks have {raw} bytes in frames of {stored}, and its row says {} and {}",
                row.identity_length, row.zstd_length
            ),
        );
    } else if whole && damage::is_broken(connection, row.id)? {
        fault(found, "it waits for its digest to be made anew".to_owned());
    }
    Ok(())
}

/// State, raw length and frame length of a chunk.
fn state(
    connection: &Connection,
    domain: DomainId,
    id: ChunkId,
) -> Result<Option<(i64, u32, u32)>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT state, raw_length, frame_length FROM chunks WHERE domain = ? AND id = ?",
        )?
        .query_row(params![domain.0, id.0], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?)
}
