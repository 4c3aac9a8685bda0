//! The zstd representation: the frames of the chunks, in order.
//!
//! A closure holds many files twice (a library under two names), mostly near each other in
//! one layer: the frame of a chunk that comes again is kept until then, within bounds.

use super::Digested;
use crate::archive::{Archive, ArchiveError};
use firn_chunks::{ChunkId, ChunkList, ChunkRef, Encoder, VerifiedFrame, boundaries, pack::Placed};
use firn_formats::sha256::Sha256Hasher;
use rayon::prelude::*;
use std::{cell::RefCell, collections::HashMap};

/// Raw bytes that are compressed at a time.
const BATCH_BYTES: usize = 8 << 20;
/// Most bytes of frames that are kept for the next time.
const KEPT_BYTES_MAX: usize = 48 << 20;

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new(boundaries::V1.zstd_level));
}

/// `placed` is told of every frame as it is written, of those that come again too.
pub(super) fn encode(
    archive: &Archive,
    list: &ChunkList,
    tar: &mut Sha256Hasher,
    out: &mut Digested<'_, '_>,
    placed: &mut dyn FnMut(Placed),
) -> Result<(), ArchiveError> {
    if list.raw_length() != archive.length() {
        return Err(ArchiveError::WrongList {
            length: archive.length(),
            listed: list.raw_length(),
        });
    }
    let mut kept = Kept::new(list);
    let mut raw = Vec::new();
    let mut offset = 0;
    let mut rest = list.chunks.as_slice();
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(batch_length(rest));
        let bytes = batch.iter().map(|chunk| chunk.raw_length as usize).sum();
        archive.read_at(offset, bytes, &mut raw)?;
        let (frames, ()) = rayon::join(|| compress(batch, &raw, &kept), || tar.update(&raw));
        for (index, (id, frame)) in frames.into_iter().enumerate() {
            if id != batch[index].id {
                return Err(changed(archive, offset, &batch[..=index]));
            }
            placed(Placed {
                offset: out.size,
                record: *frame.record(),
            });
            out.put(frame.frame()).map_err(ArchiveError::Sink)?;
            kept.used(id, frame);
        }
        offset += bytes as u64;
        rest = later;
    }
    Ok(())
}

/// How many chunks make a batch; at least one.
fn batch_length(chunks: &[ChunkRef]) -> usize {
    let mut bytes = 0;
    let fitting = chunks.iter().take_while(|chunk| {
        bytes += chunk.raw_length as usize;
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}

/// The id of each chunk as it was read, and its frame.
fn compress(batch: &[ChunkRef], raw: &[u8], kept: &Kept) -> Vec<(ChunkId, VerifiedFrame)> {
    let mut end = 0;
    let slices: Vec<(ChunkId, &[u8])> = batch
        .iter()
        .map(|chunk| {
            let start = end;
            end += chunk.raw_length as usize;
            (chunk.id, &raw[start..end])
        })
        .collect();
    slices
        .into_par_iter()
        .map(|(id, slice)| match kept.frames.get(&id) {
            Some(frame) => (ChunkId::of(slice), frame.clone()),
            None => ENCODER.with_borrow_mut(|encoder| {
                let frame = encoder.encode(slice);
                (frame.record().id, frame)
            }),
        })
        .collect()
}

/// Frames of chunks that come again.
struct Kept {
    /// How often each chunk that occurs more than once is still to come.
    to_come: HashMap<ChunkId, u32>,
    frames: HashMap<ChunkId, VerifiedFrame>,
    bytes: usize,
}

impl Kept {
    fn new(list: &ChunkList) -> Self {
        let mut to_come: HashMap<ChunkId, u32> = HashMap::new();
        for chunk in &list.chunks {
            *to_come.entry(chunk.id).or_default() += 1;
        }
        to_come.retain(|_, count| *count > 1);
        Self {
            to_come,
            frames: HashMap::new(),
            bytes: 0,
        }
    }

    /// A frame was written: it is kept if it comes again and there is room.
    fn used(&mut self, id: ChunkId, frame: VerifiedFrame) {
        let length = |frame: &VerifiedFrame| frame.frame().len();
        let Some(count) = self.to_come.get_mut(&id) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.to_come.remove(&id);
            self.bytes -= self.frames.remove(&id).as_ref().map_or(0, length);
        } else if self.bytes + length(&frame) <= KEPT_BYTES_MAX && !self.frames.contains_key(&id) {
            self.bytes += length(&frame);
            self.frames.insert(id, frame);
        }
    }
}

/// The file in which the last of `chunks` ends; they begin at `offset`.
fn changed(archive: &Archive, offset: u64, chunks: &[ChunkRef]) -> ArchiveError {
    let length: u64 = chunks.iter().map(|chunk| u64::from(chunk.raw_length)).sum();
    let end = offset + length;
    let after = archive.files().partition_point(|file| file.offset < end);
    let file = after.checked_sub(1).and_then(|i| archive.files().get(i));
    ArchiveError::Changed(file.map(|file| file.file.clone()).unwrap_or_default())
}
