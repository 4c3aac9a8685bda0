//! Segments: whether they can be read, agree with the database, and tell all of it.

use super::{FindingKind, Findings};
use crate::StoreError;
use crate::db::{bytes32, caches, chunks};
use crate::layout;
use crate::store::Inner;
use firn_chunks::segment::{self, Record};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::{HashMap, HashSet};

/// What the segments tell.
#[derive(Default)]
struct Told {
    /// Domain and list of each blob.
    blobs: HashSet<(i64, [u8; 32])>,
    /// Sequences of entries.
    entries: HashSet<i64>,
}

pub(super) fn check(inner: &Inner, found: &mut Findings) -> Result<(), StoreError> {
    let mut told = Told::default();
    let mut unread = false;
    // What the log still has now may be told by no segment that is listed.
    let before = inner.db.snapshot(told_before)?;
    let keys = match inner.folder.list(layout::SEGMENTS) {
        Ok(keys) => keys,
        Err(error @ StoreError::Io { .. }) => {
            let detail = format!("it cannot be listed: {}", error.chain());
            found.add(FindingKind::Segment, layout::SEGMENTS, detail);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for key in keys {
        if !key.ends_with(".seg") {
            // One that is being written has another name for a moment.
            if !key.ends_with(".tmp") {
                found.add(FindingKind::Orphan, key, "this file is no segment");
            }
            continue;
        }
        let bytes = match inner.folder.read(&key) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error @ StoreError::Io { .. }) => {
                unread = true;
                found.report.segments += 1;
                let detail = format!("it cannot be read: {}", error.chain());
                found.add(FindingKind::Segment, key, detail);
                continue;
            }
            Err(error) => return Err(error),
        };
        found.report.segments += 1;
        match segment::decode(&bytes) {
            Ok(segment) => {
                let faults = inner
                    .db
                    .snapshot(|connection| agree(connection, segment.records, &mut told))?;
                for fault in faults {
                    found.add(FindingKind::Segment, &key, fault);
                }
            }
            Err(error) => {
                unread = true;
                found.add(
                    FindingKind::Segment,
                    key,
                    format!("it cannot be read: {error}"),
                );
            }
        }
    }
    untold(inner, &told, before, unread, found)
}

/// Blobs and entries before these have been told of, since the log has them no more.
fn told_before(connection: &Connection) -> Result<(i64, i64), StoreError> {
    let statement = "SELECT
        coalesce((SELECT min(subject) FROM log WHERE what = 5), (SELECT max(id) + 1 FROM blobs), 0),
        coalesce((SELECT min(position) FROM log), (SELECT max(sequence) + 1 FROM entries), 0)";
    Ok(connection.query_row(statement, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// What a segment says otherwise than the database.
fn agree(
    connection: &Connection,
    records: Vec<Record>,
    told: &mut Told,
) -> Result<Vec<String>, StoreError> {
    let mut domains: HashMap<String, Option<i64>> = HashMap::new();
    let mut faults = Vec::new();
    for record in records {
        match record {
            Record::Pack { pack, frames, .. } => {
                let Some(id) = chunks::pack_by_name(connection, &pack)? else {
                    continue;
                };
                for placed in frames {
                    let at = placed.offset as i64;
                    let row = chunks::of_pack(connection, id, at, at + 1)?;
                    // A chunk that lies elsewhere by now is told of by a later segment.
                    if row.first().is_some_and(|row| *row != placed) {
                        faults.push(format!("chunk {} has another row", placed.record.id));
                    }
                }
            }
            Record::Blob(blob) => {
                let domain = *domains
                    .entry(blob.domain.clone())
                    .or_insert(caches::domain_id(connection, &blob.domain)?);
                let Some(domain) = domain else { continue };
                let list = blob.list.id();
                told.blobs.insert((domain, list.0));
                let identity: Option<[u8; 32]> = connection
                    .prepare_cached(
                        "SELECT identity_sha256 FROM blobs WHERE domain = ? AND list_id = ?",
                    )?
                    .query_row(params![domain, list.0], |row| row.get(0))
                    .optional()?;
                if identity.is_some_and(|identity| identity != blob.identity_sha256) {
                    faults.push("a blob has another digest in its row".to_owned());
                }
            }
            Record::Entry {
                sequence,
                key,
                value,
                ..
            } => {
                let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
                told.entries.insert(sequence);
                let row: Option<(String, Vec<u8>)> = connection
                    .prepare_cached("SELECT key, value FROM entries WHERE sequence = ?")?
                    .query_row([sequence], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                if row.is_some_and(|row| row != (key.clone(), value)) {
                    faults.push(format!("entry {key} has another row"));
                }
            }
            Record::Cache { .. } => {}
        }
    }
    Ok(faults)
}

/// Blobs and entries that no segment tells of.
fn untold(
    inner: &Inner,
    told: &Told,
    (first_blob, first_entry): (i64, i64),
    unread: bool,
    found: &mut Findings,
) -> Result<(), StoreError> {
    let (blobs, entries) = inner.db.snapshot(|connection| {
        let mut statement = connection.prepare("SELECT domain, list_id FROM blobs WHERE id < ?")?;
        let mut rows = statement.query([first_blob])?;
        let mut blobs = 0u64;
        while let Some(row) = rows.next()? {
            blobs += u64::from(!told.blobs.contains(&(row.get(0)?, bytes32(row, 1)?)));
        }
        let mut statement =
            connection.prepare("SELECT sequence FROM entries WHERE sequence < ?")?;
        let mut rows = statement.query([first_entry])?;
        let mut entries = 0u64;
        while let Some(row) = rows.next()? {
            entries += u64::from(!told.entries.contains(&row.get(0)?));
        }
        Ok((blobs, entries))
    })?;
    // A damaged segment is a finding already, and this its consequence.
    if blobs + entries > 0 && !unread {
        let detail = format!(
            "{blobs} blobs and {entries} entries are told of by no segment: a rebuild would not find them"
        );
        found.add(FindingKind::Untold, layout::SEGMENTS, detail);
    }
    Ok(())
}
