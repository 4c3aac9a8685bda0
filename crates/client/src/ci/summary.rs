//! What the cache was worth to a job, as lines for a log and as a table for its page.

use super::{
    save::SaveReport,
    state::{DaemonStats, JobState},
};
use serde::Serialize;

/// The figures of one job.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs)]
pub struct Summary {
    pub storage: String,
    pub key: String,
    pub matched_key: Option<String>,
    pub cache_hit: bool,
    /// Why nothing could be restored, if so.
    pub trouble: Option<String>,
    pub paths_restored: u64,
    pub bytes_restored: u64,
    /// Of those, found in paths that the machine had.
    pub bytes_local: u64,
    pub bytes_fetched: u64,
    pub folder_bytes_restored: u64,
    pub paths_built: u64,
    pub paths_upstream: u64,
    pub paths_saved: u64,
    pub bytes_sent: u64,
    /// Nothing was new.
    pub unchanged: bool,
    pub incomplete: bool,
    pub not_saved: Option<String>,
    pub requests_restore: u64,
    pub requests: u64,
    pub seconds_restore: f64,
    /// From restore to save, that is the job's own work.
    pub seconds_job: f64,
    pub seconds_save: f64,
    pub seconds_cold: Option<f64>,
    /// What was saved against the run that had nothing.
    pub seconds_won: Option<f64>,
}

impl Summary {
    /// From what the steps left. `job_seconds` is the time since restore.
    pub fn new(
        job: &JobState,
        stats: &DaemonStats,
        save: Option<&SaveReport>,
        job_seconds: f64,
    ) -> Self {
        let none = SaveReport::default();
        let saved = save.unwrap_or(&none);
        let seconds_job = (job_seconds - saved.seconds).max(0.0);
        let total = seconds_job + saved.seconds;
        let cold = job.seconds_cold.filter(|_| job.matched_key.is_some());
        Self {
            storage: job.storage.clone(),
            key: job.key.clone(),
            matched_key: job.matched_key.clone(),
            cache_hit: job.exact,
            trouble: job.trouble.clone(),
            paths_restored: stats.nars,
            bytes_restored: stats.nar_bytes,
            bytes_local: stats.bytes_local,
            bytes_fetched: stats.bytes_fetched,
            folder_bytes_restored: job.folder_bytes,
            paths_built: saved.paths_new,
            paths_upstream: saved.paths_upstream,
            paths_saved: saved.paths_pushed,
            bytes_sent: saved.bytes_sent,
            unchanged: saved.unchanged,
            incomplete: saved.incomplete,
            not_saved: saved.refused.clone(),
            requests_restore: job.requests,
            requests: job.requests + stats.requests + saved.requests,
            seconds_restore: job.restore_seconds,
            seconds_job,
            seconds_save: saved.seconds,
            seconds_cold: cold,
            seconds_won: cold.map(|cold| cold - total),
        }
    }
}

/// The line that says what matched.
pub fn status_line(job: &JobState) -> String {
    match (&job.matched_key, &job.trouble) {
        (_, Some(trouble)) => {
            format!("⚠️ Nix store cache not reached: {trouble}; the job goes on without it")
        }
        (Some(_), None) if job.exact => format!("✅ Nix store cache hit: {}", job.key),
        (Some(matched), None) => format!("◐ Nix store cache partial: matched {matched}"),
        (None, None) => format!(
            "❌ Nix store cache miss; {} paths of the store and the substituters are still used",
            job.store_paths
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(matched: Option<&str>, exact: bool) -> JobState {
        JobState {
            key: "nix-1".to_owned(),
            matched_key: matched.map(str::to_owned),
            exact,
            store_paths: 12,
            seconds_cold: Some(100.0),
            ..JobState::default()
        }
    }

    #[test]
    fn each_outcome_has_its_line() {
        assert_eq!(
            status_line(&job(Some("nix-1"), true)),
            "✅ Nix store cache hit: nix-1"
        );
        let partial = status_line(&job(Some("nix-0"), false));
        assert!(partial.starts_with('◐') && partial.ends_with("matched nix-0"));
        let miss = status_line(&job(None, false));
        assert!(miss.starts_with('❌') && miss.contains("12 paths") && !miss.contains("rebuild"));
        let trouble = JobState {
            trouble: Some("no route".to_owned()),
            ..job(None, false)
        };
        assert!(status_line(&trouble).contains("no route"));
    }

    #[test]
    fn what_was_won_is_counted_against_the_cold_run_only() {
        let save = SaveReport {
            seconds: 2.0,
            ..SaveReport::default()
        };
        let of = |job: &JobState| Summary::new(job, &DaemonStats::default(), Some(&save), 30.0);
        let warm = of(&job(Some("nix-1"), true));
        assert_eq!((warm.seconds_won, warm.seconds_job), (Some(70.0), 28.0));
        assert_eq!(of(&job(None, false)).seconds_won, None);
    }
}
