//! A bucket as a store without a server: S3, or what speaks its protocol.
//!
//! ```text
//! <prefix>/packs/<2 hex>/<32 hex>.pack        as in a folder
//! <prefix>/segments/<16 hex>-<16 hex>.seg
//! ```
//!
//! An upload is visible when it is complete, so no temporary names are needed. Parts of uploads that were never
//! completed are not listed; a bucket's lifecycle rule removes them.

mod http;

use super::folder::{is_pack_name, is_segment_name, pack_place, segment_place};
use super::{Backend, PackFile, SegmentTimes, StoredPack};
use crate::{StoreError, layout::random_hex};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::Connector;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    BackoffConfig, GetOptions, GetRange, MultipartUpload as _, ObjectMeta, ObjectStore as _,
    ObjectStoreExt as _, PutPayload, RetryConfig,
};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Bytes of one part of an upload; S3 wants at least 5 MiB.
const PART_BYTES: u64 = 8 << 20;
/// Parts of one pack under way.
const PARTS_MAX: usize = 2;
/// Longest answer that is read: a segment is read as a whole.
const ANSWER_BYTES_MAX: u64 = 2 << 30;
/// A request that fails in a way that may pass is tried again, so often and for so long.
const RETRIES_MAX: usize = 6;
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);

/// A bucket, or what lies below a prefix of one.
#[derive(Debug)]
pub struct S3Backend {
    location: String,
    prefix: Path,
    bucket: AmazonS3,
    requests: Arc<AtomicU64>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl S3Backend {
    /// The bucket that the environment's `AWS_…` variables give access to: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`,
    /// `AWS_VIRTUAL_HOSTED_STYLE_REQUEST` (else the bucket stands in the path), `AWS_ALLOW_HTTP`, web identities
    /// and containers' credentials. `agent` speaks HTTP.
    ///
    /// # Errors
    /// [`StoreError::Backend`] if they contradict each other.
    pub fn from_env(bucket: &str, prefix: &str, agent: ureq::Agent) -> Result<Self, StoreError> {
        let settings = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.into_string().ok()?))
        });
        Self::new(bucket, prefix, agent, settings)
    }

    /// As [`S3Backend::from_env`], with the variables given; others than `AWS_…` are passed over.
    ///
    /// # Errors
    /// [`StoreError::Backend`] if they contradict each other.
    pub fn new(
        bucket: &str,
        prefix: &str,
        agent: ureq::Agent,
        settings: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        let prefix = prefix.trim_matches('/');
        let location = format!("s3://{bucket}/{prefix}")
            .trim_end_matches('/')
            .to_owned();
        let requests = Arc::new(AtomicU64::new(0));
        let mut builder = AmazonS3Builder::new();
        for (name, value) in settings {
            let key = name.to_ascii_lowercase().parse();
            if name.starts_with("AWS_")
                && let Ok(key) = key
            {
                builder = builder.with_config(key, value);
            }
        }
        let built = builder
            .with_bucket_name(bucket)
            .with_http_connector(Connector {
                agent,
                requests: requests.clone(),
                body_bytes_max: ANSWER_BYTES_MAX,
            })
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: RETRIES_MAX,
                retry_timeout: RETRY_TIMEOUT,
            })
            .build();
        let bucket = built.map_err(|error| failed(&location, "reading the AWS settings", error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("firn-s3")
            .enable_all()
            .build()
            .map_err(|error| StoreError::io("thread firn-s3", error))?;
        Ok(Self {
            prefix: Path::from(prefix),
            location,
            bucket,
            requests,
            runtime: Some(runtime),
        })
    }

    /// Runs to the end on the caller's thread.
    fn wait<T>(
        &self,
        what: &str,
        run: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        let Some(runtime) = &self.runtime else {
            let ended = std::io::Error::other("the backend is being dropped");
            return Err(failed(&self.location, what, ended));
        };
        runtime
            .block_on(run)
            .map_err(|error| failed(&self.location, what, error))
    }

    fn pack_path(&self, name: &str) -> Result<Path, StoreError> {
        let [folder, fan_out, file] = pack_place(name)?;
        Ok(self.below(&folder).join(fan_out).join(file))
    }

    fn segment_path(&self, name: &str) -> Result<Path, StoreError> {
        let [folder, file] = segment_place(name)?;
        Ok(self.below(&folder).join(file))
    }

    fn below(&self, folder: &str) -> Path {
        self.prefix.clone().join(folder)
    }

    /// All below a folder, with the names that stand before `suffix`.
    fn list(&self, folder: &str, suffix: &str) -> Result<Vec<(String, ObjectMeta)>, StoreError> {
        let path = self.below(folder);
        let listed: Vec<ObjectMeta> =
            self.wait("listing", self.bucket.list(Some(&path)).try_collect())?;
        let named = listed.into_iter().filter_map(|item| {
            let name = item.location.filename()?.strip_suffix(suffix)?.to_owned();
            Some((name, item))
        });
        Ok(named.collect())
    }

    async fn upload(&self, path: &Path, file: &File, length: u64) -> object_store::Result<()> {
        if length <= PART_BYTES {
            let bytes = read_part(file, 0..length)?;
            self.bucket.put(path, PutPayload::from(bytes)).await?;
            return Ok(());
        }
        let mut upload = self.bucket.put_multipart(path).await?;
        let mut parts = tokio::task::JoinSet::new();
        let mut result = Ok(());
        for start in (0..length).step_by(PART_BYTES as usize) {
            let part = read_part(file, start..(start + PART_BYTES).min(length));
            let part = match part {
                Ok(part) => part,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            parts.spawn(upload.put_part(PutPayload::from(part)));
            if parts.len() >= PARTS_MAX {
                result = joined(parts.join_next().await);
                if result.is_err() {
                    break;
                }
            }
        }
        while result.is_ok() && !parts.is_empty() {
            result = joined(parts.join_next().await);
        }
        if let Err(error) = result {
            parts.abort_all();
            // Best effort: the bucket's lifecycle rule takes what is left.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.complete().await.map(drop)
    }
}

impl Drop for S3Backend {
    fn drop(&mut self) {
        // It may happen on a thread of another runtime, where waiting would be an error.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Backend for S3Backend {
    fn location(&self) -> &str {
        &self.location
    }

    fn segments(&self) -> Result<Vec<String>, StoreError> {
        let listed = self.list("segments", ".seg")?;
        let names = listed.into_iter().map(|(name, _)| name);
        Ok(names.filter(|name| is_segment_name(name)).collect())
    }

    fn segment_times(&self) -> Result<SegmentTimes, StoreError> {
        let listed = self.list("segments", ".seg")?;
        let times = listed.into_iter();
        let times = times.map(|(name, item)| (name, item.last_modified.timestamp()));
        Ok(SegmentTimes::Stored(times.collect()))
    }

    fn segment(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.segment_path(name)?;
        self.wait("reading a segment", async {
            match self.bucket.get(&path).await {
                Ok(found) => Ok(Some(found.bytes().await?.to_vec())),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn put_pack(&self, file: &File, length: u64) -> Result<StoredPack, StoreError> {
        let name = random_hex(16)?;
        let path = self.pack_path(&name)?;
        self.wait("storing a pack", self.upload(&path, file, length))?;
        Ok(StoredPack { name, length })
    }

    fn publish(
        &self,
        at: u64,
        segment: &[u8],
        _packs: &[StoredPack],
    ) -> Result<String, StoreError> {
        let name = format!("{at:016x}-{}", random_hex(8)?);
        let path = self.segment_path(&name)?;
        let payload = PutPayload::from(Bytes::copy_from_slice(segment));
        self.wait("publishing", self.bucket.put(&path, payload))?;
        Ok(name)
    }

    fn read(&self, pack: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let path = self.pack_path(pack)?;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let bytes = self.wait("reading a pack", async {
            self.bucket.get_opts(&path, options).await?.bytes().await
        })?;
        match bytes.len() as u64 == range.end.saturating_sub(range.start) {
            true => Ok(bytes.to_vec()),
            false => Err(StoreError::Damaged(format!("{pack} ends too early"))),
        }
    }

    fn packs(&self) -> Result<Option<Vec<PackFile>>, StoreError> {
        let listed = self.list("packs", ".pack")?;
        let packs = listed.into_iter().filter(|(name, _)| is_pack_name(name));
        let packs = packs.map(|(name, item)| PackFile {
            name,
            length: item.size,
            modified_at: item.last_modified.timestamp(),
        });
        Ok(Some(packs.collect()))
    }

    fn delete_pack(&self, name: &str) -> Result<(), StoreError> {
        let path = self.pack_path(name)?;
        self.wait("deleting a pack", gone(self.bucket.delete(&path)))
    }

    fn delete_segment(&self, name: &str) -> Result<(), StoreError> {
        let path = self.segment_path(name)?;
        self.wait("deleting a segment", gone(self.bucket.delete(&path)))
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// What was gone already counts as deleted.
async fn gone(
    deleting: impl Future<Output = object_store::Result<()>>,
) -> object_store::Result<()> {
    match deleting.await {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        result => result,
    }
}

fn joined(
    part: Option<Result<object_store::Result<()>, tokio::task::JoinError>>,
) -> object_store::Result<()> {
    match part {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(source)) => Err(object_store::Error::JoinError { source }),
    }
}

fn read_part(file: &File, range: Range<u64>) -> object_store::Result<Bytes> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    let read = file.read_exact_at(&mut bytes, range.start);
    read.map_err(|error| object_store::Error::Generic {
        store: "S3",
        source: Box::new(error),
    })?;
    Ok(bytes.into())
}

fn failed(
    location: &str,
    what: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    StoreError::Backend {
        location: location.to_owned(),
        what: what.to_owned(),
        source: Arc::new(error),
    }
}
