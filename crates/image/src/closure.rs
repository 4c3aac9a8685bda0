//! A closure: store paths, what is known of them without reading them, and who refers to whom.

use firn_formats::{
    Sha256,
    nix::{Signature, StorePath},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
};

/// One store path of a closure.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct PathInfo {
    pub path: StorePath,
    pub nar_hash: Sha256,
    pub nar_size: u64,
    /// Sorted; may include itself.
    pub references: Vec<StorePath>,
    pub deriver: Option<StorePath>,
    pub signatures: Vec<Signature>,
    pub ca: Option<String>,
}

/// A closed set of paths: every reference is in it. References come before referrers.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Closure {
    pub roots: Vec<StorePath>,
    pub paths: Vec<PathInfo>,
}

/// Why paths are not a closure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ClosureError {
    #[error("{path} refers to {reference}, which is not among the paths")]
    MissingReference {
        path: StorePath,
        reference: StorePath,
    },
    #[error("the root {0} is not among the paths")]
    MissingRoot(StorePath),
}

impl Closure {
    /// Sorts the paths, references first, else by name; the order of `paths` does not
    /// matter, duplicates fall together, references to oneself and cycles are borne
    /// (in a cycle the first by name comes first). Roots keep their order.
    pub fn new(paths: Vec<PathInfo>, roots: Vec<StorePath>) -> Result<Self, ClosureError> {
        let mut by_order: BTreeMap<(String, StorePath), PathInfo> = BTreeMap::new();
        for path in paths {
            by_order.insert((path.path.name().to_owned(), path.path.clone()), path);
        }
        let unsorted = Self {
            roots: unique(roots),
            paths: by_order.into_values().collect(),
        };
        unsorted.check()?;
        let order = topological_order(&unsorted.dependencies());
        let mut paths: Vec<Option<PathInfo>> = unsorted.paths.into_iter().map(Some).collect();
        Ok(Self {
            roots: unsorted.roots,
            paths: order.into_iter().filter_map(|i| paths[i].take()).collect(),
        })
    }

    /// The closure of `roots` within paths that may be more.
    pub fn of_graph(paths: Vec<PathInfo>, roots: Vec<StorePath>) -> Result<Self, ClosureError> {
        let index: HashMap<&StorePath, usize> = paths
            .iter()
            .enumerate()
            .map(|(i, info)| (&info.path, i))
            .collect();
        let mut wanted = vec![false; paths.len()];
        let mut open: Vec<usize> = roots
            .iter()
            .filter_map(|root| index.get(root).copied())
            .collect();
        while let Some(path) = open.pop() {
            if !std::mem::replace(&mut wanted[path], true) {
                let references = paths[path].references.iter();
                open.extend(references.filter_map(|reference| index.get(reference).copied()));
            }
        }
        let paths = paths.into_iter().zip(wanted);
        let wanted = paths.filter_map(|(info, wanted)| wanted.then_some(info));
        Self::new(wanted.collect(), roots)
    }

    /// Takes away those of `paths` to which nothing refers, not even they themselves.
    pub fn without_unreferenced(&mut self, paths: &[StorePath]) {
        let referred: HashSet<StorePath> = self
            .paths
            .iter()
            .flat_map(|info| info.references.iter().cloned())
            .collect();
        let goes = |path: &StorePath| paths.contains(path) && !referred.contains(path);
        self.paths.retain(|info| !goes(&info.path));
        self.roots.retain(|root| !goes(root));
    }

    /// Position of each path in `paths`.
    pub fn index(&self) -> HashMap<&StorePath, usize> {
        let paths = self.paths.iter().enumerate();
        paths.map(|(i, info)| (&info.path, i)).collect()
    }

    /// For each path the indices of its direct references, itself left out; ascending.
    pub fn dependencies(&self) -> Vec<Vec<usize>> {
        let index = self.index();
        let of = |(i, info): (usize, &PathInfo)| {
            let references = info.references.iter();
            let mut list: Vec<usize> = references
                .filter_map(|reference| index.get(reference).copied())
                .filter(|&dependency| dependency != i)
                .collect();
            list.sort_unstable();
            list.dedup();
            list
        };
        self.paths.iter().enumerate().map(of).collect()
    }

    /// For each path the indices of those that refer to it directly, itself left out; ascending.
    pub fn referrers(&self) -> Vec<Vec<usize>> {
        reverse(&self.dependencies())
    }

    /// Sum of the NARs' sizes, in bytes.
    pub fn nar_bytes(&self) -> u64 {
        self.paths.iter().map(|info| info.nar_size).sum()
    }

    fn check(&self) -> Result<(), ClosureError> {
        let index = self.index();
        for info in &self.paths {
            for reference in &info.references {
                if !index.contains_key(reference) {
                    return Err(ClosureError::MissingReference {
                        path: info.path.clone(),
                        reference: reference.clone(),
                    });
                }
            }
        }
        match self.roots.iter().find(|root| !index.contains_key(root)) {
            Some(root) => Err(ClosureError::MissingRoot(root.clone())),
            None => Ok(()),
        }
    }
}

fn unique(roots: Vec<StorePath>) -> Vec<StorePath> {
    let mut seen = HashSet::new();
    roots
        .into_iter()
        .filter(|root| seen.insert(root.clone()))
        .collect()
}

pub(crate) fn reverse(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut reversed = vec![Vec::new(); edges.len()];
    for (from, list) in edges.iter().enumerate() {
        for &to in list {
            reversed[to].push(from);
        }
    }
    reversed
}

/// Kahn's algorithm, smallest index first. When only cycles are left, the smallest
/// index of those left is taken as if its references were done.
fn topological_order(dependencies: &[Vec<usize>]) -> Vec<usize> {
    let referrers = reverse(dependencies);
    let mut waiting: Vec<usize> = dependencies.iter().map(Vec::len).collect();
    let mut done = vec![false; dependencies.len()];
    let mut ready: BinaryHeap<Reverse<usize>> = (0..waiting.len())
        .filter(|&i| waiting[i] == 0)
        .map(Reverse)
        .collect();
    let mut order = Vec::with_capacity(dependencies.len());
    let mut undone = 0;
    loop {
        let next = match ready.pop() {
            Some(Reverse(i)) => i,
            None => match (undone..done.len()).find(|&i| !done[i]) {
                Some(i) => {
                    undone = i;
                    i
                }
                None => return order,
            },
        };
        if std::mem::replace(&mut done[next], true) {
            continue;
        }
        order.push(next);
        for &referrer in &referrers[next] {
            waiting[referrer] -= 1;
            if waiting[referrer] == 0 && !done[referrer] {
                ready.push(Reverse(referrer));
            }
        }
    }
}
