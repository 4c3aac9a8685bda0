//! Checking a store: its structure, and every byte.
//!
//! | module | what it looks at |
//! |---|---|
//! | `inspect` | a closed folder, before anything is opened: version, database |
//! | `data` | every frame: checksum, decoding, BLAKE3; in parts, throttled, to be resumed |
//! | `packs` | pack files and rows, trailers, orphans |
//! | `blobs` | chunk lists, their chunks and lengths |
//! | `entries` | what entries name; who asks says what they mean |
//! | `segments` | what a rebuild would find |
//!
//! A finding names the thing and what it breaks. Each question is asked of one snapshot; what looks wrong because
//! the store changed in between is looked at again before it is said.

mod blobs;
mod data;
mod entries;
mod inspect;
mod packs;
mod segments;

pub(crate) use data::scrub;
pub use data::{DataOptions, DataProgress};
pub use entries::Meaning;

use crate::db::damage::{self, Place};
use crate::store::Inner;
use crate::types::{CacheRow, DomainId, Entry};
use crate::{BlobInfo, StoreError};
use firn_chunks::ChunkId;
use std::collections::HashMap;

pub(crate) use inspect::inspect;

/// Names of broken things that one finding lists; it counts all.
const NAMED_MAX: usize = 1000;
/// Chunks in quarantine read at once.
const DAMAGED_MAX: usize = 4096;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum FindingKind {
    /// The folder's or the database's version is not this program's.
    Version,
    /// The database is not here, or not whole.
    Database,
    /// The packs' place is not there: nothing is known of any pack.
    PacksAway,
    PackLost,
    PackLength,
    /// A pack is there, or may be, and cannot be read now.
    PackUnreadable,
    /// A pack's header or trailer.
    PackIndex,
    /// A chunk's row says what its pack does not.
    ChunkRow,
    /// A frame's bytes are not as they were written.
    ChunkDamaged,
    /// Frames of a pack cannot be read now.
    ChunkUnreadable,
    /// A blob's list, chunks or lengths.
    Blob,
    /// An entry's value.
    Entry,
    /// Something that an entry needs is not here (rule 4).
    Reference,
    Segment,
    /// No segment tells of it: a rebuild would not find it.
    Untold,
    /// A file that nothing names. No damage.
    Orphan,
}

impl FindingKind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Database => "database",
            Self::PacksAway => "packs-away",
            Self::PackLost => "pack-lost",
            Self::PackLength => "pack-length",
            Self::PackUnreadable => "pack-unreadable",
            Self::PackIndex => "pack-index",
            Self::ChunkRow => "chunk-row",
            Self::ChunkDamaged => "chunk-damaged",
            Self::ChunkUnreadable => "chunk-unreadable",
            Self::Blob => "blob",
            Self::Entry => "entry",
            Self::Reference => "reference",
            Self::Segment => "segment",
            Self::Untold => "untold",
            Self::Orphan => "orphan",
        }
    }

    /// Whether anything cannot be served because of it; the others cost room at most.
    pub fn is_damage(self) -> bool {
        self != Self::Orphan
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Finding {
    pub kind: FindingKind,
    /// The thing.
    pub subject: String,
    /// What is wrong with it.
    pub detail: String,
    /// What cannot be served because of it, in the words of who asked; at most 1000.
    pub breaks: Vec<String>,
    pub breaks_total: u64,
}

/// What was looked at, and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CheckReport {
    pub packs: u64,
    pub chunks: u64,
    pub blobs: u64,
    pub entries: u64,
    pub segments: u64,
    /// Of frames, if all data was read.
    pub bytes_read: u64,
    pub chunks_read: u64,
    /// Put into quarantine now; those of before are among the findings too.
    pub chunks_quarantined: u64,
    /// They were in quarantine and are good.
    pub chunks_restored: u64,
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether anything is damaged.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind.is_damage())
    }
}

/// Says what an entry means: given its cache and its blobs.
pub type Explain<'a> = &'a dyn Fn(&CacheRow, &Entry, &[BlobInfo]) -> Meaning;

/// What was found so far, and what it touches.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) report: CheckReport,
    /// Chunks that cannot be read, and the finding that says why.
    pub(crate) chunks: HashMap<(DomainId, ChunkId), usize>,
    /// Valid chunks that turned out to be damaged.
    pub(crate) suspects: Vec<Place>,
    /// Blobs that cannot be served, and the findings that say why.
    pub(crate) blobs: HashMap<i64, Vec<usize>>,
}

impl Findings {
    pub(crate) fn add(
        &mut self,
        kind: FindingKind,
        subject: impl Into<String>,
        detail: impl Into<String>,
    ) -> usize {
        self.report.findings.push(Finding {
            kind,
            subject: subject.into(),
            detail: detail.into(),
            breaks: Vec::new(),
            breaks_total: 0,
        });
        self.report.findings.len() - 1
    }

