//! `firn ci summary`.

use super::args::StateArgs;
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::{show, table},
    units::{bytes, duration},
};
use firn_client::{
    ci::{
        event::process_environment,
        runner::append_text,
        save::SaveReport,
        state::{DaemonState, DaemonStats, JobState, StateDir},
        summary::{Summary, status_line},
    },
    http::{Call, Http},
};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state: StateArgs,
}

pub(super) fn run(global: &Global, args: &Args) -> Outcome {
    let state = args.state.dir()?;
    let job: JobState = state.read("job.json")?.ok_or_else(|| {
        Failure::new(format!("no job is noted in {}", state.path().display()))
            .hint("`firn ci restore` begins one; --state DIR says where it noted it")
    })?;
    let save: Option<SaveReport> = state.read("save.json")?;
    let stats = stats(&state)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    let ended_at = save.as_ref().map_or(now, |save| save.ended_at);
    let seconds = ended_at.saturating_sub(job.started_at) as f64 / 1000.0;
    let summary = Summary::new(&job, &stats, save.as_ref(), seconds);
    let line = status_line(&job);
    let rows = rows(&summary);
    append_text(
        &process_environment,
        "GITHUB_STEP_SUMMARY",
        &markdown(&line, &rows),
    )?;
    show(global.json, &summary, |_| {
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|(name, value)| vec![name.clone(), value.clone()])
            .collect();
        format!("{line}\n{}", table(&rows))
    })
}

/// From the daemon, or what it left.
fn stats(state: &StateDir) -> Outcome<DaemonStats> {
    if let Some(left) = state.read::<DaemonStats>("stats.json")? {
        return Ok(left);
    }
    let Some(daemon) = state
        .read::<DaemonState>("daemon.json")?
        .filter(|_| state.daemon_lives())
    else {
        return Ok(DaemonStats::default());
    };
    // The cache's name has one component or two; the nonce stands before it.
    let mut parts = daemon.url.splitn(5, '/');
    let root: Vec<&str> = parts.by_ref().take(4).collect();
    let answer = Http::new(1)?.send(&Call::get(format!("{}/stats", root.join("/"))))?;
    Ok(answer.accept()?.json()?)
}

fn rows(summary: &Summary) -> Vec<(String, String)> {
    let mut rows = vec![
        row("store", summary.storage.clone()),
        row("key", summary.key.clone()),
    ];
    let mut add = |name: &str, value: String| rows.push(row(name, value));
    if let Some(matched) = summary.matched_key.as_ref().filter(|_| !summary.cache_hit) {
        add("matched", matched.clone());
    }
    let restored = format!(
        "{} ({})",
        summary.paths_restored,
        bytes(summary.bytes_restored)
    );
    add("paths restored", restored);
    add("paths built", summary.paths_built.to_string());
    if summary.paths_upstream > 0 {
        add(
            "paths of upstream caches",
            summary.paths_upstream.to_string(),
        );
    }
    add("paths saved", saved(summary));
    if summary.folder_bytes_restored > 0 {
        add(
            "other folders restored",
            bytes(summary.folder_bytes_restored),
        );
    }
    add("fetched", bytes(summary.bytes_fetched));
    if summary.bytes_local > 0 {
        add("found on this machine", bytes(summary.bytes_local));
    }
    add("sent", bytes(summary.bytes_sent));
    let requests = format!(
        "{} ({} before Nix could ask)",
        summary.requests, summary.requests_restore
    );
    add("requests to the store", requests);
    let time = format!(
        "restore {}, job {}, save {}",
        duration(summary.seconds_restore),
        duration(summary.seconds_job),
        duration(summary.seconds_save)
    );
    add("time", time);
    if let (Some(cold), Some(won)) = (summary.seconds_cold, summary.seconds_won) {
        let word = if won < 0.0 { "slower" } else { "won" };
        add(
            "against a cold run",
            format!("{} {word} of {}", duration(won.abs()), duration(cold)),
        );
    }
    rows
}

fn row(name: &str, value: String) -> (String, String) {
    (name.to_owned(), value)
}

fn saved(summary: &Summary) -> String {
    match &summary.not_saved {
        Some(why) => format!("none: {why}"),
        None if summary.unchanged => "none: nothing new".to_owned(),
        None if summary.incomplete => format!("{}, then the deadline came", summary.paths_saved),
        None => summary.paths_saved.to_string(),
    }
}

fn markdown(line: &str, rows: &[(String, String)]) -> String {
    let mut text = format!("### {line}\n\n| Nix store cache | |\n|---|---|\n");
    for (name, value) in rows {
        let value = value.replace('|', "\\|").replace(['\n', '\r'], " ");
        text.push_str(&format!("| {name} | {value} |\n"));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_figure() {
        let summary = Summary {
            key: "a|b".to_owned(),
            matched_key: Some("a".to_owned()),
            seconds_cold: Some(3180.0),
            seconds_won: Some(3000.0),
            unchanged: true,
            ..Summary::default()
        };
        let text = markdown("✅ line", &rows(&summary));
        assert!(text.contains("| key | a\\|b |\n"), "{text}");
        assert!(text.contains("| matched | a |"), "{text}");
        assert!(text.contains("none: nothing new"), "{text}");
        assert!(text.contains("50 min won of 53 min"), "{text}");
    }
}
