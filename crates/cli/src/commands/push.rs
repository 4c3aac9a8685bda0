//! `firn push`.

use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
    storage::{StorageArgs, refresh},
    units::bytes,
};
use firn_client::{
    ClientError,
    local_store::LocalStore,
    push::{PushReport, push},
    resolve::resolve_all,
    storage::{StorageLocation, StoragePushReport, host_name, push_to_storage},
};
use firn_formats::nix::PublicKey;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Store paths, links to them, or flake installables
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    #[command(flatten)]
    storage: StorageArgs,
    /// Leave out what this key has signed, `name:base64`: it can be had from there (with --storage)
    #[arg(long = "upstream-key", value_name = "KEY", value_parser = PublicKey::parse)]
    upstream_keys: Vec<PublicKey>,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    match args.storage.instead_of_server(global)?.as_slice() {
        [] => to_server(global, args),
        [location] => to_storage(global, args, location),
        _ => Err(Failure::new("a push goes into one store")
            .hint("push once for each store; unchanged paths are not read again")),
    }
}

fn to_server(global: &Global, args: &Args) -> Outcome {
    if !args.upstream_keys.is_empty() {
        return Err(
            Failure::new("--upstream-key needs --storage").hint("a server is given whole closures")
        );
    }
    let server = global.connect()?;
    let store = LocalStore::from_environment();
    let roots = resolve_all(&args.paths)?;
    let closure = store.closure(&roots)?;
    let report = push(&server, &global.cache, &store, &closure, &global.progress())?;
    show(global.json, &report, text)
}

fn to_storage(global: &Global, args: &Args, location: &StorageLocation) -> Outcome {
    let started = Instant::now();
    let local = LocalStore::from_environment();
    let roots = resolve_all(&args.paths)?;
    let closure = local.closure(&roots)?;
    let store = args.storage.open(location)?;
    refresh(&store)?;
    let run = store.run(&host_name()).map_err(ClientError::from)?;
    let mut report = push_to_storage(
        &store,
        &run,
        &global.cache,
        &local,
        &closure,
        &args.upstream_keys,
        &global.progress(),
    )?;
    let published = run.publish().map_err(ClientError::from)?;
    report.bytes_sent = published.bytes_written;
    report.seconds = started.elapsed().as_secs_f64();
    show(global.json, &report, |report| {
        storage_text(report, location)
    })
}

fn text(report: &PushReport) -> String {
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
}

fn storage_text(report: &StoragePushReport, location: &StorageLocation) -> String {
    let line = text(&PushReport {
        paths_total: report.paths_total,
        paths_pushed: report.paths_pushed,
        bytes_total: report.bytes_total,
        chunks_total: report.chunks_total,
        chunks_sent: report.chunks_sent,
        bytes_sent: report.bytes_sent,
        seconds: report.seconds,
    });
    match report.paths_upstream {
        0 => format!("{line}, in {location}"),
        count => format!("{line}, in {location}; {count} paths are upstream's"),
    }
}
