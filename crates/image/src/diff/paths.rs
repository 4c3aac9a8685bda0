//! What became of store paths from one image to the next.

use crate::{
    plan::name_key,
    view::{Facts, View},
};
use firn_formats::nix::StorePath;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

/// What became of a path of the new image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Same,
    /// By itself.
    Changed,
    /// Because of something that it refers to.
    Renamed,
    Added,
}

pub(super) struct Paths<'a> {
    facts: &'a Facts,
    old_layers: HashMap<&'a StorePath, usize>,
    new_layers: HashMap<&'a StorePath, usize>,
    /// For each new path what it was, if it was there.
    was: HashMap<&'a StorePath, &'a StorePath>,
    became: HashMap<&'a StorePath, &'a StorePath>,
    /// For each path that the old image has not, what it refers to that the old image has not.
    fresh: HashMap<&'a StorePath, Vec<&'a StorePath>>,
    culprits: HashMap<&'a StorePath, BTreeSet<&'a StorePath>>,
}

impl<'a> Paths<'a> {
    pub(super) fn new(old: &'a View, new: &'a View, facts: &'a Facts) -> Self {
        let old_layers = places(old);
        let new_layers = places(new);
        let was = pairs(&old_layers, &new_layers);
        let mut paths = Self {
            facts,
            became: was.iter().map(|(new, old)| (*old, *new)).collect(),
            was,
            old_layers,
            new_layers,
            fresh: HashMap::new(),
            culprits: HashMap::new(),
        };
        paths.fresh = paths.find_fresh();
        paths.culprits = paths.find_culprits();
        paths
    }

    fn find_fresh(&self) -> HashMap<&'a StorePath, Vec<&'a StorePath>> {
        let is_new = |path: &&StorePath| !self.old_layers.contains_key(*path);
        let references = |path: &StorePath| {
            let all = self.facts.references(path).into_iter().flatten();
            let known = all.filter_map(|reference| self.new_layers.get_key_value(reference));
            known.map(|(path, _)| *path).filter(is_new).collect()
        };
        let paths = self.new_layers.keys().copied().filter(is_new);
        paths.map(|path| (path, references(path))).collect()
    }

    /// References first. What is renamed for no reason that is known is its own culprit.
    fn find_culprits(&self) -> HashMap<&'a StorePath, BTreeSet<&'a StorePath>> {
        let mut culprits: HashMap<&StorePath, BTreeSet<&StorePath>> = HashMap::new();
        let mut open: Vec<(&StorePath, bool)> = self.fresh.keys().map(|p| (*p, false)).collect();
        let mut entered = HashSet::new();
        while let Some((path, is_left)) = open.pop() {
            let references = &self.fresh[path];
            if is_left {
                let below = references.iter().filter_map(|below| culprits.get(below));
                let mut found: BTreeSet<&StorePath> = below.flatten().copied().collect();
                if found.is_empty() || self.fate(path) != Fate::Renamed {
                    found.insert(path);
                }
                culprits.insert(path, found);
            } else if entered.insert(path) {
                open.push((path, true));
                open.extend(references.iter().map(|below| (*below, false)));
            }
        }
        culprits
    }

    /// Of its NAR; 0 if that is not known.
    pub(super) fn size(&self, path: &StorePath) -> u64 {
        self.facts.size(path).unwrap_or(0)
    }

    pub(super) fn old_layer(&self, path: &StorePath) -> Option<usize> {
        self.old_layers.get(path).copied()
    }

    pub(super) fn new_layer(&self, path: &StorePath) -> Option<usize> {
        self.new_layers.get(path).copied()
    }

