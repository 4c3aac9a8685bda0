//! What a run has gathered for its next segment.

use super::super::{Located, clock};
use super::pack::ReadyPack;
use firn_chunks::{
    ChunkId,
    segment::{BlobRecord, Record},
};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) packs: Vec<ReadyPack>,
    pub(super) blobs: Vec<BlobRecord>,
    pub(super) entries: Vec<Record>,
    /// Frames of the store that the run counts on, and where they were.
    relied: HashMap<ChunkId, Located>,
    /// Of the packs they lie in.
    pack_lengths: HashMap<Arc<str>, u64>,
    /// They were named by a live segment at this time or later, in microseconds since 1970.
    relied_since: u64,
    /// When the first frame was added that no segment names yet.
    oldest_frame_at: Option<u64>,
}

impl Batch {
    pub(super) fn new(refreshed_at: u64) -> Self {
        Self {
            packs: Vec::new(),
            blobs: Vec::new(),
            entries: Vec::new(),
            relied: HashMap::new(),
            pack_lengths: HashMap::new(),
            relied_since: refreshed_at,
            oldest_frame_at: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.blobs.is_empty() && self.entries.is_empty()
    }

    /// Notes that a frame was added now.
    pub(super) fn touch(&mut self) {
        self.oldest_frame_at.get_or_insert_with(clock::micros);
    }

    /// Counts on a frame of the store, in a pack whose length was noted.
    pub(super) fn rely_on(&mut self, located: Located) {
        self.relied
            .entry(located.placed.record.id)
            .or_insert(located);
    }

    pub(super) fn note_pack(&mut self, name: Arc<str>, length: u64) {
        self.pack_lengths.insert(name, length);
    }

    pub(super) fn pack_length(&self, name: &str) -> Option<u64> {
        self.pack_lengths.get(name).copied()
    }

    pub(super) fn relies_on(&self, id: &ChunkId) -> bool {
        self.relied.contains_key(id)
    }

    /// Where a frame was that the run counts on.
    pub(super) fn relied(&self, id: &ChunkId) -> Option<&Located> {
        self.relied.get(id)
    }

    pub(super) fn relied_since(&self) -> u64 {
        self.relied_since
    }

    pub(super) fn oldest_frame_at(&self) -> Option<u64> {
        self.oldest_frame_at
    }

    /// Forgets what was published; blobs and entries that wait stay, with what they rely on.
    pub(super) fn published(&mut self) {
        self.packs.clear();
        self.oldest_frame_at = None;
        if self.blobs.is_empty() {
            self.relied.clear();
            self.pack_lengths.clear();
        }
    }

    /// Takes in an older batch.
    pub(super) fn absorb(&mut self, older: Self) {
        self.packs.splice(..0, older.packs);
        self.blobs.splice(..0, older.blobs);
        self.entries.splice(..0, older.entries);
        if !older.relied.is_empty() {
            self.relied_since = self.relied_since.min(older.relied_since);
            self.relied.extend(older.relied);
            self.pack_lengths.extend(older.pack_lengths);
        }
        self.oldest_frame_at = match (self.oldest_frame_at, older.oldest_frame_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}
