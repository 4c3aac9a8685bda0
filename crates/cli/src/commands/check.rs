//! `firn check`.

use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::{show, table},
    storage::{StorageArgs, refresh},
    units::{bytes, parse_bytes},
};
use firn_client::{
    ClientError,
    http::ServerUrl,
    progress::Progress as _,
    pull::BinaryCache,
    repair::{Replica, heal, heal_from_cache},
    storage,
};
use firn_formats::admin::{CheckRequest, CheckView, FindingView, ReadData};
use firn_formats::nix::StorePath;
use firn_server::StoreError;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Names of broken things that are shown of one finding; `--json` has more.
const NAMED_MAX: usize = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    storage: StorageArgs,
    /// Read every byte too, or part N of T (1/7 each night)
    #[arg(long, value_name = "N/T", num_args = 0..=1, default_missing_value = "1/1", require_equals = true,
        value_parser = parse_part)]
    read_data: Option<(u32, u32)>,
    /// Read no more than this a second, such as 50M
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, requires = "read_data")]
    rate: Option<u64>,
    /// Go on where the last reading of this part stopped
    #[arg(long, requires = "read_data")]
    resume: bool,
    /// Heal a running server's damaged chunks from another store (a data folder, /FOLDER, s3://…, oci://…) or from
    /// a binary cache that has the paths (https://…)
    #[arg(long, value_name = "LOCATION", conflicts_with = "storage")]
    repair_from: Option<String>,
    /// The server's configuration (JSON), for a folder that no server has open
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn parse_part(text: &str) -> Result<(u32, u32), String> {
    let part = text.split_once('/').and_then(|(part, parts)| {
        let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
        (1 <= part && part <= parts).then_some((part, parts))
    });
    part.ok_or_else(|| "a part is N/T, N from 1 to T, such as 1/7".to_owned())
}

impl Args {
    fn read_data(&self) -> Option<ReadData> {
        self.read_data.map(|part| ReadData {
            part,
            rate: self.rate,
            resume: self.resume,
        })
    }
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let locations = args.storage.instead_of_server(global)?;
    let mut view = if locations.is_empty() {
        of_server(global, args)?
    } else {
        of_storage(global, args, &locations)?
    };
    let mut healed = None;
    if let Some(from) = &args.repair_from {
        healed = Some(repair(global, args, from, &view)?);
        // What is damaged still, after the repair.
        view = of_server(global, &args.structure_only())?;
    }
    show(global.json, &view, |view| text(view, healed))?;
    if !view.damaged {
        return Ok(());
    }
    let damaged = view
        .findings
        .iter()
        .filter(|finding| finding.damage)
        .count();
    let failure = Failure::new(match view.findings.iter().any(is_of_damage) {
        true => format!("{damaged} findings of damage"),
        false => format!("{damaged} findings of what cannot be read now"),
    });
    Err(hints(&view).into_iter().fold(failure, Failure::hint))
}

/// Heals what can be; says how many chunks.
fn repair(global: &Global, args: &Args, from: &str, view: &CheckView) -> Outcome<u64> {
    let server = global.connect()?;
    if !from.starts_with("http://") && !from.starts_with("https://") {
        return Ok(heal(&server, &Replica::open(from)?)?);
    }
    let cache = BinaryCache::new(ServerUrl::parse(from)?, None)?;
    cache.check()?;
    let mut healed = heal_from_cache(&server, &cache, &broken_paths(view))?;
    let mut last = healed;
    // A finding names so many paths and no more; the next check names others.
    while last > 0 {
        let view = of_server(global, &args.structure_only())?;
        last = heal_from_cache(&server, &cache, &broken_paths(&view))?;
        healed += last;
    }
    Ok(healed)
}

/// The store paths whose narinfos findings break.
fn broken_paths(view: &CheckView) -> Vec<StorePath> {
    let names = view.findings.iter().flat_map(|finding| &finding.breaks);
    let paths = names.filter_map(|name| name.strip_prefix("narinfo ")?.split(' ').next());
    let paths: BTreeSet<&str> = paths.collect();
    paths
        .into_iter()
        .filter_map(|path| StorePath::parse(path).ok())
        .collect()
}

impl Args {
    /// The same server, without anything else.
    fn structure_only(&self) -> Self {
        Self {
            storage: self.storage.clone(),
            read_data: None,
            rate: None,
            resume: false,
            repair_from: self.repair_from.clone(),
            config: self.config.clone(),
        }
    }
}

/// What to do next about each kind of damage.
fn hints(view: &CheckView) -> Vec<&'static str> {
    let has = |what: &str| {
        view.findings
            .iter()
            .any(|finding| finding.damage && finding.what == what)
    };
    let mut hints = Vec::new();
    if has("version") {
        hints.push("a newer or older firn wrote this folder: use that one");
    }
    if has("database") || has("pack-index") || has("chunk-row") {
        hints.push(
            "`firn rebuild` makes the database anew from packs and segments; stop the server first",
        );
    }
    if has("packs-away") {
        hints.push(
            "mount what holds the packs and check again: nothing was changed; if they are lost for good, make the \
             empty file that is named above in a folder that is there: then they count as lost",
        );
    }
    if has("pack-unreadable") || has("chunk-unreadable") {
        hints.push(
            "look at the disk and at the rights of its files: nothing was changed; a pack that will never be read \
             again counts as lost once its file is moved away",
        );
    }
    if has("chunk-damaged") || has("pack-lost") || has("pack-length") || has("blob") {
        hints.push(
            "push what is broken again, or heal it from a copy: firn check --repair-from LOCATION",
        );
    }
    hints
}

