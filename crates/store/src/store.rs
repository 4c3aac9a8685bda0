//! An open store: its parts, how they start and how they end.

use crate::clock::TimeSources;
use crate::db::blobs::NewBlob;
use crate::db::{self, Database, Durability, blobs, chunks, lock, sessions};
use crate::entry_cache::EntryCache;
use crate::failpoint::{Point, reach};
use crate::files::{Folder, LockFile};
use crate::ingest::BatchPool;
use crate::packs::{self, Packs};
use crate::presence::Presence;
use crate::quarantine::{self, Quarantine, Ward};
use crate::read::{BlobReader, FrameSource, GzipMaker, Layouts};
use crate::segments::SegmentWriter;
use crate::types::{BlobId, BlobInfo, Options, Remake, Representation, Session};
use crate::verifier::{BlobVerifier, Seen};
use crate::{StoreError, layout};
use firn_chunks::ChunkId;
use firn_formats::Sha256;
use firn_formats::sha256::Sha256Hasher;
use rayon::prelude::*;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

/// How often a place is looked up again when a collector has emptied it meanwhile.
pub(crate) const LOOKS_MAX: u32 = 16;
/// Batches of all uploads in flight: each holds some 2 MiB of raw bytes.
const BATCHES_MAX: usize = 8;

/// What the clones of a store share. The lock is the last to go.
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) db: Arc<Database>,
    pub(crate) packs: Packs,
    pub(crate) source: Arc<FrameSource>,
    pub(crate) layouts: Arc<Layouts>,
    pub(crate) entries: Arc<EntryCache>,
    pub(crate) quarantine: Quarantine,
    pub(crate) batches: Arc<BatchPool>,
    pub(crate) folder: Arc<Folder>,
    pub(crate) presence: Arc<Presence>,
    /// Held by the one collection under way.
    pub(crate) collecting: Mutex<()>,
    pub(crate) segments: SegmentWriter,
    closed: Mutex<bool>,
    _lock: LockFile,
}

impl Inner {
    pub(crate) fn open(options: Options, time: TimeSources) -> Result<Self, StoreError> {
        let folder = Arc::new(Folder::open(&options.dir)?);
        let lock = folder.lock()?;
        layout::check_version(&folder)?;
        layout::clear_temporary(&folder)?;
        layout::check_database(&folder)?;
        let db = Arc::new(Database::open(&folder, time)?);
        sessions::reap_all(&db)?;
        let presence = Arc::new(Presence::new(db.clone(), folder.clone()));
        match presence.check() {
            Ok(()) => packs::recover(&db, &folder)?,
            // Readers are told so until they come; what can be done without packs goes on.
            Err(error @ StoreError::Away(_)) => {
                tracing::error!(
                    error = error.chain(),
                    "the store is opened without its packs"
                );
            }
            // The next pack is marked with them.
            Err(StoreError::Full(_)) => packs::recover(&db, &folder)?,
            Err(error) => return Err(error),
        }
        let (suspects, told) = quarantine::channel();
        let source = FrameSource::new(
            db.clone(),
            folder.clone(),
            presence.clone(),
            suspects.clone(),
        );
        let source = Arc::new(source);
        let layouts = Layouts::new(db.clone(), source.clone(), options.layout_cache_bytes);
        let ward = Ward {
            db: db.clone(),
            source: source.clone(),
            layouts: Arc::new(layouts),
            entries: Arc::new(EntryCache::new()),
            changes: AtomicU64::new(0),
            remake: OnceLock::new(),
            looked: Mutex::new(None),
        };
        let inner = Self {
            packs: Packs::new(
                db.clone(),
                folder.clone(),
                presence.clone(),
                options.pack_bytes_target,
                suspects.clone(),
            ),
            layouts: ward.layouts.clone(),
            entries: ward.entries.clone(),
            quarantine: Quarantine::start(ward, suspects, told)?,
            folder: folder.clone(),
            presence,
            batches: BatchPool::new(BATCHES_MAX),
            segments: SegmentWriter::start(db.clone(), folder.clone(), options.segment_interval)?,
            collecting: Mutex::new(()),
            closed: Mutex::new(false),
            source,
            db,
            options,
            _lock: lock,
        };
        inner.recover_staged()?;
        Ok(inner)
    }

