//! Merging the two clusters that are cheapest to merge, until few enough are left.

use super::{HORIZON, Problem};
use crate::plan::Bits;

/// What will be a layer, or a part of one.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    pub(super) members: Vec<usize>,
    pub(super) size: f64,
    /// Bytes to be pushed if it is touched: those of a layer that stands.
    pub(super) touching: f64,
    /// What any member depends on.
    pub(super) reach: Bits,
    /// Probability that nothing of that changes.
    pub(super) stay: f64,
    /// Whether what is in it is hot; `None`: it takes either.
    pub(super) hot: Option<bool>,
}

impl Cluster {
    pub(super) fn empty(bound: usize) -> Self {
        Self {
            members: Vec::new(),
            size: 0.0,
            touching: 0.0,
            reach: Bits::new(bound),
            stay: 1.0,
            hot: None,
        }
    }

    fn may_join(&self, other: &Self) -> bool {
        self.hot == other.hot || self.hot.is_none() || other.hot.is_none()
    }

    fn expected(&self) -> f64 {
        self.size * (1.0 - self.stay)
    }
}

/// The cheapest partner of a cluster among those after it.
#[derive(Debug, Clone, Copy)]
struct Partner {
    cost: f64,
    index: usize,
}

const NONE: Partner = Partner {
    cost: f64::INFINITY,
    index: usize::MAX,
};

struct Merging<'a> {
    problem: &'a Problem,
    /// `None`: merged into another.
    clusters: Vec<Option<Cluster>>,
    partners: Vec<Partner>,
}

pub(super) fn down_to_limit(problem: &Problem, clusters: Vec<Cluster>) -> Vec<Cluster> {
    if clusters.len() <= problem.limit {
        return clusters;
    }
    let mut merging = Merging {
        problem,
        partners: vec![NONE; clusters.len()],
        clusters: clusters.into_iter().map(Some).collect(),
    };
    for index in 0..merging.clusters.len() {
        merging.partners[index] = merging.partner(index);
    }
    for _ in problem.limit..merging.clusters.len() {
        merging.merge_cheapest();
    }
    merging.clusters.into_iter().flatten().collect()
}

impl Merging<'_> {
    /// What the two together cost more than apart.
    fn cost(&self, a: &Cluster, b: &Cluster) -> f64 {
        let stay = self.stay_of_both(a, b);
        let both = (a.size + b.size) * (1.0 - stay);
        a.touching + b.touching + HORIZON * (both - a.expected() - b.expected())
    }

    fn stay_of_both(&self, a: &Cluster, b: &Cluster) -> f64 {
        let mut common = 1.0;
        a.reach
            .for_each_common(&b.reach, |d| common *= self.problem.stays[d]);
        a.stay * b.stay / common
    }

    /// What they cost more at least: the safer one gets the other's risk. Far cheaper to find.
    fn cost_at_least(a: &Cluster, b: &Cluster) -> f64 {
        let risk = if a.stay > b.stay {
            a.size * (a.stay - b.stay)
        } else {
            b.size * (b.stay - a.stay)
        };
        a.touching + b.touching + HORIZON * risk
    }

    /// `known`, or `b` if it is a cheaper partner of `a`.
    fn cheaper(&self, known: Partner, a: usize, b: usize) -> Partner {
        match (&self.clusters[a], &self.clusters[b]) {
            (Some(x), Some(y)) if x.may_join(y) && Self::cost_at_least(x, y) < known.cost => {
                let cost = self.cost(x, y);
                if cost < known.cost {
                    return Partner { cost, index: b };
                }
                known
            }
            _ => known,
        }
    }

    fn partner(&self, index: usize) -> Partner {
        (index + 1..self.clusters.len()).fold(NONE, |known, b| self.cheaper(known, index, b))
    }

    fn merge_cheapest(&mut self) {
        let cheapest = (0..self.clusters.len())
            .filter(|&index| self.clusters[index].is_some())
            .min_by(|&a, &b| self.partners[a].cost.total_cmp(&self.partners[b].cost));
        let Some(into) = cheapest else { return };
        let from = self.partners[into].index;
        let taken = self.clusters.get_mut(from).and_then(Option::take);
        let (Some(taken), Some(kept)) = (taken, self.clusters[into].take()) else {
            return;
        };
        let stay = self.stay_of_both(&kept, &taken);
        let mut merged = kept;
        merged.members.extend(taken.members);
        merged.size += taken.size;
        merged.touching = 0.0;
        merged.reach.add_all(&taken.reach);
        merged.stay = stay;
        merged.hot = merged.hot.or(taken.hot);
        self.clusters[into] = Some(merged);
        self.partners[from] = NONE;
        self.look_again(into, from);
    }

    /// The partners of those that had one of the two, and of those for which the merged one is better now.
    fn look_again(&mut self, merged: usize, gone: usize) {
        for index in 0..self.clusters.len() {
            if self.clusters[index].is_none() {
                continue;
            }
            let known = self.partners[index];
            if index == merged || known.index == merged || known.index == gone {
                self.partners[index] = self.partner(index);
            } else if index < merged {
                self.partners[index] = self.cheaper(known, index, merged);
            }
        }
    }
}
