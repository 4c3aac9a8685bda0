//! Collection without a server: plan, then execute. `docs/on-disk-format.md`, "Collection", argues why no job that
//! runs meanwhile is hurt.

mod compact;
mod packs;

use super::run::merge;
use super::{Inner, PackFile, Refreshed, clock, index, union::Union};
use crate::{EntryKind, StoreError};
use compact::Dropped;
use firn_chunks::segment::Record;
use packs::{MARKS, Packs};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Who wrote the segments of a collection.
const WRITER: &str = concat!("firn-gc/", env!("CARGO_PKG_VERSION"));

/// What may go.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// How long what is not needed any more is kept. A day, and not less where jobs may run: they count on half.
    pub grace: Duration,
    /// Entries that go when they are old; none by default.
    pub expire: Vec<Expire>,
    /// Segments that cannot be read, or are not trusted, name nothing, and their packs go like any others. By
    /// default no pack goes while there is such a segment.
    pub ignore_unreadable: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(86_400),
            expire: Vec::new(),
            ignore_unreadable: false,
        }
    }
}

/// Entries of a kind go that were not written anew for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Expire {
    pub kind: EntryKind,
    pub unused_for: Duration,
}

/// An entry that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ExpiredEntry {
    pub cache: String,
    /// As in the format.
    pub kind: u16,
    pub key: String,
    /// Seconds since 1970.
    pub at: i64,
}

/// What a collection would do.
#[derive(Debug)]
#[non_exhaustive]
pub struct GcPlan {
    /// What there is.
    pub found: Refreshed,
    /// Segments that one new segment would take in; none if there are few and nothing in them goes.
    pub segments_merged: Vec<String>,
    /// Covered for longer than the grace.
    pub segments_deleted: Vec<String>,
    /// Of the kinds that expire.
    pub entries_expired: Vec<ExpiredEntry>,
    /// Lists of chunks that no entry names.
    pub blobs_dropped: u64,
    /// Named by no segment, and now marked.
    pub packs_marked: Vec<PackFile>,
    /// Marked before, but not for long enough.
    pub packs_waiting: Vec<PackFile>,
    /// Marked for longer than the grace.
    pub packs_deleted: Vec<PackFile>,
    /// Packs are left alone since these segments may name them.
    pub segments_in_the_way: u64,
    inner: Arc<Inner>,
    options: GcOptions,
    work: Work,
}

/// What is published.
#[derive(Debug, Default)]
struct Work {
    union: Union,
    covers: Vec<firn_chunks::segment::Covers>,
}

impl Work {
    /// If all expires, a segment of nothing but covers is published.
    fn is_empty(&self) -> bool {
        self.union.is_empty() && self.covers.is_empty()
    }
}

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GcReport {
    pub segments_merged: u64,
    pub segments_deleted: u64,
    pub entries_expired: u64,
    pub packs_marked: u64,
    pub packs_deleted: u64,
    /// Of deleted packs.
    pub bytes_deleted: u64,
    /// Of the new segment.
    pub bytes_written: u64,
}

#[allow(clippy::missing_errors_doc)]
impl GcPlan {
    pub(super) fn make(inner: Arc<Inner>, options: &GcOptions) -> Result<Self, StoreError> {
        // The listing of packs is older than that of segments: a pack that is listed was uploaded before, so
        // if a segment names it by now, it is seen.
        let stored = packs::list(&*inner.backend)?;
        let found = inner.mended(Inner::refresh)?;
        let now = stored
            .as_ref()
            .map_or(clock::seconds(), |stored| stored.now);
        let grace = options.grace.as_secs().cast_signed();
        let in_the_way = match options.ignore_unreadable {
            true => 0,
            false => found.segments_refused + found.segments_unreadable,
        };
        let named = inner.index.pack_names()?;
        let marks = compact::marks(&inner.index.entries(MARKS, EntryKind::PackMark, "")?);
        let sort = |stored| Packs::sort(stored, &named, &marks, grace);
        let mut packs = stored.as_ref().map(sort).unwrap_or_default();
        if in_the_way > 0 {
            packs.leave();
        }
        let young: HashSet<String> = stored
            .iter()
            .flat_map(|stored| stored.packs.iter())
            .filter(|pack| now - pack.modified_at < grace)
            .map(|pack| pack.name.clone())
            .collect();
        let (mut work, merged, dropped) =
            compaction(&inner, options, now, &young, stored.is_some())?;
        packs.write_marks(&inner, now, &mut work.union)?;
        Ok(Self {
            found,
            segments_merged: merged,
            segments_deleted: expired_segments(&inner, now, grace)?,
            entries_expired: dropped.entries,
            blobs_dropped: dropped.blobs,
            packs_marked: packs.marked,
            packs_waiting: packs.waiting,
            packs_deleted: packs.deleted,
            segments_in_the_way: in_the_way,
            inner,
            options: options.clone(),
            work,
        })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.segments_deleted.is_empty() && self.packs_deleted.is_empty() && self.work.is_empty()
    }

