//! Frames on their way in: decoded and hashed in parallel, stored, then fed to the blobs that
//! wait for them, so that each is decoded once.

use super::session::{Progress, Proposed};
use super::{Push, PushSession};
use crate::{ServiceError, sync::lock};
use bytes::Bytes;
use firn_chunks::{ChunkId, Decoder, VerifiedFrame};
use firn_formats::push::{FramesAccepted, decode_frames};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;

/// Stored bytes of the frames decoded at once, which bounds what they decode to.
const BATCH_FRAME_BYTES: usize = 3 << 20;
/// Raw bytes held at once: a batch ends early where frames decode to more.
const BATCH_RAW_BYTES: usize = 12 << 20;

struct Fresh {
    raw: Bytes,
    frame: VerifiedFrame,
}

impl Push {
    /// Takes a body of frames. Those before a bad one may have been kept; that is no harm, since
    /// a chunk is what its id says.
    ///
    /// # Errors
    /// If the body or a frame is malformed, or the store fails.
    pub fn frames(
        &self,
        session: &PushSession,
        body: &Bytes,
    ) -> Result<FramesAccepted, ServiceError> {
        let frames = decode_frames(body)?;
        let mut accepted = FramesAccepted::default();
        let mut rest = frames.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_length(body, rest));
            rest = after;
            let fresh = verify(body, batch)?;
            let stored: Vec<VerifiedFrame> =
                fresh.iter().map(|fresh| fresh.frame.clone()).collect();
            let count = stored.len();
            // Hashing goes on while the disk is waited for. It decides nothing: what is hashed
            // is compared with what is held before a blob is made.
            let new = std::thread::scope(|scope| {
                let storing = scope.spawn(|| self.store.put_frames(&session.session, stored));
                let advanced = advance(session, fresh);
                let new = storing.join().map_err(|_| ServiceError::WorkerFailed)??;
                advanced.map(|()| new)
            })?;
            accepted.new += new as u32;
            accepted.known += (count - new.min(count)) as u32;
        }
        Ok(accepted)
    }
}

/// How many frames the next batch has: at least one, bounded by stored and by raw bytes.
fn batch_length(body: &[u8], frames: &[([u8; 32], Range<usize>)]) -> usize {
    let mut stored = 0;
    let mut raw = 0;
    for (count, (_, range)) in frames.iter().enumerate() {
        stored += range.len();
        raw += declared_raw_bytes(&body[range.clone()]);
        if count > 0 && (stored > BATCH_FRAME_BYTES || raw > BATCH_RAW_BYTES) {
            return count;
        }
    }
    frames.len()
}

/// What a frame's header says it decodes to; the decoder holds it to that.
fn declared_raw_bytes(frame: &[u8]) -> usize {
    match zstd::zstd_safe::get_frame_content_size(frame) {
        Ok(Some(size)) => usize::try_from(size)
            .map_or(firn_chunks::frame::CHUNK_BYTES_MAX, |size| {
                size.min(firn_chunks::frame::CHUNK_BYTES_MAX)
            }),
        _ => 0,
    }
}

fn verify(body: &Bytes, batch: &[([u8; 32], Range<usize>)]) -> Result<Vec<Fresh>, ServiceError> {
    batch
        .par_iter()
        .map_init(Decoder::new, |decoder, (id, range)| {
            let mut raw = Vec::new();
            let frame = decoder.verify(ChunkId(*id), body.slice(range.clone()), &mut raw)?;
            Ok(Fresh {
                raw: raw.into(),
                frame,
            })
        })
        .collect()
}

fn advance(session: &PushSession, fresh: Vec<Fresh>) -> Result<(), ServiceError> {
    let by_id: HashMap<ChunkId, Fresh> = fresh
        .into_iter()
        .map(|fresh| (fresh.frame.record().id, fresh))
        .collect();
    let lookup = |id: &ChunkId| {
        by_id
            .get(id)
            .map(|fresh| (fresh.raw.clone(), fresh.frame.frame().clone()))
    };
    for proposed in session.waiting_for(by_id.keys()) {
        advance_one(&proposed, &lookup)?;
    }
    Ok(())
}

fn advance_one(
    proposed: &Proposed,
    lookup: &dyn Fn(&ChunkId) -> Option<(Bytes, Bytes)>,
) -> Result<(), ServiceError> {
    match &mut *lock(&proposed.progress) {
        Progress::Verifying(verifier) => Ok(verifier.advance(lookup)?),
        Progress::Done(_) | Progress::Stale => Ok(()),
    }
}
