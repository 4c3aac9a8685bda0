//! auto-layer: the largest paths, one by one, are set apart from what does not need them.
//!
//! Each path d carries a set S(d) of large paths that stand for its users. Taking a path P:
//! S(P) becomes {P}; each of its dependencies d drops P's users from S(d), since P is
//! nearer, and takes P, unless S(d) has a path that P itself depends on, which is nearer
//! still. Paths with equal sets are needed by the same large paths and share a layer.
//! Paths are taken, largest first, as long as the number of distinct sets fits the limit.

use super::{Bits, Graph};
use crate::closure::Closure;
use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
};

pub(super) fn group(closure: &Closure, graph: &Graph, limit: usize) -> Vec<Vec<usize>> {
    let mut sets = Sets::new(closure.paths.len());
    for path in largest_first(closure, graph) {
        let undo = sets.take(path, graph);
        if sets.distinct.len() > limit {
            undo.into_iter().for_each(|(d, set)| sets.replace(d, set));
            break;
        }
    }
    sets.into_groups()
}

fn largest_first(closure: &Closure, graph: &Graph) -> Vec<usize> {
    let mut order = graph.names.order.clone();
    order.sort_by_key(|&i| Reverse(closure.paths[i].nar_size));
    order
}

/// S of every path, and how many paths have each distinct set.
struct Sets {
    of: Vec<Bits>,
    distinct: HashMap<Bits, usize>,
}

impl Sets {
    fn new(count: usize) -> Self {
        Self {
            of: vec![Bits::new(count); count],
            distinct: HashMap::from([(Bits::new(count), count)]),
        }
    }

    /// One step; returns the sets that were replaced.
    fn take(&mut self, path: usize, graph: &Graph) -> Vec<(usize, Bits)> {
        let mut own = Bits::new(self.of.len());
        own.insert(path);
        let mut undo = vec![(path, self.of[path].clone())];
        self.replace(path, own);
        for d in graph.dependencies[path].iter() {
            let mut set = self.of[d].clone();
            set.remove_all(&graph.users[path]);
            if set.is_disjoint(&graph.dependencies[path]) {
                set.insert(path);
            }
            if set != self.of[d] {
                undo.push((d, self.of[d].clone()));
                self.replace(d, set);
            }
        }
        undo
    }

    fn replace(&mut self, path: usize, set: Bits) {
        *self.distinct.entry(set.clone()).or_default() += 1;
        let old = std::mem::replace(&mut self.of[path], set);
        if let Entry::Occupied(mut entry) = self.distinct.entry(old) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    fn into_groups(self) -> Vec<Vec<usize>> {
        let mut place: HashMap<&Bits, usize> = HashMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (path, set) in self.of.iter().enumerate() {
            let group = *place.entry(set).or_insert(groups.len());
            match groups.get_mut(group) {
                Some(members) => members.push(path),
                None => groups.push(vec![path]),
            }
        }
        groups
    }
}
