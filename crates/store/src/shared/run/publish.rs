//! Making a segment of a batch.

use super::super::{Located, union::Union};
use super::{Run, batch::Batch, clock, merge};
use crate::StoreError;
use firn_chunks::{
    ChunkId, ListId,
    segment::{BlobRecord, Record},
};
use std::collections::{HashMap, HashSet};

/// For how long a run may count on packs that it saw named, or uploaded, before it publishes: half of the
/// shortest time after which a collector deletes a pack that it finds named by nobody. In microseconds.
pub(in crate::shared) const RELIANCE_MAX: u64 = 12 * 3600 * 1_000_000;

/// What became visible.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) bytes: u64,
    pub(super) merged: u64,
    /// The run's own, now in the index.
    pub(super) chunks: Vec<ChunkId>,
}

impl Run {
    /// Publishes what of the batch is complete, and leaves in it what is not; with `last`, all must be.
    pub(super) fn publish_batch(
        &self,
        batch: &mut Batch,
        last: bool,
    ) -> Result<Published, StoreError> {
        if batch.is_empty() {
            return Ok(Published::default());
        }
        let now = clock::micros();
        if let Some(at) = batch.oldest_frame_at()
            && now.saturating_sub(at) > RELIANCE_MAX
        {
            return Err(StoreError::RunTooLong);
        }
        // Rule 8: what the index said when frames were added is old by now.
        self.shared.refresh()?;
        let mut own = Union::default();
        let mut waiting = self.resolve(batch, now, last, &mut own)?;
        let entries = self.resolve_entries(batch, &mut waiting, &mut own)?;
        let chunks: Vec<ChunkId> = batch
            .packs
            .iter()
            .flat_map(|ready| ready.frames.iter().map(|placed| placed.record.id))
            .collect();
        for ready in &batch.packs {
            own.add_pack(&ready.pack.name, ready.pack.length, &ready.frames);
        }
        own.add(entries);
        if own.is_empty() {
            return Ok(Published::default());
        }
        let (bytes, merged) = self.publish_union(own)?;
        batch.blobs = waiting.blobs;
        batch.entries = waiting.entries;
        batch.published();
        Ok(Published {
            bytes,
            merged,
            chunks,
        })
    }

    /// Adds complete blobs to `own`, each with all the frames it needs: a segment that tells a blob names every
    /// pack the blob lies in, whatever becomes of other segments meanwhile.
    fn resolve(
        &self,
        batch: &Batch,
        now: u64,
        last: bool,
        own: &mut Union,
    ) -> Result<Waiting, StoreError> {
        let in_batch: HashSet<ChunkId> = batch
            .packs
            .iter()
            .flat_map(|ready| ready.frames.iter().map(|placed| placed.record.id))
            .collect();
        let mut waiting = Waiting::default();
        let mut missing = Vec::new();
        for blob in &batch.blobs {
            match self.places(blob, batch, &in_batch, now)? {
                Places::All(places) => {
                    self.add_places(&places, batch, own)?;
                    own.add_blob(blob.clone());
                }
                Places::Missing(ids) => {
                    missing.extend(ids);
                    waiting.lists.insert(blob.list.id());
                    waiting.blobs.push(blob.clone());
                }
            }
        }
        if last && !missing.is_empty() {
            missing.sort_unstable();
            missing.dedup();
            return Err(StoreError::MissingChunks(missing));
        }
        Ok(waiting)
    }

    /// Where the frames of a blob lie that are not in the batch's own packs.
    fn places(
        &self,
        blob: &BlobRecord,
        batch: &Batch,
        in_batch: &HashSet<ChunkId>,
        now: u64,
    ) -> Result<Places, StoreError> {
        let mut seen = HashSet::new();
        let ids: Vec<ChunkId> = blob
            .list
            .chunks
            .iter()
            .map(|chunk| chunk.id)
            .filter(|id| !in_batch.contains(id) && seen.insert(*id))
            .collect();
        let fresh = now.saturating_sub(batch.relied_since()) <= RELIANCE_MAX;
        let (mut places, mut missing) = (Vec::with_capacity(ids.len()), Vec::new());
        for (id, located) in ids.iter().zip(self.shared.index.locate(&ids)?) {
            // No live segment names it any more, but the grace of its pack has not ended: named again, it stays.
            let again = || batch.relied(id).filter(|_| fresh).cloned();
            match located.or_else(again) {
                Some(located) => places.push(located),
                None => missing.push(*id),
            }
        }
        Ok(match missing.is_empty() {
            true => Places::All(places),
            false => Places::Missing(missing),
        })
    }

    fn add_places(
        &self,
        places: &[Located],
        batch: &Batch,
        own: &mut Union,
    ) -> Result<(), StoreError> {
        let mut by_pack: HashMap<&str, Vec<_>> = HashMap::new();
        for located in places {
            by_pack
                .entry(&located.pack)
                .or_default()
                .push(located.placed);
        }
        for (name, frames) in by_pack {
            let known = self.shared.index.pack(name)?.map(|pack| pack.length);
            let length = known.or_else(|| batch.pack_length(name)).unwrap_or(0);
            own.add_pack(name, length, &frames);
        }
        Ok(())
    }

    /// The entries that can be published; those of waiting blobs wait. A blob that only the store has is told
    /// again with its frames, since the segments that tell it may go (rule 4).
    fn resolve_entries(
        &self,
        batch: &Batch,
        waiting: &mut Waiting,
        own: &mut Union,
    ) -> Result<Vec<Record>, StoreError> {
        let here: HashSet<ListId> = batch.blobs.iter().map(|blob| blob.list.id()).collect();
        let mut told = HashSet::new();
        let mut entries = Vec::with_capacity(batch.entries.len());
        for entry in &batch.entries {
            let Record::Entry { blobs, key, .. } = entry else {
                continue;
            };
            let lists: Vec<ListId> = blobs.iter().copied().map(ListId).collect();
            if lists.iter().any(|list| waiting.lists.contains(list)) {
                waiting.entries.push(entry.clone());
                continue;
            }
            for list in lists {
                if !here.contains(&list) && told.insert(list) {
                    self.tell_again(&list, key, batch, own)?;
                }
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn tell_again(
        &self,
        list: &ListId,
        key: &str,
        batch: &Batch,
        own: &mut Union,
    ) -> Result<(), StoreError> {
        let missing = || StoreError::MissingEntry(format!("the blob {} of {key}", ChunkId(list.0)));
        let blob = self.shared.index.blob(list)?.ok_or_else(missing)?;
        let ids: Vec<ChunkId> = blob.list.chunks.iter().map(|chunk| chunk.id).collect();
        let places: Option<Vec<Located>> = self.shared.index.locate(&ids)?.into_iter().collect();
        self.add_places(&places.ok_or_else(missing)?, batch, own)?;
        own.add_blob(blob);
        Ok(())
    }

    /// Publishes a segment of `union` and of what it takes in. Gives its length and how many that were.
    fn publish_union(&self, mut union: Union) -> Result<(u64, u64), StoreError> {
        let own_size = union.size_estimate();
        let merged = merge::merge(&self.shared, own_size, &mut union)?;
        let length = self.shared.publish(&self.writer, union, &merged.covers)?;
        Ok((length, merged.count))
    }
}

/// What a checkpoint leaves for the next.
#[derive(Debug, Default)]
struct Waiting {
    lists: HashSet<ListId>,
    blobs: Vec<BlobRecord>,
    entries: Vec<Record>,
}

enum Places {
    All(Vec<Located>),
    Missing(Vec<ChunkId>),
}
