//! `firn cache pin`, `unpin`, `evict`, `evictions`: what stays, what goes, what went.

use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::{show, table},
    units::{ago, bytes},
};
use firn_client::{api::Server, resolve::resolve_all};
use firn_formats::admin::{Evict, EvictReport, EvictionCause, EvictionView, RootPin, RootView};

#[derive(Debug, clap::Args)]
pub(crate) struct Pin {
    /// The name, such as main or release/1.2
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<String>,
    /// A store path, a link to one, or a flake installable; its closure stays
    #[arg(value_name = "PATH", required_unless_present_any = ["list", "image"])]
    path: Option<String>,
    /// An image of the cache instead, NAME:TAG or NAME@DIGEST
    #[arg(long, value_name = "IMAGE", conflicts_with = "path")]
    image: Option<String>,
    /// How many of what the name has pinned stay pinned [default: as before, at first 1]
    #[arg(long, value_name = "N")]
    keep: Option<u32>,
    /// List what is pinned
    #[arg(long, conflicts_with_all = ["name", "path", "image", "keep"])]
    list: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EvictArgs {
    /// Show what would go, and take nothing away
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn pin(global: &Global, server: &Server, args: &Pin) -> Outcome {
    if args.list {
        let roots = server.roots(&global.cache)?;
        return show(global.json, &roots, |roots| list(roots));
    }
    let path = match &args.path {
        Some(path) => Some(base_name(path)?),
        None => None,
    };
    let root = server.root_pin(
        &global.cache,
        &RootPin {
            name: args.name.clone().unwrap_or_default(),
            path,
            image: args.image.clone(),
            keep: args.keep,
        },
    )?;
    show(global.json, &root, |root| list(std::slice::from_ref(root)))
}

/// A store path need not be here to be pinned there.
fn base_name(path: &str) -> Outcome<String> {
    if let Some(base_name) = path.strip_prefix("/nix/store/")
        && !base_name.contains('/')
    {
        return Ok(base_name.to_owned());
    }
    let paths = resolve_all(std::slice::from_ref(&path.to_owned()))?;
    match paths.as_slice() {
        [one] => Ok(one.to_string()),
        _ => Err(
            Failure::new(format!("{path} stands for {} paths", paths.len()))
                .hint("pin them one by one, under names of their own"),
        ),
    }
}

pub(super) fn unpin(global: &Global, server: &Server, name: &str) -> Outcome {
    server.root_unpin(&global.cache, name)?;
    show(
        global.json,
        &serde_json::json!({ "unpinned": name }),
        |_| format!("unpinned {name}"),
    )
}

pub(super) fn evict(global: &Global, server: &Server, args: &EvictArgs) -> Outcome {
    let request = Evict {
        dry_run: args.dry_run,
    };
    let report = server.evict(&global.cache, request)?;
    show(global.json, &report, report_text)
}

fn report_text(report: &EvictReport) -> String {
    let rows: Vec<Vec<String>> = report.evicted.iter().map(row).collect();
    let word = match report.dry_run {
        true => "would go",
        false => "went",
    };
    format!(
        "{}{} paths and {} images {word}, {}",
        table(&rows),
        report.paths,
        report.images,
        bytes(report.bytes)
    )
}

pub(super) fn evictions(global: &Global, server: &Server, limit: usize) -> Outcome {
    let evictions = server.evictions(&global.cache, limit)?;
    show(global.json, &evictions, |evictions| {
        table(&evictions.iter().map(row).collect::<Vec<_>>())
    })
}

fn row(evicted: &EvictionView) -> Vec<String> {
    vec![
        evicted.at.map(ago).unwrap_or_default(),
        bytes(evicted.bytes),
        why(evicted),
        evicted.name.clone(),
    ]
}

/// Why something went, in words.
pub(crate) fn why(evicted: &EvictionView) -> String {
    let unused = format!("last used {}", ago(evicted.used_at));
    match evicted.reason {
        EvictionCause::Unused => format!("unused; {unused}"),
        EvictionCause::Quota => format!("over quota; {unused}"),
        EvictionCause::Deleted => format!("deleted; {unused}"),
        EvictionCause::Replaced => format!("replaced; {unused}"),
    }
}

fn list(roots: &[RootView]) -> String {
    let rows: Vec<Vec<String>> = roots
        .iter()
        .flat_map(|root| {
            root.pinned.iter().map(|pinned| {
                let target = pinned.path.as_ref().or(pinned.image.as_ref());
                vec![
                    root.name.clone(),
                    ago(i64::try_from(pinned.at).unwrap_or(i64::MAX)),
                    target.cloned().unwrap_or_default(),
                ]
            })
        })
        .collect();
    table(&rows)
}
