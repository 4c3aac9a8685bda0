//! Which store paths share a layer.
//!
//! Both algorithms are pure functions of the graph and the NAR sizes: the order in which
//! paths came in does not matter, and equals are told apart by name, then by path.
//!
//! The layers are then put in order, those that change least lowest. A store path gets a
//! new name whenever anything it depends on changes, so a layer changes whenever anything
//! in the union of its members' dependencies does: the size of that union is the layer's
//! rank. Base libraries come first, roots last; a layer never lies below one whose
//! dependencies are a subset of its own.

mod auto;
mod bits;
mod popularity;

use crate::closure::Closure;
use bits::Bits;

/// Layer algorithms by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// nixpkgs' auto-layer: paths with equal sets of large users share a layer.
    #[default]
    Auto,
    /// nixpkgs until 2024 and nix2container: the most referenced paths get a layer each.
    Popularity,
}

/// A name that is no algorithm's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no layer algorithm is called {0:?}; there are auto and popularity")]
pub struct UnknownAlgorithm(pub String);

impl std::str::FromStr for Algorithm {
    type Err = UnknownAlgorithm;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "popularity" => Ok(Self::Popularity),
            _ => Err(UnknownAlgorithm(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Popularity => "popularity",
        })
    }
}

/// Groups the closure's paths (indices) into at most `max_layers` (at least one, if there
/// are paths); lowest layer first, no layer empty, each sorted by name.
pub fn plan(closure: &Closure, algorithm: Algorithm, max_layers: usize) -> Vec<Vec<usize>> {
    let graph = Graph::new(closure);
    let limit = max_layers.max(1);
    let layers = match algorithm {
        _ if closure.paths.is_empty() => Vec::new(),
        Algorithm::Auto => auto::group(closure, &graph, limit),
        Algorithm::Popularity => popularity::group(closure, &graph, limit),
    };
    in_order(closure, &graph, layers)
}

/// Who depends on whom. Edges that would close a cycle are left out.
struct Graph {
    /// Direct references, each before its referrer.
    references: Vec<Vec<usize>>,
    /// All dependencies, direct or not, without the path itself.
    dependencies: Vec<Bits>,
    /// All users, direct or not, without the path itself.
    users: Vec<Bits>,
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
            references,
            dependencies,
            users,
        }
    }
}

fn in_order(closure: &Closure, graph: &Graph, layers: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let count = closure.paths.len();
    let mut ranked: Vec<_> = layers
        .into_iter()
        .map(|mut layer| {
            closure.sort_by_name(&mut layer);
            let mut reach = Bits::new(count);
            for &path in &layer {
                reach.insert(path);
                reach.add_all(&graph.dependencies[path]);
            }
            let names: Vec<_> = layer.iter().map(|&i| &closure.paths[i].path).collect();
            let names: Vec<_> = names.into_iter().map(|path| (path.name(), path)).collect();
            (reach.count(), names, layer)
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, _, layer)| layer).collect()
}

#[cfg(test)]
mod tests;
