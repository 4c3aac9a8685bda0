//! The stages of a push into a store without a server, joined by bounded channels:
//!
//! ```text
//! chunk, locate (a thread a core) → read, compress, add (a thread a core)
//!          └───────────────── events ─────────────────┴→ blobs and narinfos, in order (the caller's thread)
//! ```
//!
//! A chunk that several paths share is added with the first of them, so a path is complete when every group
//! formed up to its own has been added.

use super::{StoragePushReport, signed_narinfo};
use crate::{
    error::{ClientError, Result},
    progress::Progress,
    push::{
        cores,
        work::{Chunked, Failure, Job, Work, lock},
    },
};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use firn_chunks::{ChunkId, ChunkList, Encoder, boundaries::V1, segment::BlobRecord};
use firn_formats::nix::SecretKey;
use firn_image::archive::ArchiveError;
use firn_store::{
    EntryKind,
    shared::{BLOB_FLAG_NO_ZSTD_DIGEST, Run, SHARED_DOMAIN, SharedStore},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Groups that wait to be added; they hold ranges, not bytes.
const GROUPS_WAITING_MAX: usize = 64;
/// Raw bytes of a group.
const GROUP_RAW_BYTES_TARGET: u64 = 8 << 20;

/// Where a push goes, and what it is of.
pub(super) struct Target<'a> {
    pub(super) store: &'a SharedStore,
    pub(super) run: &'a Run,
    pub(super) cache: &'a str,
    /// Signs the narinfos.
    pub(super) key: Option<&'a SecretKey>,
    pub(super) work: &'a Work<'a>,
    /// Indices into the closure, references first.
    pub(super) paths: &'a [usize],
    pub(super) progress: &'a dyn Progress,
}

/// What all stages see.
struct Stage<'a> {
    target: &'a Target<'a>,
    failure: Failure,
    next: AtomicUsize,
    claims: Mutex<Claims>,
}

#[derive(Default)]
struct Claims {
    /// Chunks on their way with an earlier path.
    ids: HashSet<ChunkId>,
    groups: usize,
}

/// A chunk to add, and where in the path's NAR it lies.
struct Piece {
    id: ChunkId,
    offset: u64,
    length: u32,
}

/// Chunks of one path that are added by one thread.
struct Group {
    number: usize,
    path: Arc<Chunked>,
    pieces: Vec<Piece>,
}

enum Event {
    /// The path at this position is chunked; it is complete when so many groups, from the first, are added.
    Chunked {
        position: usize,
        list: ChunkList,
        groups_needed: usize,
    },
    Added {
        group: usize,
        chunks: u64,
        bytes: u64,
    },
}

impl Target<'_> {
    pub(super) fn push(&self, report: &mut StoragePushReport) -> Result<()> {
        let stage = &Stage {
            target: self,
            failure: Failure::default(),
            next: AtomicUsize::new(0),
            claims: Mutex::default(),
        };
        let threads = cores().min(self.paths.len());
        std::thread::scope(|scope| {
            let (groups_in, groups_out) = bounded::<Group>(GROUPS_WAITING_MAX);
            let (events_in, events_out) = unbounded::<Event>();
            for _ in 0..threads {
                let (groups, events) = (groups_in.clone(), events_in.clone());
                scope.spawn(move || stage.failure.note(stage.chunk(&groups, &events)));
            }
            for _ in 0..cores().min(self.paths.len() * 8) {
                let (groups, events) = (groups_out.clone(), events_in.clone());
                scope.spawn(move || stage.failure.note(stage.add(&groups, &events)));
            }
            // Only the stages may keep the channels open: their end is how the others learn of an end.
            drop((groups_in, groups_out, events_in));
            stage.failure.note(stage.publish(&events_out, report));
        });
        stage.failure.take().map_or(Ok(()), Err)
    }
}

