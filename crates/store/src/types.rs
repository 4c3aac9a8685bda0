//! The nouns of the store's interface.

use bytes::Bytes;
use firn_chunks::{ChunkId, ListId};
use firn_formats::Sha256;
use std::path::PathBuf;
use std::time::Duration;

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
    /// What a CI job saved under a key.
    CiKey = 16,
    /// A pack that a collector found named by no segment, by its name; in a store without a server.
    PackMark = 17,
    /// What a name pins for good, by that name.
    Root = 18,
    /// A store path that a collector found in nobody's use, by its cache and hash part; in a store without a server.
    PathMark = 20,
    /// What an Actions client saved, by repository, scope, version and key.
    ActionsEntry = 21,
    /// Leave to replace an Actions entry, by the same key; the value is the entry's sequence.
    ActionsReplace = 22,
}

impl EntryKind {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Narinfo,
        Self::NarAlias,
        Self::Listing,
        Self::Log,
        Self::DebugInfo,
        Self::Realisation,
        Self::BuildTrace,
        Self::Layer,
        Self::RegistryBlob,
        Self::Manifest,
        Self::Tag,
        Self::Referrer,
        Self::RevokedToken,
        Self::NarFile,
        Self::Token,
        Self::CiKey,
        Self::PackMark,
        Self::Root,
        Self::PathMark,
        Self::ActionsEntry,
        Self::ActionsReplace,
    ];

    /// The kind of a number of the format, if this program knows it.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| *kind as u16 == number)
    }
}

impl EntryKind {
    /// Kinds whose entries last only as long as another that lasts names their blob: a manifest that of a layer,
    /// a narinfo that of a NAR.
    pub(crate) const KEPT_BY_OTHERS: [Self; 4] = [
        Self::NarAlias,
        Self::Layer,
        Self::RegistryBlob,
        Self::ActionsReplace,
    ];
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

/// What a publication did, entry by entry; with the sequence of what is there now because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PublishedEntry {
    New(u64),
    Replaced(u64),
    Kept,
}

/// An entry that was read, or promised to a pusher.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Use {
    pub cache: CacheId,
    pub kind: EntryKind,
    pub key: String,
    /// How long ago.
    pub age: Duration,
}

/// An entry as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HeldEntry {
    pub sequence: u64,
    pub key: String,
    /// Empty unless asked for.
    pub value: Bytes,
    /// Its last use, or its publication; milliseconds since 1970.
    pub used_at_ms: i64,
    pub published_at_ms: i64,
    /// Under a lease of its own.
    pub leased: bool,
    /// It is here by a lease only, lapsed or not.
    pub lapses: bool,
    pub blobs: Vec<BlobId>,
}

/// A blob that an entry of a cache names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HeldBlob {
    pub id: BlobId,
    pub stored_bytes: u64,
    pub leased: bool,
}

/// Why something was taken away. Numbers are the database's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EvictionReason {
    /// Nobody used it for longer than the cache keeps things.
    Unused = 1,
    /// The cache held more than its quota.
    Quota = 2,
    /// Somebody deleted it.
    Deleted = 3,
    /// Somebody put another in its place.
    Replaced = 4,
}

impl EvictionReason {
    /// The reason of a number; of one that this program does not know, the commonest.
    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Unused,
            3 => Self::Deleted,
            4 => Self::Replaced,
            _ => Self::Quota,
        }
    }
}

/// A narinfo, manifest or Actions entry that was taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Evicted {
    pub kind: EntryKind,
    pub key: String,
    /// As people call it: a store path's base name, or an image.
    pub name: String,
    /// Seconds since 1970; 0 until it is recorded.
    pub at: i64,
    pub reason: EvictionReason,
    /// Stored bytes that went with it.
    pub bytes: u64,
    /// The last use of it or of anything that needed it, in seconds since 1970.
    pub used_at: i64,
}

/// What is remembered of a cache's evictions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct EvictionSummary {
    pub paths: u64,
    pub images: u64,
    pub bytes: u64,
    /// Seconds since 1970.
    pub last_at: Option<i64>,
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
    /// Whether it was parsed and is a NAR. Where it was not, it may be one all the same.
    pub nar: bool,
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

impl Session {
    /// For the store's own work in a domain, which pins nothing.
    pub(crate) fn of_nobody(domain: DomainId) -> Self {
        Self {
            id: String::new(),
            cache: CacheId(0),
            domain,
            expires_in: Duration::ZERO,
        }
    }
}

/// Bounds of uploads that outlive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct UploadLimits {
    /// One that nobody touches for this long ends.
    pub idle: Duration,
    /// One that was touched within this time does not give way to another.
    pub fresh: Duration,
    /// Most of them in a cache.
    pub open_max: usize,
}

/// What is staged: bytes on their way in, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Staged {
    /// Grows; never used again while the database lasts.
    pub number: u64,
    /// Random.
    pub id: String,
    pub cache: CacheId,
    /// On whose behalf, as its beginner said.
    pub owner: String,
    /// What nobody else can stage meanwhile.
    pub key: String,
    /// Its beginner's own.
    pub note: Bytes,
}

/// A durable part of what is staged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StagedPart {
    pub name: String,
    /// Where it lies.
    pub file: String,
    pub length: u64,
}

/// What was looked for, and how that went; the services say it in `detail`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LookupRow {
    pub cache: CacheId,
    pub owner: String,
    /// Seconds since 1970.
    pub at: i64,
    pub detail: Bytes,
}

/// Figures of one cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CacheUsage {
    pub narinfos: u64,
    pub manifests: u64,
    pub roots: u64,
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
    /// By how much the wall clock is ahead of the store's (rule 10); less than 0 if it is behind.
    pub time_behind_seconds: i64,
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

/// What becomes of an entry when a blob that it names has another zstd representation than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It stays as it is.
    Keep,
    /// It gets another value.
    Value(Bytes),
    /// It stays, and the same blob gets an entry of this kind, key and value beside it.
    Beside(EntryKind, String, Bytes),
    /// It goes: what it promised cannot be served any more.
    Remove,
}

/// Says what becomes of an entry: given the blob as it was, and as it is now.
pub type Remake = fn(&Entry, &BlobInfo, &BlobInfo) -> Change;

/// A chunk in quarantine: its frame is damaged, and it counts as missing until it is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DamagedChunk {
    pub domain: DomainId,
    pub id: ChunkId,
    /// Row of the pack in which the damaged frame lies.
    pub pack: i64,
    pub offset: u64,
    pub frame_length: u32,
    pub raw_length: u32,
    /// `reader`, `scrub` or `check`.
    pub found_by: String,
    /// Seconds since 1970, by the database.
    pub found_at: i64,
}

/// The next block is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WouldBlock;
