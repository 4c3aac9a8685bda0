//! The zstd representation: the frames of the chunks, in order.

use super::Digested;
use crate::archive::{Archive, ArchiveError};
use firn_chunks::{ChunkList, ChunkRef, Encoder, VerifiedFrame, boundaries};
use firn_formats::sha256::Sha256Hasher;
use rayon::prelude::*;
use std::cell::RefCell;

/// Raw bytes that are compressed at a time.
const BATCH_BYTES: usize = 8 << 20;

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new(boundaries::V1.zstd_level));
}

pub(super) fn encode(
    archive: &Archive,
    list: &ChunkList,
    tar: &mut Sha256Hasher,
    out: &mut Digested<'_, '_>,
) -> Result<(), ArchiveError> {
    if list.raw_length() != archive.length() {
        return Err(ArchiveError::WrongList {
            length: archive.length(),
            listed: list.raw_length(),
        });
    }
    let mut raw = Vec::new();
    let mut offset = 0;
    let mut rest = list.chunks.as_slice();
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(batch_length(rest));
        let bytes = batch.iter().map(|chunk| chunk.raw_length as usize).sum();
        archive.read_at(offset, bytes, &mut raw)?;
        let (frames, ()) = rayon::join(|| compress(batch, &raw), || tar.update(&raw));
        for (index, frame) in frames.iter().enumerate() {
            if frame.record().id != batch[index].id {
                return Err(changed(archive, offset, &batch[..=index]));
            }
            out.put(frame.frame()).map_err(ArchiveError::Sink)?;
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

fn compress(batch: &[ChunkRef], raw: &[u8]) -> Vec<VerifiedFrame> {
    let mut end = 0;
    let slices: Vec<&[u8]> = batch
        .iter()
        .map(|chunk| {
            let start = end;
            end += chunk.raw_length as usize;
            &raw[start..end]
        })
        .collect();
    slices
        .into_par_iter()
        .map(|slice| ENCODER.with_borrow_mut(|encoder| encoder.encode(slice)))
        .collect()
}

/// The file in which the last of `chunks` ends; they begin at `offset`.
fn changed(archive: &Archive, offset: u64, chunks: &[ChunkRef]) -> ArchiveError {
    let length: u64 = chunks.iter().map(|chunk| u64::from(chunk.raw_length)).sum();
    let end = offset + length;
    let after = archive.files().partition_point(|file| file.offset < end);
    let file = after.checked_sub(1).and_then(|i| archive.files().get(i));
    ArchiveError::Changed(file.map(|file| file.file.clone()).unwrap_or_default())
}
