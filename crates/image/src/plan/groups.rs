//! Layers that the user wants: each group of paths by itself, the rest by the algorithm.

use super::{Algorithm, History, plan};
use crate::{closure::Closure, spec::LayerGroup};
use firn_formats::nix::StorePath;

/// Why groups cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum GroupError {
    #[error("{0} of a layer is not among the image's paths")]
    Unknown(StorePath),
    #[error("the groups of layers and the rest need {needed} layers, and {limit} are left")]
    TooMany { needed: usize, limit: usize },
}

/// [`plan`], with groups: their layers come first, in their order. A path is in the first group that it belongs
/// to, by itself or because something in it refers to it.
pub fn plan_grouped(
    closure: &Closure,
    groups: &[LayerGroup],
    algorithm: Algorithm,
    max_layers: usize,
    history: &History,
) -> Result<Vec<Vec<usize>>, GroupError> {
    if groups.is_empty() {
        return Ok(plan(closure, algorithm, max_layers, history));
    }
    let mut taken = vec![false; closure.paths.len()];
    let mut layers = Vec::new();
    for group in groups {
        let members = members(closure, group, &mut taken)?;
        let limit = group.max_layers.max(1);
        layers.extend(plan_some(closure, members, algorithm, limit, history));
    }
    let rest: Vec<usize> = (0..taken.len()).filter(|&path| !taken[path]).collect();
    let left = max_layers.saturating_sub(layers.len());
    if left == 0 && (!rest.is_empty() || layers.len() > max_layers) {
        let needed = layers.len() + usize::from(!rest.is_empty());
        return Err(GroupError::TooMany {
            needed,
            limit: max_layers,
        });
    }
    layers.extend(plan_some(closure, rest, algorithm, left, history));
    Ok(layers)
}

/// The group's paths and all that they refer to, but for what is taken; ascending.
fn members(
    closure: &Closure,
    group: &LayerGroup,
    taken: &mut [bool],
) -> Result<Vec<usize>, GroupError> {
    let dependencies = closure.dependencies();
    let index = closure.index();
    let mut open = Vec::new();
    for path in &group.paths {
        let known = index.get(path).copied();
        open.push(known.ok_or_else(|| GroupError::Unknown(path.clone()))?);
    }
    let mut members = Vec::new();
    while let Some(path) = open.pop() {
        if !std::mem::replace(&mut taken[path], true) {
            members.push(path);
            open.extend(&dependencies[path]);
        }
    }
    members.sort_unstable();
    Ok(members)
}

/// Plans a part of a closure as if there were nothing else.
fn plan_some(
    closure: &Closure,
    paths: Vec<usize>,
    algorithm: Algorithm,
    limit: usize,
    history: &History,
) -> Vec<Vec<usize>> {
    let part = Closure {
        roots: Vec::new(),
        paths: paths.iter().map(|&i| closure.paths[i].clone()).collect(),
    };
    let layers = plan(&part, algorithm, limit, history);
    let whole = |layer: Vec<usize>| layer.into_iter().map(|i| paths[i]).collect();
    layers.into_iter().map(whole).collect()
}
