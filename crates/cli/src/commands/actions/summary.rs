//! `firn actions summary`: what the cache did for a job, as lines for a log and as a table for its page.

use super::{RepositoryArgs, connect, entries::when, full_ref, history};
use crate::{
    context::Global,
    failure::Outcome,
    output::{show, table},
    units::{ago, bytes, duration, parse_duration},
};
use firn_client::ci::{event::process_environment, runner::append_text};
use firn_formats::{
    actions::github::{CacheEntry, ListQuery},
    admin::ActionsLookupView,
};
use serde::Serialize;
use std::time::Duration;

/// Look-ups that are looked at.
const EVENTS_MAX: usize = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// The ref of the job, or its branch
    #[arg(long = "ref", env = "GITHUB_REF", value_name = "REF")]
    scope: Option<String>,
    /// Only keys that begin so; may be repeated [default: all that the job's ref looked for]
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// How long ago the job began, at most
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = parse_duration)]
    since: Duration,
}

/// One key of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Line {
    key: String,
    /// `hit`, `partial`, `miss`, or `saved` for what was saved and not looked for.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched_key: Option<String>,
    /// Of the entry that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// How long its download took.
    #[serde(skip_serializing_if = "Option::is_none")]
    restored_ms: Option<u64>,
    /// Why nothing was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// When it was looked for, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<i64>,
    /// When the entry that was found was saved; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    found_saved_at: Option<String>,
    /// Size of the entry that the job saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_size: Option<u64>,
}

pub(super) fn run(global: &Global, args: &Args) -> Outcome {
    let repository = args.repository.needed(global)?;
    let server = connect(global)?;
    let since = history::before(args.since);
    let scope = args.scope.as_deref().map(full_ref);
    let mut events = server.actions_history(&repository, None, Some(since), EVENTS_MAX)?;
    let entries = server.actions_entries(&repository, &ListQuery::default())?;
    let meant = |key: &str, of: &str| {
        scope.as_ref().is_none_or(|scope| scope == of)
            && (args.key.is_empty() || args.key.iter().any(|begin| key.starts_with(begin)))
    };
    events
        .lookups
        .retain(|looked| meant(&looked.key, &looked.scope));
    let saved = entries
        .iter()
        .filter(|entry| meant(&entry.key, &entry.scope) && saved_since(entry, since));
    let lines = lines(&events.lookups, &entries, &saved.collect::<Vec<_>>());
    append_text(
        &process_environment,
        "GITHUB_STEP_SUMMARY",
        &markdown(&lines),
    )?;
    show(global.json, &lines, |lines| {
        let status: String = lines.iter().map(|line| status(line) + "\n").collect();
        let rows: Vec<Vec<String>> = lines.iter().map(|line| row(line).to_vec()).collect();
        format!("{status}{}", table(&rows))
    })
}

fn saved_since(entry: &CacheEntry, since: i64) -> bool {
    let at = entry.created_at.parse::<jiff::Timestamp>();
    at.is_ok_and(|at| at.as_second() >= since)
}

/// Of each key the newest look-up, in the order in which they came; then what was saved besides.
fn lines(
    lookups: &[ActionsLookupView],
    entries: &[CacheEntry],
    saved: &[&CacheEntry],
) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for looked in lookups {
        if lines.iter().all(|line| line.key != looked.key) {
            lines.push(line(looked, entries, saved));
        }
    }
    lines.reverse();
    for entry in saved {
        if lines.iter().all(|line| line.key != entry.key) {
            lines.push(Line {
                key: entry.key.clone(),
                result: "saved",
                matched_key: None,
                size: None,
                restored_ms: None,
                why: None,
                at: None,
                found_saved_at: None,
                saved_size: Some(entry.size_in_bytes),
            });
        }
    }
    lines
}

fn line(looked: &ActionsLookupView, entries: &[CacheEntry], saved: &[&CacheEntry]) -> Line {
    let hit = looked.hit.as_ref();
    let found = hit.and_then(|hit| entries.iter().find(|entry| entry.id == hit.id));
    // What was found was not saved by this job.
    let own = saved
        .iter()
        .find(|entry| entry.key == looked.key && hit.is_none_or(|hit| hit.id != entry.id));
    Line {
        key: looked.key.clone(),
        result: match hit {
            Some(hit) if hit.exact => "hit",
            Some(_) => "partial",
            None => "miss",
        },
        matched_key: hit.map(|hit| hit.key.clone()),
        size: hit.map(|hit| hit.size),
        restored_ms: hit.and_then(|hit| hit.restored_ms),
        why: looked.miss.as_ref().map(history::missed),
        at: Some(looked.at),
        found_saved_at: found.map(|entry| entry.created_at.clone()),
        saved_size: own.map(|entry| entry.size_in_bytes),
    }
}

