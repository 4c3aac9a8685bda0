//! `firn image plan`.

use super::{history::HistoryArgs, prepare::Rights, spec_args::SpecArgs};
use crate::{
    context::Global,
    failure::Outcome,
    output::{show, table},
    units::bytes,
};
use firn_client::local_store::LocalStore;
use firn_image::{compose::PlannedImage, plan::History};
use serde::Serialize;
use std::collections::HashSet;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Store paths, links to them, or flake installables
    #[arg(required_unless_present = "spec", value_name = "PATH")]
    paths: Vec<String>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    history: HistoryArgs,
}

#[derive(Serialize)]
struct Report {
    layers_total: usize,
    paths_total: usize,
    /// Sum of the NAR sizes.
    bytes_total: u64,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    key: String,
    bytes: u64,
    /// Base names.
    paths: Vec<String>,
    /// How many paths of the closure this layer changes with: its own and all they refer to. A store
    /// path is named anew whenever one of these is.
    changes_with: usize,
    comment: String,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let store = LocalStore::from_environment();
    let progress = global.progress();
    let history = args
        .history
        .read(global, None, &progress, History::default)?;
    let rights = Rights::of(global);
    let image = args
        .spec
        .plan(&store, rights, &args.paths, history, &progress)?;
    show(global.json, &report(&image), text)
}

fn report(image: &PlannedImage) -> Report {
    let dependencies = image.closure.dependencies();
    let layers = image
        .layers
        .iter()
        .map(|layer| Layer {
            key: layer.key.clone(),
            bytes: layer
                .paths
                .iter()
                .map(|path| image.closure.paths[*path].nar_size)
                .sum(),
            paths: layer
                .paths
                .iter()
                .map(|path| image.closure.paths[*path].path.to_string())
                .collect(),
            changes_with: reachable(&dependencies, &layer.paths),
            comment: layer.comment.clone(),
        })
        .collect::<Vec<_>>();
    Report {
        layers_total: layers.len(),
        paths_total: image.closure.paths.len(),
        bytes_total: image.closure.nar_bytes(),
        layers,
    }
}

fn reachable(dependencies: &[Vec<usize>], from: &[usize]) -> usize {
    let mut seen: HashSet<usize> = from.iter().copied().collect();
    let mut queue: Vec<usize> = from.to_vec();
    while let Some(path) = queue.pop() {
        for &dependency in &dependencies[path] {
            if seen.insert(dependency) {
                queue.push(dependency);
            }
        }
    }
    seen.len()
}

fn text(report: &Report) -> String {
    let mut rows = vec![
        ["layer", "size", "paths", "changes with", "holds"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (number, layer) in report.layers.iter().enumerate() {
        rows.push(vec![
            (number + 1).to_string(),
            bytes(layer.bytes),
            layer.paths.len().to_string(),
            match layer.changes_with {
                1 => "1 path".to_owned(),
                count => format!("{count} paths"),
            },
            names(layer),
        ]);
    }
    format!(
        "{}{} layers, {} paths, {}",
        table(&rows),
        report.layers_total,
        report.paths_total,
        bytes(report.bytes_total)
    )
}

/// Names without hashes, the first few.
fn names(layer: &Layer) -> String {
    const SHOWN: usize = 4;
    if layer.paths.is_empty() {
        return layer.comment.clone();
    }
    let name = |path: &String| path.get(33..).unwrap_or(path).to_owned();
    let shown: Vec<String> = layer.paths.iter().take(SHOWN).map(name).collect();
    match layer.paths.len().saturating_sub(SHOWN) {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}