impl Stage<'_> {
    /// Cuts paths into chunks, and hands those on that the store has not.
    fn chunk(&self, groups: &Sender<Group>, events: &Sender<Event>) -> Result<()> {
        while !self.failure.is_set() {
            let position = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&index) = self.target.paths.get(position) else {
                break;
            };
            let path = Arc::new(self.target.work.chunk(Job::Path(index))?);
            let info = self.target.work.info(index);
            if path.list.raw_length() != info.nar_size {
                return Err(ClientError::HashMismatch {
                    what: format!("the NAR of {}", info.path.absolute()),
                });
            }
            let (formed, groups_needed) = self.claim(&path)?;
            let chunked = Event::Chunked {
                position,
                list: path.list.clone(),
                groups_needed,
            };
            if events.send(chunked).is_err() {
                break;
            }
            if formed.into_iter().any(|group| groups.send(group).is_err()) {
                break;
            }
        }
        Ok(())
    }

    /// Groups of the chunks that neither the store has nor an earlier path brings; and how many groups there
    /// are so far.
    fn claim(&self, path: &Arc<Chunked>) -> Result<(Vec<Group>, usize)> {
        let ids: Vec<ChunkId> = path.list.chunks.iter().map(|chunk| chunk.id).collect();
        let located = self.target.store.locate(&ids)?;
        let brought = self.target.run.brings(&ids);
        let mut formed: Vec<Group> = Vec::new();
        let (mut offset, mut open_bytes, mut present_bytes) = (0, GROUP_RAW_BYTES_TARGET, 0);
        let mut claims = lock(&self.claims);
        for ((chunk, located), brought) in path.list.chunks.iter().zip(located).zip(brought) {
            let length = u64::from(chunk.raw_length);
            if located.is_none() && !brought && claims.ids.insert(chunk.id) {
                if open_bytes >= GROUP_RAW_BYTES_TARGET {
                    formed.push(Group {
                        number: claims.groups,
                        path: Arc::clone(path),
                        pieces: Vec::new(),
                    });
                    claims.groups += 1;
                    open_bytes = 0;
                }
                open_bytes += length;
                if let Some(group) = formed.last_mut() {
                    group.pieces.push(Piece {
                        id: chunk.id,
                        offset,
                        length: chunk.raw_length,
                    });
                }
            } else {
                present_bytes += length;
            }
            offset += length;
        }
        let groups_needed = claims.groups;
        drop(claims);
        self.target.progress.advance(present_bytes);
        Ok((formed, groups_needed))
    }

    /// Reads, compresses and adds groups until there are no more.
    fn add(&self, groups: &Receiver<Group>, events: &Sender<Event>) -> Result<()> {
        let mut encoder = None;
        let mut raw = Vec::new();
        while let Ok(group) = groups.recv() {
            if self.failure.is_set() {
                break;
            }
            let encoder = encoder.get_or_insert_with(|| Encoder::new(V1.zstd_level));
            if events
                .send(self.add_group(&group, encoder, &mut raw)?)
                .is_err()
            {
                break;
            }
        }
        Ok(())
    }

    fn add_group(&self, group: &Group, encoder: &mut Encoder, raw: &mut Vec<u8>) -> Result<Event> {
        let archive = group.path.archive(self.target.work)?;
        let (mut chunks, mut bytes) = (0, 0);
        for piece in &group.pieces {
            archive.read_at(piece.offset, piece.length as usize, raw)?;
            let frame = encoder.encode(raw);
            if frame.record().id != piece.id {
                return Err(self.changed(&group.path));
            }
            if self.target.run.add_frame(&frame)? {
                chunks += 1;
                bytes += u64::from(frame.record().frame_length);
            }
            self.target.progress.advance(u64::from(piece.length));
        }
        Ok(Event::Added {
            group: group.number,
            chunks,
            bytes,
        })
    }

    /// What is remembered of a path, or was read of it just now, is not what lies there.
    fn changed(&self, path: &Chunked) -> ClientError {
        let root = match path.job {
            Job::Path(index) => {
                let work = self.target.work;
                work.store.physical(&work.info(index).path)
            }
            Job::Layer(_) => std::path::PathBuf::new(),
        };
        ArchiveError::Changed(root).into()
    }

    /// Adds blobs and narinfos of complete paths, in the order of the paths.
    fn publish(&self, events: &Receiver<Event>, report: &mut StoragePushReport) -> Result<()> {
        let mut chunked: BTreeMap<usize, (ChunkList, usize)> = BTreeMap::new();
        let mut added: BTreeSet<usize> = BTreeSet::new();
        let (mut groups_done, mut next) = (0, 0);
        while let Ok(event) = events.recv() {
            match event {
                Event::Chunked {
                    position,
                    list,
                    groups_needed,
                } => {
                    report.chunks_total += list.chunks.len() as u64;
                    chunked.insert(position, (list, groups_needed));
                }
                Event::Added {
                    group,
                    chunks,
                    bytes,
                } => {
                    report.chunks_sent += chunks;
                    report.bytes_sent += bytes;
                    added.insert(group);
                    while added.remove(&groups_done) {
                        groups_done += 1;
                    }
                }
            }
            while let Some(first) = chunked.first_entry()
                && *first.key() == next
                && first.get().1 <= groups_done
            {
                let (list, _) = first.remove();
                self.publish_path(next, list)?;
                report.paths_pushed += 1;
                next += 1;
            }
        }
        Ok(())
    }

    fn publish_path(&self, position: usize, list: ChunkList) -> Result<()> {
        let target = self.target;
        let Some(&index) = target.paths.get(position) else {
            return Ok(());
        };
        let info = target.work.info(index);
        let id = list.id();
        target.run.add_blob(BlobRecord {
            domain: SHARED_DOMAIN.to_owned(),
            flags: BLOB_FLAG_NO_ZSTD_DIGEST,
            list,
            identity_sha256: info.nar_hash.0,
            zstd_sha256: [0; 32],
            zstd_length: 0,
        })?;
        let text = signed_narinfo(info, target.key).to_string();
        let hash = info.path.hash().to_string();
        let kind = EntryKind::Narinfo;
        target
            .run
            .add_entry(target.cache, kind, &hash, text.as_bytes(), &[id])?;
        Ok(())
    }
}