    /// Seals packs, writes the last segment, ends the threads. Whatever fails, all of it is tried.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        let mut closed = lock(&self.closed);
        if std::mem::replace(&mut *closed, true) {
            return Ok(());
        }
        self.quarantine.stop();
        let sealed = self.packs.seal_all();
        let written = self.segments.stop();
        self.db.stop();
        sealed.and(written)
    }

    /// Clears away sessions that have ended; gives their number.
    pub(crate) fn reap_sessions(&self) -> Result<usize, StoreError> {
        sessions::reap_all(&self.db)
    }

    /// Pins those of `ids` that are valid; true where missing.
    pub(crate) fn pin(&self, session: &Session, ids: &[ChunkId]) -> Result<Vec<bool>, StoreError> {
        loop {
            // The many look-ups on a reader, so that the writer does one small insertion only.
            let (present, condemnations) = self.db.snapshot(|connection| {
                sessions::row(connection, &session.id)?;
                let present = chunks::present(connection, session.domain, ids)?;
                Ok((present, chunks::condemnations(connection)?))
            })?;
            let pinned: Vec<u8> = ids
                .iter()
                .zip(&present)
                .filter(|(_, present)| **present)
                .flat_map(|(id, _)| id.0)
                .collect();
            if pinned.is_empty() {
                // Nothing is said to be here, so there is nothing to hold.
                return Ok(vec![true; ids.len()]);
            }
            let known = pinned.len() / size_of::<ChunkId>();
            let (id, domain) = (session.id.clone(), session.domain);
            // Rule 5: pinned in a transaction in which what was looked up still holds.
            let held = self.db.write(Durability::Ordered, move |connection| {
                let row = sessions::row(connection, &id)?;
                if chunks::condemnations(connection)? != condemnations {
                    return Ok(false);
                }
                chunks::pin(connection, row, domain, &pinned)?;
                Ok(true)
            })?;
            if held {
                reach(Point::ChunksPinned)?;
                self.packs.count_known(known as u64);
                return Ok(present.into_iter().map(|present| !present).collect());
            }
        }
    }

    /// One blob; see [`Inner::put_blobs`].
    pub(crate) fn put_blob(&self, verifier: BlobVerifier) -> Result<BlobInfo, StoreError> {
        let mut made = self.put_blobs(vec![verifier])?;
        made.pop()
            .ok_or_else(|| StoreError::Damaged("a blob was neither made nor refused".into()))
    }

    /// Makes blobs' rows: those of known lists at once, the others hashed to the end, in parallel.
    pub(crate) fn put_blobs(
        &self,
        verifiers: Vec<BlobVerifier>,
    ) -> Result<Vec<BlobInfo>, StoreError> {
        let mut work: Vec<(usize, BlobVerifier)> = verifiers.into_iter().enumerate().collect();
        // The longest first, one by one: none may be left alone at the end.
        work.sort_by_key(|(_, verifier)| std::cmp::Reverse(verifier.list().raw_length()));
        let mut made = work
            .into_par_iter()
            .with_max_len(1)
            .map(|(index, verifier)| Ok((index, self.known_or_hashed(verifier)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        made.sort_by_key(|(index, _)| *index);
        self.insert_blobs(made.into_iter().map(|(_, made)| made).collect())
    }

    fn known_or_hashed(&self, mut verifier: BlobVerifier) -> Result<Made, StoreError> {
        let (domain, list) = (verifier.domain(), verifier.list().id());
        let (known, broken) = self.db.snapshot(|connection| {
            sessions::row(connection, &verifier.session)?;
            let known = blobs::by_list(connection, domain, list)?;
            let broken = match &known {
                Some(blob) => db::damage::is_broken(connection, blob.id)?,
                None => false,
            };
            Ok((known, broken))
        })?;
        if let Some(blob) = known.as_ref().filter(|_| !broken) {
            return Ok(Made::Known(blob.clone(), Box::new(verifier)));
        }
        let hashed = match verifier.finish() {
            Err(error) if quarantine::is_damage(&error) => {
                // A rotten frame that counted as present: once it is in quarantine, it is asked for.
                self.quarantine.settle();
                verifier.locate_all()?;
                return Err(error);
            }
            finished => finished?,
        };
        Ok(Made::Hashed {
            broken: known.map(|blob| blob.id),
            blob: hashed.blob,
            seen: hashed.seen,
            session: hashed.session,
        })
    }

    fn insert_blobs(&self, made: Vec<Made>) -> Result<Vec<BlobInfo>, StoreError> {
        let lease = self.options.lease;
        let mut rest = Vec::with_capacity(made.len());
        let mut again = Vec::new();
        for made in made {
            match made {
                Made::Known(blob, verifier) => {
                    rest.push(Insert::Renew(blob));
                    again.push(Some(verifier));
                }
                Made::Hashed {
                    broken,
                    blob,
                    seen,
                    session,
                } => {
                    rest.push(Insert::New {
                        broken,
                        blob: Box::new(blob),
                        seen,
                        session,
                    });
                    again.push(None);
                }
            }
        }
        let remade = rest.iter().any(Insert::remakes);
        let change = self.quarantine.ward.remake();
        // A blob made anew changes entries that are visible.
        let durability = match remade {
            true => Durability::Synced,
            false => Durability::Ordered,
        };
        let inserted = self.db.write(durability, move |connection| {
            rest.into_iter()
                .map(|insert| insert.run(connection, lease, change))
                .collect::<Result<Vec<_>, _>>()
        })?;
        if remade {
            self.quarantine.ward.changed();
        }
        reach(Point::BlobsMade)?;
        inserted
            .into_iter()
            .zip(again)
            .map(|(blob, verifier)| match (blob, verifier) {
                (Some(blob), _) => Ok(blob),
                // The known blob was reclaimed between look-up and renewal: now it is new.
                (None, Some(verifier)) => self.put_blob(*verifier),
                (None, None) => Err(StoreError::MissingChunks(Vec::new())),
            })
            .collect()
    }

    /// Opens a representation for reading.
    pub(crate) fn read(
        &self,
        blob: BlobId,
        representation: Representation,
        range: Option<(u64, u64)>,
    ) -> Result<BlobReader, StoreError> {
        if representation == Representation::Gzip && self.layouts.get(blob)?.blob.gzip.is_none() {
            self.make_gzip(blob)?;
        }
        self.open_reader(blob, representation, range)
    }

    /// Rule 9: every pack is open when this returns, and stays readable even if a collector deletes it after that.
    fn open_reader(
        &self,
        blob: BlobId,
        representation: Representation,
        range: Option<(u64, u64)>,
    ) -> Result<BlobReader, StoreError> {
        let mut tries = LOOKS_MAX;
        loop {
            let layout = self.layouts.get(blob)?;
            match BlobReader::open(&self.layouts, layout, representation, range) {
                Err(StoreError::Collected(_)) if tries > 0 => self.layouts.forget(blob),
                opened => return opened,
            }
            tries -= 1;
        }
    }

    /// Lengths of a blob's frames.
    pub(crate) fn frame_lengths(&self, blob: BlobId) -> Result<Vec<u32>, StoreError> {
        let layout = self.layouts.get(blob)?;
        Ok(layout
            .frames
            .iter()
            .map(|frame| frame.frame_length)
            .collect())
    }

    /// Makes and remembers the gzip of a blob.
    pub(crate) fn make_gzip(&self, id: BlobId) -> Result<(Sha256, u64), StoreError> {
        if let Some(known) = self.layouts.get(id)?.blob.gzip {
            return Ok(known);
        }
        let mut reader = self.open_reader(id, Representation::Identity, None)?;
        let mut maker = GzipMaker::new();
        let mut hasher = Sha256Hasher::new();
        let mut length = 0;
        while let Some(block) = reader.next_block()? {
            let made = maker.push(&block)?;
            hasher.update(&made);
            length += made.len() as u64;
        }
        let last = maker.finish()?;
        hasher.update(&last);
        length += last.len() as u64;
        let digest = hasher.finish();
        self.db.write(Durability::Ordered, move |connection| {
            blobs::set_gzip(connection, id, digest, length)
        })?;
        reach(Point::GzipRemembered)?;
        self.layouts.forget(id);
        Ok((digest, length))
    }
}

enum Made {
    Known(BlobInfo, Box<BlobVerifier>),
    Hashed {
        /// The blob is here, but could not be served.
        broken: Option<BlobId>,
        blob: NewBlob,
        seen: Seen,
        session: String,
    },
}

enum Insert {
    Renew(BlobInfo),
    New {
        broken: Option<BlobId>,
        blob: Box<NewBlob>,
        seen: Seen,
        session: String,
    },
}

impl Insert {
    fn remakes(&self) -> bool {
        matches!(
            self,
            Self::New {
                broken: Some(_),
                ..
            }
        )
    }

    /// `None` if the blob was known and is gone, or has other frames than were hashed.
    fn run(
        self,
        connection: &rusqlite::Connection,
        lease: std::time::Duration,
        change: Remake,
    ) -> Result<Option<BlobInfo>, StoreError> {
        match self {
            Self::Renew(blob) => {
                // Rule 5: "present" renews the lease. One that lasts long enough needs no write.
                let lasts = blobs::lease_exceeds(connection, blob.id, lease / 2)?;
                let here = lasts || blobs::renew(connection, blob.id, lease)?;
                Ok(here.then_some(blob))
            }
            Self::New {
                broken,
                blob,
                seen,
                session,
            } => {
                sessions::row(connection, &session)?;
                let now = Seen::now(connection)?;
                if now.reframings != seen.reframings {
                    return Ok(None);
                }
                // Rule 2: all its chunks were valid, and nothing was condemned since; else look again here.
                if now != seen {
                    db::blobs::check_complete(connection, &blob)?;
                }
                match broken {
                    Some(id) if db::damage::is_broken(connection, id)? => {
                        let made = db::remade::remake(connection, id, &blob, change)?;
                        blobs::renew(connection, id, lease)?;
                        Ok(Some(made))
                    }
                    _ => blobs::put(connection, &blob, lease).map(Some),
                }
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "closing the store");
        }
    }
}