    /// What a new path was.
    pub(super) fn was(&self, path: &StorePath) -> Option<&'a StorePath> {
        self.was.get(path).copied()
    }

    /// What an old path is now.
    pub(super) fn became(&self, path: &StorePath) -> Option<&'a StorePath> {
        self.became.get(path).copied()
    }

    pub(super) fn is_new(&self, path: &StorePath) -> bool {
        self.fresh.contains_key(path)
    }

    pub(super) fn fate(&self, path: &StorePath) -> Fate {
        match self.was(path) {
            None => Fate::Added,
            Some(was) if was == path => Fate::Same,
            Some(was) if was.name() != path.name() => Fate::Changed,
            Some(was) => {
                let sizes = (self.facts.size(was), self.facts.size(path));
                let resized = matches!(sizes, (Some(a), Some(b)) if a != b);
                let known = self.facts.references(path).is_some();
                match self.fresh.get(path).is_some_and(|fresh| !fresh.is_empty()) {
                    true if !resized => Fate::Renamed,
                    false if !known && !resized => Fate::Renamed,
                    _ => Fate::Changed,
                }
            }
        }
    }

    /// From what a path refers to down to the nearest thing that changed by itself; empty if that is not known.
    pub(super) fn chain(&self, path: &'a StorePath) -> Vec<String> {
        let mut came_from: HashMap<&StorePath, &StorePath> = HashMap::new();
        let mut queue = VecDeque::from([path]);
        let mut seen = HashSet::from([path]);
        while let Some(next) = queue.pop_front() {
            if next != path && self.fate(next) != Fate::Renamed {
                let mut chain = vec![next.to_string()];
                let mut at = next;
                while let Some(&user) = came_from.get(at).filter(|user| **user != path) {
                    chain.push(user.to_string());
                    at = user;
                }
                chain.reverse();
                return chain;
            }
            for reference in self.fresh.get(next).into_iter().flatten().copied() {
                if seen.insert(reference) {
                    came_from.insert(reference, next);
                    queue.push_back(reference);
                }
            }
        }
        Vec::new()
    }

    /// What a path has another name for: itself, or what it refers to, directly or not; or itself where what it
    /// refers to is not known.
    pub(super) fn culprits(&self, path: &StorePath) -> impl Iterator<Item = &'a StorePath> {
        self.culprits.get(path).into_iter().flatten().copied()
    }

    /// For each culprit, how many paths it has renamed.
    pub(super) fn renamed_by(&self) -> BTreeMap<String, usize> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for culprit in self.culprits.values().flatten() {
            *counts.entry(culprit.to_string()).or_default() += 1;
        }
        counts
    }
}

fn places(view: &View) -> HashMap<&StorePath, usize> {
    let layers = view.layers.iter().enumerate();
    layers
        .flat_map(|(place, layer)| layer.paths.iter().map(move |path| (path, place)))
        .collect()
}

/// For each new path the old one that it is, by itself or by its name without the version: of several first those
/// with the same whole name.
fn pairs<'a>(
    old: &HashMap<&'a StorePath, usize>,
    new: &HashMap<&'a StorePath, usize>,
) -> HashMap<&'a StorePath, &'a StorePath> {
    let mut pairs: HashMap<&StorePath, &StorePath> = HashMap::new();
    let sorted = |from: &HashMap<&'a StorePath, usize>, other: &HashMap<&'a StorePath, usize>| {
        let left = from
            .keys()
            .copied()
            .filter(|path| !other.contains_key(path));
        let mut left: Vec<&StorePath> = left.collect();
        left.sort_unstable_by(|a, b| (a.name(), *a).cmp(&(b.name(), *b)));
        left
    };
    pairs.extend(
        new.keys()
            .filter(|p| old.contains_key(*p))
            .map(|p| (*p, *p)),
    );
    let mut free = sorted(old, new);
    let mut open = sorted(new, old);
    let whole = |path: &StorePath| path.name().to_owned();
    let key = |path: &StorePath| name_key(path.name());
    for name in [&whole as &dyn Fn(&StorePath) -> String, &key] {
        let mut by_name: HashMap<String, VecDeque<&StorePath>> = HashMap::new();
        for path in &free {
            by_name.entry(name(path)).or_default().push_back(*path);
        }
        open.retain(|path| {
            let found = by_name.get_mut(&name(path)).and_then(VecDeque::pop_front);
            pairs.extend(found.map(|was| (*path, was)));
            found.is_none()
        });
        let taken: HashSet<&StorePath> = pairs.values().copied().collect();
        free.retain(|path| !taken.contains(path));
    }
    pairs
}
