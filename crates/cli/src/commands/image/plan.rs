//! `firn image plan`.

use super::{
    history::HistoryArgs,
    layers::{self, Row, ShowArgs},
    prepare::Rights,
    spec_args::SpecArgs,
    subject,
};
use crate::{context::Global, failure::Outcome, output::show, units::bytes};
use firn_client::local_store::LocalStore;
use firn_image::{compose::PlannedImage, plan::History, view::View};
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
    #[command(flatten)]
    show: ShowArgs,
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
    /// None of a base image's layers that Firn has not made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// How many paths of the closure this layer changes with: its own and all they refer to. A store
    /// path is named anew whenever one of these is.
    changes_with: usize,
    #[serde(flatten)]
    row: Row,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let store = LocalStore::from_environment();
    let progress = global.progress();
    let history = args
        .history
        .read(global, None, &progress, History::default)?;
    let others = args.show.others(global, None, &progress)?;
    let subject = subject::planned(
        &args.spec,
        &store,
        Rights::of(global),
        &args.paths,
        history,
        &progress,
    )?;
    let facts = subject.facts(&store)?;
    let rows = layers::rows(&subject, &facts, &others);
    args.show.draw(&args.paths.join(" "), &facts, &rows)?;
    let Some(image) = subject.plan() else {
        return Ok(());
    };
    show(global.json, &report(image, &subject.view, rows), text)
}

fn report(image: &PlannedImage, view: &View, rows: Vec<Row>) -> Report {
    let dependencies = image.closure.dependencies();
    let none = Vec::new();
    let below = image.base_layers().iter().map(|_| &none);
    let own = image.layers.iter().map(|layer| &layer.paths);
    let layers: Vec<Layer> = below
        .chain(own)
        .zip(&view.layers)
        .zip(rows)
        .map(|((paths, layer), row)| Layer {
            key: layer.key.clone(),
            changes_with: reachable(&dependencies, paths),
            row,
        })
        .collect();
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
    let rows: Vec<Row> = report
        .layers
        .iter()
        .map(|layer| layer.row.clone())
        .collect();
    format!(
        "{}{} layers, {} paths, {}",
        layers::text(&rows),
        report.layers_total,
        report.paths_total,
        bytes(report.bytes_total)
    )
}
