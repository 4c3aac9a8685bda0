//! Dominators, as nixery groups: what is only reached through a path shares its layer.
//!
//! A path dominates what cannot be reached from the roots but through it. Each subtree of the dominator
//! tree below the top is a group (where there is one root, that is a group by itself, and what lies below
//! it is the top). A group is rated: users of its uppermost path, and one, times its bytes. The two groups
//! with the lowest rates are merged, their rates added, until few enough are left.

use super::Graph;
use crate::closure::{Closure, reverse};
use std::{cmp::Reverse, collections::BinaryHeap};

pub(super) fn group(closure: &Closure, graph: &Graph, limit: usize) -> Vec<Vec<usize>> {
    let tops = tops(graph);
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); tops.len()];
    for (path, &top) in tops.iter().enumerate() {
        groups[top].push(path);
    }
    let mut rated = BinaryHeap::new();
    for (top, members) in groups.iter().enumerate() {
        if !members.is_empty() {
            let bytes = members
                .iter()
                .map(|&i| u128::from(closure.paths[i].nar_size));
            let users = u128::from(graph.users[top].count());
            let rate = (users + 1).saturating_mul(bytes.sum());
            rated.push(Reverse((rate, graph.names.rank[top], top)));
        }
    }
    while rated.len() > limit {
        let (Some(Reverse(low)), Some(Reverse(next))) = (rated.pop(), rated.pop()) else {
            break;
        };
        let taken = std::mem::take(&mut groups[low.2]);
        groups[next.2].extend(taken);
        rated.push(Reverse((low.0.saturating_add(next.0), next.1, next.2)));
    }
    groups
        .into_iter()
        .filter(|group| !group.is_empty())
        .collect()
}

/// For each path the uppermost path of its group.
fn tops(graph: &Graph) -> Vec<usize> {
    let above = dominators(graph);
    let roots = above.iter().filter(|above| above.is_none()).count();
    // A dominator comes after what it dominates.
    let mut tops: Vec<usize> = (0..above.len()).collect();
    for path in (0..above.len()).rev() {
        if let Some(above_it) = above[path]
            && (roots > 1 || above[above_it].is_some())
        {
            tops[path] = tops[above_it];
        }
    }
    tops
}

/// For each path the nearest that dominates it; a path that only the roots together reach has none.
fn dominators(graph: &Graph) -> Vec<Option<usize>> {
    let users = reverse(&graph.references);
    let mut above: Vec<Option<usize>> = vec![None; users.len()];
    for path in (0..users.len()).rev() {
        let mut users = users[path].iter().copied();
        let first = users.next();
        above[path] = users.fold(first, |common, user| meet(&above, common, Some(user)));
    }
    above
}

/// The nearest path that both are, or are dominated by.
fn meet(above: &[Option<usize>], mut a: Option<usize>, mut b: Option<usize>) -> Option<usize> {
    while a != b {
        // What dominates comes later, and nothing comes after no path at all.
        match (a, b) {
            (Some(x), Some(y)) if x < y => a = above[x],
            (Some(_), Some(y)) => b = above[y],
            _ => return None,
        }
    }
    a
}
