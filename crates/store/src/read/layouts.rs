//! Where the frames of a blob lie; remembered, since a chunk's place changes only when a collector moves it,
//! who says so here.

use super::FrameSource;
use crate::StoreError;
use crate::db::{Database, blobs, chunks, damage};
use crate::types::{BlobId, BlobInfo};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One frame of a blob. The places in both representations are of the frame's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlacedFrame {
    pub(crate) pack: i64,
    pub(crate) offset: u64,
    pub(crate) zstd_start: u64,
    pub(crate) identity_start: u64,
    pub(crate) checksum: u64,
    pub(crate) frame_length: u32,
    pub(crate) raw_length: u32,
}

/// A blob and its frames, in order.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) blob: BlobInfo,
    pub(crate) frames: Vec<PlacedFrame>,
}

#[derive(Clone)]
struct LayoutWeight;

impl Weighter<BlobId, (u64, Arc<Layout>)> for LayoutWeight {
    fn weight(&self, _: &BlobId, (_, layout): &(u64, Arc<Layout>)) -> u64 {
        (size_of::<Layout>() + layout.frames.len() * size_of::<PlacedFrame>()) as u64
    }
}

/// The layouts of blobs read lately.
pub(crate) struct Layouts {
    db: Arc<Database>,
    pub(crate) source: Arc<FrameSource>,
    cache: Cache<BlobId, (u64, Arc<Layout>), LayoutWeight>,
    /// Layouts of an earlier generation are stale.
    generation: AtomicU64,
    /// Rises when chunks have been moved and before layouts are forgotten, so that who built one from an older
    /// snapshot notices that it must not stay.
    moves: AtomicU64,
}

impl Layouts {
    pub(crate) fn new(db: Arc<Database>, source: Arc<FrameSource>, bytes_max: u64) -> Self {
        Self {
            db,
            source,
            cache: Cache::with_weighter(4096, bytes_max, LayoutWeight),
            generation: AtomicU64::new(0),
            moves: AtomicU64::new(0),
        }
    }

    /// The layout of a blob; an error if it cannot be served whole (rule 9).
    pub(crate) fn get(&self, id: BlobId) -> Result<Arc<Layout>, StoreError> {
        // Taken before the look-up: what is looked up before a change is stale after it.
        let generation = self.generation.load(Ordering::SeqCst);
        match self.cache.get(&id) {
            Some((then, layout)) if then == generation => return Ok(layout),
            _ => {}
        }
        let before = self.moves.load(Ordering::SeqCst);
        let layout = Arc::new(self.db.snapshot(|connection| build(connection, id))?);
        self.cache.insert(id, (generation, layout.clone()));
        if self.moves.load(Ordering::SeqCst) != before {
            self.cache.remove(&id);
        }
        Ok(layout)
    }

    /// Forgets all: chunks may have ceased to be valid, or have other frames. To be called after the commit.
    pub(crate) fn forget_all(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Forgets layouts with frames in packs that are left or gone.
    pub(crate) fn forget_packs(&self, packs: &HashSet<i64>) {
        self.moves.fetch_add(1, Ordering::SeqCst);
        self.cache.retain(|_, (_, layout)| {
            let mut frames = layout.frames.iter();
            !frames.any(|frame| packs.contains(&frame.pack))
        });
    }

    /// Forgets a blob, whose row changed.
    pub(crate) fn forget(&self, id: BlobId) {
        self.cache.remove(&id);
    }
}

fn build(connection: &rusqlite::Connection, id: BlobId) -> Result<Layout, StoreError> {
    let blob = blobs::by_id(connection, id)?
        .ok_or_else(|| StoreError::Damaged(format!("blob {} is not here", id.0)))?;
    let list = blobs::list(connection, id)?;
    let located = chunks::locate(
        connection,
        blob.domain,
        list.chunks.iter().map(|chunk| chunk.id),
    )?;
    let mut missing = Vec::new();
    let mut frames = Vec::with_capacity(list.chunks.len());
    let (mut zstd_start, mut identity_start) = (0, 0);
    for (chunk, located) in list.chunks.iter().zip(located) {
        let Some(located) = located else {
            missing.push(chunk.id);
            continue;
        };
        frames.push(PlacedFrame {
            pack: located.pack,
            offset: located.offset,
            zstd_start,
            identity_start,
            checksum: located.checksum,
            frame_length: located.frame_length,
            raw_length: located.raw_length,
        });
        zstd_start += u64::from(located.frame_length);
        identity_start += u64::from(located.raw_length);
    }
    if !missing.is_empty() {
        return Err(StoreError::MissingChunks(missing));
    }
    // Its chunks are here, but may have other frames than its digest was made of.
    if damage::is_broken(connection, id)? {
        return Err(StoreError::Damaged(format!(
            "blob {} is being made anew",
            id.0
        )));
    }
    if (zstd_start, identity_start) != (blob.zstd_length, blob.identity_length) {
        return Err(StoreError::Damaged(format!(
            "frames of blob {} do not add up to its length",
            id.0
        )));
    }
    Ok(Layout { blob, frames })
}
