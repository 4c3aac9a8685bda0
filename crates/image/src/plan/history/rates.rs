//! How often a thing changes by itself.
//!
//! ```text
//! λ = (1 + changed) / (1 / prior + seen), at most 0.98
//! ```
//!
//! *seen* counts the revisions in which it can be told whether the thing changed by itself, *changed* those
//! in which it did. The prior is 0.9 for what nothing refers to (the application), and pace · base for
//! everything else. What many refer to is changed with more care, but it is changed: a C library to which a
//! thousand refer takes all of them along, and they had better not have shared layers with what stays.
//!
//! ```text
//! base = 0.02 / (1 + users / 3), at least 0.002
//! ```
//!
//! The pace is 1 without history, and is learned from all that the image has, so that where nothing changes for
//! a while, what has never changed is believed to stay:
//!
//! ```text
//! pace = (2 + Σ changed) / (2 + Σ seen · base)
//! ```

use super::past::Since;
use crate::{closure::reverse, plan::Graph};

const ROOT_PRIOR: f64 = 0.9;
const LEAF_PRIOR: f64 = 0.02;
/// So many direct users halve the prior, …
const USERS_HALVE: f64 = 3.0;
/// … but however many there are, it is not less than this.
const PRIOR_MIN: f64 = 0.002;
/// As many changes as the prior's pace is worth.
const PACE_WEIGHT: f64 = 2.0;
/// Nothing is certain, and 1 − λ is divided by.
const RATE_MAX: f64 = 0.98;

/// λ of each path.
pub(super) fn of(graph: &Graph, since: &Since<'_>) -> Vec<f64> {
    let users: Vec<usize> = reverse(&graph.references).iter().map(Vec::len).collect();
    let pace = pace(&users, since);
    let rate = |(path, &users): (usize, &usize)| {
        let (changed, seen) = since.counts(path);
        let prior = match users {
            0 => ROOT_PRIOR,
            users => pace * prior(users),
        };
        let rate = (1.0 + f64::from(changed)) / (1.0 / prior + f64::from(seen));
        rate.min(RATE_MAX)
    };
    users.iter().enumerate().map(rate).collect()
}

/// How much faster than by the prior everything changes but what nothing refers to.
fn pace(users: &[usize], since: &Since<'_>) -> f64 {
    let mut found = PACE_WEIGHT;
    let mut expected = PACE_WEIGHT;
    for (path, &users) in users.iter().enumerate().filter(|(_, users)| **users > 0) {
        let (changed, seen) = since.counts(path);
        found += f64::from(changed);
        expected += f64::from(seen) * prior(users);
    }
    found / expected
}

/// Of something that is referred to.
fn prior(users: usize) -> f64 {
    (LEAF_PRIOR / (1.0 + users as f64 / USERS_HALVE)).max(PRIOR_MIN)
}
