//! Store paths that nobody has used for long. A path is in use if a CI key that was saved of late names it, or if it was
//! pushed of late itself; and so is whatever a path in use refers to, so a closure is never left with a hole.
//!
//! What is not in use is *marked*, as packs are, and goes a grace later if it still is not. Who pushes takes a marked path
//! for one that is absent, and pushes it again, which makes it one in use. So a run that looked before the mark has
//! published before the path goes, and one that looks after it brings the path along.

use super::packs::MARKS;
use super::{ExpiredEntry, mark};
use crate::shared::{Inner, SharedEntry, clock, union::Union};
use crate::{EntryKind, StoreError};
use firn_chunks::segment::Record;
use firn_formats::nix::NarInfo;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// Hash parts of the store paths that a CI key's value names; `None` if it is of a form that is not known.
pub type PathsOfKey = fn(&[u8]) -> Option<Vec<String>>;

/// Paths go that nothing has used for some time.
#[derive(Debug, Clone, Copy)]
pub struct ExpirePaths {
    /// Neither pushed, nor named by a key that was saved, for so long.
    pub unused_for: Duration,
    /// How to read a key's value.
    pub named_by: PathsOfKey,
}

/// The name of a path among the marks. A cache's name has no space.
pub(in crate::shared) fn mark_key(cache: &str, hash: &str) -> String {
    format!("{cache} {hash}")
}

/// Paths by what is to be done with them.
#[derive(Debug, Default)]
pub(super) struct Paths {
    pub(super) expired: Vec<ExpiredEntry>,
    /// By their marks' keys.
    pub(super) marked: Vec<String>,
    pub(super) waiting: u64,
    unmarked: Vec<String>,
}

/// What a cache has.
#[derive(Default)]
struct Cache {
    /// By hash part: when it was pushed, and what it refers to.
    paths: BTreeMap<String, (i64, Vec<String>)>,
    /// Named by keys that were saved of late.
    named: HashSet<String>,
}

impl Paths {
    /// Takes out of `union` what goes. Something that cannot be read might refer to anything: then nothing does.
    pub(super) fn expire(
        union: &mut Union,
        rule: &ExpirePaths,
        marks: &[SharedEntry],
        now: i64,
        grace: i64,
    ) -> Self {
        let Some(caches) = caches(union, rule, now) else {
            return Self::default();
        };
        let marks: HashMap<&str, i64> = marks
            .iter()
            .filter_map(|mark| {
                let at = std::str::from_utf8(&mark.value).ok()?.parse().ok()?;
                Some((mark.key.as_str(), at))
            })
            .collect();
        let mut sorted = Self::default();
        let mut standing = HashSet::new();
        for (name, cache) in &caches {
            let unused = cache.unused(rule, now);
            let (mut due, mut staying) = (BTreeSet::new(), Vec::new());
            for hash in unused {
                let key = mark_key(name, hash);
                match marks.get(key.as_str()) {
                    None => {
                        sorted.marked.push(key.clone());
                        staying.push(hash.to_owned());
                    }
                    Some(at) if now - at < grace => {
                        sorted.waiting += 1;
                        staying.push(hash.to_owned());
                    }
                    Some(_) => {
                        due.insert(hash);
                    }
                }
                standing.insert(key);
            }
            // What stays for the moment needs what it refers to.
            for hash in cache.reached(staying) {
                sorted.waiting += u64::from(due.remove(hash.as_str()));
            }
            for hash in due {
                let entry = (name.clone(), EntryKind::Narinfo as u16, hash.to_owned());
                if let Some(Record::Entry { at, .. }) = union.entries.remove(&entry) {
                    standing.remove(&mark_key(name, hash));
                    let (cache, kind, key) = entry;
                    sorted.expired.push(ExpiredEntry {
                        cache,
                        kind,
                        key,
                        at,
                    });
                }
            }
        }
        let over = marks.keys().filter(|key| !standing.contains(**key));
        sorted.unmarked = over.map(|key| (*key).to_owned()).collect();
        sorted
    }

    /// Adds marks, and takes back those that are not right any more, in what will be published.
    pub(super) fn write_marks(
        &self,
        inner: &Inner,
        now: i64,
        union: &mut Union,
    ) -> Result<(), StoreError> {
        let added = self.marked.iter().map(|key| (key, Some(now)));
        let taken = self.unmarked.iter().map(|key| (key, None));
        for (key, at) in added.chain(taken) {
            let before = inner.index.sequence(MARKS, EntryKind::PathMark, key)?;
            let sequence = clock::micros().max(before.unwrap_or(0) + 1);
            union.add([mark(EntryKind::PathMark, key, at, sequence)]);
        }
        Ok(())
    }
}

/// `None` if there is anything that cannot be read.
fn caches(union: &Union, rule: &ExpirePaths, now: i64) -> Option<BTreeMap<String, Cache>> {
    let mut caches: BTreeMap<String, Cache> = BTreeMap::new();
    for ((name, kind, key), record) in &union.entries {
        let Record::Entry {
            value,
            at,
            deleted: false,
            ..
        } = record
        else {
            continue;
        };
        if *kind == EntryKind::Narinfo as u16 {
            let narinfo = NarInfo::parse(std::str::from_utf8(value).ok()?).ok()?;
            let references = narinfo.references.iter();
            let references = references.map(|path| path.hash().to_string()).collect();
            let cache = caches.entry(name.clone()).or_default();
            cache.paths.insert(key.clone(), (*at, references));
        } else if *kind == EntryKind::CiKey as u16 && is_fresh(rule, now, *at) {
            let cache = caches.entry(name.clone()).or_default();
            cache.named.extend((rule.named_by)(value)?);
        }
    }
    Some(caches)
}

fn is_fresh(rule: &ExpirePaths, now: i64, at: i64) -> bool {
    now - at <= rule.unused_for.as_secs().cast_signed()
}

impl Cache {
    fn unused(&self, rule: &ExpirePaths, now: i64) -> Vec<&str> {
        let pushed = self.paths.iter();
        let pushed = pushed.filter(|(_, (at, _))| is_fresh(rule, now, *at));
        let used = pushed.map(|(hash, _)| hash).chain(&self.named);
        let used = self.reached(used.cloned().collect());
        let paths = self.paths.keys().map(String::as_str);
        paths.filter(|hash| !used.contains(*hash)).collect()
    }

    /// Paths of the cache that can be reached from some, with these.
    fn reached(&self, from: Vec<String>) -> HashSet<String> {
        let mut queue = from;
        let mut reached = HashSet::new();
        while let Some(hash) = queue.pop() {
            if let Some((_, references)) = self.paths.get(&hash)
                && reached.insert(hash)
            {
                queue.extend(references.iter().cloned());
            }
        }
        reached
    }
}
