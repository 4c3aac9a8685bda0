//! `firn image diff`.

use super::{
    prepare::Rights,
    spec_args::SpecArgs,
    subject::{self, Kind, Subject},
};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::{show, table},
    units::bytes,
};
use firn_client::{local_store::LocalStore, progress::Progress};
use firn_image::{
    diff::{Cause, Diff, LayerDiff, Reason, What, diff},
    plan::History,
    view::Facts,
};
use serde::Serialize;

/// Reasons and causes that are written out for people; --json has all.
const REASONS_MAX: usize = 2;
const CAUSES_MAX: usize = 12;
/// Of a config's value.
const VALUE_LETTERS_MAX: usize = 60;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What there is: [REGISTRY/]NAME:TAG, an archive or layout, or a PATH, which is planned
    #[arg(value_name = "OLD")]
    old: String,
    /// What would be pushed: likewise; several PATHs are one image; or --spec
    #[arg(value_name = "NEW", required_unless_present = "spec")]
    new: Vec<String>,
    /// Credentials for another registry [default: docker's config]
    #[arg(long, value_name = "USER:TOKEN")]
    creds: Option<String>,
    #[command(flatten)]
    spec: SpecArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    old: &'a str,
    new: String,
    /// What layers' bytes are: `stored` as a registry has them, or `nar`, of a plan.
    layer_bytes_are: &'static str,
    #[serde(flatten)]
    diff: &'a Diff,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let progress = global.progress();
    let store = LocalStore::from_environment();
    let old = old(global, args, &store, &progress)?;
    let new = new(global, args, &store, &old, &progress)?;
    let mut facts = Facts::default();
    old.add_facts(&store, &mut facts)?;
    new.add_facts(&store, &mut facts)?;
    let found = diff(&old.view, &new.view, &facts);
    let report = Report {
        old: &args.old,
        new: match &args.spec.spec {
            Some(spec) => spec.display().to_string(),
            None => args.new.join(" "),
        },
        layer_bytes_are: if new.plan().is_some() {
            "nar"
        } else {
            "stored"
        },
        diff: &found,
    };
    show(global.json, &report, text)
}

fn old(
    global: &Global,
    args: &Args,
    store: &LocalStore,
    progress: &dyn Progress,
) -> Outcome<Subject> {
    match subject::kind(&args.old) {
        Kind::Paths => {
            let paths = std::slice::from_ref(&args.old);
            subject::planned(
                &args.spec,
                store,
                Rights::of(global),
                paths,
                History::default(),
                progress,
            )
        }
        _ => subject::made(global, &args.old, args.creds.as_deref(), progress),
    }
}

/// A plan is made knowing what travels with the old image, as a push over it would.
fn new(
    global: &Global,
    args: &Args,
    store: &LocalStore,
    old: &Subject,
    progress: &dyn Progress,
) -> Outcome<Subject> {
    match args.new.as_slice() {
        [image] if subject::kind(image) != Kind::Paths => {
            subject::made(global, image, args.creds.as_deref(), progress)
        }
        paths if paths.iter().all(|p| subject::kind(p) == Kind::Paths) => {
            let history = match old.plan() {
                Some(plan) => firn_client::image::with_revision(plan),
                None => old.history.clone(),
            };
            subject::planned(
                &args.spec,
                store,
                Rights::of(global),
                paths,
                history,
                progress,
            )
        }
        _ => Err(Failure::new("NEW is one image, or PATHs alone")
            .hint("firn image diff registry/app:1 ./result")),
    }
}

fn text(report: &Report<'_>) -> String {
    let diff = report.diff;
    let mut out = table(&rows(diff));
    if !diff.config.is_empty() {
        out.push_str("\nconfig\n");
        let rows: Vec<Vec<String>> = diff
            .config
            .iter()
            .map(|change| {
                let value =
                    |value: &Option<String>| value.as_deref().map_or("(none)".to_owned(), short);
                let (old, new) = (value(&change.old), value(&change.new));
                vec![change.field.clone(), format!("{old} → {new}")]
            })
            .collect();
        out.push_str(&table(&rows));
    }
    if !diff.causes.is_empty() {
        out.push_str("\nwhat caused it\n");
        let causes = diff.causes.iter().take(CAUSES_MAX).map(cause_row);
        out.push_str(&table(&causes.collect::<Vec<_>>()));
        if diff.causes.len() > CAUSES_MAX {
            out.push_str(&format!("and {} more\n", diff.causes.len() - CAUSES_MAX));
        }
    }
    out.push('\n');
    out.push_str(&summary(report));
    out
}

