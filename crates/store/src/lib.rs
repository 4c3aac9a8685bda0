//! The deduplicating store: packs, segments, metadata, sessions, reads.
//!
//! Synchronous: callers that live in an async world bring these calls to a
//! blocking thread. It speaks of entries and blobs and knows no protocol.

use bytes::Bytes;
use firn_chunks::{ChunkId, ChunkList, Format, ListId, VerifiedFrame};
use firn_formats::Sha256;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What goes wrong in a store.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StoreError {
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    #[error("{path} has format version {found}; this program knows {known}")]
    FormatVersion {
        path: PathBuf,
        found: String,
        known: u32,
    },
    #[error("the disk is full")]
    Full(#[source] std::io::Error),
    #[error("{path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the metadata database failed")]
    Database(#[source] rusqlite::Error),
    #[error("session {0} is gone")]
    SessionGone(String),
    #[error("{} chunks of the blob are not here", .0.len())]
    MissingChunks(Vec<ChunkId>),
    #[error("a required entry is missing: {0}")]
    MissingEntry(String),
    #[error("already exists: {0}")]
    Conflict(String),
    #[error("no such cache: {0}")]
    NoSuchCache(String),
    #[error("stored bytes are damaged: {0}")]
    Damaged(String),
    #[error("the stream is malformed")]
    Format(#[from] firn_chunks::chunker::FormatError),
    #[error("reading the upload failed")]
    Upload(#[source] std::io::Error),
}

/// How to open a store.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Options {
    pub dir: PathBuf,
    pub pack_bytes_target: u64,
    pub session_ttl: Duration,
    /// How long a blob without an entry keeps its lease.
    pub lease: Duration,
    /// How often segments follow the database.
    pub segment_interval: Duration,
    pub layout_cache_bytes: u64,
}

/// Row id of a cache; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheId(pub i64);
/// Row id of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DomainId(pub i64);
/// Row id of a blob; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlobId(pub i64);

/// A cache; its configuration is the services' business.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CacheRow {
    pub id: CacheId,
    pub name: String,
    pub domain: DomainId,
    pub domain_name: String,
    pub config: Vec<u8>,
}

/// Kinds of entries. Numbers are part of the on-disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum EntryKind {
    Narinfo = 1,
    /// A NAR under the name its pusher gave it.
    NarAlias = 2,
    Listing = 3,
    Log = 4,
    DebugInfo = 5,
    Realisation = 6,
    BuildTrace = 7,
    /// An image layer by its key.
    Layer = 8,
    /// A blob a registry client may read in this cache, by digest.
    RegistryBlob = 9,
    /// `repository@digest`.
    Manifest = 10,
    /// `repository:tag`.
    Tag = 11,
    /// `repository@subject@digest`.
    Referrer = 12,
    /// A revoked token, by its id.
    RevokedToken = 13,
    /// A NAR by its identity or file hash, for serving `nar/…`.
    NarFile = 14,
    /// An issued token's public face, by its id.
    Token = 15,
}

/// An entry that is visible.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Entry {
    pub sequence: u64,
    pub kind: EntryKind,
    pub key: String,
    pub value: Bytes,
    pub blobs: Vec<BlobId>,
    /// Seconds since 1970, by the database.
    pub created_at: i64,
}

/// What to do if the key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Leave it and say so.
    Keep,
    /// Put the new one in its place.
    Replace,
    /// Fail with [`StoreError::Conflict`].
    Refuse,
}

/// An entry to publish.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewEntry {
    pub kind: EntryKind,
    pub key: String,
    pub value: Bytes,
    pub blobs: Vec<BlobId>,
    /// Entries of this cache that must be visible (rule 4); those of the same publication count.
    pub requires: Vec<(EntryKind, String)>,
    pub if_exists: IfExists,
    /// Without another entry's reference it may be reclaimed after this time from now.
    pub lease: Option<Duration>,
}

/// One transaction of visibility (rule 3).
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Publication {
    pub entries: Vec<NewEntry>,
    pub deletions: Vec<(EntryKind, String)>,
}

/// What a publication did, entry by entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PublishedEntry {
    New,
    Replaced,
    Kept,
}

/// A blob and its representations.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BlobInfo {
    pub id: BlobId,
    pub domain: DomainId,
    pub list_id: ListId,
    pub chunks: u32,
    pub identity_sha256: Sha256,
    pub identity_length: u64,
    pub zstd_sha256: Sha256,
    pub zstd_length: u64,
    /// Digest and size of the deterministic gzip, once made.
    pub gzip: Option<(Sha256, u64)>,
}

