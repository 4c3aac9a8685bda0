//! Popularity: paths to which many ways lead get a layer each, the others share one.
//!
//! With C(n)\[x\] the count of x below n:
//! `C(n)[x] = Σ over references c of n: [x = c] + [C(c)[x] > 0] · (C(c)[x] + 1)`,
//! and a path's popularity is its count below a node that refers to all roots.

use super::Graph;
use std::cmp::Reverse;

pub(super) fn group(graph: &Graph, limit: usize) -> Vec<Vec<usize>> {
    let counts = popularity(&graph.references, &tops(graph));
    let mut order = graph.names.order.clone();
    order.sort_by_key(|&i| Reverse(counts[i]));
    let alone = if order.len() <= limit {
        order.len()
    } else {
        limit - 1
    };
    let rest = order.split_off(alone);
    let mut layers: Vec<Vec<usize>> = order.into_iter().map(|path| vec![path]).collect();
    if !rest.is_empty() {
        layers.push(rest);
    }
    layers
}

/// The paths that nobody refers to.
fn tops(graph: &Graph) -> Vec<usize> {
    (0..graph.users.len())
        .filter(|&path| graph.users[path].count() == 0)
        .collect()
}

/// Counts grow exponentially with depth; they stop at the largest number.
pub(super) fn popularity(references: &[Vec<usize>], tops: &[usize]) -> Vec<u128> {
    let mut below = vec![0_u128; references.len()];
    (0..references.len())
        .map(|x| {
            // Nothing before x in the order can depend on it.
            below[..=x].fill(0);
            for n in x + 1..references.len() {
                below[n] = count(&references[n], x, &below);
            }
            count(tops, x, &below)
        })
        .collect()
}

fn count(references: &[usize], x: usize, below: &[u128]) -> u128 {
    references.iter().fold(0_u128, |sum, &c| {
        let through = if below[c] > 0 {
            below[c].saturating_add(1)
        } else {
            0
        };
        sum.saturating_add(u128::from(c == x))
            .saturating_add(through)
    })
}
