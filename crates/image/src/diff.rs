//! What pushing a new image over an old one sends again, and why.
//!
//! A layer of the new image that the old one has too is reused. Any other is pushed, for reasons: a path of it
//! changed by itself, or was renamed because something that it refers to changed; a path came, went, or came from
//! another layer; or it has the same paths, compressed otherwise or with other contents. A path that has another
//! hash *changed by itself* if nothing it refers to has, or if its version or size is another.
//!
//! The order of layers matters to Docker alone: what it has unpacked it finds again only below the first layer that
//! is another ([`Diff::same_below`]).

mod config;
mod paths;

pub use config::ConfigChange;

use crate::view::{Facts, View, ViewLayer};
use firn_formats::nix::StorePath;
use paths::{Fate, Paths};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The comparison of two images.
#[derive(Debug, Clone, Serialize)]
pub struct Diff {
    /// The new image's layers, lowest first.
    pub layers: Vec<LayerDiff>,
    /// Fields of the config that are other ones.
    pub config: Vec<ConfigChange>,
    /// What caused pushes, by the bytes of the layers it concerns.
    pub causes: Vec<Cause>,
    /// So many layers, counted from the lowest, are the same at the same place: Docker unpacks what is above.
    pub same_below: usize,
    /// Whether layers that are reused lie in another order than before.
    pub order_changed: bool,
    /// Layers that only the old image has, counted from 1.
    pub layers_gone: Vec<usize>,
    /// Of layers that are reused.
    pub bytes_reused: u64,
    /// Of layers that are pushed.
    pub bytes_pushed: u64,
    /// NARs of the paths that the old image does not have, as far as their sizes are known.
    pub bytes_new: u64,
    /// How many those are.
    pub paths_new: usize,
}

/// A layer of the new image.
#[derive(Debug, Clone, Serialize)]
pub struct LayerDiff {
    /// Counted from 1.
    pub layer: usize,
    /// As a registry stores it; of a plan, as NARs.
    pub bytes: u64,
    /// Base names.
    pub paths: Vec<String>,
    /// Whether the old image has it.
    pub reused: bool,
    /// The old layer that it is, or that it has most of.
    pub was: Option<usize>,
    /// Why it is pushed; the first reason is the weightiest.
    pub reasons: Vec<Reason>,
}

/// Why a layer is not the one it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What happened.
    pub what: What,
    /// Base name of the path that it happened to; empty if the layer has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What the path was before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// The path's NAR, in bytes; 0 if that is not known.
    pub bytes: u64,
    /// From what the path refers to down to what changed by itself; for what was renamed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// Where it came from or went to, counted from 1; for what moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
}

/// What happened to a path, or to a layer without paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It changed by itself.
    Changed,
    /// The old image has nothing of this name.
    Added,
    /// Something that it refers to changed.
    Renamed,
    /// The new image has nothing of this name.
    Removed,
    /// It is as it was, but was in another layer.
    MovedIn,
    /// It is as it was, but is in another layer now.
    MovedOut,
    /// The same files, compressed otherwise.
    Recompressed,
    /// The same paths with other contents, or other modes and owners.
    Rewritten,
    /// Links, users and other files at the root, or a layer of which nothing is said.
    Files,
}

/// What changed by itself, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// What happened.
    pub what: What,
    /// Base name; empty where no path is to blame.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// Its NAR, in bytes.
    pub bytes: u64,
    /// Paths that have another name for it, itself included.
    pub paths_renamed: usize,
    /// Layers pushed in which it has a part, counted from 1, and their bytes. Others may have a part in them too.
    pub layers: Vec<usize>,
    /// Of those layers.
    pub layer_bytes: u64,
}

/// Compares. `facts` may know the paths of either.
pub fn diff(old: &View, new: &View, facts: &Facts) -> Diff {
    let paths = Paths::new(old, new, facts);
    let same: Vec<Option<usize>> = new
        .layers
        .iter()
        .map(|layer| old.layers.iter().position(|other| layer.is(other)))
        .collect();
    let layers: Vec<LayerDiff> = (0..new.layers.len())
        .map(|place| compare(old, new, &same, &paths, place))
        .collect();
    let reused: Vec<usize> = same.iter().flatten().copied().collect();
    let bytes = |wanted: bool| {
        let all = layers.iter().filter(|layer| layer.reused == wanted);
        all.map(|layer| layer.bytes).sum()
    };
    let fresh: BTreeSet<&StorePath> = new.paths().filter(|path| paths.is_new(path)).collect();
    Diff {
        config: config::changes(&old.config, &new.config),
        causes: causes(&layers, new, &paths),
        same_below: (0..same.len())
            .take_while(|&place| same[place] == Some(place))
            .count(),
        order_changed: reused.windows(2).any(|pair| pair[0] > pair[1]),
        layers_gone: (0..old.layers.len())
            .filter(|place| !reused.contains(place))
            .map(|place| place + 1)
            .collect(),
        bytes_reused: bytes(true),
        bytes_pushed: bytes(false),
        bytes_new: fresh.iter().map(|path| paths.size(path)).sum(),
        paths_new: fresh.len(),
        layers,
    }
}

fn compare(
    old: &View,
    new: &View,
    same: &[Option<usize>],
    paths: &Paths<'_>,
    place: usize,
) -> LayerDiff {
    let layer = &new.layers[place];
    let was = same[place].or_else(|| predecessor(old, same, paths, layer));
    let mut reasons = Vec::new();
    if same[place].is_none() {
        let before = was.map(|was| &old.layers[was]);
        reasons = path_reasons(paths, layer, before, was);
        if reasons.is_empty() {
            reasons.push(layer_reason(old, layer, before));
        }
        reasons.sort_by(|a, b| (a.what, b.bytes, &a.path).cmp(&(b.what, a.bytes, &b.path)));
    }
    LayerDiff {
        layer: place + 1,
        bytes: layer.bytes,
        paths: layer.paths.iter().map(StorePath::to_string).collect(),
        reused: same[place].is_some(),
        was: was.map(|was| was + 1),
        reasons,
    }
}

