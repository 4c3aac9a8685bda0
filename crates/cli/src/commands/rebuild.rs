//! `firn rebuild`.

use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::{show, table},
};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's configuration (JSON)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    segments: u64,
    packs: u64,
    packs_walked: u64,
    chunks: u64,
    blobs: u64,
    entries: u64,
    entries_dropped: u64,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let config = super::serve::config(global, args.config.as_deref())?;
    if !config.data.is_dir() {
        return Err(
            Failure::new(format!("{} is no folder", config.data.display()))
                .hint("--data DIR says where the server's data lie"),
        );
    }
    let found = firn_server::rebuild(&config).map_err(|error| {
        let failure = Failure::of(&error);
        match error {
            firn_server::StoreError::Locked(_) => failure.hint("stop the server first"),
            firn_server::StoreError::FormatVersion { .. } => {
                failure.hint("a later firn wrote this: rebuild with that one")
            }
            firn_server::StoreError::Away(_) => failure.hint(
                "mount what holds the packs, then rebuild: without them the new database would know of nothing",
            ),
            _ => failure,
        }
    })?;
    let report = Report {
        segments: found.segments,
        packs: found.packs,
        packs_walked: found.packs_walked,
        chunks: found.chunks,
        blobs: found.blobs,
        entries: found.entries,
        entries_dropped: found.entries_dropped,
    };
    show(global.json, &report, |report| {
        let row = |name: &str, value: u64| vec![name.to_owned(), value.to_string()];
        table(&[
            row("segments read", report.segments),
            row("packs", report.packs),
            row("packs without an index", report.packs_walked),
            row("chunks", report.chunks),
            row("blobs", report.blobs),
            row("entries", report.entries),
            row("entries whose bytes are gone", report.entries_dropped),
        ])
    })
}