    /// Looks again, and does what was planned and is still right. `Undeletable` from a place that deletes nothing,
    /// once all else is done.
    pub fn execute(self) -> Result<GcReport, StoreError> {
        let again = Self::make(self.inner.clone(), &self.options)?;
        let mut report = GcReport {
            segments_merged: again.segments_merged.len() as u64,
            entries_expired: again.entries_expired.len() as u64,
            packs_marked: again.packs_marked.len() as u64,
            ..GcReport::default()
        };
        if !again.work.is_empty() {
            let covers = again.work.covers;
            report.bytes_written = self.inner.publish(WRITER, again.work.union, &covers)?;
        }
        let planned: HashSet<&String> = self.segments_deleted.iter().collect();
        // The oldest first: a segment goes before the one that covers it.
        let mut segments = again.segments_deleted;
        segments.retain(|name| planned.contains(name));
        segments.sort_unstable();
        for name in &segments {
            self.inner.backend.delete_segment(name)?;
            report.segments_deleted += 1;
        }
        for pack in again.packs_deleted {
            if self.packs_deleted.contains(&pack) {
                self.inner.backend.delete_pack(&pack.name)?;
                report.packs_deleted += 1;
                report.bytes_deleted += pack.length;
            }
        }
        Ok(report)
    }
}

/// The segment that takes the place of the live ones, if there are many or something in them goes.
fn compaction(
    inner: &Inner,
    options: &GcOptions,
    now: i64,
    young: &HashSet<String>,
    ages_known: bool,
) -> Result<(Work, Vec<String>, Dropped), StoreError> {
    let mut live = inner.index.live()?;
    let all = live.len();
    let signer = inner.own_signer();
    live.retain(|segment| segment.signer == signer);
    let mut union = Union::default();
    let mut merged = merge::take(inner, &live, &mut union)?;
    let whole = live.len() == all;
    let dropped = compact::reduce(&mut union, options, now, young, ages_known, whole);
    if dropped.is_empty() && live.len() <= merge::LEFT_MAX + 1 {
        return Ok((Work::default(), Vec::new(), dropped));
    }
    for covers in &mut merged.covers {
        covers.dropped |= !dropped.is_empty();
    }
    let names = live.into_iter().map(|segment| segment.name).collect();
    let work = Work {
        union,
        covers: merged.covers,
    };
    Ok((work, names, dropped))
}

/// Segments that have been covered for longer than the grace by one that is listed.
fn expired_segments(inner: &Inner, now: i64, grace: i64) -> Result<Vec<String>, StoreError> {
    let known = inner.index.known()?;
    let listing = inner.index.listing()?;
    let old: HashSet<&str> = listing
        .iter()
        .map(String::as_str)
        .filter(|name| known.contains(name) && !known.is_refused(name))
        .filter(|name| {
            let at = index::time_of(name).unwrap_or(u64::MAX) / 1_000_000;
            now.saturating_sub_unsigned(at) >= grace
        })
        .collect();
    let covered = listing.iter().filter(|name| known.is_covered(name, &old));
    Ok(covered.cloned().collect())
}

/// An entry of the collector's own.
fn mark(pack: &str, at: Option<i64>, sequence: u64) -> Record {
    Record::Entry {
        cache: MARKS.to_owned(),
        kind: EntryKind::PackMark as u16,
        key: pack.to_owned(),
        value: at.map(|at| at.to_string().into_bytes()).unwrap_or_default(),
        blobs: Vec::new(),
        sequence,
        at: clock::seconds(),
        deleted: at.is_none(),
    }
}