    pub(crate) fn breaks(&mut self, finding: usize, name: &str) {
        let Some(finding) = self.report.findings.get_mut(finding) else {
            return;
        };
        finding.breaks_total += 1;
        if finding.breaks.len() < NAMED_MAX {
            finding.breaks.push(name.to_owned());
        }
    }
}

/// Checks the structure of an open store; with `data`, reads every byte first. `go_on` is asked now and then.
pub(crate) fn check(
    inner: &Inner,
    data: Option<&DataOptions>,
    explain: Explain<'_>,
    go_on: &mut dyn FnMut(&DataProgress) -> bool,
) -> Result<CheckReport, StoreError> {
    let mut found = Findings::default();
    let here = match inner.presence.check() {
        Ok(()) => true,
        Err(error @ (StoreError::Away(_) | StoreError::Io { .. })) => {
            packs::away(inner, &error, &mut found)?;
            false
        }
        Err(error) => return Err(error),
    };
    if here {
        let unread = match data {
            Some(options) => read_data(inner, options, go_on, &mut found)?,
            None => data::Unread::default(),
        };
        packs::check(inner, &mut found)?;
        unreadable(inner, unread, &mut found)?;
        found.report.chunks_restored += inner.quarantine.ward.look_again()?;
    }
    let suspects = std::mem::take(&mut found.suspects);
    let taken = inner.quarantine.ward.examine(&suspects, "check")?;
    found.report.chunks_quarantined += taken as u64;
    quarantined(inner, &mut found)?;
    blobs::check(inner, &mut found)?;
    entries::check(inner, explain, &mut found)?;
    segments::check(inner, &mut found)?;
    Ok(found.report)
}

fn read_data(
    inner: &Inner,
    options: &DataOptions,
    go_on: &mut dyn FnMut(&DataProgress) -> bool,
    found: &mut Findings,
) -> Result<data::Unread, StoreError> {
    let mut unread = data::Unread::default();
    let progress = match data::read(inner, options, go_on, &mut unread) {
        Ok(progress) => progress,
        // It went meanwhile: what can be said without packs is said.
        Err(StoreError::Away(_)) => DataProgress::default(),
        Err(error) => return Err(error),
    };
    found.report.bytes_read = progress.bytes_read;
    found.report.chunks_read = progress.chunks_read;
    found.report.chunks_quarantined = progress.chunks_damaged;
    Ok(unread)
}

/// What could not be read of packs that could be opened.
fn unreadable(inner: &Inner, unread: data::Unread, found: &mut Findings) -> Result<(), StoreError> {
    for (pack, unread) in unread.packs {
        let row = inner
            .db
            .read(|connection| crate::db::chunks::pack(connection, pack))?;
        let Some(row) = row else { continue };
        let (key, kind) = (row.key(), FindingKind::PackUnreadable);
        let mut findings = found.report.findings.iter();
        if findings.any(|finding| finding.kind == kind && finding.subject == key) {
            continue;
        }
        let detail = format!(
            "{} frames cannot be read: {}; nothing is known to be lost",
            unread.chunks.len(),
            unread.error
        );
        let finding = found.add(FindingKind::ChunkUnreadable, key, detail);
        for place in unread.chunks {
            found.chunks.insert(place, finding);
        }
    }
    Ok(())
}

/// Chunks in quarantine that no other finding accounts for.
fn quarantined(inner: &Inner, found: &mut Findings) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let (chunks, packs) = inner.db.snapshot(|connection| {
            let chunks = damage::all(connection, after.as_ref(), DAMAGED_MAX)?;
            let mut packs = HashMap::new();
            for chunk in &chunks {
                if let std::collections::hash_map::Entry::Vacant(slot) = packs.entry(chunk.pack) {
                    let row = crate::db::chunks::pack(connection, chunk.pack)?;
                    slot.insert(
                        row.map_or_else(|| "a pack that is gone".to_owned(), |row| row.key()),
                    );
                }
            }
            Ok((chunks, packs))
        })?;
        let Some(last) = chunks.last() else {
            return Ok(());
        };
        after = Some((last.domain, last.id));
        for chunk in &chunks {
            let place = (chunk.domain, chunk.id);
            if found.chunks.contains_key(&place) {
                continue;
            }
            let pack = packs.get(&chunk.pack).map_or("", String::as_str);
            let subject = format!("chunk {}", chunk.id);
            let detail = format!(
                "its frame at byte {} of {pack} is damaged; it counts as missing until it is pushed again",
                chunk.offset
            );
            let needed = inner
                .db
                .read(|connection| damage::breaks_any(connection, chunk))?;
            // What no blob lists is the collector's.
            let kind = match needed {
                true => FindingKind::ChunkDamaged,
                false => FindingKind::Orphan,
            };
            let finding = found.add(kind, subject, detail);
            found.chunks.insert(place, finding);
        }
    }
}
