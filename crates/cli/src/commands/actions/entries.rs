//! `firn actions list`, `delete`, `replace`, `usage`.

use super::{RepositoryArgs, connect, full_ref};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::{show, table},
    units::{ago, bytes, duration},
};
use firn_client::api::{ActionsRepository, Server};
use firn_formats::{
    actions::github::{CacheEntry, CacheUsage, ListQuery},
    admin::{ActionsReplace, ActionsReplaceable, ActionsRepositoryView},
};

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Only entries of this ref, or branch
    #[arg(long = "ref", value_name = "REF")]
    scope: Option<String>,
    /// Only entries whose keys begin so
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// A key, or the id of an entry
    #[arg(value_name = "KEY", required_unless_present = "all")]
    key: Option<String>,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Only of this ref, or branch
    #[arg(long = "ref", value_name = "REF")]
    scope: Option<String>,
    /// All entries
    #[arg(long, conflicts_with = "key")]
    all: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Replace {
    /// The key
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Only of this ref, or branch
    #[arg(long = "ref", value_name = "REF")]
    scope: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UsageArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
}

fn wanted(key: Option<&String>, scope: Option<&String>) -> ListQuery {
    ListQuery {
        key: key.cloned(),
        scope: scope.map(|scope| full_ref(scope)),
        ..ListQuery::default()
    }
}

pub(super) fn list(global: &Global, args: &List) -> Outcome {
    let repository = args.repository.needed(global)?;
    let wanted = wanted(args.key.as_ref(), args.scope.as_ref());
    let entries = connect(global)?.actions_entries(&repository, &wanted)?;
    show(global.json, &entries, |entries| text(entries))
}

/// RFC 3339 as people say it.
pub(super) fn when(time: &str) -> String {
    let parsed = time.parse::<jiff::Timestamp>();
    parsed.map_or_else(|_| time.to_owned(), |time| ago(time.as_second()))
}

fn text(entries: &[CacheEntry]) -> String {
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            vec![
                entry.id.to_string(),
                bytes(entry.size_in_bytes),
                entry.form.clone(),
                format!("saved {}", when(&entry.created_at)),
                format!("used {}", when(&entry.last_accessed_at)),
                entry.scope.clone(),
                entry.key.clone(),
            ]
        })
        .collect();
    table(&rows)
}

pub(super) fn delete(global: &Global, args: &Delete) -> Outcome {
    let repository = args.repository.needed(global)?;
    let server = connect(global)?;
    let scope = args.scope.as_deref().map(full_ref);
    let gone = match &args.key {
        Some(key) => delete_key(&server, &repository, key, scope.as_deref())?,
        None => delete_all(&server, &repository, args.scope.as_ref())?,
    };
    show(global.json, &gone, |gone| {
        let size = gone.iter().map(|entry| entry.size_in_bytes).sum();
        format!(
            "{}deleted {} entries, {}",
            text(gone),
            gone.len(),
            bytes(size)
        )
    })
}

/// A number is an id where an entry has it, and else a key.
fn delete_key(
    server: &Server,
    repository: &ActionsRepository,
    key: &str,
    scope: Option<&str>,
) -> Outcome<Vec<CacheEntry>> {
    if let Ok(id) = key.parse::<u64>() {
        let all = server.actions_entries(repository, &ListQuery::default())?;
        if let Some(entry) = all.into_iter().find(|entry| entry.id == id) {
            server.actions_delete(repository, id)?;
            return Ok(vec![entry]);
        }
    }
    match server.actions_delete_key(repository, key, scope) {
        Ok(list) => Ok(list.actions_caches),
        Err(error) if error.status() == Some(404) => Err(absent(repository, key)),
        Err(error) => Err(error.into()),
    }
}

fn absent(repository: &ActionsRepository, key: &str) -> Failure {
    let name = &repository.name;
    Failure::new(format!("{name} has no entry with the key {key}")).hint(format!(
        "`firn actions list --repo {name}` lists them; `firn actions why {key}` says what became of one"
    ))
}

fn delete_all(
    server: &Server,
    repository: &ActionsRepository,
    scope: Option<&String>,
) -> Outcome<Vec<CacheEntry>> {
    let entries = server.actions_entries(repository, &wanted(None, scope))?;
    for entry in &entries {
        server.actions_delete(repository, entry.id)?;
    }
    Ok(entries)
}

pub(super) fn replace(global: &Global, args: &Replace) -> Outcome {
    let repository = args.repository.needed(global)?;
    let request = ActionsReplace {
        key: args.key.clone(),
        scope: args.scope.as_deref().map(full_ref),
    };
    match connect(global)?.actions_replace(&repository, &request) {
        Ok(answer) => show(global.json, &answer, replaceable),
        Err(error) if error.status() == Some(404) => Err(absent(&repository, &args.key)),
        Err(error) => Err(error.into()),
    }
}

fn replaceable(answer: &ActionsReplaceable) -> String {
    let until = jiff::Timestamp::from_second(answer.until);
    format!(
        "{} entries are replaced by the next save of this key that begins before {}; until then they are served",
        answer.entries,
        until.map_or_else(|_| String::new(), |time| time.to_string())
    )
}

pub(super) fn usage(global: &Global, args: &UsageArgs) -> Outcome {
    let server = connect(global)?;
    match args.repository.given(global)? {
        Some(repository) => show(global.json, &server.actions_usage(&repository)?, one),
        None => {
            let cache = global.cache_given();
            let all = server.actions_repositories(cache.as_deref())?;
            show(global.json, &all, |all| {
                table(&all.iter().map(row).collect::<Vec<_>>())
            })
        }
    }
}

fn share(stored: u64, quota: u64) -> String {
    let percent = 100.0 * stored as f64 / (quota.max(1)) as f64;
    format!(
        "{} stored of {} ({percent:.0}%)",
        bytes(stored),
        bytes(quota)
    )
}

fn one(usage: &CacheUsage) -> String {
    format!(
        "{}: {} entries, {} saved, {}",
        usage.full_name,
        usage.active_caches_count,
        bytes(usage.active_caches_size_in_bytes),
        share(usage.stored_bytes, usage.quota_bytes)
    )
}

fn row(view: &ActionsRepositoryView) -> Vec<String> {
    vec![
        view.repository.clone(),
        format!("{} entries", view.entries),
        format!("{} saved", bytes(view.bytes)),
        share(view.stored_bytes, view.quota_bytes),
        format!("kept {} unused", duration(view.keep_for_seconds as f64)),
    ]
}
