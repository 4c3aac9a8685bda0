//! `firn actions history` and `why`: hits, misses and evictions, with their reasons.

use super::{RepositoryArgs, connect, entries::when};
use crate::{
    context::Global,
    failure::Outcome,
    output::{show, table},
    units::{ago, bytes, parse_duration},
};
use firn_formats::{
    actions::github::{CacheEntry, ListQuery},
    admin::{ActionsGoneView, ActionsHistory, ActionsLookupView, ActionsMissView, EvictionCause},
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Events that are looked at.
const EVENTS_MAX: usize = 10_000;
/// Look-ups of a key that are shown.
const SHOWN: usize = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct History {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Only of so long, such as 1h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
    /// Only of this key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Why {
    /// The key
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// What became of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct OfKey {
    key: String,
    hits: u64,
    /// Hits by a beginning or a restore key.
    partial_hits: u64,
    misses: u64,
    /// Why it was missed, and how often.
    miss_reasons: BTreeMap<String, u64>,
    evictions: u64,
    /// Why it went, and how often.
    eviction_reasons: BTreeMap<String, u64>,
    /// Seconds since 1970.
    last_at: i64,
}

#[derive(Debug, Serialize)]
struct Report {
    keys: Vec<OfKey>,
    #[serde(flatten)]
    events: ActionsHistory,
}

#[derive(Debug, Serialize)]
struct Story {
    key: String,
    entries: Vec<CacheEntry>,
    #[serde(flatten)]
    events: ActionsHistory,
}

/// The time so long ago, in seconds since 1970.
pub(super) fn before(time: Duration) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let at = now.unwrap_or_default().saturating_sub(time);
    i64::try_from(at.as_secs()).unwrap_or(i64::MAX)
}

/// Why nothing was found, in words.
pub(super) fn missed(miss: &ActionsMissView) -> String {
    match miss {
        ActionsMissView::Saving => "another job was saving it".to_owned(),
        ActionsMissView::Evicted { why, at } => format!("{}, {}", went(*why), ago(*at)),
        ActionsMissView::OtherVersion => {
            "saved under another version: other paths, or another compression".to_owned()
        }
        // The server does not name a scope that the token may not read.
        ActionsMissView::OtherScope { scope } if scope.is_empty() => {
            "scope: saved in another, which the job does not read".to_owned()
        }
        ActionsMissView::OtherScope { scope } => {
            format!("scope: saved in {scope}, which the job does not read")
        }
        ActionsMissView::KeyChanged { newest } => format!("key changed: the newest is {newest}"),
        ActionsMissView::NeverSaved => "never saved".to_owned(),
    }
}

/// The same in a word or two, to be counted.
fn reason(miss: &ActionsMissView) -> String {
    match miss {
        ActionsMissView::Saving => "being saved",
        ActionsMissView::Evicted { why, .. } => went(*why),
        ActionsMissView::OtherVersion => "other version",
        ActionsMissView::OtherScope { .. } => "scope",
        ActionsMissView::KeyChanged { .. } => "key changed",
        ActionsMissView::NeverSaved => "never saved",
    }
    .to_owned()
}

fn went(cause: EvictionCause) -> &'static str {
    match cause {
        EvictionCause::Unused => "evicted, unused",
        EvictionCause::Quota => "evicted, over quota",
        EvictionCause::Deleted => "deleted",
        EvictionCause::Replaced => "replaced",
    }
}

fn counted(events: &ActionsHistory) -> Vec<OfKey> {
    let mut keys: BTreeMap<&str, OfKey> = BTreeMap::new();
    for looked in &events.lookups {
        let of = keys.entry(&looked.key).or_default();
        of.last_at = of.last_at.max(looked.at);
        match (&looked.hit, &looked.miss) {
            (Some(hit), _) if hit.exact => of.hits += 1,
            (Some(_), _) => of.partial_hits += 1,
            (None, miss) => {
                of.misses += 1;
                let reason = miss.as_ref().map_or_else(String::new, reason);
                *of.miss_reasons.entry(reason).or_default() += 1;
            }
        }
    }
    for gone in &events.gone {
        let of = keys.entry(&gone.key).or_default();
        of.last_at = of.last_at.max(gone.at);
        of.evictions += 1;
        let reason = went(gone.reason).to_owned();
        *of.eviction_reasons.entry(reason).or_default() += 1;
    }
    let mut all: Vec<OfKey> = keys
        .into_iter()
        .map(|(key, of)| OfKey {
            key: key.to_owned(),
            ..of
        })
        .collect();
    all.sort_by_key(|of| std::cmp::Reverse(of.last_at));
    all
}

pub(super) fn history(global: &Global, args: &History) -> Outcome {
    let repository = args.repository.needed(global)?;
    let since = args.since.map(before);
    let server = connect(global)?;
    let events = server.actions_history(&repository, args.key.as_deref(), since, EVENTS_MAX)?;
    let report = Report {
        keys: counted(&events),
        events,
    };
    show(global.json, &report, |report| {
        table(&report.keys.iter().map(row).collect::<Vec<_>>())
    })
}

fn row(of: &OfKey) -> Vec<String> {
    let reasons = |reasons: &BTreeMap<String, u64>| {
        let told: Vec<String> = reasons
            .iter()
            .map(|(reason, count)| match count {
                1 => reason.clone(),
                _ => format!("{reason} {count}×"),
            })
            .collect();
        match told.is_empty() {
            true => String::new(),
            false => format!(" ({})", told.join(", ")),
        }
    };
    vec![
        of.key.clone(),
        format!("{} hits", of.hits),
        format!("{} partial", of.partial_hits),
        format!("{} misses{}", of.misses, reasons(&of.miss_reasons)),
        format!("{} went{}", of.evictions, reasons(&of.eviction_reasons)),
        ago(of.last_at),
    ]
}

