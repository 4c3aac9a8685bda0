//! What a compaction leaves out of the union of the live segments.

use super::{ExpiredEntry, GcOptions};
use crate::EntryKind;
use crate::shared::union::Union;
use firn_chunks::{ListId, segment::Record};
use std::collections::{HashMap, HashSet};

/// Tombstones are kept for so long, in seconds: an older entry comes back if a segment that holds it is read
/// after the tombstone is forgotten, and no run takes so long.
const TOMBSTONE_AGE_MIN: i64 = 30 * 86_400;

/// What goes.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub(super) entries: Vec<ExpiredEntry>,
    pub(super) tombstones: u64,
    pub(super) blobs: u64,
    /// Packs that no segment will name any more.
    pub(super) packs: Vec<String>,
}

impl Dropped {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.tombstones == 0 && self.blobs == 0 && self.packs.is_empty()
    }
}

/// Takes out of `union` what is not needed. `young` are packs stored a short while ago, whose run may go on;
/// `ages_known` says whether all others are known to be old. Entries for which there may be older ones in
/// segments that are not in the union keep their tombstones (`whole` is false). Packs that were `copied` from are needed
/// only for what lies nowhere else.
pub(super) fn reduce(
    union: &mut Union,
    options: &GcOptions,
    now: i64,
    young: &HashSet<String>,
    ages_known: bool,
    whole: bool,
    copied: &HashSet<String>,
) -> Dropped {
    let mut dropped = Dropped::default();
    union.entries.retain(|(cache, _, key), record| {
        let Record::Entry {
            kind, at, deleted, ..
        } = record
        else {
            return true;
        };
        if *deleted {
            let goes = whole && now - *at > TOMBSTONE_AGE_MIN;
            dropped.tombstones += u64::from(goes);
            return !goes;
        }
        let expired = options.expire.iter().any(|rule| {
            rule.kind as u16 == *kind && now - *at > rule.unused_for.as_secs().cast_signed()
        });
        if expired {
            dropped.entries.push(ExpiredEntry {
                cache: cache.clone(),
                kind: *kind,
                key: key.clone(),
                at: *at,
            });
        }
        !expired
    });
    let packs_of = packs_of_blobs(union, copied);
    let named: HashSet<ListId> = union
        .entries
        .values()
        .flat_map(|record| match record {
            Record::Entry { blobs, .. } => blobs.as_slice(),
            _ => &[],
        })
        .map(|id| ListId(*id))
        .collect();
    let (mut needed, mut left) = (HashSet::new(), HashSet::new());
    union.blobs.retain(|id, _| {
        let packs = packs_of.get(id).map(Vec::as_slice).unwrap_or_default();
        // An entry of a run that goes on may be about to name it.
        let stays = named.contains(id) || packs.iter().any(|pack| young.contains(pack));
        if stays { &mut needed } else { &mut left }.extend(packs.iter().cloned());
        dropped.blobs += u64::from(!stays);
        stays
    });
    union.packs.retain(|name, _| {
        // Where ages are not known, a pack that no blob ever lay in (an image's layer) is left.
        let old = !young.contains(name) && (ages_known || left.contains(name));
        let stays = needed.contains(name) || !old;
        if !stays {
            dropped.packs.push(name.clone());
        }
        stays
    });
    dropped
}

/// Which packs each blob lies in; of a chunk's places those in packs that were copied from count only if it has no
/// others.
fn packs_of_blobs(union: &Union, copied: &HashSet<String>) -> HashMap<ListId, Vec<String>> {
    let mut places: HashMap<_, Vec<&String>> = HashMap::new();
    for (name, pack) in &union.packs {
        for (id, _) in pack.frames.keys() {
            places.entry(*id).or_default().push(name);
        }
    }
    for places in places.values_mut() {
        if places.iter().any(|name| !copied.contains(*name)) {
            places.retain(|name| !copied.contains(*name));
        }
    }
    let packs_of = |record: &firn_chunks::segment::BlobRecord| {
        let chunks = record.list.chunks.iter();
        let packs: HashSet<&String> = chunks
            .filter_map(|chunk| places.get(&chunk.id))
            .flatten()
            .copied()
            .collect();
        packs.into_iter().cloned().collect()
    };
    union
        .blobs
        .iter()
        .map(|(id, record)| (*id, packs_of(record)))
        .collect()
}

/// The marks that a union holds: pack and time, in seconds since 1970 by the place.
pub(super) fn marks(entries: &[crate::shared::SharedEntry]) -> HashMap<String, i64> {
    entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::PackMark)
        .filter_map(|entry| {
            let at = std::str::from_utf8(&entry.value).ok()?.parse().ok()?;
            Some((entry.key.clone(), at))
        })
        .collect()
}
