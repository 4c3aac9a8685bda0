//! What is known of an image's revisions: the newest one's plan, and what has changed how often.

use crate::{closure::Closure, plan::Graph};
use firn_formats::nix::store_path::StorePathHash;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

/// Revisions of which is kept what changed in them; older ones live on in the counts.
pub(super) const RECENT_MAX: usize = 200;
/// Names listed of one revision.
pub(super) const CHANGED_MAX: usize = 100;
/// Beyond this the counts are halved, so that what is long past weighs less.
pub(super) const SEEN_MAX: u32 = 256;

/// The past of an image. Empty, it is that of an image of which nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// How many revisions there have been.
    pub revisions: u64,
    /// What is in the newest revision, by key: its name without the version.
    pub names: BTreeMap<String, Name>,
    /// The steps to the newest revisions, newest last.
    pub recent: VecDeque<Revision>,
}

/// A thing that the newest revision has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Name {
    /// Of its store path.
    pub hash: StorePathHash,
    /// Of its NAR, in bytes.
    pub size: u64,
    /// The layer that it is in, counted from the lowest.
    pub layer: u32,
    /// Revisions in which it changed by itself.
    pub changed: u32,
    /// Revisions of which that can be told.
    pub seen: u32,
}

/// A step from one revision to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Revision {
    /// Keys of what changed by itself, sorted; the first few, if there are many.
    pub changed: Vec<String>,
    /// How many paths were new, for whatever reason.
    pub paths: u64,
    /// Their NARs' bytes.
    pub bytes: u64,
}

/// What became of a thing since the previous revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It was not there.
    New,
    /// It has the same store path.
    None,
    /// It changed by itself: nothing that it refers to did, or its size is another.
    Own,
    /// Something that it refers to changed; whether it did too cannot be told.
    Carried,
}

impl History {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Takes in that these layers of the closure are an image's newest revision. One that is the same as the
    /// one before is no revision.
    pub fn record(&mut self, closure: &Closure, layers: &[Vec<usize>]) {
        let graph = Graph::new(closure);
        let old = std::mem::take(self);
        let since = old.since(closure, &graph);
        let changes = &since.changes;
        let is_same =
            old.names.len() == changes.len() && changes.iter().all(|c| *c == Change::None);
        for (place, layer) in layers.iter().enumerate() {
            for &path in layer {
                let info = &closure.paths[path];
                let (changed, seen) = match is_same {
                    true => since.known(path).map_or((0, 0), |n| (n.changed, n.seen)),
                    false => aged(since.counts(path)),
                };
                let name = Name {
                    hash: info.path.hash(),
                    size: info.nar_size,
                    layer: u32::try_from(place).unwrap_or(u32::MAX),
                    changed,
                    seen,
                };
                self.names.insert(graph.names.keys[path].clone(), name);
            }
        }
        let first = old.is_empty();
        let step = (!is_same && !first).then(|| step(closure, &graph, changes));
        self.revisions = old.revisions + u64::from(!is_same);
        self.recent = old.recent;
        self.recent.extend(step);
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// What became of everything since the newest revision.
    pub(super) fn since(&self, closure: &Closure, graph: &Graph) -> Since<'_> {
        let known = self.known(closure, graph);
        let mut changes: Vec<Change> = Vec::with_capacity(known.len());
        for (path, info) in closure.paths.iter().enumerate() {
            let carried = |&d: &usize| changes[d] != Change::None;
            let change = match known[path] {
                None => Change::New,
                Some((_, name)) if name.hash == info.path.hash() => Change::None,
                Some((_, name)) if name.size != info.nar_size => Change::Own,
                Some(_) if graph.references[path].iter().any(carried) => Change::Carried,
                Some(_) => Change::Own,
            };
            changes.push(change);
        }
        Since { known, changes }
    }

    /// For each path what it was: what has its hash, or else its key.
    fn known(&self, closure: &Closure, graph: &Graph) -> Vec<Option<(&str, &Name)>> {
        let names = self.names.iter().map(|(key, name)| (key.as_str(), name));
        let by_hash: HashMap<StorePathHash, (&str, &Name)> =
            names.map(|known| (known.1.hash, known)).collect();
        let mut known: Vec<_> = closure
            .paths
            .iter()
            .map(|info| by_hash.get(&info.path.hash()).copied())
            .collect();
        let taken: HashSet<&str> = known.iter().flatten().map(|(key, _)| *key).collect();
        for (known, key) in known.iter_mut().zip(&graph.names.keys) {
            if known.is_none() {
                let by_key = self.names.get_key_value(key.as_str());
                *known = by_key
                    .map(|(key, name)| (key.as_str(), name))
                    .filter(|(key, _)| !taken.contains(key));
            }
        }
        known
    }

    /// For each path its layer in the newest revision, if all paths of that layer are there unchanged.
    pub(super) fn standing(&self, since: &Since<'_>) -> Vec<Option<u32>> {
        let steps = since.known.iter().zip(&since.changes);
        let unchanged: HashSet<&str> = steps
            .filter(|(_, change)| **change == Change::None)
            .filter_map(|(known, _)| known.map(|(key, _)| key))
            .collect();
        let names = self.names.iter();
        let fallen: BTreeSet<u32> = names
            .filter(|(key, _)| !unchanged.contains(key.as_str()))
            .map(|(_, name)| name.layer)
            .collect();
        let layer = |known: &Option<(&str, &Name)>| {
            let (key, name) = (*known)?;
            (unchanged.contains(key) && !fallen.contains(&name.layer)).then_some(name.layer)
        };
        since.known.iter().map(layer).collect()
    }
}

/// A closure seen from the revision before it.
pub(super) struct Since<'a> {
    /// What each path was.
    known: Vec<Option<(&'a str, &'a Name)>>,
    /// What became of it.
    pub(super) changes: Vec<Change>,
}

impl Since<'_> {
    fn known(&self, path: usize) -> Option<&Name> {
        self.known[path].map(|(_, name)| name)
    }

    /// Revisions in which it changed by itself, and those of which that can be told, this one counted.
    pub(super) fn counts(&self, path: usize) -> (u32, u32) {
        let (changed, seen) = self.known(path).map_or((0, 0), |n| (n.changed, n.seen));
        match self.changes[path] {
            Change::Own => (changed + 1, seen + 1),
            Change::None => (changed, seen + 1),
            Change::New | Change::Carried => (changed, seen),
        }
    }
}

fn aged((changed, seen): (u32, u32)) -> (u32, u32) {
    if seen >= SEEN_MAX {
        (changed / 2, seen / 2)
    } else {
        (changed, seen)
    }
}

fn step(closure: &Closure, graph: &Graph, changes: &[Change]) -> Revision {
    let which = |wanted: fn(&Change) -> bool| {
        let all = changes.iter().enumerate();
        all.filter(move |(_, change)| wanted(change))
            .map(|(path, _)| path)
    };
    let mut changed: Vec<String> = which(|change| matches!(change, Change::Own | Change::New))
        .map(|path| graph.names.keys[path].clone())
        .collect();
    changed.sort_unstable();
    changed.truncate(CHANGED_MAX);
    let renamed: Vec<usize> = which(|change| *change != Change::None).collect();
    Revision {
        changed,
        paths: renamed.len() as u64,
        bytes: renamed
            .iter()
            .map(|&path| closure.paths[path].nar_size)
            .sum(),
    }
}
