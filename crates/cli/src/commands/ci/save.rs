//! `firn ci save`.

use super::args::{KeyArgs, StateArgs, UpstreamArgs, one_location, tell_of_missing_keys};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
    progress::Bar,
    storage::StorageArgs,
    units::{bytes, parse_duration},
};
use firn_client::{
    ci::{
        Base, CiError,
        entry::find_entry,
        event::{job_name, process_environment, stranger},
        folder::{Place, places},
        runner::warning,
        save::{SaveReport, SaveRequest, save},
        state::{DaemonStats, JobState, StateDir},
    },
    local_store::LocalStore,
    resolve::resolve_all,
};
use firn_formats::nix::{PublicKey, StorePath};
use std::{
    sync::mpsc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Of the deadline; what is left is for finishing what was begun.
const BEGIN_UNTIL: f64 = 0.8;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// Save the closures of these, not of all that became valid since restore. Repeatable
    #[arg(long = "root", value_name = "PATH")]
    roots: Vec<String>,
    /// Save the whole store's content: for a save without a restore
    #[arg(long, conflicts_with = "roots")]
    all: bool,
    /// Another folder or file to keep [default: those of restore]. Repeatable
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,
    #[command(flatten)]
    upstream: UpstreamArgs,
    #[command(flatten)]
    state: StateArgs,
    /// Longest time for all of it: a job never hangs on its cache
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    deadline: Duration,
    /// Save for a fork's pull request too: only where nobody else reads this store
    #[arg(long)]
    allow_forks: bool,
    /// Fail where the store cannot be written; else it is only said
    #[arg(long)]
    fail_on_error: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> Outcome {
    let state = args.state.dir()?;
    let job: Option<JobState> = state.read("job.json")?;
    state.stop_daemon(Duration::from_secs(10))?;
    let why_not = stranger(&process_environment).filter(|_| !args.allow_forks);
    let report = match why_not {
        Some(why) => refused(
            job.as_ref(),
            format!(
                "{why}: it reads the store and does not write it (hint: --allow-forks saves all the same)"
            ),
        ),
        None => within_deadline(global, args, &state, job)?,
    };
    if state.path().is_dir() {
        let ended_at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        state.write(
            "save.json",
            &SaveReport {
                ended_at,
                ..report.clone()
            },
        )?;
    }
    for failed in &report.folders_failed {
        eprintln!(
            "{}",
            warning(&process_environment, &format!("not kept: {failed}"))
        );
    }
    show(global.json, &report, line)
}

fn refused(job: Option<&JobState>, why: String) -> SaveReport {
    SaveReport {
        key: job.map(|job| job.key.clone()).unwrap_or_default(),
        refused: Some(why),
        ..SaveReport::default()
    }
}

/// What a thread of its own works on, so that its caller can go away.
struct Task {
    storage: StorageArgs,
    location: String,
    cache: String,
    key: String,
    roots: Roots,
    folders: Vec<Place>,
    upstream_keys: Vec<PublicKey>,
    stats: DaemonStats,
    job: Option<JobState>,
    progress: Bar,
    begin_until: Instant,
}

enum Roots {
    Named(Vec<StorePath>),
    After(i64),
}

fn within_deadline(
    global: &Global,
    args: &Args,
    state: &StateDir,
    job: Option<JobState>,
) -> Outcome<SaveReport> {
    let started = Instant::now();
    let key = job.as_ref().map(|job| job.key.clone()).unwrap_or_default();
    let task = task(global, args, state, job, started)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens any more after the deadline.
        let _sent = sender.send(task.run());
    });
    let outcome = receiver.recv_timeout(args.deadline).unwrap_or_else(|_| {
        Ok(SaveReport {
            key: key.clone(),
            incomplete: true,
            seconds: started.elapsed().as_secs_f64(),
            ..SaveReport::default()
        })
    });
    match outcome {
        Ok(report) => Ok(report),
        Err(error) if error.is_refusal() && !args.fail_on_error => Ok(SaveReport {
            key,
            refused: Some(format!(
                "this job has no right to write the store ({}); it only reads it",
                Failure::from(error).message()
            )),
            ..SaveReport::default()
        }),
        Err(error) if !args.fail_on_error => {
            let why = Failure::from(error).message().to_owned();
            eprintln!(
                "{}",
                warning(&process_environment, &format!("nothing was saved: {why}"))
            );
            Ok(SaveReport {
                key,
                refused: Some(why),
                seconds: started.elapsed().as_secs_f64(),
                ..SaveReport::default()
            })
        }
        Err(error) => Err(error.into()),
    }
}

