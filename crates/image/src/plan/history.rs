//! By history: the fewest bytes that can be expected to be pushed again.
//!
//! **Model.** A path changes when it or anything that it depends on changes by itself, which thing *d* does
//! with probability λ(d), whatever the others do. A layer is pushed again when any of its paths has changed:
//!
//! ```text
//! risk(L) = 1 − Π (1 − λ(d)), d in the union of what L's paths depend on, themselves included
//! cost    = Σ over layers L: size(L) · risk(L)
//! ```
//!
//! λ is learned ([`rates`]). Layers of the previous image whose paths are all still there stand; what stands
//! costs nothing now, and its bytes once if it is touched. What does not stand has to be pushed in any case,
//! so its paths are put into layers anew, for nothing. So what is minimised, over all ways to make at most K
//! layers, is
//!
//! ```text
//! Σ bytes of standing layers that are touched + HORIZON · cost
//! ```
//!
//! **Search.** Standing layers and every other path begin as a cluster each. The two that are cheapest to
//! merge are merged, until K are left ([`merge`]); then single paths move to where they cost less, while it
//! pays ([`improve`]). What changes by itself more often than not, as the application does, shares no layer
//! with anything that does not: however wrong the other rates are, it moves alone. Nothing but `+ − × ÷` is
//! done to floating-point numbers, and in a fixed order, so that every machine finds the same plan.

mod document;
mod improve;
mod merge;
mod past;
mod rates;

pub use document::{HISTORY_BYTES_MAX, HistoryError};
pub use past::{History, Name, Revision};

use super::{Bits, Graph};
use crate::closure::Closure;
use merge::Cluster;
use past::Since;
use std::collections::BTreeMap;

/// Revisions over which what a plan costs is weighed against what touching a layer costs now. The results
/// hardly depend on it from 3 to 40: a layer that waits is free to be touched when it changes.
const HORIZON: f64 = 10.0;

/// What is to be put into layers, in the planner's order, which is that of the indices here.
struct Problem {
    sizes: Vec<f64>,
    /// For each path what it depends on, itself included.
    reach: Vec<Bits>,
    /// 1 − λ of each path.
    stays: Vec<f64>,
    limit: usize,
}

/// Layers, lowest first.
pub(super) fn group(
    closure: &Closure,
    graph: &Graph,
    limit: usize,
    history: &History,
) -> Vec<Vec<usize>> {
    let names = &graph.names;
    let since = history.since(closure, graph);
    let problem = Problem::new(closure, graph, &since, limit);
    let standing = history.standing(&since);
    let standing: Vec<Option<u32>> = names.order.iter().map(|&i| standing[i]).collect();
    let clusters = merge::down_to_limit(&problem, problem.clusters(&standing));
    let layers = improve::improve(&problem, clusters);
    let layers = in_order(layers, &standing);
    let path = |place: usize| names.order[place];
    layers
        .into_iter()
        .map(|layer| layer.into_iter().map(path).collect())
        .collect()
}

/// risk(L) of each layer.
pub(super) fn risks(
    closure: &Closure,
    graph: &Graph,
    layers: &[Vec<usize>],
    history: &History,
) -> Vec<f64> {
    let since = history.since(closure, graph);
    let problem = Problem::new(closure, graph, &since, layers.len());
    let risk = |layer: &Vec<usize>| {
        let mut reach = Bits::new(problem.reach.len());
        let places = layer.iter().map(|&path| graph.names.rank[path]);
        places.for_each(|place| reach.add_all(&problem.reach[place]));
        1.0 - problem.stay(&reach)
    };
    layers.iter().map(risk).collect()
}

/// Sums of sizes stay far below 2⁵³, where every integer has its own number.
fn size(closure: &Closure, path: usize) -> f64 {
    closure.paths[path].nar_size as f64
}