fn rows(diff: &Diff) -> Vec<Vec<String>> {
    let mut rows = vec![["layer", "size", "", "why"].map(str::to_owned).to_vec()];
    for layer in &diff.layers {
        rows.push(vec![
            layer.layer.to_string(),
            bytes(layer.bytes),
            if layer.reused { "reused" } else { "pushed" }.to_owned(),
            why(layer),
        ]);
    }
    rows
}

fn why(layer: &LayerDiff) -> String {
    if layer.reused {
        return match layer.was {
            Some(was) if was != layer.layer => format!("was layer {was}"),
            _ => String::new(),
        };
    }
    let shown = layer.reasons.iter().take(REASONS_MAX).map(reason);
    let mut text = shown.collect::<Vec<_>>().join("; ");
    let more = layer.reasons.len().saturating_sub(REASONS_MAX);
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

fn reason(reason: &Reason) -> String {
    let name = name(&reason.path);
    let layer = reason.layer.unwrap_or_default();
    match reason.what {
        What::Changed => format!("{name} changed{}", was(reason.was.as_deref(), &reason.path)),
        What::Added => format!("{name} is new"),
        What::Removed => format!("{name} is gone"),
        What::MovedIn => format!("{name} came from layer {layer}"),
        What::MovedOut => format!("{name} went to layer {layer}"),
        What::Renamed => match reason.because.last() {
            Some(cause) if reason.because.len() == 1 => {
                format!("{name} refers to {}, which changed", self::name(cause))
            }
            Some(cause) => {
                let chain: Vec<&str> = reason.because.iter().map(|path| self::name(path)).collect();
                format!(
                    "{name} → {}: {} changed",
                    chain.join(" → "),
                    self::name(cause)
                )
            }
            None => format!("{name} has another hash"),
        },
        What::Recompressed => "the same files, compressed otherwise".to_owned(),
        What::Rewritten => {
            "the same paths, with other contents, modes or files beside them".to_owned()
        }
        What::Files => "files at the image's root".to_owned(),
    }
}

/// Another version is worth saying; another hash goes without.
fn was(was: Option<&str>, now: &str) -> String {
    match was.map(name) {
        Some(was) if was != name(now) => format!(" (was {was})"),
        _ => String::new(),
    }
}

fn cause_row(cause: &Cause) -> Vec<String> {
    let what = match cause.what {
        What::Changed => format!(
            "{} changed{}",
            name(&cause.path),
            was(cause.was.as_deref(), &cause.path)
        ),
        What::Added => format!("{} is new", name(&cause.path)),
        What::Renamed => format!("{} has another hash", name(&cause.path)),
        What::Removed => format!("{} is gone", name(&cause.path)),
        What::MovedIn | What::MovedOut => "paths went to other layers".to_owned(),
        What::Recompressed => "another compression".to_owned(),
        What::Rewritten => "other contents, modes or files".to_owned(),
        What::Files => "files at the image's root".to_owned(),
    };
    let paths = match cause.paths_renamed {
        0 | 1 => String::new(),
        count => format!("{count} paths have another hash for it"),
    };
    let layers = counted(cause.layers.len(), "layer");
    vec![what, layers, bytes(cause.layer_bytes), paths]
}

fn summary(report: &Report<'_>) -> String {
    let diff = report.diff;
    let pushed = diff.layers.iter().filter(|layer| !layer.reused).count();
    let measure = match report.layer_bytes_are {
        "nar" => ", before compression",
        _ => "",
    };
    let mut out = format!(
        "{pushed} of {} pushed, {} of {}{measure}; {} new",
        counted(diff.layers.len(), "layer"),
        bytes(diff.bytes_pushed),
        bytes(diff.bytes_pushed + diff.bytes_reused),
        counted(diff.paths_new, "path"),
    );
    if diff.bytes_new > 0 {
        out.push_str(&format!(", {}", bytes(diff.bytes_new)));
    }
    let reused = diff.layers.len() - pushed;
    let kept = diff.layers.iter().take(diff.same_below).count();
    if reused > kept {
        let order = match diff.order_changed {
            true => ", since layers lie in another order",
            false => "",
        };
        out.push_str(&format!(
            "\n{} above a new one: Docker unpacks again what is reused{order}",
            counted(reused - kept, "layer"),
        ));
    }
    out
}

/// A number of things.
pub(super) fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// A store path's name without its hash.
pub(super) fn name(base: &str) -> &str {
    base.get(33..).unwrap_or(base)
}

fn short(value: &str) -> String {
    match value.chars().count() {
        0..=VALUE_LETTERS_MAX => value.to_owned(),
        _ => value
            .chars()
            .take(VALUE_LETTERS_MAX - 1)
            .chain(['…'])
            .collect(),
    }
}
