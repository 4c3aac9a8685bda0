//! Requests under way: bytes that one asks for, another need not ask for too. A prefetch and the NARs that Nix
//! wants meanwhile want the same.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Ranges of packs that are being asked for, none overlapping another.
#[derive(Debug, Default)]
pub(in crate::shared) struct UnderWay {
    ranges: Mutex<Vec<(Arc<str>, Range<u64>)>>,
    ended: Condvar,
}

/// The right to ask for a range; ends when dropped. Whoever holds one asks for no other.
pub(super) struct Turn<'a> {
    all: &'a UnderWay,
    pack: Arc<str>,
    range: Range<u64>,
    /// Another asked for some of it first, and has its answer.
    pub(super) waited: bool,
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, Vec<(Arc<str>, Range<u64>)>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody asks for any of the range.
    pub(super) fn enter(&self, pack: &Arc<str>, range: &Range<u64>) -> Turn<'_> {
        let mut ranges = self.lock();
        let mut waited = false;
        while overlaps(&ranges, pack, range) {
            waited = true;
            ranges = self
                .ended
                .wait(ranges)
                .unwrap_or_else(PoisonError::into_inner);
        }
        ranges.push((Arc::clone(pack), range.clone()));
        Turn {
            all: self,
            pack: Arc::clone(pack),
            range: range.clone(),
            waited,
        }
    }

    /// `None` if somebody asks for some of it now.
    pub(super) fn try_enter(&self, pack: &Arc<str>, range: &Range<u64>) -> Option<Turn<'_>> {
        let mut ranges = self.lock();
        if overlaps(&ranges, pack, range) {
            return None;
        }
        ranges.push((Arc::clone(pack), range.clone()));
        Some(Turn {
            all: self,
            pack: Arc::clone(pack),
            range: range.clone(),
            waited: false,
        })
    }
}

fn overlaps(ranges: &[(Arc<str>, Range<u64>)], pack: &Arc<str>, range: &Range<u64>) -> bool {
    ranges
        .iter()
        .any(|(other, asked)| other == pack && asked.start < range.end && range.start < asked.end)
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut ranges = self.all.lock();
        let own =
            |(pack, range): &(Arc<str>, Range<u64>)| *pack == self.pack && *range == self.range;
        if let Some(at) = ranges.iter().position(own) {
            ranges.swap_remove(at);
        }
        self.all.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_wants_the_same_bytes_waits_and_others_do_not() {
        let all = UnderWay::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = all.enter(&a, &(10..20));
        assert!(!first.waited);
        assert!(all.try_enter(&a, &(19..30)).is_none());
        let beside = all.try_enter(&a, &(20..30));
        assert!(beside.is_some() && all.try_enter(&b, &(10..20)).is_some());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| all.enter(&a, &(0..11)).waited);
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            drop(first);
            assert!(waiting.join().unwrap());
        });
        drop(beside);
        assert!(all.lock().is_empty());
    }
}