/// Which bytes of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Representation {
    Identity,
    Zstd,
    Gzip,
}

/// An upload session, alive by its heartbeats.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Session {
    pub id: String,
    pub cache: CacheId,
    pub domain: DomainId,
    pub expires_in: Duration,
}

/// A store in a local folder. Clones share it.
#[derive(Clone)]
pub struct Store {
    _inner: Arc<()>,
}

#[allow(clippy::missing_errors_doc, unused_variables)]
impl Store {
    /// Opens or creates; recovers what a crash left; refuses a folder in use.
    pub fn open(options: Options) -> Result<Self, StoreError> {
        todo!()
    }
    /// Writes the last segment, seals packs. Also happens, best effort, when the last clone drops.
    pub fn close(&self) -> Result<(), StoreError> {
        todo!()
    }

    // caches
    /// Makes a cache; `Conflict` if the name is taken. Segments learn of it.
    pub fn cache_create(
        &self,
        name: &str,
        domain_name: &str,
        config: &[u8],
    ) -> Result<CacheRow, StoreError> {
        todo!()
    }
    /// Replaces its configuration.
    pub fn cache_configure(&self, cache: CacheId, config: &[u8]) -> Result<(), StoreError> {
        todo!()
    }
    /// By name.
    pub fn cache(&self, name: &str) -> Result<Option<CacheRow>, StoreError> {
        todo!()
    }
    /// All, by name.
    pub fn caches(&self) -> Result<Vec<CacheRow>, StoreError> {
        todo!()
    }
    /// Removes a cache and its entries; its blobs are left to the collector.
    pub fn cache_delete(&self, cache: CacheId) -> Result<(), StoreError> {
        todo!()
    }

    // entries
    /// One entry.
    pub fn entry(
        &self,
        cache: CacheId,
        kind: EntryKind,
        key: &str,
    ) -> Result<Option<Entry>, StoreError> {
        todo!()
    }
    /// Which of many keys exist, in order; renews nothing.
    pub fn entries_present(
        &self,
        cache: CacheId,
        kind: EntryKind,
        keys: &[&str],
    ) -> Result<Vec<bool>, StoreError> {
        todo!()
    }
    /// Keys that begin with `prefix`, after `after`, in byte order.
    pub fn entries(
        &self,
        cache: CacheId,
        kind: EntryKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        todo!()
    }
    /// The one point of visibility. With a session, it must be alive.
    pub fn publish(
        &self,
        session: Option<&Session>,
        cache: CacheId,
        publication: Publication,
    ) -> Result<Vec<PublishedEntry>, StoreError> {
        todo!()
    }
    /// Counts entries and bytes of a cache: (entries of the kind, distinct blobs' stored sizes).
    pub fn cache_usage(&self, cache: CacheId) -> Result<CacheUsage, StoreError> {
        todo!()
    }
    /// Renews the leases of the blobs of these entries ("present" was answered: rule 5).
    pub fn renew(&self, cache: CacheId, kind: EntryKind, keys: &[&str]) -> Result<(), StoreError> {
        todo!()
    }

    // sessions
    /// Opens a session for a cache.
    pub fn session_open(&self, cache: &CacheRow) -> Result<Session, StoreError> {
        todo!()
    }
    /// Finds a live session and renews it.
    pub fn session_touch(&self, id: &str) -> Result<Session, StoreError> {
        todo!()
    }
    /// Ends a session; its pins go.
    pub fn session_close(&self, id: &str) -> Result<(), StoreError> {
        todo!()
    }
    /// Pins those of `ids` that are valid in the session's domain; true where missing.
    pub fn pin(&self, session: &Session, ids: &[ChunkId]) -> Result<Vec<bool>, StoreError> {
        todo!()
    }
    /// Appends frames durably, then makes their chunks valid and pins them. Known ones are only
    /// pinned. Returns how many were new. Many callers share a sync and a transaction.
    pub fn put_frames(
        &self,
        session: &Session,
        frames: Vec<VerifiedFrame>,
    ) -> Result<usize, StoreError> {
        todo!()
    }
    /// Starts computing a blob's hashes, chunk by chunk, as its frames come in.
    pub fn verifier(&self, session: &Session, list: ChunkList) -> BlobVerifier {
        todo!()
    }
    /// Makes a blob from a list all of whose chunks are valid: known lists are answered at once, others
    /// hashed to the end. Blob row with a lease.
    pub fn put_blob(
        &self,
        session: &Session,
        verifier: BlobVerifier,
    ) -> Result<BlobInfo, StoreError> {
        todo!()
    }
    /// Starts taking in a stream of bytes: chunks, compresses what is new, stores, hashes.
    pub fn ingest(&self, session: &Session, format: Format) -> Ingest {
        todo!()
    }
    /// Makes (streaming) and remembers the deterministic gzip of a blob.
    pub fn make_gzip(&self, blob: BlobId) -> Result<(Sha256, u64), StoreError> {
        todo!()
    }

