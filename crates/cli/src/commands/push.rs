//! `firn push`.

use crate::{context::Global, failure::Outcome, output::show, units::bytes};
use firn_client::{local_store::LocalStore, push::push, resolve::resolve_all};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Store paths, links to them, or flake installables
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let server = global.connect()?;
    let store = LocalStore::from_environment();
    let roots = resolve_all(&args.paths)?;
    let closure = store.closure(&roots)?;
    let report = push(&server, &global.cache, &store, &closure, &global.progress())?;
    show(global.json, &report, |report| {
        if report.paths_pushed == 0 {
            return format!(
                "all {} paths are cached ({:.2} s)",
                report.paths_total, report.seconds
            );
        }
        format!(
            "pushed {} of {} paths: {} sent of {}, {} of {} chunks, {:.2} s",
            report.paths_pushed,
            report.paths_total,
            bytes(report.bytes_sent),
            bytes(report.bytes_total),
            report.chunks_sent,
            report.chunks_total,
            report.seconds
        )
    })
}
