//! `firn stats`.

use crate::{
    context::Global,
    failure::Outcome,
    output::{show, table},
    units::bytes,
};
use firn_formats::admin::StatsView;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(global: &Global, _args: &Args) -> Outcome {
    let stats = global.connect()?.stats()?;
    show(global.json, &stats, text)
}

fn text(stats: &StatsView) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("blobs", stats.blobs.to_string()),
        row("bytes of blobs", bytes(stats.blob_identity_bytes)),
        row("chunks", stats.chunks.to_string()),
        row("bytes of chunks", bytes(stats.chunk_raw_bytes)),
        row("bytes stored", bytes(stats.chunk_stored_bytes)),
        row("packs", stats.packs.to_string()),
        row("open sessions", stats.sessions.to_string()),
    ];
    if stats.chunk_stored_bytes > 0 {
        let ratio = stats.blob_identity_bytes as f64 / stats.chunk_stored_bytes as f64;
        rows.push(row("stored once instead of", format!("{ratio:.1} times")));
    }
    table(&rows)
}
