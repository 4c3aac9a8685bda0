//! Collection without a server: plan, then execute. `docs/on-disk-format.md`, "Collection", argues why no job that
//! runs meanwhile is hurt.

mod compact;
mod packs;
mod paths;
mod rewrite;
mod times;

pub(in crate::shared) use packs::MARKS;
pub(in crate::shared) use paths::mark_key;
pub use paths::{ExpirePaths, PathsOfKey};

use super::run::merge;
use super::{Inner, PackFile, Refreshed, clock, union::Union};
use crate::{EntryKind, StoreError};
use compact::Dropped;
use firn_chunks::segment::Record;
use packs::{Packs, Stored};
use paths::Paths;
use rewrite::{Copied, Rewrite};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use times::Times;

/// Who wrote the segments of a collection.
const WRITER: &str = concat!("firn-gc/", env!("CARGO_PKG_VERSION"));

/// What may go.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// How long what is not needed any more is kept. A day, and not less where jobs may run: they count on half.
    pub grace: Duration,
    /// Entries that go when they are old; none by default.
    pub expire: Vec<Expire>,
    /// Store paths that go when they are in nobody's use; by default none. Nothing goes while segments are live that
    /// others have signed, or that cannot be read.
    pub paths: Option<ExpirePaths>,
    /// Segments that cannot be read, or are not trusted, name nothing, and their packs go like any others. By
    /// default no pack goes while there is such a segment.
    pub ignore_unreadable: bool,
    /// Packs of which more than so many percent are needed by nothing are rewritten; 100: none. Where ages are not
    /// known (a registry) none is: an image's layers are packs there, and others are the registry's to drop.
    pub dead_percent_max: u8,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(86_400),
            expire: Vec::new(),
            paths: None,
            ignore_unreadable: false,
            dead_percent_max: 50,
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
    /// Store paths that were marked for the grace and are still in nobody's use.
    pub paths_expired: Vec<ExpiredEntry>,
    /// In nobody's use, and now marked.
    pub paths_marked: u64,
    /// Marked before, but not for long enough, or needed by one that is.
    pub paths_waiting: u64,
    /// Lists of chunks that no entry names.
    pub blobs_dropped: u64,
    /// Of which much is needed by nothing: what is needed is copied to new packs, and they are named no more.
    pub packs_rewritten: Vec<PackFile>,
    /// Bytes to be copied for that.
    pub bytes_copied: u64,
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
    rewrite: Rewrite,
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
    pub paths_marked: u64,
    pub paths_expired: u64,
    pub packs_rewritten: u64,
    pub bytes_copied: u64,
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
        Self::look(inner, options, &Copied::default())
    }

    /// Looks what is to be done, once frames were copied.
    fn look(inner: Arc<Inner>, options: &GcOptions, copied: &Copied) -> Result<Self, StoreError> {
        // The listing of packs is older than that of segments: a pack that is listed was uploaded before, so
        // if a segment names it by now, it is seen.
        let stored = packs::list(&*inner.backend)?;
        let found = inner.mended(Inner::refresh)?;
        let times = Times::ask(&*inner.backend, stored.as_ref())?;
        let now = times.now;
        let grace = options.grace.as_secs().cast_signed();
        let in_the_way = match options.ignore_unreadable {
            true => 0,
            false => found.segments_refused + found.segments_unreadable,
        };
        let mut named = inner.index.pack_names()?;
        named.extend(copied.names().cloned());
        let marks = compact::marks(&inner.index.entries(MARKS, EntryKind::PackMark, "")?);
        let sort = |stored| Packs::sort(stored, &named, &marks, grace);
        let mut packs = stored.as_ref().map(sort).unwrap_or_default();
        if in_the_way > 0 {
            packs.leave();
        }
        let look = Look {
            inner: &inner,
            options,
            now,
            grace,
            in_the_way,
            stored: stored.as_ref().filter(|_| in_the_way == 0),
            young: young(stored.as_ref(), grace, copied),
            ages_known: stored.is_some(),
        };
        let mut compacted = look.compaction(copied)?;
        packs.write_marks(&inner, now, &mut compacted.work.union)?;
        let paths = compacted.paths;
        paths.write_marks(&inner, now, &mut compacted.work.union)?;
        let files = stored.iter().flat_map(|stored| stored.packs.iter());
        let rewritten = compacted.rewrite.names();
        Ok(Self {
            found,
            segments_merged: compacted.merged,
            segments_deleted: times.expired_segments(&inner, grace)?,
            entries_expired: compacted.dropped.entries,
            paths_expired: paths.expired,
            paths_marked: paths.marked.len() as u64,
            paths_waiting: paths.waiting,
            blobs_dropped: compacted.dropped.blobs,
            packs_rewritten: files
                .filter(|file| rewritten.contains(file.name.as_str()))
                .cloned()
                .collect(),
            bytes_copied: compacted.rewrite.bytes(),
            packs_marked: packs.marked,
            packs_waiting: packs.waiting,
            packs_deleted: packs.deleted,
            segments_in_the_way: in_the_way,
            options: options.clone(),
            work: compacted.work,
            rewrite: compacted.rewrite,
            inner,
        })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.segments_deleted.is_empty()
            && self.packs_deleted.is_empty()
            && self.packs_rewritten.is_empty()
            && self.work.is_empty()
    }

    /// Copies what is to be copied, looks again, and does what was planned and is still right. `Undeletable` from a place that deletes nothing,
    /// once all else is done.
    pub fn execute(self) -> Result<GcReport, StoreError> {
        let copied = self.rewrite.copy(&self.inner)?;
        let again = Self::look(self.inner.clone(), &self.options, &copied)?;
        let mut report = GcReport {
            packs_rewritten: copied.from.len() as u64,
            bytes_copied: copied.bytes(),
            segments_merged: again.segments_merged.len() as u64,
            entries_expired: again.entries_expired.len() as u64,
            paths_marked: again.paths_marked,
            paths_expired: again.paths_expired.len() as u64,
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

/// Packs that were stored less than the grace ago. The collection's own are not among them: no run of others goes on
/// with what they hold.
fn young(stored: Option<&Stored>, grace: i64, copied: &Copied) -> HashSet<String> {
    let own: HashSet<&String> = copied.names().collect();
    let stored = stored.iter().flat_map(|stored| {
        let packs = stored.packs.iter();
        packs.filter(|pack| stored.now - pack.modified_at < grace)
    });
    stored
        .map(|pack| pack.name.clone())
        .filter(|name| !own.contains(name))
        .collect()
}

/// What a look at the store found.
struct Look<'a> {
    inner: &'a Inner,
    options: &'a GcOptions,
    now: i64,
    grace: i64,
    in_the_way: u64,
    /// If packs may be rewritten.
    stored: Option<&'a Stored>,
    young: HashSet<String>,
    ages_known: bool,
}

/// What a compaction would do.
#[derive(Default)]
struct Compacted {
    work: Work,
    merged: Vec<String>,
    dropped: Dropped,
    paths: Paths,
    rewrite: Rewrite,
}

impl Look<'_> {
    /// The segment that takes the place of the live ones, if there are many or something in them goes.
    fn compaction(&self, copied: &Copied) -> Result<Compacted, StoreError> {
        let inner = self.inner;
        let mut live = inner.index.live()?;
        let all = live.len();
        let signer = inner.own_signer();
        live.retain(|segment| segment.signer == signer);
        let mut union = Union::default();
        let mut merged = merge::take(inner, &live, &mut union)?;
        let whole = live.len() == all;
        copied.add_to(&mut union);
        let paths = match &self.options.paths {
            Some(rule) if whole && self.in_the_way == 0 => {
                let marks = inner.index.entries(MARKS, EntryKind::PathMark, "")?;
                Paths::expire(&mut union, rule, &marks, self.now, self.grace)
            }
            _ => Paths::default(),
        };
        let dropped = compact::reduce(
            &mut union,
            self.options,
            self.now,
            &self.young,
            self.ages_known,
            whole,
            &copied.from,
        );
        // A pack may be needed by segments that others have signed.
        let rewrite = match self.stored {
            Some(stored) if whole => {
                let percent = self.options.dead_percent_max;
                Rewrite::plan(&union, &stored.packs, &self.young, percent)
            }
            _ => Rewrite::default(),
        };
        let goes = !dropped.is_empty() || !paths.expired.is_empty();
        if !goes && live.len() <= merge::LEFT_MAX + 1 {
            return Ok(Compacted {
                dropped,
                paths,
                rewrite,
                ..Compacted::default()
            });
        }
        for covers in &mut merged.covers {
            covers.dropped |= goes;
        }
        Ok(Compacted {
            work: Work {
                union,
                covers: merged.covers,
            },
            merged: live.into_iter().map(|segment| segment.name).collect(),
            dropped,
            paths,
            rewrite,
        })
    }
}

/// An entry of the collector's own.
fn mark(kind: EntryKind, name: &str, at: Option<i64>, sequence: u64) -> Record {
    Record::Entry {
        cache: MARKS.to_owned(),
        kind: kind as u16,
        key: name.to_owned(),
        value: at.map(|at| at.to_string().into_bytes()).unwrap_or_default(),
        blobs: Vec::new(),
        sequence,
        at: clock::seconds(),
        deleted: at.is_none(),
    }
}
