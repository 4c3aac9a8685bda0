//! Which older segments a new one takes in, so that a reader never needs many.

use super::super::{Inner, index::LiveSegment, union::Union};
use crate::StoreError;
use firn_chunks::segment::Covers;

/// A segment is taken in while it is at most so many times as large as what was gathered.
const GROWTH: u64 = 4;
/// Segments that are left beside the new one, at most …
pub(in crate::shared) const LEFT_MAX: usize = 3;
/// … unless they are so large that no publisher should carry them, in bytes.
const MERGED_BYTES_MAX: u64 = 128 << 20;

/// What was taken in.
#[derive(Debug, Default)]
pub(in crate::shared) struct Merged {
    pub(in crate::shared) count: u64,
    pub(in crate::shared) covers: Vec<Covers>,
}

/// Adds to `union` what the chosen segments tell. Only segments with the same signer are taken in: an unsigned
/// merge would hide a signed segment from those who trust its key, and a signed one would vouch for strangers.
pub(super) fn merge(
    shared: &Inner,
    own_size: u64,
    union: &mut Union,
) -> Result<Merged, StoreError> {
    let mut live = shared.index.live()?;
    let signer = shared.own_signer();
    live.retain(|segment| segment.signer == signer && segment.size <= MERGED_BYTES_MAX);
    take(shared, &choose(live, own_size), union)
}

/// Adds to `union` what segments tell, whoever signed them.
pub(in crate::shared) fn take(
    shared: &Inner,
    segments: &[LiveSegment],
    union: &mut Union,
) -> Result<Merged, StoreError> {
    let mut merged = Merged::default();
    let (mut whole, mut dropped) = (Vec::new(), Vec::new());
    for chosen in segments {
        let Some(segment) = shared.index.segment(&chosen.name)? else {
            continue;
        };
        union.add(segment.records);
        merged.count += 1;
        // What it covers may still be listed when it is listed no longer.
        for (name, was_dropped) in shared.index.covered_by(&chosen.name)? {
            if was_dropped {
                &mut dropped
            } else {
                &mut whole
            }
            .push(name);
        }
        whole.push(chosen.name.clone());
    }
    for (segments, dropped) in [(whole, false), (dropped, true)] {
        if !segments.is_empty() {
            merged.covers.push(Covers { segments, dropped });
        }
    }
    Ok(merged)
}

/// The smallest first, while they are small beside what was gathered; then until few are left.
fn choose(mut live: Vec<LiveSegment>, own_size: u64) -> Vec<LiveSegment> {
    live.sort_by(|a, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
    let mut gathered = own_size;
    let mut count = 0;
    for segment in &live {
        let small = segment.size <= gathered.saturating_mul(GROWTH);
        if !small && live.len() - count <= LEFT_MAX {
            break;
        }
        gathered += segment.size;
        count += 1;
    }
    live.truncate(count);
    live
}

#[cfg(test)]
mod tests {
    use super::super::super::index::Signer;
    use super::*;

    fn segment(index: usize, size: u64) -> LiveSegment {
        LiveSegment {
            name: format!("{index:016x}-x"),
            signer: Signer::Nobody,
            size,
        }
    }

    /// Runs of one size: few segments at any time, and each byte is rewritten a bounded number of times.
    #[test]
    fn few_are_left_and_little_is_rewritten() {
        for sizes in [vec![1000; 200], (1..200).map(|n| n * n % 977 + 1).collect()] {
            let mut live: Vec<LiveSegment> = Vec::new();
            let mut rewritten = 0;
            for (index, size) in sizes.iter().copied().enumerate() {
                let chosen = choose(live.clone(), size);
                let taken: u64 = chosen.iter().map(|segment| segment.size).sum();
                rewritten += taken;
                live.retain(|segment| chosen.iter().all(|taken| taken.name != segment.name));
                live.push(segment(index, size + taken));
                assert!(live.len() <= 1 + LEFT_MAX, "{} live", live.len());
            }
            let total: u64 = sizes.iter().sum();
            let live: u64 = live.iter().map(|segment| segment.size).sum();
            assert_eq!(live, total);
            assert!(rewritten < 40 * total, "{rewritten} of {total}");
        }
    }

    #[test]
    fn a_large_old_segment_is_left_alone() {
        let chosen = choose(vec![segment(1, 1_000_000), segment(2, 100)], 100);
        assert_eq!(chosen.len(), 1);
        assert_eq!(chosen[0].size, 100);
    }
}
