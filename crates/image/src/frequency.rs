//! How often layers change: what the image's history says of what is in them.
//!
//! A layer changes when anything that it has, or that this refers to, changes by itself. Where references are not
//! known (an image that lies in a registry, and a machine without its store paths), what the layer itself has counts
//! alone, and it may have changed more often.

use crate::{
    plan::{History, name_key},
    view::{Facts, View},
};
use firn_formats::nix::StorePath;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Of one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Frequency {
    /// For each of the newest revisions, oldest first, whether the layer changed in it.
    pub steps: Vec<bool>,
    /// Whether what its paths refer to is known.
    pub is_whole: bool,
}

impl Frequency {
    /// In how many of the revisions.
    pub fn changed(&self) -> usize {
        self.steps.iter().filter(|changed| **changed).count()
    }
}

/// Of each of a view's layers.
pub fn frequencies(view: &View, facts: &Facts, history: &History) -> Vec<Frequency> {
    let keys = history.names.iter();
    let keys: BTreeMap<_, &str> = keys.map(|(key, name)| (name.hash, key.as_str())).collect();
    let key = |path: &StorePath| match keys.get(&path.hash()) {
        Some(key) => (*key).to_owned(),
        None => name_key(path.name()),
    };
    let recent = history.recent.iter();
    let steps: Vec<BTreeSet<&str>> = recent
        .map(|step| step.changed.iter().map(String::as_str).collect())
        .collect();
    let frequency = |paths: &Vec<StorePath>| {
        let (reach, is_whole) = reach(paths, facts);
        let keys: Vec<String> = reach.into_iter().map(key).collect();
        Frequency {
            steps: steps
                .iter()
                .map(|changed| keys.iter().any(|key| changed.contains(key.as_str())))
                .collect(),
            is_whole,
        }
    };
    view.layers
        .iter()
        .map(|layer| frequency(&layer.paths))
        .collect()
}

/// All that paths refer to, they themselves among them, and whether that is all.
fn reach<'a>(paths: &'a [StorePath], facts: &'a Facts) -> (BTreeSet<&'a StorePath>, bool) {
    let mut open: Vec<&StorePath> = paths.iter().collect();
    let mut seen = BTreeSet::new();
    let mut is_whole = true;
    while let Some(path) = open.pop() {
        if seen.insert(path) {
            match facts.references(path) {
                Some(references) => open.extend(references),
                None => is_whole = false,
            }
        }
    }
    (seen, is_whole)
}
