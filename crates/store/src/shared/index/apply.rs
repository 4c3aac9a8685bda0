//! Putting a segment's records into the tables. Whatever the order of segments, and however often one is put
//! in, the same rows come of it.

use super::Signer;
use crate::{StoreError, shared::SHARED_DOMAIN};
use firn_chunks::{
    pack::Placed,
    segment::{BlobRecord, Record, Segment},
};
use rusqlite::{Connection, params};

/// A segment that was read and believed.
#[derive(Debug)]
pub(in crate::shared) struct Taken {
    pub(in crate::shared) name: String,
    pub(in crate::shared) bytes: Vec<u8>,
    pub(in crate::shared) segment: Segment,
    pub(in crate::shared) signer: Signer,
}

/// Whether the index can hold what a segment says.
pub(in crate::shared) fn is_sound(segment: &Segment) -> bool {
    segment.records.iter().all(|record| match record {
        Record::Pack { sealed_length, .. } => i64::try_from(*sealed_length).is_ok(),
        Record::Blob(blob) => i64::try_from(blob.zstd_length).is_ok(),
        Record::Entry { sequence, .. } => i64::try_from(*sequence).is_ok(),
        Record::Cache { .. } => true,
    })
}

/// Puts the records in.
pub(super) fn records(connection: &Connection, records: &[Record]) -> Result<(), StoreError> {
    let mut all_frames = Vec::new();
    for record in records {
        match record {
            Record::Pack {
                domain,
                pack,
                sealed_length,
                frames,
            } if domain == SHARED_DOMAIN => {
                let pack = put_pack(connection, pack, *sealed_length)?;
                all_frames.extend(frames.iter().map(|placed| (pack, placed)));
            }
            Record::Blob(blob) if blob.domain == SHARED_DOMAIN => put_blob(connection, blob)?,
            Record::Entry { .. } => put_entry(connection, record)?,
            // Of a server's store.
            Record::Pack { .. } | Record::Blob(_) | Record::Cache { .. } => {}
        }
    }
    // In the order of the table each page is visited once.
    all_frames.sort_unstable_by_key(|(pack, placed)| (placed.record.id, *pack, placed.offset));
    put_frames(connection, &all_frames)
}

fn put_pack(connection: &Connection, name: &str, length: u64) -> Result<i64, StoreError> {
    Ok(connection
        .prepare_cached(
            "INSERT INTO packs (name, length) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET length = max(length, excluded.length) RETURNING id",
        )?
        .query_row(params![name, length as i64], |row| row.get(0))?)
}

fn put_frames(connection: &Connection, frames: &[(i64, &Placed)]) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO frames
         (chunk, pack, \"offset\", raw_length, frame_length, encoder, flags, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for (pack, placed) in frames {
        let record = &placed.record;
        insert.execute(params![
            record.id.0,
            pack,
            placed.offset as i64,
            record.raw_length,
            record.frame_length,
            record.encoder.0,
            record.flags,
            record.checksum as i64,
        ])?;
    }
    Ok(())
}

/// Of two records of one list the one wins whose digest is known, then the lesser, so that order has no say.
fn put_blob(connection: &Connection, blob: &BlobRecord) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO blobs (id, flags, identity, zstd, zstd_length, list)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO UPDATE SET flags = excluded.flags, identity = excluded.identity,
                 zstd = excluded.zstd, zstd_length = excluded.zstd_length
             WHERE (excluded.flags, excluded.identity, excluded.zstd, excluded.zstd_length)
                 < (flags, identity, zstd, zstd_length)",
        )?
        .execute(params![
            blob.list.id().0,
            blob.flags,
            blob.identity_sha256,
            blob.zstd_sha256,
            blob.zstd_length as i64,
            blob.list.encode(),
        ])?;
    Ok(())
}

/// The newest wins. Two writers may have the same microsecond: then what compares as greater wins.
fn put_entry(connection: &Connection, record: &Record) -> Result<(), StoreError> {
    let Record::Entry {
        cache,
        kind,
        key,
        value,
        blobs,
        sequence,
        at,
        deleted,
    } = record
    else {
        return Ok(());
    };
    connection
        .prepare_cached(
            "INSERT INTO entries (cache, kind, key, sequence, deleted, at, value, blobs)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (cache, kind, key) DO UPDATE SET sequence = excluded.sequence,
                 deleted = excluded.deleted, at = excluded.at, value = excluded.value,
                 blobs = excluded.blobs
             WHERE (excluded.sequence, excluded.deleted, excluded.at, excluded.value, excluded.blobs)
                 > (sequence, deleted, at, value, blobs)",
        )?
        .execute(params![
            cache,
            kind,
            key,
            *sequence as i64,
            deleted,
            at,
            value,
            blobs.as_flattened(),
        ])?;
    Ok(())
}

/// Forgets all that segments told.
pub(super) fn clear(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch(
        "DELETE FROM frames; DELETE FROM packs; DELETE FROM blobs; DELETE FROM entries;",
    )?;
    Ok(())
}