/// The line that says how it went.
fn status(line: &Line) -> String {
    let mut size = line.size.map(bytes).unwrap_or_default();
    if let Some(restored) = line.restored_ms {
        size.push_str(&format!(" in {}", took(restored)));
    }
    match (line.result, &line.matched_key) {
        ("hit", _) => format!("✅ Cache hit: {} ({size})", line.key),
        ("partial", Some(matched)) => {
            format!("◐ Cache partial: {} matched {matched} ({size})", line.key)
        }
        ("saved", _) => format!("💾 Cache saved: {}", line.key),
        _ => format!(
            "❌ Cache miss: {}: {}",
            line.key,
            line.why.as_deref().unwrap_or("nothing is known of it")
        ),
    }
}

fn took(milliseconds: u64) -> String {
    duration(milliseconds as f64 / 1000.0)
}

/// Key, result, matched key, size, times.
fn row(line: &Line) -> [String; 6] {
    let mut result = line.result.to_owned();
    if let Some(why) = &line.why {
        result.push_str(&format!(": {why}"));
    }
    let dash = || "–".to_owned();
    [
        line.key.clone(),
        result,
        line.matched_key.clone().unwrap_or_else(dash),
        line.size.map_or_else(dash, bytes),
        match (&line.found_saved_at, line.at) {
            (Some(saved), _) => {
                let restored = line
                    .restored_ms
                    .map(|restored| format!("restored in {}, ", took(restored)));
                format!("{}saved {}", restored.unwrap_or_default(), when(saved))
            }
            (None, Some(at)) => format!("asked {}", ago(at)),
            _ => dash(),
        },
        line.saved_size
            .map_or_else(dash, |size| format!("saved {}", bytes(size))),
    ]
}

fn markdown(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&format!("### {}\n\n", cell(&status(line))));
    }
    text.push_str("| cache key | result | matched key | size | time | this job |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for line in lines {
        let cells = row(line).map(|text| cell(&text));
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text.push('\n');
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_formats::admin::{ActionsHitView, ActionsMissView};

    fn entry(id: u64, key: &str) -> CacheEntry {
        CacheEntry {
            id,
            scope: "refs/heads/main".to_owned(),
            key: key.to_owned(),
            version: "v".to_owned(),
            last_accessed_at: "2026-01-01T00:00:00Z".to_owned(),
            created_at: "2026-01-01T00:00:00Z".to_owned(),
            size_in_bytes: 1000,
            form: "decoded".to_owned(),
        }
    }

    fn looked(key: &str, found: Option<(u64, &str)>) -> ActionsLookupView {
        ActionsLookupView {
            at: 1,
            key: key.to_owned(),
            restore_keys: Vec::new(),
            version: "v".to_owned(),
            scope: "refs/heads/main".to_owned(),
            hit: found.map(|(id, matched)| ActionsHitView {
                id,
                key: matched.to_owned(),
                scope: "refs/heads/main".to_owned(),
                exact: key == matched,
                size: 1000,
                restored_ms: Some(1234),
            }),
            miss: found.is_none().then_some(ActionsMissView::NeverSaved),
        }
    }

    #[test]
    fn hits_misses_and_saves_have_their_lines() {
        let entries = [entry(1, "a"), entry(2, "b-1"), entry(3, "c"), entry(4, "d")];
        let saved = [&entries[2], &entries[3]];
        // The newest first, as the server tells them.
        let lookups = [
            looked("a", Some((1, "a"))),
            looked("c", None),
            looked("b-2", Some((2, "b-1"))),
            looked("a", None),
        ];
        let lines = lines(&lookups, &entries, &saved);
        let told: Vec<String> = lines.iter().map(status).collect();
        assert_eq!(
            told,
            [
                "◐ Cache partial: b-2 matched b-1 (1.0 kB in 1.2 s)",
                "❌ Cache miss: c: never saved",
                "✅ Cache hit: a (1.0 kB in 1.2 s)",
                "💾 Cache saved: d",
            ]
        );
        assert_eq!(lines[1].saved_size, Some(1000));
        assert_eq!(lines[2].saved_size, None);
        let page = markdown(&lines);
        assert!(
            page.contains("| c | miss: never saved | – | – | asked "),
            "{page}"
        );
        assert!(page.contains("| saved 1.0 kB |"), "{page}");
        assert!(page.contains("| restored in 1.2 s, saved "), "{page}");
    }

    #[test]
    fn a_key_cannot_break_the_table() {
        let lines = lines(&[looked("a|b\nc", None)], &[], &[]);
        assert!(markdown(&lines).contains("| a\\|b c | miss"));
    }
}
