//! From a NAR's name to bytes that can be served whole.

use super::NixCache;
use super::upload::split_nar_name;
use super::wrap::{WrappedNar, wrapped_length};
use crate::{ServiceError, access::Cache};
use firn_formats::{
    nix::Compression,
    pull::{FRAMES_MAX, NarLayout, StoredFrame},
};
use firn_store::{BlobInfo, BlobReader, EntryKind, Representation};

/// How a NAR is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NarForm {
    /// As it lies; ranges can be had.
    Stored(Representation),
    /// In another format, made as it is sent, without compressing. Its length may be unknown.
    Wrapped(Compression, Option<u64>),
}

/// A NAR found.
pub struct NarSource {
    /// Its blob.
    pub blob: BlobInfo,
    /// How it is served under the name asked for.
    pub form: NarForm,
}

impl NarSource {
    /// Bytes of the answer, if known.
    pub fn length(&self) -> Option<u64> {
        match self.form {
            NarForm::Stored(Representation::Identity) => Some(self.blob.identity_length),
            NarForm::Stored(Representation::Zstd) => Some(self.blob.zstd_length),
            NarForm::Stored(Representation::Gzip) => self.blob.gzip.map(|(_, size)| size),
            NarForm::Wrapped(_, length) => length,
        }
    }
}

impl NixCache {
    /// The blob of a NAR's entry.
    pub(super) fn nar_blob(
        &self,
        cache: &Cache,
        kind: EntryKind,
        key: &str,
    ) -> Result<Option<BlobInfo>, ServiceError> {
        let Some(entry) = self.store.entry(cache.row.id, kind, key)? else {
            return Ok(None);
        };
        match entry.blobs.first() {
            Some(id) => Ok(self.store.blob(*id)?),
            None => Ok(None),
        }
    }

    /// The blob of the name under which `nix copy` uploaded a NAR, and the compression it had
    /// then, which the name alone does not tell.
    pub(super) fn nar_alias(
        &self,
        cache: &Cache,
        name: &str,
    ) -> Result<Option<(BlobInfo, Compression)>, ServiceError> {
        let Some(entry) = self.store.entry(cache.row.id, EntryKind::NarAlias, name)? else {
            return Ok(None);
        };
        let compression = std::str::from_utf8(&entry.value)
            .ok()
            .and_then(Compression::from_name)
            .ok_or_else(|| ServiceError::StoredEntry(format!("the name of the NAR {name}")))?;
        let Some(id) = entry.blobs.first() else {
            return Ok(None);
        };
        Ok(self.store.blob(*id)?.map(|blob| (blob, compression)))
    }

    /// Finds the NAR called `name` (what follows `nar/`) in a cache.
    ///
    /// # Errors
    /// If the store fails.
    pub fn nar(&self, cache: &Cache, name: &str) -> Result<Option<NarSource>, ServiceError> {
        let Some((hash, compression)) = split_nar_name(name) else {
            return Ok(None);
        };
        let (blob, compression) = match self.nar_blob(cache, EntryKind::NarFile, &hash.base32())? {
            Some(blob) => {
                self.uses.nar(cache.row.id, hash);
                (blob, compression)
            }
            None => match self.nar_alias(cache, name)? {
                Some(found) => {
                    self.uses.entry(cache.row.id, EntryKind::NarAlias, name);
                    found
                }
                None => return Ok(None),
            },
        };
        let form = match compression {
            Compression::None => NarForm::Stored(Representation::Identity),
            Compression::Zstd => NarForm::Stored(Representation::Zstd),
            Compression::Lz4 => return Ok(None),
            other => NarForm::Wrapped(other, wrapped_length(other, blob.identity_length)),
        };
        Ok(Some(NarSource { blob, form }))
    }

    /// How the NAR of a store path is stored, for a client that fetches frames by ranges of its zstd representation.
    ///
    /// # Errors
    /// If the path is not here or its NAR has too many frames for a layout, or if the store fails.
    pub fn layout(&self, cache: &Cache, hash: &str) -> Result<Vec<u8>, ServiceError> {
        let not_found = || ServiceError::NotFound(format!("store path {hash}"));
        let blob = self
            .nar_blob(cache, EntryKind::Narinfo, hash)?
            .ok_or_else(not_found)?;
        let list = self.store.chunk_list(blob.id)?;
        if list.chunks.len() > FRAMES_MAX {
            return Err(ServiceError::NotFound(format!(
                "a layout of the NAR of {hash}, which has {} frames",
                list.chunks.len()
            )));
        }
        let lengths = self.store.frame_lengths(blob.id)?;
        let frames = list.chunks.iter().zip(lengths);
        let layout = NarLayout {
            zstd_sha256: blob.zstd_sha256,
            frames: frames
                .map(|(chunk, frame_length)| StoredFrame {
                    id: chunk.id.0,
                    raw_length: chunk.raw_length,
                    frame_length,
                })
                .collect(),
        };
        Ok(layout.encode())
    }

    /// Opens a NAR as it lies, `range` being (first byte, length). When this returns, all of it
    /// can be read.
    ///
    /// # Errors
    /// If bytes are missing, or the store fails.
    pub fn read_nar(
        &self,
        blob: &BlobInfo,
        representation: Representation,
        range: Option<(u64, u64)>,
    ) -> Result<BlobReader, ServiceError> {
        Ok(self.store.read(blob.id, representation, range)?)
    }

    /// Opens a NAR to be served in another format.
    ///
    /// # Errors
    /// If bytes are missing, or the store fails.
    pub fn wrap_nar(
        &self,
        blob: &BlobInfo,
        compression: Compression,
    ) -> Result<WrappedNar, ServiceError> {
        let reader = self.store.read(blob.id, Representation::Identity, None)?;
        WrappedNar::new(reader, compression)
    }

    /// Whether a NAR is here, to be said to its pusher: its leases are renewed (rule 5).
    ///
    /// # Errors
    /// If the store fails.
    pub fn renew_nar(&self, cache: &Cache, name: &str) -> Result<bool, ServiceError> {
        let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
        let alias = self
            .store
            .renew(cache.row.id, EntryKind::NarAlias, &[name])?;
        // The name in an entry of this kind is in base 32, whatever it is called by.
        let hash = split_nar_name(name).map_or(stem.to_owned(), |(hash, _)| hash.base32());
        let file = self
            .store
            .renew(cache.row.id, EntryKind::NarFile, &[&hash])?;
        Ok(alias.contains(&true) || file.contains(&true))
    }
}
