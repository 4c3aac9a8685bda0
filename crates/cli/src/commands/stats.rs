//! `firn stats`.

use crate::{
    context::Global,
    failure::Outcome,
    output::{show, table},
    units::{bytes, duration},
};
use firn_formats::admin::StatsView;

/// A difference of the server's clocks that is worth a word, in seconds.
const TIME_DIFFERENCE_TOLD: u64 = 300;

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
    let mut out = table(&rows);
    if stats.time_behind_seconds.unsigned_abs() >= TIME_DIFFERENCE_TOLD {
        out.push_str(&time_difference(stats.time_behind_seconds));
    }
    out
}

fn time_difference(seconds: i64) -> String {
    let length = duration(seconds.unsigned_abs() as f64);
    if seconds < 0 {
        return format!(
            "note: the server's wall clock is {length} behind the clock by which the store counts ages; nothing is \
             lost by that\n"
        );
    }
    format!(
        "note: the server's wall clock is {length} ahead of the clock by which the store counts ages\n\
         hint: what is kept for some time is kept for so much longer; if the wall clock is right, run \
         `firn gc --confirm-time`\n"
    )
}
