//! Which store paths share a layer.
//!
//! All algorithms are pure functions of the graph, the NAR sizes and, one of them, what is known of the image's
//! past: the order in which paths came in does not matter, nor do their hashes, and equals are told
//! apart by name, then by size and place in the graph ([`names`]).
//!
//! The layers are then put in order, those that change least lowest. A store path gets a
//! new name whenever anything it depends on changes, so a layer changes whenever anything
//! in the union of its members' dependencies does: the size of that union is the layer's
//! rank. Base libraries come first, roots last; a layer never lies below one whose
//! dependencies are a subset of its own. ([`history`] ranks by how likely that is.)

mod auto;
mod bits;
mod dominators;
mod groups;
mod history;
mod names;
mod popularity;

pub use groups::{GroupError, plan_grouped};
pub use history::{HISTORY_BYTES_MAX, History, HistoryError, Name, Revision};

use crate::closure::Closure;
use bits::Bits;
use names::Names;
use serde::Serialize;

/// Layer algorithms by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// The fewest bytes that can be expected to be pushed again, by what has changed how often.
    #[default]
    History,
    /// nixpkgs' auto-layer: paths with equal sets of large users share a layer.
    Auto,
    /// nixpkgs until 2024 and nix2container: the most referenced paths get a layer each.
    Popularity,
    /// nixery: what is only reached through a path shares its layer.
    Dominators,
    /// All in one layer.
    One,
}

impl Algorithm {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::History,
        Self::Auto,
        Self::Popularity,
        Self::Dominators,
        Self::One,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Auto => "auto",
            Self::Popularity => "popularity",
            Self::Dominators => "dominators",
            Self::One => "one",
        }
    }
}

/// A name that is no algorithm's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no layer algorithm is called {0:?}; there are history, auto, popularity, dominators and one"
)]
pub struct UnknownAlgorithm(pub String);

impl std::str::FromStr for Algorithm {
    type Err = UnknownAlgorithm;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|algorithm| algorithm.name() == text)
            .ok_or_else(|| UnknownAlgorithm(text.to_owned()))
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A store path's name without its version: what is the same thing in two revisions.
pub fn name_key(name: &str) -> String {
    names::key(name)
}

/// For each layer (of indices) the probability that the next revision has it no more, by what [`history`] believes.
pub fn risks(closure: &Closure, layers: &[Vec<usize>], history: &History) -> Vec<f64> {
    history::risks(closure, &Graph::new(closure), layers, history)
}

/// Groups the closure's paths (indices) into at most `max_layers` (at least one, if there
/// are paths); lowest layer first, no layer empty, each sorted by name.
pub fn plan(
    closure: &Closure,
    algorithm: Algorithm,
    max_layers: usize,
    history: &History,
) -> Vec<Vec<usize>> {
    if closure.paths.is_empty() {
        return Vec::new();
    }
    let graph = Graph::new(closure);
    let limit = max_layers.max(1);
    let layers = match algorithm {
        // It orders them by what it has learned.
        Algorithm::History => return history::group(closure, &graph, limit, history),
        Algorithm::Auto => auto::group(closure, &graph, limit),
        Algorithm::Popularity => popularity::group(&graph, limit),
        Algorithm::Dominators => dominators::group(closure, &graph, limit),
        Algorithm::One => vec![(0..closure.paths.len()).collect()],
    };
    in_order(&graph, layers)
}

/// Who depends on whom. Edges that would close a cycle are left out.
struct Graph {
    /// Direct references, each before its referrer.
    references: Vec<Vec<usize>>,
    /// All dependencies, direct or not, without the path itself.
    dependencies: Vec<Bits>,
    /// All users, direct or not, without the path itself.
    users: Vec<Bits>,
    names: Names,
}

impl Graph {
    fn new(closure: &Closure) -> Self {
        let count = closure.paths.len();
        let mut references = closure.dependencies();
        for (path, list) in references.iter_mut().enumerate() {
            list.retain(|&reference| reference < path);
        }
        let mut dependencies: Vec<Bits> = Vec::with_capacity(count);
        for list in &references {
            let mut all = Bits::new(count);
            for &reference in list {
                all.insert(reference);
                all.add_all(&dependencies[reference]);
            }
            dependencies.push(all);
        }
        let mut users = vec![Bits::new(count); count];
        for (user, all) in dependencies.iter().enumerate() {
            all.iter().for_each(|path| users[path].insert(user));
        }
        Self {
            names: Names::new(closure, &references),
            references,
            dependencies,
            users,
        }
    }
}

fn in_order(graph: &Graph, layers: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let count = graph.references.len();
    let mut ranked: Vec<_> = layers
        .into_iter()
        .map(|mut layer| {
            graph.sort(&mut layer);
            let mut reach = Bits::new(count);
            for &path in &layer {
                reach.insert(path);
                reach.add_all(&graph.dependencies[path]);
            }
            let names: Vec<usize> = layer.iter().map(|&i| graph.names.rank[i]).collect();
            (reach.count(), names, layer)
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, _, layer)| layer).collect()
}

#[cfg(test)]
mod tests;
