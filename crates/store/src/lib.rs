//! The deduplicating store: packs, segments, metadata, sessions, reads.
//!
//! Synchronous: callers that live in an async world bring these calls to a
//! blocking thread. It speaks of entries and blobs and knows no protocol.
//!
//! | module | what it does |
//! |---|---|
//! | `caches` | caches, and their deletion in steps |
//! | `files` | the folder as a backend of immutable files; of a server's store nothing else touches the file system |
//! | `layout` | names in the folder, its version |
//! | `db` | the database: writer thread, readers, one module a kind of row |
//! | `packs` | appends frames, many callers a sync |
//! | `read` | where a blob's frames lie, and reading them |
//! | `verifier`, `ingest` | hashing blobs, from frames and from streams |
//! | `uploads` | streams that go on after a restart |
//! | `staged` | bytes on their way in as parts, in any order |
//! | `lookups` | what was looked for, and how that went |
//! | `shared` | a store without a server: in a folder, a bucket or a registry |
//! | `clock` | the time that decides about data |
//! | `backup`, `replica` | a copy of a folder that is being served, and frames out of one |
//! | `check` | structure and data |
//! | `collect` | what nothing needs any more goes, while everybody works |
//! | `presence` | whether the packs' place is there |
//! | `quarantine` | damaged frames: out of the readers' way, and whole again |
//! | `retention` | what retention reads, and the transaction in which it takes entries away |
//! | `segments`, `rebuild` | the index beside the database, and the database from the index |
//! | `failpoint` | points at which tests let a step fail; nothing in what is released |

mod backup;
mod caches;
mod check;
mod clock;
mod codec;
mod collect;
mod db;
mod entry_cache;
mod error;
#[cfg(feature = "failpoints")]
pub mod failpoint;
#[cfg(not(feature = "failpoints"))]
mod failpoint;
mod files;
mod ingest;
mod layout;
mod lookups;
mod packs;
mod presence;
mod quarantine;
mod read;
mod rebuild;
mod replica;
mod retention;
mod segments;
pub mod shared;
mod staged;
mod store;
mod types;
mod uploads;
mod verifier;

pub use backup::BackupReport;
pub use check::{CheckReport, DataOptions, DataProgress, Explain, Finding, FindingKind, Meaning};
pub use clock::TimeSources;
pub use collect::{CollectionOptions, CollectionReport, CollectionStep};
pub use error::StoreError;
#[cfg(feature = "failpoints")]
pub use files::{Step, Watch, watch};
pub use ingest::Ingest;
pub use read::BlobReader;
pub use replica::Replica;
pub use retention::Eviction;
pub use staged::{PartWriter, StagedReader};
pub use types::*;
pub use uploads::Upload;
pub use verifier::{BlobVerifier, FreshChunk, Observer};

use db::{Durability, blobs, entries, sessions};
use failpoint::{Point, reach};
use firn_chunks::{ChunkId, ChunkList, Format, ListId, VerifiedFrame};
use firn_formats::Sha256;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A store in a local folder. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<store::Inner>,
}

/// # Errors
/// Every operation may fail with [`StoreError::Io`], [`StoreError::Full`] and [`StoreError::Database`]; those
/// that name a session with [`StoreError::SessionGone`]. What else one fails with stands beside it.
#[allow(clippy::missing_errors_doc)]
impl Store {
    /// Opens or creates; recovers what a crash left; refuses a folder in use.
    pub fn open(options: Options) -> Result<Self, StoreError> {
        Self::open_with_time(options, TimeSources::system())
    }

    /// As [`Store::open`], with other clocks than the system's.
    pub fn open_with_time(options: Options, time: TimeSources) -> Result<Self, StoreError> {
        Ok(Self {
            inner: Arc::new(store::Inner::open(options, time)?),
        })
    }

