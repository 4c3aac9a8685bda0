//! A blob whose chunks have other frames than before: its row, and the entries that said something of them.

use super::blobs::{self, NewBlob};
use super::damage;
use super::log::{self, Event};
use crate::StoreError;
use crate::types::{BlobId, BlobInfo, CacheId, Change, Entry, EntryKind, Remake};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};

/// An entry, and what only its row knows.
struct Row {
    cache: CacheId,
    cache_name: String,
    entry: Entry,
    lease_until_ms: Option<i64>,
    used_at_ms: Option<i64>,
}

/// Gives a blob the digest of the frames that are held, and changes what its entries say (rule 4). The caller has
/// made sure that these frames were hashed.
pub(crate) fn remake(
    connection: &Connection,
    id: BlobId,
    hashed: &NewBlob,
    change: Remake,
) -> Result<BlobInfo, StoreError> {
    let gone = || StoreError::Damaged(format!("blob {} is not here", id.0));
    let before = blobs::by_id(connection, id)?.ok_or_else(gone)?;
    let identity = (before.identity_sha256, before.identity_length);
    if identity != (hashed.identity_sha256, hashed.identity_length) {
        return Err(StoreError::Damaged(format!(
            "the chunks of blob {} are not those it was made of",
            id.0
        )));
    }
    connection.execute(
        "UPDATE blobs SET zstd_sha256 = ?, zstd_length = ? WHERE id = ?",
        params![
            hashed.zstd_sha256.0,
            super::signed(hashed.zstd_length),
            id.0
        ],
    )?;
    let after = blobs::by_id(connection, id)?.ok_or_else(gone)?;
    log::append(connection, &Event::Blob(id))?;
    damage::mend(connection, id)?;
    for row in naming(connection, id)? {
        apply(connection, &row, id, change(&row.entry, &before, &after))?;
    }
    Ok(after)
}

/// The entries that name a blob, in all caches.
fn naming(connection: &Connection, blob: BlobId) -> Result<Vec<Row>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT DISTINCT sequence, cache, caches.name, kind, key, value, created_at, lease_until_ms,
             (SELECT at_ms FROM uses WHERE uses.entry = sequence)
         FROM entry_blobs JOIN entries ON entry = sequence JOIN caches ON caches.id = cache WHERE blob = ?",
    )?;
    let rows = statement.query_map([blob.0], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, u16>(3)?,
            row.get::<_, String>(4)?,
            row.get::<_, Vec<u8>>(5)?,
            row.get::<_, i64>(6)?,
            row.get::<_, Option<i64>>(7)?,
            row.get::<_, Option<i64>>(8)?,
        ))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (sequence, cache, cache_name, kind, key, value, created_at, lease_until_ms, used_at_ms) =
            row?;
        // Of a kind that a newer program knows, nothing can be said.
        let Some(kind) = EntryKind::from_number(kind) else {
            continue;
        };
        found.push(Row {
            cache: CacheId(cache),
            cache_name,
            entry: Entry {
                sequence: u64::try_from(sequence).unwrap_or(0),
                kind,
                key,
                value: Bytes::from(value),
                blobs: super::entries::blobs_of(connection, sequence)?,
                created_at,
            },
            lease_until_ms,
            used_at_ms,
        });
    }
    Ok(found)
}

fn apply(
    connection: &Connection,
    row: &Row,
    blob: BlobId,
    change: Change,
) -> Result<(), StoreError> {
    match change {
        Change::Keep => Ok(()),
        Change::Remove => {
            let entry = &row.entry;
            super::entries::remove(
                connection,
                &row.cache_name,
                row.cache,
                entry.kind,
                &entry.key,
                true,
            )
        }
        Change::Value(value) => {
            let entry = &row.entry;
            super::entries::remove(
                connection,
                &row.cache_name,
                row.cache,
                entry.kind,
                &entry.key,
                false,
            )?;
            insert(
                connection,
                row,
                (entry.kind, &entry.key, &value),
                &entry.blobs,
            )
        }
        Change::Beside(kind, key, value) => {
            let taken: Option<i64> = connection
                .prepare_cached(
                    "SELECT sequence FROM entries WHERE cache = ? AND kind = ? AND key = ?",
                )?
                .query_row(params![row.cache.0, kind as u16, key], |row| row.get(0))
                .optional()?;
            match taken {
                Some(_) => Ok(()),
                None => insert(connection, row, (kind, &key, &value), &[blob]),
            }
        }
    }
}

/// A new entry that is as old, and has as long a lease, as another.
fn insert(
    connection: &Connection,
    like: &Row,
    (kind, key, value): (EntryKind, &str, &[u8]),
    blobs: &[BlobId],
) -> Result<(), StoreError> {
    let sequence = log::append(connection, &Event::Entry)?;
    connection
        .prepare_cached(
            "INSERT INTO entries (sequence, cache, kind, key, value, created_at, lease_until_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            sequence,
            like.cache.0,
            kind as u16,
            key,
            value,
            like.entry.created_at,
            like.lease_until_ms
        ])?;
    if let Some(used_at_ms) = like.used_at_ms {
        connection
            .prepare_cached("INSERT INTO uses (entry, at_ms) VALUES (?, ?)")?
            .execute([sequence, used_at_ms])?;
    }
    for (position, blob) in blobs.iter().enumerate() {
        connection
            .prepare_cached("INSERT INTO entry_blobs (entry, position, blob) VALUES (?, ?, ?)")?
            .execute(params![sequence, position as i64, blob.0])?;
    }
    Ok(())
}
