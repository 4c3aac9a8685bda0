//! `firn status`.

use crate::{
    commands::cache::keep::why,
    context::Global,
    failure::Outcome,
    output::{show, table},
    storage::StorageArgs,
    units::{ago, bytes},
};
use firn_client::{
    local_store::LocalStore,
    resolve::resolve_all,
    status::{status, status_of_stores},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Store paths, links to them, or flake installables
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    #[command(flatten)]
    storage: StorageArgs,
    /// List the cached paths too
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let stores = args.storage.instead_of_server(global)?;
    let roots = resolve_all(&args.paths)?;
    let closure = LocalStore::from_environment().closure(&roots)?;
    let report = match stores.is_empty() {
        true => status(&global.connect()?, &global.cache, &closure)?,
        false => {
            let stores = args.storage.open_all(&stores)?;
            status_of_stores(&stores, &global.cache, &closure)?
        }
    };
    show(global.json, &report, |report| {
        let rows: Vec<Vec<String>> = report
            .paths
            .iter()
            .filter(|path| args.all || !path.present)
            .map(|path| {
                let word = if path.present { "cached" } else { "missing" };
                let mut row = vec![word.to_owned(), bytes(path.nar_size), path.path.clone()];
                row.extend(path.evicted.as_ref().map(|evicted| {
                    let at = evicted.at.map(ago).unwrap_or_default();
                    format!("taken away {at}: {}", why(evicted))
                }));
                row
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