    // blobs
    /// By row.
    pub fn blob(&self, id: BlobId) -> Result<Option<BlobInfo>, StoreError> {
        todo!()
    }
    /// By the digest of any representation, in a domain.
    pub fn blob_by_digest(
        &self,
        domain: DomainId,
        digest: &Sha256,
    ) -> Result<Option<(BlobInfo, Representation)>, StoreError> {
        todo!()
    }
    /// By list.
    pub fn blob_by_list(
        &self,
        domain: DomainId,
        list: ListId,
    ) -> Result<Option<BlobInfo>, StoreError> {
        todo!()
    }
    /// A blob's chunk list.
    pub fn chunk_list(&self, id: BlobId) -> Result<ChunkList, StoreError> {
        todo!()
    }
    /// Opens a representation for reading; when this returns, every chunk's place is known
    /// and its pack open (rule 9). `range` is (first byte, length).
    pub fn read(
        &self,
        blob: BlobId,
        representation: Representation,
        range: Option<(u64, u64)>,
    ) -> Result<BlobReader, StoreError> {
        todo!()
    }

    /// Figures for metrics and `firn stats`.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        todo!()
    }
    /// Makes the database anew from packs and segments: for a closed folder whose database is lost or doubted.
    pub fn rebuild(options: &Options) -> Result<RebuildReport, StoreError> {
        todo!()
    }
}

/// Figures of one cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CacheUsage {
    pub narinfos: u64,
    pub manifests: u64,
    pub stored_bytes: u64,
}

/// Figures of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stats {
    pub chunks: u64,
    pub chunk_raw_bytes: u64,
    pub chunk_stored_bytes: u64,
    pub blobs: u64,
    pub blob_identity_bytes: u64,
    pub packs: u64,
    pub sessions: u64,
    /// Since the process started: frames that were new, and those that were known.
    pub chunks_new_total: u64,
    pub chunks_known_total: u64,
}

/// What a rebuild found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RebuildReport {
    pub segments: u64,
    pub packs: u64,
    pub packs_walked: u64,
    pub chunks: u64,
    pub blobs: u64,
    pub entries: u64,
    pub entries_dropped: u64,
}

/// Computes a blob's hashes as its chunks come in. Lives as long as its session.
pub struct BlobVerifier {}

#[allow(unused_variables)]
impl BlobVerifier {
    /// The chunks.
    pub fn list(&self) -> &ChunkList {
        todo!()
    }
    /// Goes on from where it stands: a chunk just decoded comes from `fresh` (raw bytes and frame),
    /// others from the store; stops at the first that is in neither. No harm if never called.
    pub fn advance(
        &mut self,
        fresh: &dyn Fn(&ChunkId) -> Option<(Bytes, Bytes)>,
    ) -> Result<(), StoreError> {
        todo!()
    }
}

/// A stream on its way in. Dropping it without [`Ingest::finish`] leaves nothing visible.
pub struct Ingest {}

#[allow(unused_variables)]
impl Ingest {
    /// Takes the next bytes; blocks while storage is busy.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        todo!()
    }
    /// The blob, durable and under a lease.
    pub fn finish(self) -> Result<BlobInfo, StoreError> {
        todo!()
    }
}

/// Reads stored frames, or what they hold, in blocks of bounded size. Reading blocks inline:
/// hot pages cost a copy, [`BlobReader::is_cached`] tells whether the next block is hot.
pub struct BlobReader {}

impl BlobReader {
    /// Bytes that will come.
    pub fn remaining(&self) -> u64 {
        todo!()
    }
    /// The next block, each of its frames checked; `None` at the end.
    pub fn next_block(&mut self) -> Result<Option<Bytes>, StoreError> {
        todo!()
    }
    /// The next block only if no disk has to be waited for; `Ok(Err(()))` if it has.
    #[allow(clippy::type_complexity)]
    pub fn try_next_block(&mut self) -> Result<Result<Option<Bytes>, WouldBlock>, StoreError> {
        todo!()
    }
}

/// The next block is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WouldBlock;
