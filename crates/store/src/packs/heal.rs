//! Frames that take the place of damaged ones, as they were if that can be.
//!
//! A representation's digest is of the very bytes of its frames. A pusher whose encoder writes others than those
//! that were lost would change the digest of each blob that lists the chunk; but most frames were made by this
//! library at some level, so the lost one can often be made again.

use crate::StoreError;
use crate::codec;
use crate::db::{Database, damage};
use crate::types::DomainId;
use firn_chunks::boundaries::V1;
use firn_chunks::{Encoder, VerifiedFrame};

/// Levels that are tried besides that of Firn's own clients.
const LEVELS: std::ops::RangeInclusive<i32> = 1..=12;

/// The same chunks, in the frames that were lost where they can be made.
pub(super) fn as_they_were(
    db: &Database,
    domain: DomainId,
    frames: Vec<VerifiedFrame>,
) -> Result<Vec<VerifiedFrame>, StoreError> {
    let lost = db.snapshot(|connection| {
        frames
            .iter()
            .map(|frame| damage::lost(connection, domain, frame.record().id))
            .collect::<Result<Vec<_>, _>>()
    })?;
    frames
        .into_iter()
        .zip(lost)
        .map(|(frame, lost)| match lost {
            Some(lost) if lost != of(&frame) => as_it_was(frame, lost),
            _ => Ok(frame),
        })
        .collect()
}

fn of(frame: &VerifiedFrame) -> (u64, u32) {
    (frame.record().checksum, frame.record().frame_length)
}

fn as_it_was(frame: VerifiedFrame, lost: (u64, u32)) -> Result<VerifiedFrame, StoreError> {
    let record = *frame.record();
    let raw = codec::decode(frame.frame(), record.raw_length, <[u8]>::to_vec)?;
    let levels = std::iter::once(V1.zstd_level).chain(LEVELS);
    let made = levels.map(|level| Encoder::new(level).encode_with_id(record.id, &raw));
    Ok(made
        .into_iter()
        .find(|made| of(made) == lost)
        .unwrap_or(frame))
}
