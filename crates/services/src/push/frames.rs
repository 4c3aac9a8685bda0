//! Frames on their way in: decoded and hashed in parallel, fed to the blobs that wait for them, so
//! that each is decoded once, and stored.

use super::session::{Progress, Proposed};
use super::{Push, PushSession};
use crate::{ServiceError, sync::lock};
use bytes::Bytes;
use firn_chunks::{ChunkId, Decoder, ListId, VerifiedFrame, frame};
use firn_formats::push::{FramesAccepted, decode_frames};
use firn_store::{FreshChunk, StoreError};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, TryLockError};

/// Raw bytes decoded at once. Two slices are held: one is decoded while one is hashed.
const SLICE_RAW_BYTES: usize = 2 << 20;

thread_local! {
    static DECODER: RefCell<Decoder> = RefCell::default();
}

/// A frame in a body: the id it claims, and where it lies.
type Claimed = ([u8; 32], Range<usize>);

/// Some frames that were decoded, and their raw bytes one after the other.
#[derive(Default)]
struct Slice {
    frames: Vec<VerifiedFrame>,
    raw: Vec<u8>,
}

/// Memory of a session for decoding: one slice is decoded while another is hashed.
#[derive(Default)]
pub(super) struct Slices {
    current: Slice,
    next: Slice,
}

impl Push {
    /// Takes a body of frames, all or none of them.
    ///
    /// # Errors
    /// If the body or a frame is malformed, or the store fails.
    pub fn frames(
        &self,
        session: &PushSession,
        body: &Bytes,
    ) -> Result<FramesAccepted, ServiceError> {
        let claimed = decode_frames(body)?;
        let (frames, advanced) = {
            let mut slices = lock(&session.decoding);
            decode_all(session, &mut slices, body, &claimed)?
        };
        // While the disk is waited for, the next body is decoded. Hashing before storing decides
        // nothing: what was hashed is compared with what is held before a blob is made.
        let count = frames.len();
        let new = self.store.put_frames(&session.session, frames)?;
        match advanced {
            // A stored frame is damaged: publishing finds it in quarantine, and asks for it.
            Err(ServiceError::Store(StoreError::Damaged(_))) => {}
            advanced => advanced?,
        }
        Ok(FramesAccepted {
            new: new as u32,
            known: (count - new.min(count)) as u32,
        })
    }