fn task(
    global: &Global,
    args: &Args,
    state: &StateDir,
    job: Option<JobState>,
    started: Instant,
) -> Outcome<Task> {
    let base = Base::of_process()?;
    let noted_key = job.as_ref().map(|job| job.key.clone());
    let key = args.key.key(&base)?.or(noted_key).ok_or_else(|| {
        Failure::new("no key is given, and no restore has noted one")
            .hint("--key KEY names it; `firn ci restore` notes it for the job")
    })?;
    let noted = job.as_ref().map(|job| job.storage.as_str());
    let location = one_location(&args.storage, noted)?;
    // Restore has said it already.
    if job.is_none() {
        tell_of_missing_keys(&location);
    }
    let folders = match &job {
        Some(job) if args.paths.is_empty() => job
            .folders
            .iter()
            .filter_map(|name| Place::of_name(name, &base))
            .collect(),
        _ => places(&args.paths, &base)?.0,
    };
    Ok(Task {
        storage: args.storage.clone(),
        location: location.to_string(),
        cache: job
            .as_ref()
            .map_or_else(|| global.cache.clone(), |job| job.cache.clone()),
        key,
        roots: roots(args, job.as_ref())?,
        folders,
        upstream_keys: args.upstream.keys()?,
        stats: state.read("stats.json")?.unwrap_or_default(),
        job,
        progress: global.progress(),
        begin_until: started + args.deadline.mul_f64(BEGIN_UNTIL),
    })
}

fn roots(args: &Args, job: Option<&JobState>) -> Outcome<Roots> {
    if !args.roots.is_empty() {
        return Ok(Roots::Named(resolve_all(&args.roots)?));
    }
    if args.all {
        return Ok(Roots::After(0));
    }
    let baseline = job.and_then(|job| job.baseline);
    baseline.map(Roots::After).ok_or_else(|| {
        Failure::new("what this job built is not known: no restore has noted what was there before")
            .hint(
                "`firn ci restore` notes it; --root PATH names paths; --all takes the whole store",
            )
    })
}

impl Task {
    fn run(self) -> Result<SaveReport, CiError> {
        let local = LocalStore::from_environment();
        let location = firn_client::storage::StorageLocation::parse(&self.location)?;
        let store = self
            .storage
            .open(&location)
            .map_err(|failure| CiError::Setting(failure.message().to_owned()))?;
        let roots = match self.roots {
            Roots::Named(paths) => paths,
            Roots::After(id) => local
                .all_valid_after(id)?
                .into_iter()
                .map(|recent| recent.path)
                .filter(|path| !path.is_derivation())
                .collect(),
        };
        store.refresh()?;
        let existing = find_entry(&store, &self.cache, &self.key, &[])?
            .filter(|found| found.exact)
            .map(|found| found.entry);
        let job = self.job.as_ref();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let request = SaveRequest {
            store: &store,
            cache: &self.cache,
            local: &local,
            key: &self.key,
            roots,
            used: self.stats.used,
            folders: &self.folders,
            upstream_keys: &self.upstream_keys,
            seconds_cold: job
                .filter(|job| job.matched_key.is_some())
                .and_then(|job| job.seconds_cold)
                .or_else(|| existing.as_ref().map(|entry| entry.seconds_cold)),
            existing,
            seconds: job.map_or(0.0, |job| {
                now.saturating_sub(job.started_at) as f64 / 1000.0
            }),
            job: &job_name(&process_environment),
            deadline: self.begin_until,
        };
        save(&request, &self.progress)
    }
}

fn line(report: &SaveReport) -> String {
    if let Some(why) = &report.refused {
        return format!("nothing saved: {why}");
    }
    if report.unchanged {
        return format!(
            "nothing new: nothing sent ({} paths, {:.1} s)",
            report.paths_total, report.seconds
        );
    }
    if report.incomplete {
        return format!(
            "the deadline came after {:.0} s: {} paths were saved, {} is not written; the next job goes on from there",
            report.seconds, report.paths_pushed, report.key
        );
    }
    let mut text = format!(
        "saved {}: {} of {} paths were new, {} of {} chunks, {} sent in {:.1} s",
        report.key,
        report.paths_pushed,
        report.paths_total,
        report.chunks_sent,
        report.chunks_total,
        bytes(report.bytes_sent),
        report.seconds
    );
    if report.paths_upstream > 0 {
        text.push_str(&format!(
            "; {} are left to their upstream",
            report.paths_upstream
        ));
    }
    if report.folders > 0 {
        text.push_str(&format!(
            "; {} other folders, {}",
            report.folders,
            bytes(report.folder_bytes)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_line() {
        let report = SaveReport {
            key: "k".to_owned(),
            paths_total: 3,
            ..SaveReport::default()
        };
        let unchanged = SaveReport {
            unchanged: true,
            ..report.clone()
        };
        assert!(line(&unchanged).starts_with("nothing new: nothing sent"));
        let late = SaveReport {
            incomplete: true,
            ..report.clone()
        };
        assert!(line(&late).contains("deadline") && line(&late).contains("k is not written"));
        let refused = SaveReport {
            refused: Some("a fork".to_owned()),
            ..report.clone()
        };
        assert_eq!(line(&refused), "nothing saved: a fork");
        assert!(line(&report).starts_with("saved k: 0 of 3 paths"));
    }
}
