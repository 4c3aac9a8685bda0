//! Replays: what an algorithm would have pushed over a series of revisions of an image.
//!
//! Every revision is planned knowing the past alone. A layer is sent when its set of paths is
//! not a layer of the revision before; all of its bytes count, as NARs, without compression.
//! The first revision is not a step: whatever the algorithm, it is pushed whole.
//! No algorithm sends less than the paths that are new: that is the lower bound.

mod series;

pub use series::{RevisionError, Series, SeriesError};

use crate::{
    closure::Closure,
    plan::{Algorithm, History, plan},
};
use firn_formats::nix::StorePath;
use serde::Serialize;
use std::collections::HashSet;

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Replay {
    pub algorithm: Algorithm,
    pub max_layers: usize,
    pub steps: Vec<Step>,
    pub total: Total,
}

/// From one revision to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Step {
    pub bytes_repushed: u64,
    pub layers_sent: usize,
    pub layers_reused: usize,
    /// Bytes of the paths that the revision before did not have.
    #[serde(skip)]
    pub lower_bound: u64,
}

/// All steps together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Total {
    pub bytes_repushed: u64,
    pub lower_bound: u64,
}

/// An algorithm's plan that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ReplayError {
    #[error("revision {revision} was given {layers} layers, more than {max_layers}")]
    TooManyLayers {
        revision: usize,
        layers: usize,
        max_layers: usize,
    },
    #[error("in revision {revision} {path} is in {layers} layers instead of one")]
    NotAPartition {
        revision: usize,
        path: StorePath,
        layers: usize,
    },
}

/// Plans every revision, checks the plans, and adds up what they would have sent.
pub fn replay(
    series: &Series,
    algorithm: Algorithm,
    max_layers: usize,
) -> Result<Replay, ReplayError> {
    let mut history = History::default();
    let mut before: Option<(HashSet<&StorePath>, HashSet<Vec<&StorePath>>)> = None;
    let mut steps = Vec::new();
    for (revision, closure) in series.revisions.iter().enumerate() {
        let layers = plan(closure, algorithm, max_layers, &history);
        check(closure, &layers, max_layers, revision)?;
        history.record(closure, &layers);
        let sets: Vec<Vec<&StorePath>> = layers.iter().map(|l| path_set(closure, l)).collect();
        if let Some((paths, old)) = &before {
            steps.push(step(closure, &layers, &sets, paths, old));
        }
        let paths = closure.paths.iter().map(|info| &info.path).collect();
        before = Some((paths, sets.into_iter().collect()));
    }
    Ok(Replay {
        algorithm,
        max_layers,
        total: total(&steps),
        steps,
    })
}

fn path_set<'a>(closure: &'a Closure, layer: &[usize]) -> Vec<&'a StorePath> {
    let mut set: Vec<_> = layer.iter().map(|&i| &closure.paths[i].path).collect();
    set.sort_unstable();
    set
}

fn step(
    closure: &Closure,
    layers: &[Vec<usize>],
    sets: &[Vec<&StorePath>],
    paths_before: &HashSet<&StorePath>,
    layers_before: &HashSet<Vec<&StorePath>>,
) -> Step {
    let size = |i: usize| closure.paths[i].nar_size;
    let mut step = Step {
        bytes_repushed: 0,
        layers_sent: 0,
        layers_reused: 0,
        lower_bound: (0..closure.paths.len())
            .filter(|&i| !paths_before.contains(&closure.paths[i].path))
            .map(size)
            .sum(),
    };
    for (layer, set) in layers.iter().zip(sets) {
        if layers_before.contains(set) {
            step.layers_reused += 1;
        } else {
            step.layers_sent += 1;
            step.bytes_repushed += layer.iter().map(|&i| size(i)).sum::<u64>();
        }
    }
    step
}

fn total(steps: &[Step]) -> Total {
    Total {
        bytes_repushed: steps.iter().map(|step| step.bytes_repushed).sum(),
        lower_bound: steps.iter().map(|step| step.lower_bound).sum(),
    }
}

fn check(
    closure: &Closure,
    layers: &[Vec<usize>],
    max_layers: usize,
    revision: usize,
) -> Result<(), ReplayError> {
    if layers.len() > max_layers {
        return Err(ReplayError::TooManyLayers {
            revision,
            layers: layers.len(),
            max_layers,
        });
    }
    let mut times = vec![0; closure.paths.len()];
    layers.iter().flatten().for_each(|&i| times[i] += 1);
    match times.iter().position(|&layers| layers != 1) {
        None => Ok(()),
        Some(i) => Err(ReplayError::NotAPartition {
            revision,
            path: closure.paths[i].path.clone(),
            layers: times[i],
        }),
    }
}
