//! Order of a closure's paths.

use firn_formats::nix::StorePath;
use firn_image::closure::PathInfo;
use std::collections::{BinaryHeap, HashMap};

/// Sorts so that references come before referrers; among those that are free, by path, so that
/// the order depends on the closure alone. What stands on a cycle (which Nix does not make) comes
/// last, by path.
pub(super) fn references_first(mut infos: Vec<PathInfo>) -> Vec<PathInfo> {
    infos.sort_by(|a, b| a.path.cmp(&b.path));
    let order = order(&infos);
    let mut slots: Vec<Option<PathInfo>> = infos.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|index| slots.get_mut(index).and_then(Option::take))
        .collect()
}

fn order(infos: &[PathInfo]) -> Vec<usize> {
    let index_of: HashMap<&StorePath, usize> = infos
        .iter()
        .enumerate()
        .map(|(index, info)| (&info.path, index))
        .collect();
    let mut waiting_for = vec![0_usize; infos.len()];
    let mut referrers: Vec<Vec<usize>> = vec![Vec::new(); infos.len()];
    for (index, info) in infos.iter().enumerate() {
        for reference in &info.references {
            match index_of.get(reference) {
                Some(&other) if other != index => {
                    waiting_for[index] += 1;
                    referrers[other].push(index);
                }
                _ => {}
            }
        }
    }
    let mut free: BinaryHeap<std::cmp::Reverse<usize>> = (0..infos.len())
        .filter(|&index| waiting_for[index] == 0)
        .map(std::cmp::Reverse)
        .collect();
    let mut order = Vec::with_capacity(infos.len());
    while let Some(std::cmp::Reverse(index)) = free.pop() {
        order.push(index);
        for &referrer in &referrers[index] {
            waiting_for[referrer] -= 1;
            if waiting_for[referrer] == 0 {
                free.push(std::cmp::Reverse(referrer));
            }
        }
    }
    order.extend((0..infos.len()).filter(|&index| waiting_for[index] > 0));
    order
}
