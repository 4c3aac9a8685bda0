//! `firn status`.

use crate::{
    context::Global,
    failure::Outcome,
    output::{show, table},
    units::bytes,
};
use firn_client::{local_store::LocalStore, resolve::resolve_all, status::status};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Store paths, links to them, or flake installables
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// List the cached paths too
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let server = global.connect()?;
    let roots = resolve_all(&args.paths)?;
    let closure = LocalStore::from_environment().closure(&roots)?;
    let report = status(&server, &global.cache, &closure)?;
    show(global.json, &report, |report| {
        let rows: Vec<Vec<String>> = report
            .paths
            .iter()
            .filter(|path| args.all || !path.present)
            .map(|path| {
                let word = if path.present { "cached" } else { "missing" };
                vec![word.to_owned(), bytes(path.nar_size), path.path.clone()]
            })
            .collect();
        format!(
            "{}{} of {} paths are cached in {}; {} of {} missing",
            table(&rows),
            report.paths_present,
            report.paths_total,
            global.cache,
            bytes(report.bytes_missing),
            bytes(report.bytes_total)
        )
    })
}
