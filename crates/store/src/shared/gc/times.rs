//! Ages by the place's time: neither a writer's clock nor the collector's own decides what is old.

use super::packs::Stored;
use crate::StoreError;
use crate::shared::{Backend, Inner, SegmentTimes, index};
use std::collections::{HashMap, HashSet};

/// What the place tells of time.
#[derive(Debug)]
pub(super) struct Times {
    /// The place's time, in seconds since 1970.
    pub(super) now: i64,
    /// When segments were stored, where the place tells it.
    stored: Option<HashMap<String, i64>>,
}

impl Times {
    pub(super) fn ask(backend: &dyn Backend, packs: Option<&Stored>) -> Result<Self, StoreError> {
        let now = packs.map(|packs| packs.now);
        Ok(match backend.segment_times()? {
            SegmentTimes::Now(at) => Self {
                now: now.unwrap_or(at),
                stored: None,
            },
            SegmentTimes::Stored(stored) => {
                // Where no pack tells the time, it is at least that of the newest segment.
                let newest = stored.values().copied().max();
                Self {
                    now: now.or(newest).unwrap_or_default(),
                    stored: Some(stored),
                }
            }
        })
    }

    /// Segments that have been covered for longer than the grace by one that is listed.
    pub(super) fn expired_segments(
        &self,
        inner: &Inner,
        grace: i64,
    ) -> Result<Vec<String>, StoreError> {
        let known = inner.index.known()?;
        let listing = inner.index.listing()?;
        let mut old = HashSet::new();
        for name in &listing {
            let counts = known.contains(name) && !known.is_refused(name);
            if counts && self.now.saturating_sub(self.stored_at(inner, name)?) >= grace {
                old.insert(name.as_str());
            }
        }
        let covered = listing.iter().filter(|name| known.is_covered(name, &old));
        Ok(covered.cloned().collect())
    }

    /// When a segment was stored, and not in the future. Where the place does not tell, its name does; and if that
    /// is of the future, since some writer's clock was ahead, what the segment itself says: later names follow
    /// the greatest, but the time within is that of the writer.
    fn stored_at(&self, inner: &Inner, name: &str) -> Result<i64, StoreError> {
        if let Some(stored) = &self.stored {
            // One that came after the listing is new.
            return Ok(stored.get(name).map_or(self.now, |at| self.now.min(*at)));
        }
        let named = index::time_of(name).map(|micros| (micros / 1_000_000).cast_signed());
        if let Some(at) = named.filter(|at| *at <= self.now) {
            return Ok(at);
        }
        // Only live ones are kept; the others are covered by one of these.
        let segment = inner.index.segment(name)?;
        Ok(segment.map_or(self.now, |segment| self.now.min(segment.at)))
    }
}
