//! A store without a server: packs and segments in a folder, a bucket or a registry, written and read by
//! many at once without a lock. Its content is the union of its segments; a local index of them (SQLite)
//! answers, and takes in only segments it has not seen.
//!
//! Nothing a backend gives is believed: segments have a checksum and, where keys are set, a signature;
//! frames are checked against their checksum and, decoded, against their chunk id (rule 2).

mod backend;
mod cache;
mod check;
mod clock;
mod folder;
mod gc;
mod index;
mod publish;
mod read;
mod refresh;
mod run;
mod s3;
mod union;

pub use backend::{Backend, PackFile, SegmentTimes, StoredPack};
pub use check::{ExplainShared, PackPart};
pub use folder::FolderBackend;
pub use gc::{Expire, ExpirePaths, ExpiredEntry, GcOptions, GcPlan, GcReport, PathsOfKey};
pub use run::{Run, RunReport};
pub use s3::S3Backend;

use crate::{CheckReport, EntryKind, StoreError};
use cache::FrameCache;
use firn_chunks::{ChunkId, Decoder, ListId, VerifiedFrame, pack::Placed, segment::BlobRecord};
use firn_formats::nix::{PublicKey, SecretKey};
use index::Index;
use read::UnderWay;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Flag of a [`BlobRecord`]: its writer did not hold all frames, so its zstd digest is not known (zeros).
pub const BLOB_FLAG_NO_ZSTD_DIGEST: u16 = 1 << 3;

/// The one domain of a store without a server: who may read it may read all of it.
pub const SHARED_DOMAIN: &str = "shared";

/// Takes chunks one after the other.
pub type ChunkSink<'a> = dyn FnMut(&ChunkId, &[u8]) -> Result<(), StoreError> + 'a;

/// How a shared store is opened.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct SharedOptions {
    /// The index and the frames that were read lie below it, in a folder named by the store's location.
    pub cache_dir: PathBuf,
    /// Most bytes of frames kept there.
    pub cache_bytes_max: u64,
    /// If not empty, segments without a signature by one of these are ignored, and said so.
    pub trusted_keys: Vec<PublicKey>,
    /// Signs the segments that are written.
    pub signing_key: Option<Arc<SecretKey>>,
    pub pack_bytes_target: u64,
}

/// What a refresh did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Refreshed {
    pub segments_total: u64,
    pub segments_new: u64,
    /// Not signed by a trusted key.
    pub segments_refused: u64,
    /// Damaged, or gone while they were read.
    pub segments_unreadable: u64,
}

/// An entry of a shared store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SharedEntry {
    pub kind: EntryKind,
    pub key: String,
    pub value: Vec<u8>,
    pub blobs: Vec<ListId>,
    /// Microseconds since 1970 by its writer; the newest wins.
    pub sequence: u64,
    /// Seconds since 1970.
    pub at: i64,
}

/// Where a chunk's frame lies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Located {
    pub pack: Arc<str>,
    pub placed: Placed,
}

/// A store without a server. Clones share it.
#[derive(Debug, Clone)]
pub struct SharedStore {
    inner: Arc<Inner>,
}

/// What the clones share.
#[derive(Debug)]
struct Inner {
    backend: Arc<dyn Backend>,
    options: SharedOptions,
    /// Those of the options, and the own one beside them.
    trusted: Vec<PublicKey>,
    index: Index,
    cache: FrameCache,
    /// Packs under construction lie here, without a name.
    temporary: PathBuf,
    /// Of packs, from the place itself.
    bytes_fetched: AtomicU64,
    under_way: UnderWay,
    /// Held while segments are taken in.
    refreshing: Mutex<()>,
}

/// # Errors
/// Every operation may fail with [`StoreError::Io`], [`StoreError::Full`] and [`StoreError::Database`], which speak
/// of the local index, and with [`StoreError::Backend`]. What else one fails with stands beside it.
#[allow(clippy::missing_errors_doc)]
impl SharedStore {
    /// Opens the local index; asks the backend nothing yet.
    pub fn open(backend: Arc<dyn Backend>, options: SharedOptions) -> Result<Self, StoreError> {
        let own = options.signing_key.as_ref().map(|key| key.public());
        let mut trusted = options.trusted_keys.clone();
        if !trusted.is_empty() {
            trusted.extend(own.filter(|own| !options.trusted_keys.contains(own)));
        }
        let folder = options
            .cache_dir
            .join(folder_name(backend.location(), &options));
        std::fs::create_dir_all(&folder).map_err(|error| StoreError::io(&folder, error))?;
        Ok(Self {
            inner: Arc::new(Inner {
                index: Index::open(&folder)?,
                cache: FrameCache::new(folder.join("frames"), options.cache_bytes_max),
                temporary: folder,
                backend,
                options,
                trusted,
                bytes_fetched: AtomicU64::new(0),
                under_way: UnderWay::default(),
                refreshing: Mutex::default(),
            }),
        })
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.inner.backend
    }

    /// Bytes of packs that were asked of the place, by this opening of the store; what the local cache had is not
    /// among them.
    pub fn bytes_fetched(&self) -> u64 {
        self.inner.bytes_fetched.load(Ordering::Relaxed)
    }

    /// Takes in segments that are new, and forgets what only segments that are gone told.
    pub fn refresh(&self) -> Result<Refreshed, StoreError> {
        self.inner.mended(Inner::refresh)
    }

