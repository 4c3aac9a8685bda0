//! Blob uploads under way, each a stream into the store that goes on after a restart of the server.
//!
//! The store keeps what is durable of each (`firn_store::Upload`). This process keeps those that it works on
//! in memory, with their hashes so far; one that is not there is found in the store and goes on where it is
//! durable. A client is never told of a byte that is not durable.

use super::{Registry, RegistryError, Repository, blob_entry};
use crate::{ServiceError, sync::lock};
use firn_chunks::Format;
use firn_formats::oci::{Digest, ErrorCode};
use firn_store::{BlobInfo, EntryKind, Representation, StoreError, Upload, UploadLimits};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// An upload nobody touches for `idle` ends; of more than `open_max` in a cache the one idle for longest
/// gives way, if that is longer than `fresh`.
const LIMITS: UploadLimits = UploadLimits {
    idle: Duration::from_secs(24 * 3600),
    fresh: Duration::from_secs(600),
    open_max: 1000,
};
/// An upload nobody touches for this long is left to the store.
const LIVE_FOR: Duration = Duration::from_secs(120);
/// Uploads kept in memory, each with some 300 KiB.
const LIVE_MAX: usize = 64;
/// Largest blob taken in, in bytes.
const BLOB_BYTES_MAX: u64 = 256 << 30;
const BUFFER_BYTES: usize = 128 << 10;

/// An upload that this process works on.
pub(super) struct Live {
    repository: Repository,
    /// Absent when it failed or is finished.
    upload: Mutex<Option<Upload>>,
    /// As the store has it; read without waiting for a body that is coming in.
    durable: AtomicU64,
    touched: Mutex<Instant>,
}

/// How far an upload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadStatus {
    /// Its id.
    pub id: String,
    /// Bytes taken in.
    pub offset: u64,
}

fn owner(repository: &Repository) -> &str {
    &repository.name
}

fn unknown() -> RegistryError {
    RegistryError::new(ErrorCode::BlobUploadUnknown)
}

impl Live {
    fn new(repository: &Repository, upload: Upload) -> Arc<Self> {
        Arc::new(Self {
            repository: repository.clone(),
            durable: AtomicU64::new(upload.durable()),
            upload: Mutex::new(Some(upload)),
            touched: Mutex::new(Instant::now()),
        })
    }

    fn is_of(&self, repository: &Repository) -> bool {
        self.repository.cache.row.id == repository.cache.row.id
            && self.repository.name == repository.name
    }

    /// Appends a body. One that breaks off leaves what came; where the store failed, the stream is no longer
    /// whole, and the upload goes on where it is durable.
    fn append(
        &self,
        slot: &mut Option<Upload>,
        start: Option<u64>,
        body: &mut dyn Read,
    ) -> Result<(), RegistryError> {
        let upload = slot.as_mut().ok_or_else(unknown)?;
        if start.is_some_and(|start| start != upload.offset()) {
            return Err(RegistryError::with(
                ErrorCode::RangeInvalid,
                format!("the upload goes on at byte {}", upload.offset()),
            ));
        }
        let taken = take_in(body, |bytes| {
            *lock(&self.touched) = Instant::now();
            if upload.offset() + bytes.len() as u64 > BLOB_BYTES_MAX {
                return Err(too_large());
            }
            Ok(upload.write(bytes)?)
        });
        match taken {
            Ok(()) => Ok(()),
            Err(error @ ServiceError::Interrupted(_)) => {
                self.checkpoint(slot)?;
                Err(error.into())
            }
            Err(error) => {
                *slot = None;
                Err(error.into())
            }
        }
    }

    /// Makes what came durable, so that its sender may be told.
    fn checkpoint(&self, slot: &mut Option<Upload>) -> Result<u64, RegistryError> {
        let upload = slot.as_mut().ok_or_else(unknown)?;
        let saved = upload.checkpoint();
        let durable = upload.durable();
        self.durable.store(durable, Ordering::Relaxed);
        if let Err(error) = saved {
            *slot = None;
            return Err(error.into());
        }
        Ok(durable)
    }
}