    /// Writes the last segment, seals packs. Also happens, best effort, when the last clone drops.
    pub fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }

    /// Says that wall time is right: the store's clock (rule 10) goes on from there, if that is later, and all ages
    /// grow by so much. Gives the milliseconds.
    pub fn confirm_time(&self) -> Result<i64, StoreError> {
        self.inner.db.confirm_time()
    }

    /// The store's time in milliseconds since 1970 (rule 10).
    pub fn now_ms(&self) -> i64 {
        self.inner.db.clock().now_ms()
    }

    /// One entry.
    pub fn entry(
        &self,
        cache: CacheId,
        kind: EntryKind,
        key: &str,
    ) -> Result<Option<Entry>, StoreError> {
        self.inner.entries.get(cache, kind, key, || {
            self.inner
                .db
                .read(|connection| entries::get(connection, cache, kind, key))
        })
    }

    /// Which of many keys exist, in order; renews nothing.
    pub fn entries_present(
        &self,
        cache: CacheId,
        kind: EntryKind,
        keys: &[&str],
    ) -> Result<Vec<bool>, StoreError> {
        self.inner
            .db
            .snapshot(|connection| entries::present(connection, cache, kind, keys))
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
        self.inner
            .db
            .read(|connection| entries::list(connection, cache, kind, prefix, after, limit))
    }

    /// The newest of the entries whose keys begin with `prefix`.
    pub fn newest_entry(
        &self,
        cache: CacheId,
        kind: EntryKind,
        prefix: &str,
    ) -> Result<Option<Entry>, StoreError> {
        self.inner
            .db
            .read(|connection| entries::newest(connection, cache, kind, prefix))
    }

    /// Keys that begin with `prefix` and end with `suffix`; a look at all with the prefix.
    pub fn keys_around(
        &self,
        cache: CacheId,
        kind: EntryKind,
        prefix: &str,
        suffix: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        self.inner
            .db
            .read(|connection| entries::around(connection, cache, kind, prefix, suffix, limit))
    }

    /// One entry, by its sequence.
    pub fn entry_by_sequence(
        &self,
        cache: CacheId,
        kind: EntryKind,
        sequence: u64,
    ) -> Result<Option<Entry>, StoreError> {
        let sequence = db::signed(sequence);
        self.inner
            .db
            .read(|connection| entries::servable_of_sequence(connection, cache, sequence, kind))
    }

    /// The one point of visibility (rule 3). With a session, it must be alive. Fails with
    /// `MissingEntry` (rule 4; also for a blob that is not in the cache's domain), `Conflict`, `NoSuchCache`; then
    /// nothing of the publication is visible.
    ///
    /// It is durable when this returns, unless a lease is all that keeps any of its entries: those wait for a
    /// publication that makes them last, which takes them along to the disk or finds them missing (rule 4).
    pub fn publish(
        &self,
        session: Option<&Session>,
        cache: CacheId,
        publication: Publication,
    ) -> Result<Vec<PublishedEntry>, StoreError> {
        let session = session.map(|session| session.id.clone());
        let leased = publication.entries.iter().all(|new| new.lease.is_some());
        let durability = match leased && publication.deletions.is_empty() {
            true => Durability::Ordered,
            false => Durability::Synced,
        };
        let published = self.inner.db.write(durability, move |connection| {
            let published = entries::publish(connection, session.as_deref(), cache, &publication)?;
            reach(Point::PublicationPrepared)?;
            Ok(published)
        });
        self.inner.entries.published();
        reach(Point::PublicationCommitted)?;
        published
    }

    /// Counts entries and bytes of a cache: (entries of the kind, distinct blobs' stored sizes).
    pub fn cache_usage(&self, cache: CacheId) -> Result<CacheUsage, StoreError> {
        self.inner
            .db
            .snapshot(|connection| entries::usage(connection, cache))
    }

    /// Which of these entries are here, to be told to a pusher: their leases and those of their blobs are renewed
    /// (rule 5).
    pub fn renew(
        &self,
        cache: CacheId,
        kind: EntryKind,
        keys: &[&str],
    ) -> Result<Vec<bool>, StoreError> {
        let lease = self.inner.options.lease;
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        // Leases that last for a good while yet are left alone: the common case writes nothing.
        let (due, present) = self.inner.db.snapshot(|connection| {
            let due = entries::lease_ends_soon(connection, cache, kind, &keys, lease / 2)?;
            Ok((due, entries::present(connection, cache, kind, &keys)?))
        })?;
        if !due {
            return Ok(present);
        }
        let present = self
            .inner
            .db
            .write(Durability::Ordered, move |connection| {
                entries::renew(connection, cache, kind, &keys, lease)?;
                // One that a collector took between the two is not here.
                entries::present(connection, cache, kind, &keys)
            })?;
        reach(Point::LeasesRenewed)?;
        Ok(present)
    }

    /// Opens a session for a cache.
    pub fn session_open(&self, cache: &CacheRow) -> Result<Session, StoreError> {
        let (cache, ttl) = (cache.clone(), self.inner.options.session_ttl);
        let session = self
            .inner
            .db
            .write(Durability::Ordered, move |connection| {
                sessions::open(connection, &cache, ttl)
            })?;
        reach(Point::SessionOpened)?;
        Ok(session)
    }

    /// Finds a live session and renews it.
    pub fn session_touch(&self, id: &str) -> Result<Session, StoreError> {
        self.inner.session_touch(id)
    }

    /// Ends a session; its pins go.
    pub fn session_close(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.inner
            .db
            .write(Durability::Ordered, move |connection| {
                sessions::close(connection, &id)
            })?;
        reach(Point::SessionClosed)?;
        self.inner.reap_sessions().map(|_| ())
    }

    /// Pins those of `ids` that are valid in the session's domain; true where missing.
    pub fn pin(&self, session: &Session, ids: &[ChunkId]) -> Result<Vec<bool>, StoreError> {
        self.inner.pin(session, ids)
    }

    /// Appends frames durably, then makes their chunks valid and pins them. Known ones are only
    /// pinned. Returns how many were new. Many callers share a sync and a transaction.
    pub fn put_frames(
        &self,
        session: &Session,
        frames: Vec<VerifiedFrame>,
    ) -> Result<usize, StoreError> {
        self.inner.packs.put(session, frames)
    }

    /// Starts computing a blob's hashes, chunk by chunk, as its frames come in.
    pub fn verifier(&self, session: &Session, list: ChunkList) -> BlobVerifier {
        let (db, source) = (self.inner.db.clone(), self.inner.source.clone());
        BlobVerifier::new(db, source, session, list)
    }

    /// Makes a blob from a list all of whose chunks are valid: known lists are answered at once, others
    /// hashed to the end. Blob row with a lease. `MissingChunks` names all that are not here.
    pub fn put_blob(
        &self,
        session: &Session,
        verifier: BlobVerifier,
    ) -> Result<BlobInfo, StoreError> {
        let mut made = self.put_blobs(session, vec![verifier])?;
        made.pop()
            .ok_or_else(|| StoreError::Damaged("a blob was neither made nor refused".into()))
    }

    /// As [`Store::put_blob`], for many: hashed in parallel, one transaction; all or none.
    pub fn put_blobs(
        &self,
        session: &Session,
        verifiers: Vec<BlobVerifier>,
    ) -> Result<Vec<BlobInfo>, StoreError> {
        let verifiers = verifiers
            .into_iter()
            .map(|verifier| verifier.for_session(session))
            .collect();
        self.inner.put_blobs(verifiers)
    }

    /// Remembers that these blobs were parsed and are NARs, so that nobody need parse them again.
    pub fn mark_nars(&self, blobs: Vec<BlobId>) -> Result<(), StoreError> {
        if blobs.is_empty() {
            return Ok(());
        }
        self.inner.db.write(Durability::Ordered, move |connection| {
            db::blobs::set_nar(connection, &blobs)
        })
    }

    /// Starts taking in a stream of bytes: chunks, compresses what is new, stores, hashes.
    pub fn ingest(&self, session: &Session, format: Format) -> Ingest {
        Ingest::new(self.inner.clone(), session, format)
    }

    /// Begins an upload that outlives this process. `owner` is kept with it.
    /// Fails with `TooManyUploads` if all that the cache may have are fresh.
    pub fn upload_begin(
        &self,
        cache: &CacheRow,
        owner: &str,
        limits: UploadLimits,
    ) -> Result<Upload, StoreError> {
        Upload::begin(&self.inner, cache, owner, limits)
    }

    /// Goes on with an upload where it is durable; `SessionGone` if there is none.
    pub fn upload_resume(&self, id: &str, limits: UploadLimits) -> Result<Upload, StoreError> {
        Upload::resume(&self.inner, id, limits)
    }

    /// Makes (streaming) and remembers the deterministic gzip of a blob.
    pub fn make_gzip(&self, blob: BlobId) -> Result<(Sha256, u64), StoreError> {
        self.inner.make_gzip(blob)
    }

    /// By row.
    pub fn blob(&self, id: BlobId) -> Result<Option<BlobInfo>, StoreError> {
        self.inner
            .db
            .read(|connection| blobs::by_id(connection, id))
    }

    /// By the digest of any representation, in a domain.
    pub fn blob_by_digest(
        &self,
        domain: DomainId,
        digest: &Sha256,
    ) -> Result<Option<(BlobInfo, Representation)>, StoreError> {
        self.inner
            .db
            .read(|connection| blobs::by_digest(connection, domain, digest))
    }

    /// By list.
    pub fn blob_by_list(
        &self,
        domain: DomainId,
        list: ListId,
    ) -> Result<Option<BlobInfo>, StoreError> {
        self.inner
            .db
            .read(|connection| blobs::by_list(connection, domain, list))
    }

    /// A blob's chunk list.
    pub fn chunk_list(&self, id: BlobId) -> Result<ChunkList, StoreError> {
        self.inner.db.read(|connection| blobs::list(connection, id))
    }

    /// Lengths of a blob's frames, in the order of its chunks; an error if one is missing.
    pub fn frame_lengths(&self, id: BlobId) -> Result<Vec<u32>, StoreError> {
        self.inner.frame_lengths(id)
    }

    /// Opens a representation for reading; when this returns, every chunk's place is known
    /// and its pack open (rule 9). `range` is (first byte, length), cut to what is there. A gzip that was never
    /// made is made first, which takes as long as compressing it.
    pub fn read(
        &self,
        blob: BlobId,
        representation: Representation,
        range: Option<(u64, u64)>,
    ) -> Result<BlobReader, StoreError> {
        self.inner.read(blob, representation, range)
    }

    /// Checks the structure and, with `data`, every byte of a part before. Damaged chunks go into quarantine. `go_on`
    /// hears of the progress of reading data, and may stop it.
    pub fn check(
        &self,
        data: Option<&DataOptions>,
        explain: Explain<'_>,
        go_on: &mut dyn FnMut(&DataProgress) -> bool,
    ) -> Result<CheckReport, StoreError> {
        check::check(&self.inner, data, explain, go_on)
    }

    /// Reads data as [`Store::check`] does, and nothing more.
    pub fn scrub(
        &self,
        data: &DataOptions,
        go_on: &mut dyn FnMut(&DataProgress) -> bool,
    ) -> Result<DataProgress, StoreError> {
        check::scrub(&self.inner, data, go_on)
    }

    /// Makes, or brings up to date, a copy of a data folder in another, while a server works in it or not. With
    /// `link`, packs on the same file system are linked, not copied. `Conflict` if the other folder holds
    /// something else.
    pub fn backup(
        source: &std::path::Path,
        dest: &std::path::Path,
        link: bool,
    ) -> Result<BackupReport, StoreError> {
        backup::backup(source, dest, link)
    }

    /// What keeps a closed folder from being opened: another version, a damaged database. Fails with `Locked`
    /// if a server has it open.
    pub fn inspect(dir: &std::path::Path) -> Result<Vec<Finding>, StoreError> {
        check::inspect(dir)
    }

    /// Says once what becomes of entries whose blob gets another zstd representation. Without it they stay.
    pub fn on_remade(&self, remake: Remake) {
        // A second word changes nothing.
        let _ = self.inner.quarantine.ward.remake.set(remake);
    }

    /// Grows when what was served before may not be any more: who remembers entries has to forget them.
    pub fn changes(&self) -> u64 {
        self.inner.quarantine.ward.changes.load(Ordering::SeqCst)
    }

    /// Chunks in quarantine, after one of them.
    pub fn damaged(
        &self,
        after: Option<&(DomainId, ChunkId)>,
        limit: usize,
    ) -> Result<Vec<DamagedChunk>, StoreError> {
        self.inner
            .db
            .read(|connection| db::damage::all(connection, after, limit))
    }

    /// Gives chunks in quarantine these frames, in whatever domain; others are left. Says how many were healed.
    pub fn heal(&self, frames: Vec<VerifiedFrame>) -> Result<u64, StoreError> {
        self.inner.heal(frames)
    }

    /// Waits until what readers met of damage is in quarantine, and blobs that wait for it are made anew.
    pub fn settle(&self) {
        self.inner.quarantine.settle();
    }

    /// What [`Store::collect`] would do now; changes nothing. `go_on` is asked before each step.
    pub fn plan_collection(
        &self,
        options: &CollectionOptions,
        go_on: &dyn Fn(CollectionStep) -> bool,
    ) -> Result<CollectionReport, StoreError> {
        collect::plan(&self.inner, options, go_on)
    }

    /// Takes away what nothing needs any more, while others read and write. `go_on` is asked before each step;
    /// once it says no, the collection ends there, and the next one goes on. A second one waits for the first.
    pub fn collect(
        &self,
        options: &CollectionOptions,
        go_on: &dyn Fn(CollectionStep) -> bool,
    ) -> Result<CollectionReport, StoreError> {
        collect::collect(&self.inner, options, go_on)
    }

    /// Figures for metrics and `firn stats`.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let (chunks_new_total, chunks_known_total) = self.inner.packs.totals();
        let stats = self.inner.db.snapshot(db::stats)?;
        Ok(Stats {
            chunks_new_total,
            chunks_known_total,
            time_behind_seconds: self.inner.db.clock().behind_ms() / 1000,
            ..stats
        })
    }

    /// Makes the database anew from packs and segments: for a closed folder whose database is lost or doubted.
    /// The old database is left beside it under another name. Sessions and gzip digests are not kept.
    pub fn rebuild(options: &Options) -> Result<RebuildReport, StoreError> {
        Self::rebuild_with_time(options, TimeSources::system())
    }

    /// As [`Store::rebuild`], with other clocks than the system's.
    pub fn rebuild_with_time(
        options: &Options,
        time: TimeSources,
    ) -> Result<RebuildReport, StoreError> {
        rebuild::rebuild(options, time)
    }
}
