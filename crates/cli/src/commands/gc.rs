//! `firn gc`.

use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::{show, table},
    storage::{StorageArgs, refresh},
    units::{bytes, parse_duration},
};
use firn_client::{
    ClientError,
    ci::entry::CiEntry,
    storage::{
        EntryKind, Expire, ExpirePaths, ExpiredEntry, GcOptions, GcPlan, GcReport, PackFile,
    },
};
use firn_formats::admin::{CollectionRequest, CollectionView};
use firn_server::StoreError;
use serde::Serialize;
use std::time::Duration;

/// The grace of a store without a server.
const GRACE_DEFAULT: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    storage: StorageArgs,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How long what nothing needs any more is kept, for the jobs that run meanwhile [default: 1d; a server's own]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    grace: Option<Duration>,
    /// Rewrite a server's packs of which more than this share is dead [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    dead: Option<u8>,
    /// Forget CI keys that no job has saved for so long; not of a server [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    keys_unused_for: Option<Duration>,
    /// Forget store paths that were pushed longer ago than so, that no CI key saved since then names, and to which
    /// nothing refers that stays [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    paths_unused_for: Option<Duration>,
    /// Rewrite packs of which more than so much is needed by nothing; 100: never
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(..=100))]
    dead_max: u8,
    /// Say that the server's wall clock is right: the clock by which it counts ages is put forward to it first. See
    /// `firn stats`
    #[arg(long)]
    confirm_time: bool,
    /// Take segments that cannot be read for segments that name nothing
    #[arg(long)]
    ignore_unreadable: bool,
}

impl Args {
    fn options(&self) -> GcOptions {
        let keys = self.keys_unused_for.map(|unused_for| Expire {
            kind: EntryKind::CiKey,
            unused_for,
        });
        GcOptions {
            grace: self.grace.unwrap_or(GRACE_DEFAULT),
            expire: keys.into_iter().collect(),
            paths: self.paths_unused_for.map(|unused_for| ExpirePaths {
                unused_for,
                named_by: CiEntry::paths_of,
            }),
            dead_percent_max: self.dead_max,
            ignore_unreadable: self.ignore_unreadable,
        }
    }
}

/// What was, or would be, done in one store.
#[derive(Debug, Serialize)]
struct Collected {
    storage: String,
    dry_run: bool,
    segments_total: u64,
    segments_merged: u64,
    segments_deleted: u64,
    keys_expired: Vec<String>,
    paths_marked: u64,
    paths_waiting: u64,
    /// Hash parts.
    paths_expired: Vec<String>,
    packs_rewritten: u64,
    bytes_copied: u64,
    packs_marked: u64,
    packs_waiting: u64,
    packs_deleted: u64,
    bytes_deleted: u64,
    /// Covered by others, but the place lets nothing be deleted.
    undeletable: Vec<String>,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let locations = args.storage.instead_of_server(global)?;
    if locations.is_empty() {
        return server(global, args);
    }
    if args.confirm_time {
        return Err(Failure::new("--confirm-time is for a server")
            .hint("a store without a server has no clock of its own"));
    }
    if args.dead.is_some() {
        return Err(Failure::new("--dead is for a server")
            .hint("a store without a server deletes packs only when nothing in them is needed"));
    }
    let mut all = Vec::with_capacity(locations.len());
    for location in &locations {
        let store = args.storage.open(location)?;
        refresh(&store)?;
        let plan = store.plan_gc(&args.options()).map_err(ClientError::from)?;
        if plan.segments_in_the_way > 0 {
            eprintln!(
                "note: no pack of {location} is deleted: {} segments that may name them cannot be read or are not \
                 trusted; --ignore-unreadable passes over them",
                plan.segments_in_the_way
            );
        }
        let mut collected = planned(location.to_string(), args.dry_run, &plan);
        if !args.dry_run {
            let covered = plan.segments_deleted.clone();
            match plan.execute() {
                Ok(report) => collected.done(&report),
                Err(StoreError::Undeletable(_)) => collected.undeletable(covered),
                Err(error) => return Err(ClientError::from(error).into()),
            }
        }
        all.push(collected);
    }
    show(global.json, &all, |all| {
        all.iter().map(text).collect::<Vec<_>>().join("\n")
    })
}

/// The server's collection: what would go first, then doing it.
fn server(global: &Global, args: &Args) -> Outcome {
    if args.keys_unused_for.is_some() || args.ignore_unreadable {
        return Err(Failure::new(
            "--keys-unused-for and --ignore-unreadable are for stores without a server",
        )
        .hint("--storage LOCATION or FIRN_STORAGE names one"));
    }
    let server = global.connect()?;
    let mut request = CollectionRequest {
        dry_run: true,
        grace_seconds: args.grace.map(|grace| grace.as_secs()),
        dead_percent: args.dead,
        confirm_time: args.confirm_time,
    };
    let mut view = server.collect(&request)?;
    if !args.dry_run {
        if !global.json {
            eprint!("{}", server_text(&view));
        }
        request.dry_run = false;
        view = server.collect(&request)?;
    }
    show(global.json, &view, server_text)
}