    /// Takes frames for chunks in quarantine, in whatever domain; says how many were healed.
    ///
    /// # Errors
    /// If the body or a frame is malformed, or the store fails.
    pub fn heal(&self, body: &Bytes) -> Result<u64, ServiceError> {
        let claimed = decode_frames(body)?;
        let frames = claimed
            .par_iter()
            .map(|(id, range)| {
                let frame = body.slice(range.clone());
                let verify =
                    |decoder: &mut Decoder| decoder.verify(ChunkId(*id), frame, &mut Vec::new());
                DECODER.with_borrow_mut(verify)
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.store.heal(frames)?)
    }

    /// Hashes blobs whose chunks are all here while their client does other things: publishing
    /// them then waits less. Decides nothing, and ends with the session.
    pub(super) fn hash_ahead(
        &self,
        session: &PushSession,
        mut blobs: Vec<(Arc<Proposed>, ListId)>,
    ) {
        blobs.sort_by_key(|(blob, _)| std::cmp::Reverse(blob.raw_length));
        for (blob, list) in blobs {
            let (store, domain) = (self.store.clone(), session.session.domain);
            let blob = Arc::downgrade(&blob);
            rayon::spawn(move || {
                let Some(blob) = blob.upgrade() else { return };
                let hashed = match store.blob_by_list(domain, list) {
                    Ok(Some(known)) if known.nar || blob.nar.is_none() => Ok(()),
                    // One that nobody has parsed yet is read for that.
                    Ok(_) => advance_one(&blob, &|_| None),
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = hashed {
                    // Publishing meets it again, and says so to the client.
                    tracing::debug!(%error, "hashing ahead");
                }
            });
        }
    }
}

/// Decodes and verifies a body slice by slice; each is hashed into its blobs while the next is
/// decoded. The second result is what hashing met: the frames are good all the same.
fn decode_all(
    session: &PushSession,
    slices: &mut Slices,
    body: &Bytes,
    claimed: &[Claimed],
) -> Result<(Vec<VerifiedFrame>, Result<(), ServiceError>), ServiceError> {
    let mut frames = Vec::with_capacity(claimed.len());
    let mut advanced = Ok(());
    let mut rest = claimed;
    // A body that was refused may have left some.
    slices.current.frames.clear();
    loop {
        let lengths = raw_lengths(body, rest)?;
        let (now, after) = rest.split_at(lengths.len());
        rest = after;
        let Slices { current, next } = slices;
        let (hashed, decoded) = rayon::join(
            || advance(session, current),
            || next.decode(body, now, &lengths),
        );
        decoded?;
        advanced = advanced.and(hashed);
        frames.append(&mut current.frames);
        std::mem::swap(current, next);
        if slices.current.frames.is_empty() {
            return Ok((frames, advanced));
        }
    }
}

/// What the frames of the next slice decode to: at least one if there are any.
fn raw_lengths(body: &[u8], frames: &[Claimed]) -> Result<Vec<usize>, ServiceError> {
    let mut lengths = Vec::new();
    let mut raw = 0;
    for (_, range) in frames {
        let length = frame::content_length(&body[range.clone()])?;
        raw += length;
        if raw > SLICE_RAW_BYTES && !lengths.is_empty() {
            break;
        }
        lengths.push(length);
    }
    Ok(lengths)
}

/// Cuts the beginning of `bytes` into pieces of these lengths.
fn pieces<'a>(mut bytes: &'a mut [u8], lengths: &[usize]) -> Vec<&'a mut [u8]> {
    let mut pieces = Vec::with_capacity(lengths.len());
    for length in lengths {
        let (piece, rest) = bytes.split_at_mut(*length);
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

impl Slice {
    fn decode(
        &mut self,
        body: &Bytes,
        claimed: &[Claimed],
        lengths: &[usize],
    ) -> Result<(), ServiceError> {
        let total: usize = lengths.iter().sum();
        if self.raw.len() < total {
            self.raw.resize(total, 0);
        }
        self.frames = claimed
            .par_iter()
            .zip(pieces(&mut self.raw, lengths))
            .map(|((id, range), raw)| {
                let frame = body.slice(range.clone());
                DECODER.with_borrow_mut(|decoder| decoder.verify_into(ChunkId(*id), frame, raw))
            })
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    fn chunks(&self) -> impl Iterator<Item = FreshChunk<'_>> {
        let mut rest = self.raw.as_slice();
        self.frames.iter().map(move |frame| {
            let (raw, after) = rest.split_at(frame.record().raw_length as usize);
            rest = after;
            FreshChunk { raw, frame }
        })
    }
}

fn advance(session: &PushSession, slice: &Slice) -> Result<(), ServiceError> {
    let by_id: HashMap<ChunkId, FreshChunk<'_>> = slice
        .chunks()
        .map(|chunk| (chunk.frame.record().id, chunk))
        .collect();
    session
        .waiting_for(by_id.keys())
        .par_iter()
        .with_max_len(1)
        .try_for_each(|proposed| advance_one(proposed, &|id| by_id.get(id).copied()))
}

/// Runs on threads that publishing needs, too: one that is being published is left alone, since
/// waiting for its lock could be waiting for oneself.
fn advance_one<'a>(
    proposed: &Proposed,
    fresh: &dyn Fn(&ChunkId) -> Option<FreshChunk<'a>>,
) -> Result<(), ServiceError> {
    let mut progress = match proposed.progress.try_lock() {
        Ok(progress) => progress,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return Ok(()),
    };
    match &mut *progress {
        Progress::Verifying(verifier) => Ok(verifier.advance(fresh)?),
        Progress::Done(_) | Progress::Stale => Ok(()),
    }
}
