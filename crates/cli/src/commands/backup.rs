//! `firn backup`.

use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::{show, table},
    units::bytes,
};
use firn_server::StoreError;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of the backup: a new one, or one to bring up to date
    #[arg(value_name = "DEST")]
    dest: PathBuf,
    /// Copy packs even where both folders could share their bytes, so that the backup rots by itself
    #[arg(long)]
    copy: bool,
    /// The server's configuration (JSON)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    packs_total: u64,
    packs_linked: u64,
    packs_copied: u64,
    bytes_copied: u64,
    packs_kept: u64,
    packs_lost: u64,
    packs_deleted: u64,
    segments: u64,
    other_files: u64,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let config = super::serve::config(global, args.config.as_deref())?;
    if !config.data.is_dir() {
        return Err(Failure::new(format!("{} is no folder", config.data.display()))
            .hint("--data DIR says where the server's data lie; a backup is made on the server's machine"));
    }
    let found = firn_server::backup(&config, &args.dest, !args.copy).map_err(|error| {
        let failure = Failure::of(&error);
        match error {
            StoreError::Conflict(_) => {
                failure.hint("name an empty folder, or that of an earlier backup")
            }
            StoreError::Away(_) => failure
                .hint("mount what holds the packs, then back up again; the backup is as it was"),
            StoreError::Locked(_) => failure.hint("a server has the backup open: stop that first"),
            _ => failure,
        }
    })?;
    let report = Report {
        packs_total: found.packs_total,
        packs_linked: found.packs_linked,
        packs_copied: found.packs_copied,
        bytes_copied: found.bytes_copied,
        packs_kept: found.packs_kept,
        packs_lost: found.packs_lost,
        packs_deleted: found.packs_deleted,
        segments: found.segments,
        other_files: found.other_files,
    };
    show(global.json, &report, |report| {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        table(&[
            row("packs", report.packs_total.to_string()),
            row("packs linked", report.packs_linked.to_string()),
            row("packs copied", report.packs_copied.to_string()),
            row("bytes copied", bytes(report.bytes_copied)),
            row(
                "packs not needed any more",
                report.packs_deleted.to_string(),
            ),
            row("segments", report.segments.to_string()),
            row("keys and other files", report.other_files.to_string()),
        ])
    })?;
    match (report.packs_lost, report.packs_kept) {
        (0, 0) => Ok(()),
        (0, kept) => Err(Failure::new(format!(
            "{kept} packs are in the backup only: the folder has lost them"
        ))
        .hint("`firn check --server URL --repair-from DEST` heals the folder from the backup")),
        (lost, _) => Err(Failure::new(format!(
            "{lost} packs are not here and so not in the backup"
        ))
        .hint("`firn check --data DIR` says what is damaged")),
    }
}
