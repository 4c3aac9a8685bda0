//! Blobs: lists of chunks, hashed and complete.

use super::log::{self, Event};
use super::{bytes32, millis, now_ms, signed, unsigned};
use crate::StoreError;
use crate::types::{BlobId, BlobInfo, DomainId, Representation};
use firn_chunks::{ChunkList, ListId};
use firn_formats::Sha256;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::time::Duration;

macro_rules! columns {
    () => {
        "SELECT id, domain, list_id, chunks, identity_sha256, identity_length, zstd_sha256, zstd_length,
            gzip_sha256, gzip_length, nar FROM blobs "
    };
}

fn info(row: &Row<'_>) -> rusqlite::Result<BlobInfo> {
    let gzip: Option<[u8; 32]> = row.get(8)?;
    Ok(BlobInfo {
        id: BlobId(row.get(0)?),
        domain: DomainId(row.get(1)?),
        list_id: ListId(bytes32(row, 2)?),
        chunks: row.get(3)?,
        identity_sha256: Sha256(bytes32(row, 4)?),
        identity_length: unsigned(row, 5)?,
        zstd_sha256: Sha256(bytes32(row, 6)?),
        zstd_length: unsigned(row, 7)?,
        gzip: match gzip {
            Some(digest) => Some((Sha256(digest), unsigned(row, 9)?)),
            None => None,
        },
        nar: row.get(10)?,
    })
}

pub(crate) fn by_id(connection: &Connection, id: BlobId) -> Result<Option<BlobInfo>, StoreError> {
    Ok(connection
        .prepare_cached(concat!(columns!(), "WHERE id = ?"))?
        .query_row([id.0], info)
        .optional()?)
}

pub(crate) fn by_list(
    connection: &Connection,
    domain: DomainId,
    list: ListId,
) -> Result<Option<BlobInfo>, StoreError> {
    Ok(connection
        .prepare_cached(concat!(columns!(), "WHERE domain = ? AND list_id = ?"))?
        .query_row(params![domain.0, list.0], info)
        .optional()?)
}

pub(crate) fn by_digest(
    connection: &Connection,
    domain: DomainId,
    digest: &Sha256,
) -> Result<Option<(BlobInfo, Representation)>, StoreError> {
    for (statement, representation) in [
        (
            concat!(columns!(), "WHERE zstd_sha256 = ? AND domain = ? LIMIT 1"),
            Representation::Zstd,
        ),
        (
            concat!(
                columns!(),
                "WHERE identity_sha256 = ? AND domain = ? LIMIT 1"
            ),
            Representation::Identity,
        ),
        (
            concat!(columns!(), "WHERE gzip_sha256 = ? AND domain = ? LIMIT 1"),
            Representation::Gzip,
        ),
    ] {
        let found = connection
            .prepare_cached(statement)?
            .query_row(params![digest.0, domain.0], info)
            .optional()?;
        if let Some(info) = found {
            return Ok(Some((info, representation)));
        }
    }
    Ok(None)
}

/// A blob's list in its stored form.
pub(crate) fn encoded_list(connection: &Connection, id: BlobId) -> Result<Vec<u8>, StoreError> {
    connection
        .prepare_cached("SELECT list FROM blob_lists WHERE blob = ?")?
        .query_row([id.0], |row| row.get(0))
        .optional()?
        .ok_or_else(|| StoreError::Damaged(format!("blob {} is not here", id.0)))
}

/// A blob's list.
pub(crate) fn list(connection: &Connection, id: BlobId) -> Result<ChunkList, StoreError> {
    ChunkList::decode(&encoded_list(connection, id)?)
        .map_err(|error| StoreError::Damaged(format!("list of blob {}: {error}", id.0)))
}

/// A blob that was hashed from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewBlob {
    pub(crate) domain: DomainId,
    pub(crate) list_id: ListId,
    pub(crate) chunks: u32,
    pub(crate) list: Vec<u8>,
    pub(crate) identity_sha256: Sha256,
    pub(crate) identity_length: u64,
    pub(crate) zstd_sha256: Sha256,
    pub(crate) zstd_length: u64,
}

