//! Packs with much in them that nothing needs: what is needed is copied, frame by frame as it lies, into new packs,
//! and the segment of the collection names the new places. The old pack is then one that nobody names, and goes by
//! the two marks of any other.

use crate::StoreError;
use crate::shared::run::{PackBuilder, RELIANCE_MAX, ReadyPack};
use crate::shared::{Inner, PackFile, clock, union::Union};
use firn_chunks::{ChunkId, Decoder, frame, pack::Placed};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

/// Bytes that are read over rather than asked for by another request.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// Largest range asked for, unless a frame is longer.
const RANGE_BYTES_MAX: u64 = 8 << 20;

/// What is to be copied.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    /// The packs, and for each the frames that are needed and lie nowhere else, by their offset.
    packs: BTreeMap<String, Vec<Placed>>,
}

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Packs that are not needed any more, unless somebody has come to need more of them meanwhile.
    pub(super) from: HashSet<String>,
    packs: Vec<ReadyPack>,
}

impl Rewrite {
    /// Packs of which more than so many percent are needed by no blob in the union, and which are `stored` and not
    /// `young`: the run of a young one may go on, and may count on what no blob names yet.
    pub(super) fn plan(
        union: &Union,
        stored: &[PackFile],
        young: &HashSet<String>,
        dead_percent_max: u8,
    ) -> Self {
        let needed: HashSet<ChunkId> = union
            .blobs
            .values()
            .flat_map(|blob| blob.list.chunks.iter().map(|chunk| chunk.id))
            .collect();
        let is_dead = |file: &&PackFile| {
            let Some(pack) = union.packs.get(&file.name) else {
                return false;
            };
            let live = pack.frames.values();
            let live = live.filter(|placed| needed.contains(&placed.record.id));
            let live: u64 = live
                .map(|placed| u64::from(placed.record.frame_length))
                .sum();
            // One that is dead as a whole is not rewritten, it goes.
            let dead = file.length.saturating_sub(live);
            live > 0 && dead * 100 > file.length * u64::from(dead_percent_max)
        };
        let chosen: HashSet<&str> = stored
            .iter()
            .filter(|file| !young.contains(&file.name))
            .filter(is_dead)
            .map(|file| file.name.as_str())
            .collect();
        let mut here: HashSet<ChunkId> = union
            .packs
            .iter()
            .filter(|(name, _)| !chosen.contains(name.as_str()))
            .flat_map(|(_, pack)| pack.frames.keys().map(|(id, _)| *id))
            .collect();
        let mut packs = BTreeMap::new();
        for name in chosen {
            let frames = union.packs.get(name).map(|pack| pack.frames.values());
            let mut copied: Vec<Placed> = frames
                .into_iter()
                .flatten()
                .filter(|placed| needed.contains(&placed.record.id))
                .filter(|placed| here.insert(placed.record.id))
                .copied()
                .collect();
            copied.sort_unstable_by_key(|placed| placed.offset);
            packs.insert(name.to_owned(), copied);
        }
        Self { packs }
    }

    pub(super) fn names(&self) -> HashSet<&str> {
        self.packs.keys().map(String::as_str).collect()
    }

    /// Bytes of frames.
    pub(super) fn bytes(&self) -> u64 {
        let frames = self.packs.values().flatten();
        frames
            .map(|placed| u64::from(placed.record.frame_length))
            .sum()
    }

    /// Copies. A pack of which something cannot be read, or is not what it should be, is left as it is: somebody may
    /// yet heal it.
    pub(super) fn copy(&self, inner: &Inner) -> Result<Copied, StoreError> {
        let begun = clock::micros();
        let mut copier = Copier {
            inner,
            decoder: Decoder::new(),
            raw: Vec::new(),
            builder: None,
            copied: Copied::default(),
        };
        for (name, frames) in &self.packs {
            match copier.copy_pack(name, frames) {
                Ok(()) => {
                    copier.copied.from.insert(name.clone());
                }
                Err(error @ (StoreError::Damaged(_) | StoreError::Backend { .. })) => {
                    tracing::warn!(pack = name, %error, "a pack is not rewritten");
                }
                Err(error) => return Err(error),
            }
            // What was uploaded must be named while it is young.
            if clock::micros().saturating_sub(begun) > RELIANCE_MAX {
                return Err(StoreError::RunTooLong);
            }
        }
        copier.finish()
    }
}

impl Copied {
    /// Adds the new packs to what will be published.
    pub(super) fn add_to(&self, union: &mut Union) {
        for ready in &self.packs {
            union.add_pack(&ready.pack.name, ready.pack.length, &ready.frames);
        }
    }

    /// Bytes of the new packs.
    pub(super) fn bytes(&self) -> u64 {
        self.packs.iter().map(|ready| ready.pack.length).sum()
    }

    /// The new packs.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.packs.iter().map(|ready| &ready.pack.name)
    }
}

struct Copier<'a> {
    inner: &'a Inner,
    decoder: Decoder,
    raw: Vec<u8>,
    builder: Option<PackBuilder>,
    copied: Copied,
}

impl Copier<'_> {
    fn copy_pack(&mut self, name: &str, frames: &[Placed]) -> Result<(), StoreError> {
        for (range, frames) in ranges(frames) {
            let bytes = self.inner.backend.read(name, range.clone())?;
            for placed in frames {
                let start = (placed.offset - range.start) as usize;
                let frame = bytes.get(start..start + placed.record.frame_length as usize);
                self.append(name, &placed, frame.unwrap_or_default())?;
            }
        }
        Ok(())
    }

    /// Damage is not carried on: a frame is what its checksum and its chunk's id say, or its pack stays.
    fn append(&mut self, name: &str, placed: &Placed, bytes: &[u8]) -> Result<(), StoreError> {
        let record = &placed.record;
        let sound = frame::checksum(bytes) == record.checksum
            && self.decoder.decode(bytes, &mut self.raw).is_ok()
            && ChunkId::of(&self.raw) == record.id;
        if !sound {
            let what = format!("frame at byte {} of pack {name}", placed.offset);
            return Err(StoreError::Damaged(what));
        }
        let mut builder = match self.builder.take() {
            Some(builder) => builder,
            None => PackBuilder::new(&self.inner.temporary)?,
        };
        builder.append_stored(record, bytes)?;
        match builder.is_full(self.inner.options.pack_bytes_target) {
            true => self.store(builder),
            false => {
                self.builder = Some(builder);
                Ok(())
            }
        }
    }

    fn store(&mut self, builder: PackBuilder) -> Result<(), StoreError> {
        let ready = builder.seal()?.store(&*self.inner.backend)?;
        self.copied.packs.push(ready);
        Ok(())
    }

    fn finish(mut self) -> Result<Copied, StoreError> {
        if let Some(builder) = self.builder.take() {
            self.store(builder)?;
        }
        Ok(self.copied)
    }
}

/// Frames by the ranges they are read in.
fn ranges(frames: &[Placed]) -> Vec<(Range<u64>, Vec<Placed>)> {
    let mut ranges: Vec<(Range<u64>, Vec<Placed>)> = Vec::new();
    for placed in frames {
        let end = placed.offset + u64::from(placed.record.frame_length);
        match ranges.last_mut() {
            Some((range, frames))
                if placed.offset.saturating_sub(range.end) <= GAP_BYTES_MAX
                    && end - range.start <= RANGE_BYTES_MAX =>
            {
                range.end = range.end.max(end);
                frames.push(*placed);
            }
            _ => ranges.push((placed.offset..end, vec![*placed])),
        }
    }
    ranges
}
