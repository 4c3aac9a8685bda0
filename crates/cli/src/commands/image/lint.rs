//! `firn image lint`.

use super::{
    diff::{counted, name},
    prepare::Rights,
    spec_args::SpecArgs,
    subject::{self, Kind, Origin},
};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::{show, table},
    units::bytes,
};
use firn_client::{local_store::LocalStore, progress::Progress};
use firn_formats::{nix::StorePath, oci::config::Config};
use firn_image::{
    closure::Closure,
    lint::{Check, Finding, Findings, lint},
    plan::{History, name_key},
};

/// Findings that are written out for people; --json has all.
const SHOWN_MAX: usize = 40;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// PATHs of one image; or one image: [REGISTRY/]NAME:TAG, an archive or a layout, of what the local store has
    #[arg(required_unless_present = "spec", value_name = "PATH|IMAGE")]
    paths: Vec<String>,
    /// Fail if this is found: unused, dev-output, build-time, two-versions, docs, headers, static-library, or all;
    /// may be repeated
    #[arg(long, value_name = "CHECK", value_parser = parse_check)]
    deny: Vec<Denied>,
    /// Accept this store path, by its name with or without version; may be repeated
    #[arg(long, value_name = "NAME")]
    allow: Vec<String>,
    /// Credentials for another registry [default: docker's config]
    #[arg(long, value_name = "USER:TOKEN")]
    creds: Option<String>,
    #[command(flatten)]
    spec: SpecArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denied {
    All,
    One(Check),
}

fn parse_check(text: &str) -> Result<Denied, String> {
    if text == "all" {
        return Ok(Denied::All);
    }
    let mut checks = Check::ALL.into_iter();
    let found = checks.find(|check| check.name() == text);
    found.map(Denied::One).ok_or_else(|| {
        let names: Vec<&str> = Check::ALL.iter().map(|check| check.name()).collect();
        format!(
            "there is no check {text:?}; there are {} and all",
            names.join(", ")
        )
    })
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let progress = global.progress();
    let store = LocalStore::from_environment();
    let (closure, config) = judged(global, args, &store, &progress)?;
    let is_allowed = |path: &StorePath| args.allow.iter().any(|name| is_called(path, name));
    let found = lint(store.store_dir(), &closure, &config, &is_allowed);
    show(global.json, &found, text)?;
    let denied = found
        .findings
        .iter()
        .filter(|finding| args.denies(finding.check));
    match denied.count() {
        0 => Ok(()),
        count => Err(
            Failure::new(format!("{} denied", counted(count, "finding")))
                .hint("--allow NAME accepts a store path, with or without its version"),
        ),
    }
}

impl Args {
    fn denies(&self, check: Check) -> bool {
        self.deny
            .iter()
            .any(|denied| matches!(denied, Denied::All) || *denied == Denied::One(check))
    }
}

fn is_called(path: &StorePath, name: &str) -> bool {
    path.name() == name || path.to_string() == name || name_key(path.name()) == name
}

/// The store paths of an image and what it starts.
fn judged(
    global: &Global,
    args: &Args,
    store: &LocalStore,
    progress: &dyn Progress,
) -> Outcome<(Closure, Config)> {
    let is_path = |text: &String| subject::kind(text) == Kind::Paths;
    if args.paths.iter().all(is_path) {
        let (rights, none) = (Rights::of(global), History::default());
        let found = subject::planned(&args.spec, store, rights, &args.paths, none, progress)?;
        if let Origin::Plan(plan) = found.origin {
            return Ok((plan.closure, found.view.config.config));
        }
    }
    let [image] = args.paths.as_slice() else {
        return Err(Failure::new(
            "PATHs make one image; of images one at a time is judged",
        ));
    };
    let made = subject::made(global, image, args.creds.as_deref(), progress)?;
    let paths: Vec<StorePath> = made.view.paths().cloned().collect();
    if paths.is_empty() {
        return Err(
            Failure::new(format!("{image} does not say which store paths it has"))
                .hint("firn image lint PATH… judges an image before it is made"),
        );
    }
    let mut closure = store.closure_of_valid(&paths)?;
    if closure.roots.len() < paths.len() {
        let missing = paths.len() - closure.roots.len();
        return Err(Failure::new(format!(
            "{missing} of the image's {} store paths are not here",
            paths.len()
        ))
        .hint("firn pull brings them, or judge the image where it was built"));
    }
    // Contents are what the links at the root lead to; of an image that was made only the graph tells.
    closure.roots.clear();
    Ok((closure, made.view.config.config))
}

fn text(found: &Findings) -> String {
    let mut rows = vec![
        ["cost", "check", "what", "by way of"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let shown = found.findings.iter().take(SHOWN_MAX);
    rows.extend(shown.map(row));
    let mut out = match found.findings.is_empty() {
        true => String::new(),
        false => table(&rows),
    };
    let hidden = found.findings.iter().skip(SHOWN_MAX);
    let hidden: Vec<u64> = hidden.map(|finding| finding.bytes).collect();
    if !hidden.is_empty() {
        let sum = bytes(hidden.iter().sum());
        out.push_str(&format!("and {} more, {sum}\n", hidden.len()));
    }
    for note in &found.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    match found.findings.len() {
        0 => out.push_str("nothing was found"),
        count => out.push_str(&format!(
            "{}: {} of {} need not be there",
            counted(count, "finding"),
            bytes(found.bytes),
            bytes(found.bytes_total)
        )),
    }
    out
}

fn row(finding: &Finding) -> Vec<String> {
    let mut what = name(&finding.path).to_owned();
    if let Some(folder) = finding.files.first() {
        what = format!("{what}/{folder}");
    }
    if finding.paths > 1 {
        what.push_str(&format!(
            " and {} paths that only it brings",
            finding.paths - 1
        ));
    }
    let via: Vec<&str> = finding.via.iter().map(|path| name(path)).collect();
    vec![
        bytes(finding.bytes),
        finding.check.name().to_owned(),
        format!("{what}: {}", finding.detail),
        match via.len() {
            0 | 1 => "contents".to_owned(),
            _ => via.join(" → "),
        },
    ]
}
