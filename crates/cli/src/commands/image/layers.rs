//! An image's layers as a table and as a drawing.

use super::{
    diff::name,
    subject::{self, Kind, Subject},
};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::table,
    units::bytes,
};
use firn_client::{image::with_revision, progress::Progress};
use firn_formats::nix::StorePath;
use firn_image::{
    draw::{Drawing, DrawnLayer, svg, word},
    frequency::frequencies,
    plan::risks,
    view::{Facts, View},
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Names of paths that are written out for people.
const NAMES_MAX: usize = 4;

/// What `plan` and `inspect` take besides.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// Say which layers this image has too: [REGISTRY/]NAME:TAG, an archive or a layout; may be repeated
    #[arg(long = "with", value_name = "IMAGE")]
    others: Vec<String>,
    /// Draw layers and paths as a treemap, and what changed when, into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// One layer, as a row.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Row {
    /// Counted from 1, lowest first.
    pub(super) layer: usize,
    /// As a registry stores it; of a plan, as NARs.
    pub(super) bytes: u64,
    /// Base names.
    pub(super) paths: Vec<String>,
    /// Of the known revisions those in which it changed.
    pub(super) changed: usize,
    /// Revisions that are known.
    pub(super) revisions: usize,
    /// Probability of change in the next one; of a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) risk: Option<f64>,
    /// Other images that have it, of those that were asked for.
    pub(super) shared_with: Vec<String>,
    /// How many other images of a Firn server's cache have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) other_images: Option<u64>,
    pub(super) comment: String,
    #[serde(skip)]
    steps: Vec<bool>,
}

/// The layers of a view, lowest first.
pub(super) fn rows(subject: &Subject, facts: &Facts, others: &[(String, View)]) -> Vec<Row> {
    // A plan is looked at as the revision that it would be.
    let history = match subject.plan() {
        Some(plan) => with_revision(plan),
        None => subject.history.clone(),
    };
    let frequencies = frequencies(&subject.view, facts, &history);
    let risks = subject.plan().map(|plan| {
        let layers: Vec<Vec<usize>> = plan
            .layers
            .iter()
            .map(|layer| layer.paths.clone())
            .collect();
        let below = plan.base_layers().iter().map(|_| None);
        let own = risks(&plan.closure, &layers, &plan.spec.history);
        below.chain(own.into_iter().map(Some)).collect::<Vec<_>>()
    });
    let layers = subject.view.layers.iter().zip(frequencies).enumerate();
    layers
        .map(|(place, (layer, frequency))| Row {
            layer: place + 1,
            bytes: layer.bytes,
            paths: layer.paths.iter().map(StorePath::to_string).collect(),
            changed: frequency.changed(),
            revisions: frequency.steps.len(),
            risk: risks
                .as_ref()
                .and_then(|risks| risks.get(place).copied().flatten()),
            shared_with: others
                .iter()
                .filter(|(_, view)| view.layers.iter().any(|other| layer.is(other)))
                .map(|(name, _)| name.clone())
                .collect(),
            other_images: None,
            comment: layer.comment.clone(),
            steps: frequency.steps,
        })
        .collect()
}

/// The table of the seeds: layer, size, how often it changes; and how many paths, and who shares it.
pub(super) fn text(rows: &[Row]) -> String {
    let is_shared = rows.iter().any(|row| !shared(row).is_empty());
    let mut head = vec!["layer", "size", "paths", "changes"];
    head.extend(is_shared.then_some("shared with"));
    head.push("holds");
    let mut lines = vec![head.into_iter().map(str::to_owned).collect()];
    for row in rows {
        let mut line = vec![
            row.layer.to_string(),
            bytes(row.bytes),
            row.paths.len().to_string(),
            changes(row),
        ];
        line.extend(is_shared.then(|| shared(row)));
        line.push(holds(row));
        lines.push(line);
    }
    table(&lines)
}

fn changes(row: &Row) -> String {
    match (row.revisions, row.risk) {
        (0, Some(risk)) => word(risk).to_owned(),
        (0, None) => String::new(),
        (revisions, _) => format!("{} of {revisions}", row.changed),
    }
}

fn shared(row: &Row) -> String {
    let mut parts = row.shared_with.clone();
    parts.extend(row.other_images.map(|count| match count {
        0 => "none".to_owned(),
        1 => "1 other".to_owned(),
        count => format!("{count} others"),
    }));
    parts.join(", ")
}

/// Names without hashes, the first few.
fn holds(row: &Row) -> String {
    if row.paths.is_empty() {
        return row.comment.chars().take(100).collect();
    }
    let shown: Vec<&str> = row
        .paths
        .iter()
        .take(NAMES_MAX)
        .map(|path| name(path))
        .collect();
    match row.paths.len().saturating_sub(NAMES_MAX) {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}

impl ShowArgs {
    /// The images to compare with.
    pub(super) fn others(
        &self,
        global: &Global,
        creds: Option<&str>,
        progress: &dyn Progress,
    ) -> Outcome<Vec<(String, View)>> {
        let read = |image: &String| {
            if subject::kind(image) == Kind::Paths {
                return Err(Failure::new(format!("--with {image} is no image"))
                    .hint("firn image diff compares with what store paths would make"));
            }
            Ok((
                image.clone(),
                subject::made(global, image, creds, progress)?.view,
            ))
        };
        self.others.iter().map(read).collect()
    }

    /// Draws, if that was asked for.
    pub(super) fn draw(&self, title: &str, facts: &Facts, rows: &[Row]) -> Outcome {
        let Some(file) = &self.svg else {
            return Ok(());
        };
        write(file, &svg(&drawing(title, facts, rows)))
    }
}

fn write(file: &Path, document: &str) -> Outcome {
    std::fs::write(file, document)
        .map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}

fn drawing(title: &str, facts: &Facts, rows: &[Row]) -> Drawing {
    let total: u64 = rows.iter().map(|row| row.bytes).sum();
    let paths: usize = rows.iter().map(|row| row.paths.len()).sum();
    Drawing {
        title: title.to_owned(),
        subtitle: format!(
            "{} layers, {paths} store paths, {}",
            rows.len(),
            bytes(total)
        ),
        layers: rows.iter().map(|row| drawn(facts, row)).collect(),
        revisions: rows.iter().map(|row| row.revisions).max().unwrap_or(0),
    }
}

fn drawn(facts: &Facts, row: &Row) -> DrawnLayer {
    let even = row.bytes / row.paths.len().max(1) as u64;
    let size = |path: &String| {
        let known = StorePath::parse_base_name(path)
            .ok()
            .and_then(|path| facts.size(&path));
        known.unwrap_or(even).max(1)
    };
    DrawnLayer {
        label: holds(row),
        size: bytes(row.bytes),
        bytes: row.bytes,
        heat: match row.revisions {
            0 => row.risk.unwrap_or(0.0),
            revisions => row.changed as f64 / revisions as f64,
        },
        frequency: match row.revisions {
            0 => changes(row),
            _ => format!("changed in {}", changes(row)),
        },
        paths: row
            .paths
            .iter()
            .map(|path| (name(path).to_owned(), size(path)))
            .collect(),
        steps: row.steps.clone(),
    }
}