/// The old layer, not reused, with which this one has most in common: paths by their names.
fn predecessor(
    old: &View,
    same: &[Option<usize>],
    paths: &Paths<'_>,
    layer: &ViewLayer,
) -> Option<usize> {
    let mut common: BTreeMap<usize, u64> = BTreeMap::new();
    for path in &layer.paths {
        if let Some(was) = paths.was(path).and_then(|was| paths.old_layer(was)) {
            *common.entry(was).or_default() += 1 + paths.size(path);
        }
    }
    let free = |place: &usize| !same.contains(&Some(*place));
    if layer.paths.is_empty() {
        let alike = |place: &usize| {
            let other = &old.layers[*place];
            other.paths.is_empty() && other.comment == layer.comment
        };
        return (0..old.layers.len()).filter(free).find(alike);
    }
    let mut best: Vec<(usize, u64)> = common.into_iter().filter(|(p, _)| free(p)).collect();
    best.sort_by_key(|&(place, bytes)| (std::cmp::Reverse(bytes), place));
    best.first().map(|&(place, _)| place)
}

fn path_reasons(
    paths: &Paths<'_>,
    layer: &ViewLayer,
    before: Option<&ViewLayer>,
    was: Option<usize>,
) -> Vec<Reason> {
    let reason = |what, path: &StorePath| Reason {
        what,
        path: path.to_string(),
        was: None,
        bytes: paths.size(path),
        because: Vec::new(),
        layer: None,
    };
    let come = layer.paths.iter().filter_map(|path| {
        let what = match paths.fate(path) {
            Fate::Same if paths.old_layer(path) == was => return None,
            Fate::Same => What::MovedIn,
            Fate::Changed => What::Changed,
            Fate::Renamed => What::Renamed,
            Fate::Added => What::Added,
        };
        let other = paths.was(path).filter(|was| *was != path);
        Some(Reason {
            was: other.map(StorePath::to_string),
            because: match what {
                What::Renamed => paths.chain(path),
                _ => Vec::new(),
            },
            layer: match what {
                What::MovedIn => paths.old_layer(path).map(|place| place + 1),
                _ => None,
            },
            ..reason(what, path)
        })
    });
    let gone = before.into_iter().flat_map(|layer| &layer.paths);
    let gone = gone.filter_map(|path| match paths.became(path) {
        None => Some(reason(What::Removed, path)),
        Some(now) if layer.paths.contains(now) => None,
        Some(now) => Some(Reason {
            layer: paths.new_layer(now).map(|place| place + 1),
            ..reason(What::MovedOut, path)
        }),
    });
    come.chain(gone).collect()
}

/// Where no path tells.
fn layer_reason(old: &View, layer: &ViewLayer, before: Option<&ViewLayer>) -> Reason {
    let is_in_old = |layer: &ViewLayer| {
        let mut others = old.layers.iter();
        layer.diff_id.is_some() && others.any(|other| other.diff_id == layer.diff_id)
    };
    let what = if is_in_old(layer) {
        What::Recompressed
    } else if !layer.paths.is_empty() && before.is_some_and(|b| layer.has_paths_of(b)) {
        What::Rewritten
    } else {
        What::Files
    };
    Reason {
        what,
        path: String::new(),
        was: None,
        bytes: layer.bytes,
        because: Vec::new(),
        layer: None,
    }
}

fn causes(layers: &[LayerDiff], new: &View, paths: &Paths<'_>) -> Vec<Cause> {
    let mut found: BTreeMap<(What, String), Cause> = BTreeMap::new();
    let mut blame = |what: What, path: String, layer: &LayerDiff, was: Option<String>, size| {
        let cause = found.entry((what, path.clone())).or_insert_with(|| Cause {
            what,
            path,
            was,
            bytes: size,
            paths_renamed: 0,
            layers: Vec::new(),
            layer_bytes: 0,
        });
        if cause.layers.last() != Some(&layer.layer) {
            cause.layers.push(layer.layer);
            cause.layer_bytes += layer.bytes;
        }
    };
    for (layer, view) in layers.iter().zip(&new.layers) {
        if layer.reused {
            continue;
        }
        let culprits = view.paths.iter().flat_map(|path| paths.culprits(path));
        let culprits: BTreeSet<&StorePath> = culprits.collect();
        for path in &culprits {
            let what = match paths.fate(path) {
                Fate::Added => What::Added,
                Fate::Renamed => What::Renamed,
                _ => What::Changed,
            };
            let was = paths.was(path).map(StorePath::to_string);
            blame(what, path.to_string(), layer, was, paths.size(path));
        }
        // Where something changed, what came and went besides cost nothing more.
        if culprits.is_empty() {
            for reason in &layer.reasons {
                match reason.what {
                    What::MovedIn | What::MovedOut => {
                        blame(What::MovedIn, String::new(), layer, None, 0)
                    }
                    what => blame(what, reason.path.clone(), layer, None, reason.bytes),
                }
            }
        }
    }
    let mut causes: Vec<Cause> = found.into_values().collect();
    let renamed = paths.renamed_by();
    for cause in &mut causes {
        cause.paths_renamed = renamed.get(cause.path.as_str()).copied().unwrap_or(0);
    }
    causes.sort_by(|a, b| {
        let key = |c: &Cause| (std::cmp::Reverse(c.layer_bytes), c.what, c.path.clone());
        key(a).cmp(&key(b))
    });
    causes
}

#[cfg(test)]
mod tests;