/// What a store says of bytes that were promised to have a digest.
fn unlike(error: StoreError, digest: &Digest) -> RegistryError {
    match error {
        StoreError::WrongDigest { .. } => {
            RegistryError::with(ErrorCode::DigestInvalid, format!("{error}, not {digest}"))
        }
        error => ServiceError::from(error).into(),
    }
}

fn too_large() -> ServiceError {
    ServiceError::TooLarge {
        what: "the blob",
        limit: BLOB_BYTES_MAX,
    }
}

/// Reads a body to its end.
fn take_in(
    body: &mut dyn Read,
    mut take: impl FnMut(&[u8]) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ServiceError::Interrupted(error)),
        }
    }
}

impl Registry {
    /// Begins an upload.
    ///
    /// # Errors
    /// If too many are open in the cache, or the store fails.
    pub fn upload_begin(&self, repository: &Repository) -> Result<UploadStatus, RegistryError> {
        let cache = &repository.cache.row;
        let upload = self.store.upload_begin(cache, owner(repository), LIMITS)?;
        let id = upload.id().to_owned();
        self.keep(Live::new(repository, upload), &id);
        Ok(UploadStatus { id, offset: 0 })
    }

    /// Keeps an upload in memory, unless another thread was first. If there are too many, the one that waits for longest is left to the store.
    fn keep(&self, live: Arc<Live>, id: &str) -> Arc<Live> {
        let mut let_go = None;
        let mut uploads = lock(&self.uploads);
        if uploads.len() >= LIVE_MAX {
            let idle = uploads
                .iter()
                .filter(|(_, live)| Arc::strong_count(live) == 1);
            let oldest = idle.min_by_key(|(_, live)| *lock(&live.touched));
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                let_go = uploads.remove(&id);
            }
        }
        let kept = uploads.entry(id.to_owned()).or_insert(live).clone();
        drop(uploads);
        drop(let_go);
        kept
    }

    /// An upload, here or in the store.
    fn live(&self, repository: &Repository, id: &str) -> Result<Arc<Live>, RegistryError> {
        let here = lock(&self.uploads).get(id).cloned();
        let live = match here {
            Some(live) => live,
            None => {
                let upload = self.store.upload_resume(id, LIMITS)?;
                let cache = repository.cache.row.id;
                if upload.cache() != cache || upload.owner() != owner(repository) {
                    return Err(unknown());
                }
                self.keep(Live::new(repository, upload), id)
            }
        };
        if !live.is_of(repository) {
            return Err(unknown());
        }
        *lock(&live.touched) = Instant::now();
        Ok(live)
    }

    /// How far an upload is.
    ///
    /// # Errors
    /// If there is no such upload.
    pub fn upload_status(
        &self,
        repository: &Repository,
        id: &str,
    ) -> Result<UploadStatus, RegistryError> {
        let live = self.live(repository, id)?;
        Ok(UploadStatus {
            id: id.to_owned(),
            offset: live.durable.load(Ordering::Relaxed),
        })
    }

    /// Appends a body, durably. `start` is where the client says it begins. A body that breaks off
    /// leaves what came: the client may ask how far it is and go on.
    ///
    /// # Errors
    /// If it begins elsewhere, breaks off, or the store fails.
    pub fn upload_append(
        &self,
        repository: &Repository,
        id: &str,
        start: Option<u64>,
        body: &mut dyn Read,
    ) -> Result<UploadStatus, RegistryError> {
        let live = self.live(repository, id)?;
        let mut slot = lock(&live.upload);
        let appended = live
            .append(&mut slot, start, body)
            .and_then(|()| live.checkpoint(&mut slot));
        if slot.is_none() {
            lock(&self.uploads).remove(id);
        }
        Ok(UploadStatus {
            id: id.to_owned(),
            offset: appended?,
        })
    }

    /// Appends the last body and ends the upload: its bytes must have the digest, else nothing of it is kept.
    ///
    /// # Errors
    /// As [`Registry::upload_append`]; if the bytes have another digest.
    pub fn upload_finish(
        &self,
        repository: &Repository,
        id: &str,
        start: Option<u64>,
        body: &mut dyn Read,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        let live = self.live(repository, id)?;
        let mut slot = lock(&live.upload);
        let appended = live.append(&mut slot, start, body);
        if appended.is_err() && slot.is_some() {
            return appended;
        }
        lock(&self.uploads).remove(id);
        appended?;
        let upload = slot.take().ok_or_else(unknown)?;
        let published = upload
            .finish_as(digest.as_sha256())
            .map_err(|error| unlike(error, digest))
            .and_then(|blob| self.publish_blob(repository, &blob, digest));
        match &published {
            // What the store could not do now it may do when the client tries again.
            Err(error) if error.http_status() >= 500 => {}
            _ => self.store.session_close(id)?,
        }
        published
    }

    /// Makes a blob readable by its digest, if that is its digest.
    fn publish_blob(
        &self,
        repository: &Repository,
        blob: &BlobInfo,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        if !self.has_digest(repository, blob, digest)? {
            let wrong = StoreError::WrongDigest {
                length: blob.identity_length,
                found: blob.identity_sha256,
            };
            return Err(unlike(wrong, digest));
        }
        let cache = &repository.cache;
        self.retention
            .admit(cache, blob.zstd_length, blob.zstd_length)?;
        let entry = blob_entry(
            &digest.to_string(),
            Representation::Identity,
            blob.id,
            Some(self.store.lease()),
        );
        self.publish(&repository.cache, vec![entry], Vec::new())
    }

    /// Whether a blob's bytes have a digest. SHA-256 is known of every blob; for another algorithm the bytes
    /// are read, once: the entry remembers that they have it.
    fn has_digest(
        &self,
        repository: &Repository,
        blob: &BlobInfo,
        digest: &Digest,
    ) -> Result<bool, ServiceError> {
        if let Some(sha256) = digest.as_sha256() {
            return Ok(sha256 == blob.identity_sha256);
        }
        let cache = repository.cache.row.id;
        let known = self
            .store
            .entry(cache, EntryKind::RegistryBlob, &digest.to_string())?;
        if known.is_some_and(|entry| entry.blobs.first() == Some(&blob.id)) {
            return Ok(true);
        }
        let mut hasher = digest.hasher();
        let mut reader = self.store.read(blob.id, Representation::Identity, None)?;
        while let Some(block) = reader.next_block()? {
            hasher.update(&block);
        }
        Ok(hasher.finish() == *digest)
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// If there is no such upload.
    pub fn upload_cancel(&self, repository: &Repository, id: &str) -> Result<(), RegistryError> {
        self.live(repository, id)?;
        lock(&self.uploads).remove(id);
        self.store.session_close(id)?;
        Ok(())
    }

    /// Leaves uploads that wait to the store, which ends those that wait for too long.
    pub(super) fn sweep_uploads(&self) {
        let dropped: Vec<Arc<Live>> = {
            let mut uploads = lock(&self.uploads);
            let idle: Vec<String> = uploads
                .iter()
                .filter(|(_, live)| {
                    Arc::strong_count(live) == 1 && lock(&live.touched).elapsed() > LIVE_FOR
                })
                .map(|(id, _)| id.clone())
                .collect();
            idle.iter().filter_map(|id| uploads.remove(id)).collect()
        };
        drop(dropped);
    }

    /// A blob in one go: nothing of it outlives the request but the blob.
    ///
    /// # Errors
    /// As [`Registry::upload_begin`] and [`Registry::upload_finish`].
    pub fn upload_whole(
        &self,
        repository: &Repository,
        digest: &Digest,
        body: &mut dyn Read,
    ) -> Result<(), RegistryError> {
        let shared = self.sessions.get(&repository.cache)?;
        let mut ingest = self.store.ingest(shared.session(), Format::Opaque);
        let mut length = 0;
        take_in(body, |bytes| {
            shared.keep_alive()?;
            length += bytes.len() as u64;
            if length > BLOB_BYTES_MAX {
                return Err(too_large());
            }
            Ok(ingest.write(bytes)?)
        })?;
        let blob = ingest
            .finish_as(digest.as_sha256())
            .map_err(|error| unlike(error, digest))?;
        self.publish_blob(repository, &blob, digest)
    }
}