impl Problem {
    fn new(closure: &Closure, graph: &Graph, since: &Since<'_>, limit: usize) -> Self {
        let names = &graph.names;
        let place = |i: usize| names.rank[i];
        let reach = |&i: &usize| {
            let mut reach = Bits::new(names.order.len());
            reach.insert(place(i));
            let dependencies = graph.dependencies[i].iter();
            dependencies.for_each(|d| reach.insert(place(d)));
            reach
        };
        let rates = rates::of(graph, since);
        Self {
            sizes: names.order.iter().map(|&i| size(closure, i)).collect(),
            reach: names.order.iter().map(reach).collect(),
            stays: names.order.iter().map(|&i| 1.0 - rates[i]).collect(),
            limit,
        }
    }

    /// Probability that nothing of these changes.
    fn stay(&self, reach: &Bits) -> f64 {
        reach.iter().fold(1.0, |stay, d| stay * self.stays[d])
    }

    /// Whether a path changes by itself more often than not.
    fn is_hot(&self, path: usize) -> bool {
        self.stays[path] <= 0.5
    }

    /// Hot paths and others share no layer, unless there is only one, or one that stands has both.
    fn hot_of(&self, members: &[usize]) -> Option<bool> {
        let hot = members.iter().filter(|path| self.is_hot(**path)).count();
        match members.len() {
            _ if self.limit < 2 => None,
            all if hot == 0 || hot == all => Some(hot > 0).filter(|_| all > 0),
            _ => None,
        }
    }

    /// Every standing layer, and every path that is in none.
    fn clusters(&self, standing: &[Option<u32>]) -> Vec<Cluster> {
        let mut clusters: Vec<Cluster> = Vec::new();
        let mut places: BTreeMap<u32, usize> = BTreeMap::new();
        for (path, layer) in standing.iter().enumerate() {
            let place = match layer {
                Some(layer) => *places.entry(*layer).or_insert(clusters.len()),
                None => clusters.len(),
            };
            if place == clusters.len() {
                clusters.push(Cluster::empty(self.sizes.len()));
            }
            let cluster = &mut clusters[place];
            cluster.members.push(path);
            cluster.size += self.sizes[path];
            cluster.reach.add_all(&self.reach[path]);
            if layer.is_some() {
                cluster.touching = cluster.size;
            }
        }
        for cluster in &mut clusters {
            cluster.stay = self.stay(&cluster.reach);
            cluster.hot = self.hot_of(&cluster.members);
        }
        clusters
    }
}

/// A layer on its way to its place.
struct Placed {
    members: Vec<usize>,
    risk: f64,
    /// Its place in the previous image, if it stands.
    was: Option<u32>,
}

/// The layers that are least likely to change come lowest, since a layer that changes makes Docker fetch
/// those above it again. Layers that stand keep their order among themselves, whatever has been learned.
fn in_order(layers: Vec<(Vec<usize>, f64)>, standing: &[Option<u32>]) -> Vec<Vec<usize>> {
    let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
    for layer in standing.iter().flatten() {
        *sizes.entry(*layer).or_default() += 1;
    }
    let placed = layers.into_iter().map(|(mut members, stay)| {
        members.sort_unstable();
        let was = members.first().and_then(|&path| standing[path]);
        let whole = |layer: &u32| {
            members.iter().all(|&path| standing[path] == Some(*layer))
                && sizes.get(layer) == Some(&members.len())
        };
        Placed {
            was: was.filter(whole),
            members,
            risk: 1.0 - stay,
        }
    });
    let (mut old, mut new): (Vec<Placed>, Vec<Placed>) = placed.partition(|p| p.was.is_some());
    old.sort_by_key(|layer| layer.was);
    new.sort_by(|a, b| {
        let by_risk = a.risk.total_cmp(&b.risk);
        by_risk.then_with(|| a.members.cmp(&b.members))
    });
    let mut out = Vec::with_capacity(old.len() + new.len());
    let mut new = new.into_iter().peekable();
    for layer in old {
        while let Some(safer) = new.next_if(|new| new.risk < layer.risk) {
            out.push(safer.members);
        }
        out.push(layer.members);
    }
    out.extend(new.map(|layer| layer.members));
    out
}
