//! Which blobs are proposed together: a layer and the NARs of its paths, which share most chunks.

use super::{
    layer_bytes,
    work::{Chunked, Failure, Job, Work, lock},
};
use firn_image::compose::PlannedImage;
use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// The paths of a layer that is larger, in bytes, do not wait for it: they would be sent too late.
const UNIT_BYTES_MAX: u64 = 256 << 20;

/// The units of a push, as far as they are chunked.
pub(super) struct Units {
    /// The layer among the jobs that a path among the jobs is in.
    layer_of: HashMap<usize, usize>,
    layers: Mutex<HashMap<usize, Unit>>,
    changed: Condvar,
}

#[derive(Default)]
struct Unit {
    paths_to_chunk: usize,
    whole: bool,
    chunked: Vec<Chunked>,
}

/// The jobs in the order in which their units are whole soonest: paths that are in no layer, then
/// each layer after its paths.
pub(super) fn in_units(
    paths: &[usize],
    layers: &[usize],
    image: Option<&PlannedImage>,
) -> Vec<Job> {
    let layer_of = layers_of(layers.iter().copied(), image);
    let mut by_layer: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut jobs = Vec::with_capacity(paths.len() + layers.len());
    for path in paths {
        match layer_of.get(path) {
            Some(layer) => by_layer.entry(*layer).or_default().push(*path),
            None => jobs.push(Job::Path(*path)),
        }
    }
    for layer in layers {
        let paths = by_layer.remove(layer).unwrap_or_default();
        jobs.extend(paths.into_iter().map(Job::Path));
        jobs.push(Job::Layer(*layer));
    }
    jobs
}

fn layers_of(
    layers: impl Iterator<Item = usize>,
    image: Option<&PlannedImage>,
) -> HashMap<usize, usize> {
    let mut layer_of = HashMap::new();
    for index in layers {
        let layer = image.and_then(|image| image.layers.get(index));
        for path in layer
            .map(|layer| layer.paths.as_slice())
            .unwrap_or_default()
        {
            layer_of.entry(*path).or_insert(index);
        }
    }
    layer_of
}

impl Units {
    pub(super) fn new(work: &Work<'_>, jobs: &[Job]) -> Self {
        let layer_jobs = jobs.iter().filter_map(|job| match job {
            Job::Layer(layer) => Some(*layer),
            Job::Path(_) => None,
        });
        let mut layer_of = layers_of(layer_jobs, work.image);
        let mut layers: HashMap<usize, Unit> = HashMap::new();
        let mut of_jobs = HashMap::new();
        for job in jobs {
            match job {
                Job::Path(path) => {
                    if let Some(layer) = layer_of.remove(path) {
                        layers.entry(layer).or_default().paths_to_chunk += 1;
                        of_jobs.insert(*path, layer);
                    }
                }
                Job::Layer(layer) => {
                    let whole = layer_bytes(work, *layer) <= UNIT_BYTES_MAX;
                    layers.entry(*layer).or_default().whole = whole;
                }
            }
        }
        Self {
            layer_of: of_jobs,
            layers: Mutex::new(layers),
            changed: Condvar::new(),
        }
    }

    /// Waits until the layer's paths are chunked: then their files need not be read again.
    pub(super) fn wait_for_paths(&self, layer: usize, failure: &Failure) {
        let mut layers = lock(&self.layers);
        let chunked = |layers: &HashMap<usize, Unit>| {
            layers
                .get(&layer)
                .is_none_or(|unit| unit.paths_to_chunk == 0)
        };
        while !chunked(&layers) && !failure.is_set() {
            let waited = self.changed.wait_timeout(layers, Duration::from_millis(50));
            layers = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes a blob, gives those that are to be proposed now.
    pub(super) fn add(&self, chunked: Chunked) -> Vec<Chunked> {
        let mut layers = lock(&self.layers);
        match chunked.job {
            Job::Layer(layer) => {
                let mut unit = layers.remove(&layer).unwrap_or_default().chunked;
                unit.push(chunked);
                unit
            }
            Job::Path(path) => {
                let layer = self.layer_of.get(&path);
                let Some(unit) = layer.and_then(|layer| layers.get_mut(layer)) else {
                    return vec![chunked];
                };
                unit.paths_to_chunk = unit.paths_to_chunk.saturating_sub(1);
                self.changed.notify_all();
                if !unit.whole {
                    return vec![chunked];
                }
                unit.chunked.push(chunked);
                Vec::new()
            }
        }
    }
}
