//! A request, what frames it gives, and checking them.

use crate::shared::{Inner, Located, cache::Cached};
use crate::{StoreError, codec};
use firn_chunks::{ChunkId, frame};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of one request.
const REQUEST_BYTES_MAX: u64 = 2 << 20;
/// Frames with so few bytes between them are read in one request.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// Some frames that one request, or one file of the cache, gives.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) window: usize,
    pub(super) pack: Arc<str>,
    pub(super) range: Range<u64>,
    pub(super) cached: Option<Cached>,
    pub(super) frames: Vec<Located>,
}

/// Decoded.
pub(super) type Chunks = Vec<(ChunkId, Vec<u8>)>;

impl Inner {
    /// Puts frames that are neighbours into one job each, in the order in which the first of them is needed.
    pub(super) fn jobs(&self, window: usize, located: Vec<Located>) -> Vec<Job> {
        let mut order: Vec<(usize, Located)> = located.into_iter().enumerate().collect();
        order.sort_by(|(_, a), (_, b)| (&a.pack, a.placed.offset).cmp(&(&b.pack, b.placed.offset)));
        order.dedup_by(|(later, a), (first, b)| {
            let same = a.placed == b.placed && a.pack == b.pack;
            if same {
                *first = (*first).min(*later);
            }
            same
        });
        let mut jobs: Vec<(usize, Job)> = Vec::new();
        for (index, located) in order {
            let range = range_of(&located);
            let cached = self.cache.find(&located.pack, &range);
            match jobs.last_mut() {
                Some((first, job)) if job.takes(&located, &range, cached.as_ref()) => {
                    *first = (*first).min(index);
                    job.range.end = job.range.end.max(range.end);
                    job.frames.push(located);
                }
                _ => jobs.push((
                    index,
                    Job {
                        window,
                        pack: located.pack.clone(),
                        range,
                        cached,
                        frames: vec![located],
                    },
                )),
            }
        }
        jobs.sort_by_key(|(first, _)| *first);
        jobs.into_iter().map(|(_, job)| job).collect()
    }
}

impl Job {
    /// Whether a frame, which lies behind all that are in the job, can come with them.
    fn takes(&self, located: &Located, range: &Range<u64>, cached: Option<&Cached>) -> bool {
        self.pack == located.pack
            && self.cached.as_ref() == cached
            && range.end - self.range.start <= REQUEST_BYTES_MAX
            && range.start <= self.range.end.saturating_add(GAP_BYTES_MAX)
    }
}

pub(in crate::shared) fn range_of(located: &Located) -> Range<u64> {
    let start = located.placed.offset;
    start..start.saturating_add(u64::from(located.placed.record.frame_length))
}

fn frame_in<'a>(job: &Job, located: &Located, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let range = range_of(located);
    let (start, end) = (
        range.start.checked_sub(job.range.start)?,
        range.end.checked_sub(job.range.start)?,
    );
    bytes.get(start as usize..end as usize)
}

pub(super) fn has_checksums(job: &Job, bytes: &[u8]) -> bool {
    job.frames.iter().all(|located| {
        frame_in(job, located, bytes)
            .is_some_and(|found| frame::checksum(found) == located.placed.record.checksum)
    })
}

pub(super) fn decode_all(job: &Job, bytes: &[u8]) -> Result<Chunks, StoreError> {
    job.frames
        .iter()
        .map(|located| {
            let found = frame_in(job, located, bytes).unwrap_or_default();
            Ok((located.placed.record.id, decode_one(located, found)?))
        })
        .collect()
}

/// Rule 2: the frame has its checksum, and what is in it its id.
pub(in crate::shared) fn decode_one(
    located: &Located,
    found: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let record = &located.placed.record;
    let wrong = || StoreError::Damaged(format!("chunk {} in pack {}", record.id, located.pack));
    if frame::checksum(found) != record.checksum {
        return Err(wrong());
    }
    let raw = codec::decode(found, record.raw_length, <[u8]>::to_vec)?;
    match ChunkId::of(&raw) == record.id {
        true => Ok(raw),
        false => Err(wrong()),
    }
}