fn server_text(view: &CollectionView) -> String {
    let count = |name: &str, count: u64| vec![name.to_owned(), count.to_string()];
    let size = |name: &str, length: u64| vec![name.to_owned(), bytes(length)];
    let mut rows = vec![
        count("entries expired", view.entries_expired),
        count("blobs dropped", view.blobs_dropped),
        count("chunks condemned", view.chunks_condemned),
        size("bytes condemned", view.bytes_condemned),
        count("packs rewritten", view.packs_rewritten),
        size("bytes copied", view.bytes_rewritten),
        count("packs deleted", view.packs_deleted),
        size("bytes deleted", view.bytes_deleted),
        count("packs waiting for their grace", view.packs_waiting),
        size("bytes waiting", view.bytes_waiting),
        count("damaged packs, left alone", view.packs_damaged),
        count("segments written", view.segments_written),
        count("segments deleted", view.segments_deleted),
    ];
    rows.retain(|row| row[1] != "0" && row[1] != "0 B");
    let title = match (view.dry_run, view.stopped) {
        (true, _) => "would be done",
        (false, false) => "done",
        (false, true) => "done so far; the server was stopped",
    };
    match rows.is_empty() {
        true => format!("{title}: nothing\n"),
        false => format!("{title}\n{}", table(&rows)),
    }
}

fn planned(storage: String, dry_run: bool, plan: &GcPlan) -> Collected {
    let length = |packs: &[PackFile]| packs.iter().map(|pack| pack.length).sum();
    let keys = |entries: &[ExpiredEntry]| entries.iter().map(|entry| entry.key.clone()).collect();
    Collected {
        storage,
        dry_run,
        segments_total: plan.found.segments_total,
        segments_merged: plan.segments_merged.len() as u64,
        segments_deleted: plan.segments_deleted.len() as u64,
        keys_expired: keys(&plan.entries_expired),
        paths_marked: plan.paths_marked,
        paths_waiting: plan.paths_waiting,
        paths_expired: keys(&plan.paths_expired),
        packs_rewritten: plan.packs_rewritten.len() as u64,
        bytes_copied: plan.bytes_copied,
        packs_marked: plan.packs_marked.len() as u64,
        packs_waiting: plan.packs_waiting.len() as u64,
        packs_deleted: plan.packs_deleted.len() as u64,
        bytes_deleted: length(&plan.packs_deleted),
        undeletable: Vec::new(),
    }
}

impl Collected {
    fn done(&mut self, report: &GcReport) {
        self.segments_merged = report.segments_merged;
        self.segments_deleted = report.segments_deleted;
        self.paths_marked = report.paths_marked;
        self.packs_rewritten = report.packs_rewritten;
        self.bytes_copied = report.bytes_copied;
        self.packs_marked = report.packs_marked;
        self.packs_deleted = report.packs_deleted;
        self.bytes_deleted = report.bytes_deleted;
    }

    fn undeletable(&mut self, covered: Vec<String>) {
        self.segments_deleted = 0;
        self.packs_deleted = 0;
        self.bytes_deleted = 0;
        self.undeletable = covered;
    }
}

fn text(collected: &Collected) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("segments", collected.segments_total.to_string()),
        row("merged into one", collected.segments_merged.to_string()),
        row("deleted", collected.segments_deleted.to_string()),
        row("keys forgotten", collected.keys_expired.len().to_string()),
        row("paths marked", collected.paths_marked.to_string()),
        row("paths waiting", collected.paths_waiting.to_string()),
        row("paths forgotten", collected.paths_expired.len().to_string()),
        row("packs rewritten", collected.packs_rewritten.to_string()),
        row("bytes copied", bytes(collected.bytes_copied)),
        row("packs marked", collected.packs_marked.to_string()),
        row("packs waiting", collected.packs_waiting.to_string()),
        row("packs deleted", collected.packs_deleted.to_string()),
        row("bytes deleted", bytes(collected.bytes_deleted)),
    ];
    let title = match collected.dry_run {
        true => format!("{}: would be done", collected.storage),
        false => format!("{}: done", collected.storage),
    };
    rows.retain(|row| row[1] != "0" && row[1] != "0 B");
    let mut out = format!("{title}\n{}", table(&rows));
    if !collected.undeletable.is_empty() {
        out.push_str("this registry deletes nothing; these tags are not needed any more, and may be deleted by hand:\n");
        for name in &collected.undeletable {
            out.push_str(&format!("  firn-{name}\n"));
        }
    }
    out
}