    /// The newest entry of a key, if it is not a tombstone.
    pub fn entry(
        &self,
        cache: &str,
        kind: EntryKind,
        key: &str,
    ) -> Result<Option<SharedEntry>, StoreError> {
        self.inner
            .mended(|inner| inner.index.entry(cache, kind, key))
    }

    /// Entries whose keys begin with `prefix`, newest first.
    pub fn entries(
        &self,
        cache: &str,
        kind: EntryKind,
        prefix: &str,
    ) -> Result<Vec<SharedEntry>, StoreError> {
        self.inner
            .mended(|inner| inner.index.entries(cache, kind, prefix))
    }

    /// Which of many keys exist, in order.
    pub fn entries_present(
        &self,
        cache: &str,
        kind: EntryKind,
        keys: &[&str],
    ) -> Result<Vec<bool>, StoreError> {
        self.inner
            .mended(|inner| inner.index.entries_present(cache, kind, keys))
    }

    /// Which store paths need not be pushed, by their hash parts, in order. One that a collector has marked is here, and
    /// may go: who counts on it pushes it again.
    pub fn paths_kept(&self, cache: &str, hashes: &[&str]) -> Result<Vec<bool>, StoreError> {
        let marks: Vec<String> = hashes
            .iter()
            .map(|hash| gc::mark_key(cache, hash))
            .collect();
        let marks: Vec<&str> = marks.iter().map(String::as_str).collect();
        self.inner.mended(|inner| {
            let present = inner
                .index
                .entries_present(cache, EntryKind::Narinfo, hashes)?;
            let marked = inner
                .index
                .entries_present(gc::MARKS, EntryKind::PathMark, &marks)?;
            let kept = present.into_iter().zip(marked);
            Ok(kept.map(|(present, marked)| present && !marked).collect())
        })
    }

    /// What is known of a blob.
    pub fn blob(&self, list: &ListId) -> Result<Option<BlobRecord>, StoreError> {
        self.inner.mended(|inner| inner.index.blob(list))
    }

    /// Where chunks lie, in order; `None` for those that are not here.
    pub fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Located>>, StoreError> {
        self.inner.mended(|inner| inner.index.locate(ids))
    }

    /// Raw bytes of chunks, in the order given, verified. Frames are taken from the local cache; others are
    /// read in ranges, neighbours in one request, several requests at once and some ahead. Bounded memory.
    /// `MissingChunks` if some are not in the store, before any is given to `sink`; `Damaged` if no place has
    /// the right bytes for one.
    pub fn read_chunks(&self, ids: &[ChunkId], sink: &mut ChunkSink<'_>) -> Result<(), StoreError> {
        self.inner.read_chunks(ids, sink)
    }

    /// Brings frames into the local cache, so that later reads find them there; stops when `go_on` says so, or
    /// when it has brought what the cache may hold. Chunks that are not here are passed over.
    pub fn prefetch(
        &self,
        ids: &[ChunkId],
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), StoreError> {
        self.inner.prefetch(ids, go_on)
    }

    /// Checks what the segments say against what the place has; with `data`, every byte of a part of the packs.
    /// `told` hears of bytes that were read. Changes nothing.
    pub fn check(
        &self,
        data: Option<PackPart>,
        explain: ExplainShared<'_>,
        told: &mut dyn FnMut(u64),
    ) -> Result<CheckReport, StoreError> {
        check::check(&self.inner, data, explain, told)
    }

    /// A chunk's frame, verified, from the first place that has it whole.
    pub fn frame(&self, id: &ChunkId) -> Result<Option<VerifiedFrame>, StoreError> {
        for place in self.inner.index.places(id)? {
            let bytes = self.inner.backend.read(&place.pack, read::range_of(&place));
            let mut raw = Vec::new();
            if let Ok(bytes) = bytes
                && let Ok(frame) = Decoder::new().verify(*id, bytes.into(), &mut raw)
            {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Looks at what can go, and takes in what is new for it. Deletes and publishes nothing; asks the place for its
    /// time by storing an empty pack and deleting it.
    pub fn plan_gc(&self, options: &GcOptions) -> Result<GcPlan, StoreError> {
        GcPlan::make(self.inner.clone(), options)
    }

    /// Begins to write. `writer` is told in the segment (a host, a job).
    pub fn run(&self, writer: &str) -> Result<Run, StoreError> {
        Run::new(self.inner.clone(), writer)
    }
}

impl Inner {
    /// Runs; if the index turns out to be damaged, makes it anew out of the store and runs again.
    fn mended<T>(&self, run: impl Fn(&Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match run(self) {
            Err(error) if index::is_damage(&error) => {
                tracing::warn!(%error, "the local index is damaged and is made anew");
                self.index.throw_away()?;
                self.refresh()?;
                run(self)
            }
            result => result,
        }
    }
}

/// Names the folder of an index: what it holds depends on the place, on whom it trusts, and on its format.
fn folder_name(location: &str, options: &SharedOptions) -> String {
    let own = options.signing_key.as_ref().map(|key| key.public());
    let mut keys: Vec<[u8; 32]> = options
        .trusted_keys
        .iter()
        .chain(&own)
        .map(|key| key.bytes)
        .collect();
    keys.sort_unstable();
    let mut hasher = blake3::Hasher::new_derive_key("firn shared index v1");
    hasher.update(&[u8::from(options.trusted_keys.is_empty())]);
    keys.iter().for_each(|key| {
        hasher.update(key);
    });
    hasher.update(location.as_bytes());
    let name = hasher.finalize().to_hex();
    name[..32].to_owned()
}