/// Adds a blob under a lease, or renews the lease of the one that is there (rule 5).
pub(crate) fn put(
    connection: &Connection,
    new: &NewBlob,
    lease: Duration,
) -> Result<BlobInfo, StoreError> {
    if let Some(existing) = by_list(connection, new.domain, new.list_id)? {
        renew(connection, existing.id, lease)?;
        return Ok(existing);
    }
    connection
        .prepare_cached(concat!(
            "INSERT INTO blobs (domain, list_id, chunks, identity_sha256, identity_length, zstd_sha256,
                 zstd_length, lease_until_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ",
            now_ms!(),
            " + ?)"
        ))?
        .execute(params![
            new.domain.0,
            new.list_id.0,
            new.chunks,
            new.identity_sha256.0,
            signed(new.identity_length),
            new.zstd_sha256.0,
            signed(new.zstd_length),
            millis(lease)
        ])?;
    let id = BlobId(connection.last_insert_rowid());
    connection
        .prepare_cached("INSERT INTO blob_lists (blob, list) VALUES (?, ?)")?
        .execute(params![id.0, new.list])?;
    log::append(connection, &Event::Blob(id))?;
    Ok(BlobInfo {
        id,
        domain: new.domain,
        list_id: new.list_id,
        chunks: new.chunks,
        identity_sha256: new.identity_sha256,
        identity_length: new.identity_length,
        zstd_sha256: new.zstd_sha256,
        zstd_length: new.zstd_length,
        gzip: None,
        nar: false,
    })
}

/// Puts the end of a blob's lease off; false if the blob is gone.
pub(crate) fn renew(
    connection: &Connection,
    id: BlobId,
    lease: Duration,
) -> Result<bool, StoreError> {
    let changed = connection
        .prepare_cached(concat!(
            "UPDATE blobs SET lease_until_ms = max(lease_until_ms, ",
            now_ms!(),
            " + ?) WHERE id = ?"
        ))?
        .execute(params![millis(lease), id.0])?;
    Ok(changed == 1)
}

/// Whether a blob's lease lasts longer than `rest`.
pub(crate) fn lease_exceeds(
    connection: &Connection,
    id: BlobId,
    rest: Duration,
) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached(concat!(
            "SELECT 1 FROM blobs WHERE id = ? AND lease_until_ms > ",
            now_ms!(),
            " + ?"
        ))?
        .exists(params![id.0, millis(rest)])?)
}

/// Remembers the gzip representation.
pub(crate) fn set_gzip(
    connection: &Connection,
    id: BlobId,
    digest: Sha256,
    length: u64,
) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE blobs SET gzip_sha256 = ?, gzip_length = ? WHERE id = ?",
        params![digest.0, signed(length), id.0],
    )?;
    Ok(())
}

/// Remembers that blobs were parsed and are NARs. An id is never used twice, so it is of what was parsed or of nothing.
pub(crate) fn set_nar(connection: &Connection, ids: &[BlobId]) -> Result<(), StoreError> {
    let mut update = connection.prepare_cached("UPDATE blobs SET nar = 1 WHERE id = ?")?;
    for id in ids {
        update.execute([id.0])?;
    }
    Ok(())
}

/// Puts the digest of another sequence of frames in the place of the old one.
pub(crate) fn set_zstd(
    connection: &Connection,
    id: BlobId,
    digest: Sha256,
    length: u64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE blobs SET zstd_sha256 = ?, zstd_length = ? WHERE id = ?")?
        .execute(params![digest.0, signed(length), id.0])?;
    Ok(())
}

/// Count and raw bytes of all blobs.
pub(crate) fn totals(connection: &Connection) -> Result<(u64, u64), StoreError> {
    Ok(connection.query_row(
        "SELECT count(*), coalesce(sum(identity_length), 0) FROM blobs",
        [],
        |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)),
    )?)
}

/// Looks all of a new blob's chunks up again.
pub(crate) fn check_complete(connection: &Connection, new: &NewBlob) -> Result<(), StoreError> {
    let list = ChunkList::decode(&new.list)
        .map_err(|error| StoreError::Damaged(format!("a new list: {error}")))?;
    let ids: Vec<_> = list.chunks.iter().map(|chunk| chunk.id).collect();
    let present = super::chunks::present(connection, new.domain, &ids)?;
    let missing: Vec<_> = ids
        .into_iter()
        .zip(present)
        .filter_map(|(id, present)| (!present).then_some(id))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(StoreError::MissingChunks(missing))
    }
}