/// A running server, or the folder that `--data` names.
fn of_server(global: &Global, args: &Args) -> Outcome<CheckView> {
    let bar = global.progress();
    let mut before = 0;
    let mut told = |done: u64, total: u64| {
        if before == 0 && done > 0 {
            bar.begin("reading", total);
        }
        bar.advance(done.saturating_sub(before));
        before = before.max(done);
    };
    let read_data = args.read_data();
    let folder = global.data_given().is_some() && global.server_given().is_none();
    let view = if folder && args.repair_from.is_none() {
        let config = super::serve::config(global, args.config.as_deref())?;
        if !config.data.is_dir() {
            return Err(
                Failure::new(format!("{} is no folder", config.data.display()))
                    .hint("--data DIR says where the server's data lie"),
            );
        }
        firn_server::check(&config, read_data.as_ref(), &mut told).map_err(|error| {
            let failure = Failure::of(&error);
            match error {
                StoreError::Locked(_) => {
                    failure.hint("--server URL checks it while its server runs")
                }
                _ => failure,
            }
        })?
    } else {
        global
            .connect()?
            .check(&CheckRequest { read_data }, &mut told)?
    };
    bar.end();
    Ok(view)
}

/// Stores without a server, one after the other.
fn of_storage(
    global: &Global,
    args: &Args,
    locations: &[storage::StorageLocation],
) -> Outcome<CheckView> {
    if args.resume {
        return Err(
            Failure::new("a store without a server keeps no position to go on from")
                .hint("read it in parts that are short enough: --read-data=1/7, then 2/7 …"),
        );
    }
    let mut all = CheckView::default();
    for location in locations {
        let store = args.storage.open(location)?;
        refresh(&store)?;
        let bar = global.progress();
        bar.begin("reading", 0);
        let (began, mut read) = (Instant::now(), 0);
        let mut told = |bytes: u64| {
            bar.expect(bytes);
            bar.advance(bytes);
            read += bytes;
            if let Some(rate) = args.rate.filter(|rate| *rate > 0) {
                let due = Duration::from_secs_f64(read as f64 / rate as f64);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
        };
        let report =
            storage::check_storage(&store, args.read_data, &mut told).map_err(ClientError::from)?;
        bar.end();
        merge(&mut all, firn_server::check_view(report));
    }
    Ok(all)
}

fn merge(all: &mut CheckView, one: CheckView) {
    all.damaged |= one.damaged;
    all.packs += one.packs;
    all.chunks += one.chunks;
    all.blobs += one.blobs;
    all.entries += one.entries;
    all.segments += one.segments;
    all.bytes_read += one.bytes_read;
    all.chunks_read += one.chunks_read;
    all.findings.extend(one.findings);
}

/// What cannot be read now may be whole.
fn is_of_damage(finding: &FindingView) -> bool {
    let passing = ["packs-away", "pack-unreadable", "chunk-unreadable"];
    finding.damage && !passing.contains(&finding.what.as_str())
}

fn lines(finding: &FindingView) -> String {
    let word = match finding.damage {
        true if is_of_damage(finding) => "damage",
        true => "unreadable",
        false => "note",
    };
    let mut out = format!(
        "{word}: {}: {}: {}\n",
        finding.what, finding.subject, finding.detail
    );
    if !finding.breaks.is_empty() {
        let shown: Vec<&str> = finding
            .breaks
            .iter()
            .take(NAMED_MAX)
            .map(String::as_str)
            .collect();
        out.push_str(&format!("  breaks: {}", shown.join("; ")));
        let rest = finding.breaks_total.saturating_sub(shown.len() as u64);
        if rest > 0 {
            out.push_str(&format!("; and {rest} more"));
        }
        out.push('\n');
    }
    out
}

fn text(view: &CheckView, healed: Option<u64>) -> String {
    let mut out: String = view.findings.iter().map(lines).collect();
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("packs", view.packs.to_string()),
        row("chunks", view.chunks.to_string()),
        row("blobs", view.blobs.to_string()),
        row("entries", view.entries.to_string()),
        row("segments", view.segments.to_string()),
    ];
    if view.bytes_read > 0 {
        rows.push(row("bytes read", bytes(view.bytes_read)));
    }
    if view.chunks_quarantined > 0 {
        rows.push(row(
            "chunks put into quarantine",
            view.chunks_quarantined.to_string(),
        ));
    }
    if view.chunks_restored > 0 {
        rows.push(row(
            "chunks found good again",
            view.chunks_restored.to_string(),
        ));
    }
    if let Some(healed) = healed {
        rows.push(row("chunks healed", healed.to_string()));
    }
    if !view.damaged {
        rows.push(row("damage", "none".to_owned()));
    }
    out.push_str(&table(&rows));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_n_of_t() {
        assert_eq!(parse_part("2/7"), Ok((2, 7)));
        for text in ["0/7", "8/7", "7", "a/b", "1/0"] {
            assert!(parse_part(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_finding_says_what_it_breaks() {
        let finding = FindingView {
            what: "pack-lost".to_owned(),
            damage: true,
            subject: "packs/a".to_owned(),
            detail: "its file is not here".to_owned(),
            breaks: (0..12).map(|n| format!("image main/app:{n}")).collect(),
            breaks_total: 12,
        };
        let text = lines(&finding);
        assert!(text.starts_with(
            "damage: pack-lost: packs/a: its file is not here\n  breaks: image main/app:0; "
        ));
        assert!(text.ends_with("; and 2 more\n"), "{text}");
    }
}
