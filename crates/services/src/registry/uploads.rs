//! Blob uploads under way, each a stream into the store. They live in memory: after a restart
//! the client begins again, and what it sent before is deduplicated.

use super::{BLOB_WITHOUT_MANIFEST, Registry, RegistryError, Repository, blob_entry};
use crate::sessions::SharedSession;
use crate::{ServiceError, sync::lock};
use firn_chunks::Format;
use firn_formats::oci::{Digest, ErrorCode};
use firn_store::{BlobInfo, Ingest, Representation};
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// An upload nobody touches for this long is dropped.
const IDLE_MAX: Duration = Duration::from_secs(1800);
/// Largest blob taken in, in bytes.
const BLOB_BYTES_MAX: u64 = 256 << 30;
const BUFFER_BYTES: usize = 128 << 10;

/// An upload under way.
pub(super) struct Upload {
    repository: Repository,
    state: Mutex<State>,
    touched: Mutex<Instant>,
}

struct State {
    /// Absent when the upload failed or is finished.
    ingest: Option<Ingest>,
    shared: Arc<SharedSession>,
    offset: u64,
}

/// How far an upload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadStatus {
    /// Its id.
    pub id: String,
    /// Bytes taken in.
    pub offset: u64,
}

impl Registry {
    /// Begins an upload.
    ///
    /// # Errors
    /// If the store fails.
    pub fn upload_begin(&self, repository: &Repository) -> Result<UploadStatus, RegistryError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(ServiceError::Random)?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let shared = self.sessions.get(&repository.cache)?;
        let upload = Upload {
            repository: repository.clone(),
            state: Mutex::new(State {
                ingest: Some(self.store.ingest(shared.session(), Format::Opaque)),
                shared,
                offset: 0,
            }),
            touched: Mutex::new(Instant::now()),
        };
        lock(&self.uploads).insert(id.clone(), Arc::new(upload));
        Ok(UploadStatus { id, offset: 0 })
    }

    fn upload(&self, repository: &Repository, id: &str) -> Result<Arc<Upload>, RegistryError> {
        let found = lock(&self.uploads).get(id).cloned();
        let upload = found
            .filter(|upload| {
                upload.repository.cache.row.id == repository.cache.row.id
                    && upload.repository.name == repository.name
            })
            .ok_or_else(|| RegistryError::new(ErrorCode::BlobUploadUnknown))?;
        *lock(&upload.touched) = Instant::now();
        Ok(upload)
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
        let upload = self.upload(repository, id)?;
        let offset = lock(&upload.state).offset;
        Ok(UploadStatus {
            id: id.to_owned(),
            offset,
        })
    }

    /// Appends a body. `start` is where the client says it begins. A body that breaks off
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
        let upload = self.upload(repository, id)?;
        let mut state = lock(&upload.state);
        if start.is_some_and(|start| start != state.offset) {
            return Err(RegistryError::with(
                ErrorCode::RangeInvalid,
                format!("the upload goes on at byte {}", state.offset),
            ));
        }
        let outcome = append(&mut state, body, &upload.touched);
        if let Err(error) = outcome {
            // Where the store failed the stream is no longer whole; a client's fault is no harm.
            if !matches!(error, ServiceError::Interrupted(_)) {
                state.ingest = None;
                lock(&self.uploads).remove(id);
            }
            return Err(error.into());
        }
        Ok(UploadStatus {
            id: id.to_owned(),
            offset: state.offset,
        })
    }

    /// Ends an upload: its bytes must have the digest, else nothing of it is kept.
    ///
    /// # Errors
    /// If they have not, there is no such upload, or the store fails.
    pub fn upload_finish(
        &self,
        repository: &Repository,
        id: &str,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        let upload = self.upload(repository, id)?;
        lock(&self.uploads).remove(id);
        let mut state = lock(&upload.state);
        let ingest = state
            .ingest
            .take()
            .ok_or_else(|| RegistryError::new(ErrorCode::BlobUploadUnknown))?;
        let blob = ingest.finish()?;
        if !self.has_digest(&blob, digest)? {
            return Err(RegistryError::with(
                ErrorCode::DigestInvalid,
                format!(
                    "the {} bytes uploaded have sha256:{}, not {digest}",
                    blob.identity_length,
                    blob.identity_sha256.hex()
                ),
            ));
        }
        let cache = &repository.cache;
        self.retention
            .admit(cache, blob.zstd_length, blob.zstd_length)?;
        let entry = blob_entry(
            &digest.to_string(),
            Representation::Identity,
            blob.id,
            Some(BLOB_WITHOUT_MANIFEST),
        );
        self.publish(&repository.cache, vec![entry], Vec::new())
    }

    /// Whether a blob's bytes have a digest: SHA-256 is known, another algorithm reads them.
    fn has_digest(&self, blob: &BlobInfo, digest: &Digest) -> Result<bool, ServiceError> {
        let Digest::Sha512(expected) = digest else {
            return Ok(digest.as_sha256() == Some(blob.identity_sha256));
        };
        let mut hasher = <sha2::Sha512 as sha2::Digest>::new();
        let mut reader = self.store.read(blob.id, Representation::Identity, None)?;
        while let Some(block) = reader.next_block()? {
            sha2::Digest::update(&mut hasher, &block);
        }
        Ok(sha2::Digest::finalize(hasher).as_slice() == expected.as_slice())
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// If there is no such upload.
    pub fn upload_cancel(&self, repository: &Repository, id: &str) -> Result<(), RegistryError> {
        self.upload(repository, id)?;
        lock(&self.uploads).remove(id);
        Ok(())
    }

    pub(super) fn sweep_uploads(&self) {
        let dropped: Vec<Arc<Upload>> = {
            let mut uploads = lock(&self.uploads);
            let idle: Vec<String> = uploads
                .iter()
                .filter(|(_, upload)| lock(&upload.touched).elapsed() > IDLE_MAX)
                .map(|(id, _)| id.clone())
                .collect();
            idle.iter().filter_map(|id| uploads.remove(id)).collect()
        };
        drop(dropped);
    }

    /// A blob in one go, as [`Registry::upload_begin`], append and finish.
    ///
    /// # Errors
    /// As those.
    pub fn upload_whole(
        &self,
        repository: &Repository,
        digest: &Digest,
        body: &mut dyn Read,
    ) -> Result<(), RegistryError> {
        let upload = self.upload_begin(repository)?;
        let done = self
            .upload_append(repository, &upload.id, None, body)
            .and_then(|_| self.upload_finish(repository, &upload.id, digest));
        lock(&self.uploads).remove(&upload.id);
        done
    }
}

fn append(
    state: &mut State,
    body: &mut dyn Read,
    touched: &Mutex<Instant>,
) -> Result<(), ServiceError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ServiceError::Interrupted(error)),
        };
        state.shared.keep_alive()?;
        *lock(touched) = Instant::now();
        if state.offset + count as u64 > BLOB_BYTES_MAX {
            return Err(ServiceError::TooLarge {
                what: "the blob",
                limit: BLOB_BYTES_MAX,
            });
        }
        let ingest = state.ingest.as_mut().ok_or(ServiceError::SessionGone)?;
        ingest.write(&buffer[..count])?;
        state.offset += count as u64;
    }
}
