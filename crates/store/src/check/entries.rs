//! Entries: what they say, what they name, and what breaks with their blobs.

use super::{Explain, FindingKind, Findings};
use crate::StoreError;
use crate::db::{blobs, caches, entries, unsigned};
use crate::store::Inner;
use crate::types::{BlobId, CacheId, CacheRow, Entry, EntryKind};
use bytes::Bytes;
use rusqlite::{Connection, params};
use std::collections::HashMap;

/// Entries looked at in one snapshot.
const BATCH: i64 = 256;

/// What an entry means to those who know its protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meaning {
    /// As people know it, such as `narinfo /nix/store/…`; none for what stands behind something that has a name.
    pub name: Option<String>,
    /// What is wrong with its value.
    pub faults: Vec<String>,
    /// Entries of the same cache that must be there (rule 4), each with its name.
    pub requires: Vec<(EntryKind, String, String)>,
    /// It is as whole as this entry of the same cache.
    pub follows: Option<(EntryKind, String)>,
}

type Key = (CacheId, EntryKind, String);

/// What is seen of all entries.
#[derive(Default)]
struct Seen {
    /// Entries whose blobs are broken.
    broken: HashMap<Key, Vec<usize>>,
    /// Entries that are as whole as others, and their names.
    followers: Vec<(Key, String)>,
}

pub(super) fn check(
    inner: &Inner,
    explain: Explain<'_>,
    found: &mut Findings,
) -> Result<(), StoreError> {
    let caches: HashMap<i64, CacheRow> = inner
        .db
        .read(caches::all)?
        .into_iter()
        .map(|cache| (cache.id.0, cache))
        .collect();
    let mut seen = Seen::default();
    let mut after = 0;
    loop {
        let count = inner.db.snapshot(|connection| {
            let rows = rows(connection, after)?;
            for (cache, entry) in &rows {
                // One of a cache made just now is looked at the next time.
                if let Some(cache) = caches.get(cache) {
                    one(connection, cache, entry, explain, &mut seen, found)?;
                }
            }
            after = rows.last().map_or(after, |(_, entry)| entry.sequence);
            Ok(rows.len())
        })?;
        found.report.entries += count as u64;
        if count == 0 {
            break;
        }
    }
    for (key, name) in &seen.followers {
        for finding in seen.broken.get(key).into_iter().flatten() {
            found.breaks(*finding, name);
        }
    }
    Ok(())
}

/// Entries of kinds that this program knows, and of others, which mean nothing to it, the blobs.
fn rows(connection: &Connection, after: u64) -> Result<Vec<(i64, Entry)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, cache, kind, key, value, created_at FROM entries
         WHERE sequence > ? ORDER BY sequence LIMIT ?",
    )?;
    let rows = statement.query_map(params![crate::db::signed(after), BATCH], |row| {
        let kind = EntryKind::from_number(row.get(2)?);
        Ok((
            row.get(1)?,
            kind,
            Entry {
                sequence: unsigned(row, 0)?,
                kind: kind.unwrap_or(EntryKind::Log),
                key: row.get(3)?,
                value: Bytes::from(row.get::<_, Vec<u8>>(4)?),
                blobs: Vec::new(),
                created_at: row.get(5)?,
            },
        ))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (cache, kind, mut entry) = row?;
        if kind.is_some() {
            entry.blobs = entries::blobs_of(connection, crate::db::signed(entry.sequence))?;
        }
        found.push((cache, entry));
    }
    Ok(found)
}

fn one(
    connection: &Connection,
    cache: &CacheRow,
    entry: &Entry,
    explain: Explain<'_>,
    seen: &mut Seen,
    found: &mut Findings,
) -> Result<(), StoreError> {
    let mut infos = Vec::with_capacity(entry.blobs.len());
    let mut broken: Vec<usize> = Vec::new();
    for BlobId(id) in &entry.blobs {
        infos.extend(blobs::by_id(connection, BlobId(*id))?);
        for finding in found.blobs.get(id).into_iter().flatten() {
            if !broken.contains(finding) {
                broken.push(*finding);
            }
        }
    }
    let meaning = explain(cache, entry, &infos);
    let subject = match &meaning.name {
        Some(name) => name.clone(),
        None => format!("{:?} {} in {}", entry.kind, entry.key, cache.name),
    };
    for fault in &meaning.faults {
        let finding = found.add(FindingKind::Entry, &subject, fault);
        found.breaks(finding, &subject);
    }
    for (kind, key, name) in &meaning.requires {
        if !entries::exists(connection, cache.id, *kind, key)? {
            found.add(
                FindingKind::Reference,
                &subject,
                format!("{name} is not here"),
            );
        }
    }
    if let Some(name) = &meaning.name {
        broken
            .iter()
            .for_each(|finding| found.breaks(*finding, name));
        if let Some((kind, key)) = meaning.follows {
            seen.followers.push(((cache.id, kind, key), name.clone()));
        }
    }
    if !broken.is_empty() {
        let key = (cache.id, entry.kind, entry.key.clone());
        seen.broken.insert(key, broken);
    }
    Ok(())
}
