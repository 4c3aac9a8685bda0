//! Moving single paths to the layers where they cost less, the largest first, while it pays.

use super::{HORIZON, Problem, merge::Cluster};

/// Most times that all paths are looked at. Later ones find next to nothing.
const ROUNDS: usize = 4;
/// What a move has to save: less is not worth a change of mind, and rounding errors are far below it.
const SAVING_MIN: f64 = 1.0;

struct Layer {
    members: Vec<usize>,
    size: f64,
    touching: f64,
    stay: f64,
    /// Whether what is in it is hot; `None`: it takes either.
    hot: Option<bool>,
    /// For each path how many members depend on it.
    uses: Vec<u32>,
}

struct Layers<'a> {
    problem: &'a Problem,
    layers: Vec<Layer>,
    /// The layer of each path.
    of: Vec<usize>,
}

/// Layers that are not empty: members, and the probability that they stay.
pub(super) fn improve(problem: &Problem, clusters: Vec<Cluster>) -> Vec<(Vec<usize>, f64)> {
    let mut layers = Layers::new(problem, clusters);
    let mut largest_first: Vec<usize> = (0..problem.sizes.len()).collect();
    largest_first.sort_by(|&a, &b| problem.sizes[b].total_cmp(&problem.sizes[a]));
    for _ in 0..ROUNDS {
        let mut moved = false;
        for &path in &largest_first {
            if let Some(to) = layers.better_place(path) {
                layers.shift(path, to);
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let layers = layers.layers.into_iter();
    layers
        .filter(|layer| !layer.members.is_empty())
        .map(|layer| (layer.members, layer.stay))
        .collect()
}

impl Layer {
    fn new(problem: &Problem, cluster: Cluster) -> Self {
        let mut uses = vec![0; problem.sizes.len()];
        for &member in &cluster.members {
            problem.reach[member].iter().for_each(|d| uses[d] += 1);
        }
        Self {
            members: cluster.members,
            size: cluster.size,
            touching: cluster.touching,
            stay: cluster.stay,
            hot: cluster.hot,
            uses,
        }
    }

    fn expected(&self) -> f64 {
        self.size * (1.0 - self.stay)
    }
}

impl<'a> Layers<'a> {
    fn new(problem: &'a Problem, clusters: Vec<Cluster>) -> Self {
        let mut of = vec![0; problem.sizes.len()];
        let mut layers: Vec<Layer> = Vec::with_capacity(clusters.len() + 1);
        for cluster in clusters {
            for &member in &cluster.members {
                of[member] = layers.len();
            }
            layers.push(Layer::new(problem, cluster));
        }
        let mut layers = Self {
            problem,
            layers,
            of,
        };
        layers.keep_one_empty();
        layers
    }

    /// So that a path may move out alone, where there is room for one more layer.
    fn keep_one_empty(&mut self) {
        let is_full = self.layers.len() >= self.problem.limit;
        if !is_full && self.layers.iter().all(|layer| !layer.members.is_empty()) {
            let empty = Cluster::empty(self.problem.sizes.len());
            self.layers.push(Layer::new(self.problem, empty));
        }
    }

    /// The layer in which the path costs least, if that is another and saves anything.
    fn better_place(&self, path: usize) -> Option<usize> {
        let from = self.of[path];
        let size = self.problem.sizes[path];
        let leaving = self.leaving(path);
        let mut best = None;
        let mut least = -SAVING_MIN;
        for (to, layer) in self.layers.iter().enumerate() {
            let at_least = leaving + layer.touching + HORIZON * size * (1.0 - layer.stay);
            let may = layer.hot.is_none_or(|hot| hot == self.problem.is_hot(path));
            if to == from || !may || at_least >= least {
                continue;
            }
            let stay = self.stay_with(path, layer);
            let coming = HORIZON * ((layer.size + size) * (1.0 - stay) - layer.expected());
            let change = leaving + layer.touching + coming;
            if change < least {
                least = change;
                best = Some(to);
            }
        }
        best
    }

    /// What it costs (less than nothing, if it is gained) that the path leaves its layer.
    fn leaving(&self, path: usize) -> f64 {
        let layer = &self.layers[self.of[path]];
        let mut alone = 1.0;
        for d in self.problem.reach[path].iter() {
            if layer.uses[d] == 1 {
                alone *= self.problem.stays[d];
            }
        }
        let size = layer.size - self.problem.sizes[path];
        let left = size * (1.0 - layer.stay / alone);
        layer.touching + HORIZON * (left - layer.expected())
    }

    fn stay_with(&self, path: usize, layer: &Layer) -> f64 {
        let mut stay = layer.stay;
        for d in self.problem.reach[path].iter() {
            if layer.uses[d] == 0 {
                stay *= self.problem.stays[d];
            }
        }
        stay
    }

    fn shift(&mut self, path: usize, to: usize) {
        let from = std::mem::replace(&mut self.of[path], to);
        self.layers[from].members.retain(|&member| member != path);
        self.layers[to].members.push(path);
        for d in self.problem.reach[path].iter() {
            self.layers[from].uses[d] -= 1;
            self.layers[to].uses[d] += 1;
        }
        // Summed up anew, so that errors do not add up.
        for layer in [from, to] {
            let layer = &mut self.layers[layer];
            let sizes = layer.members.iter().map(|&m| self.problem.sizes[m]);
            layer.size = sizes.sum();
            let stays = layer.uses.iter().zip(&self.problem.stays);
            layer.stay = stays
                .filter(|(uses, _)| **uses > 0)
                .fold(1.0, |stay, (_, s)| stay * s);
            layer.touching = 0.0;
            layer.hot = self.problem.hot_of(&layer.members);
        }
        self.keep_one_empty();
    }
}