pub(super) fn why(global: &Global, args: &Why) -> Outcome {
    let repository = args.repository.needed(global)?;
    let server = connect(global)?;
    let wanted = ListQuery {
        key: Some(args.key.clone()),
        ..ListQuery::default()
    };
    let mut entries = server.actions_entries(&repository, &wanted)?;
    entries.retain(|entry| entry.key == args.key);
    let story = Story {
        key: args.key.clone(),
        entries,
        events: server.actions_history(&repository, Some(&args.key), None, EVENTS_MAX)?,
    };
    show(global.json, &story, told)
}

fn told(story: &Story) -> String {
    let mut rows: Vec<Vec<String>> = story.entries.iter().map(here).collect();
    rows.extend(story.events.gone.iter().map(gone));
    let lookups = &story.events.lookups;
    rows.extend(lookups.iter().take(SHOWN).map(looked));
    if rows.is_empty() {
        return format!(
            "{} was neither saved nor looked for, as far as is remembered",
            story.key
        );
    }
    let more = lookups.len().saturating_sub(SHOWN);
    let more = match more {
        0 => String::new(),
        more => format!("and {more} earlier look-ups\n"),
    };
    format!("{}{more}", table(&rows))
}

fn here(entry: &CacheEntry) -> Vec<String> {
    vec![
        "here".to_owned(),
        format!("saved {}", when(&entry.created_at)),
        entry.scope.clone(),
        format!(
            "{}, last used {}, version {:.12}",
            bytes(entry.size_in_bytes),
            when(&entry.last_accessed_at),
            entry.version
        ),
    ]
}

fn gone(gone: &ActionsGoneView) -> Vec<String> {
    vec![
        "gone".to_owned(),
        ago(gone.at),
        gone.scope.clone(),
        format!(
            "{}; {}, last used {}, version {:.12}",
            went(gone.reason),
            bytes(gone.size),
            ago(gone.used_at),
            gone.version
        ),
    ]
}

/// How a look-up went, in words.
pub(super) fn outcome(looked: &ActionsLookupView) -> String {
    match (&looked.hit, &looked.miss) {
        (Some(hit), _) if hit.exact => format!("hit, {}", bytes(hit.size)),
        (Some(hit), _) => format!("partial: {} in {}, {}", hit.key, hit.scope, bytes(hit.size)),
        (None, Some(miss)) => format!("miss: {}", missed(miss)),
        (None, None) => "miss".to_owned(),
    }
}

fn looked(looked: &ActionsLookupView) -> Vec<String> {
    vec![
        "looked for".to_owned(),
        ago(looked.at),
        looked.scope.clone(),
        format!("{}, version {:.12}", outcome(looked), looked.version),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_formats::admin::ActionsHitView;

    fn lookup(key: &str, hit: Option<bool>, miss: Option<ActionsMissView>) -> ActionsLookupView {
        ActionsLookupView {
            at: 7,
            key: key.to_owned(),
            restore_keys: Vec::new(),
            version: "v".to_owned(),
            scope: "refs/heads/main".to_owned(),
            hit: hit.map(|exact| ActionsHitView {
                id: 1,
                key: "k-1".to_owned(),
                scope: "refs/heads/main".to_owned(),
                exact,
                size: 10,
                restored_ms: None,
            }),
            miss,
        }
    }

    #[test]
    fn each_key_is_counted_with_its_reasons() {
        let evicted = ActionsMissView::Evicted {
            why: EvictionCause::Quota,
            at: 5,
        };
        let newest = "k-0".to_owned();
        let events = ActionsHistory {
            lookups: vec![
                lookup("k-1", Some(true), None),
                lookup("k-2", Some(false), None),
                lookup("k-1", None, Some(evicted.clone())),
                lookup("k-1", None, Some(evicted)),
                lookup("k-1", None, Some(ActionsMissView::KeyChanged { newest })),
            ],
            gone: vec![ActionsGoneView {
                at: 9,
                key: "k-1".to_owned(),
                version: "v".to_owned(),
                scope: "s".to_owned(),
                size: 10,
                reason: EvictionCause::Quota,
                used_at: 3,
            }],
        };
        let keys = counted(&events);
        assert_eq!((keys[0].key.as_str(), keys[0].last_at), ("k-1", 9));
        assert_eq!((keys[0].hits, keys[0].misses, keys[0].evictions), (1, 3, 1));
        assert_eq!(keys[1].partial_hits, 1);
        let shown = row(&keys[0]).join(" ");
        assert!(
            shown.contains("3 misses (evicted, over quota 2×, key changed)"),
            "{shown}"
        );
        assert!(shown.contains("1 went (evicted, over quota)"), "{shown}");
    }

    #[test]
    fn a_scope_and_a_key_are_named() {
        let scope = "refs/heads/dev".to_owned();
        let text = missed(&ActionsMissView::OtherScope { scope });
        assert!(text.contains("refs/heads/dev"), "{text}");
        let partial = outcome(&lookup("k-2", Some(false), None));
        assert_eq!(partial, "partial: k-1 in refs/heads/main, 10 B");
    }
}
