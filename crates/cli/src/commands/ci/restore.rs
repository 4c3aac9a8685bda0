//! `firn ci restore`.

use super::{
    args::{KeyArgs, StateArgs, one_location, tell_of_missing_keys},
    daemon,
};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
    storage::{StorageArgs, refresh},
    units::{bytes, parse_duration},
};
use firn_client::{
    ci::{
        Base,
        entry::{Match, check_key, count_paths, find_entry},
        event::process_environment,
        folder::{Place, places, restore_folder},
        nix,
        runner::{append, quote, warning},
        state::{DaemonState, JobState, StateDir},
        summary::status_line,
    },
    local_store::LocalStore,
    storage::SharedStore,
};
use serde::Serialize;
use std::{
    sync::mpsc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// Where the key itself was never saved: the newest key that begins so. Repeatable, in order
    #[arg(long = "restore-key", value_name = "PREFIX")]
    restore_keys: Vec<String>,
    /// Another folder or file to keep, such as ~/.cache/nix. Repeatable
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,
    #[command(flatten)]
    state: StateArgs,
    /// Only say whether the key is there
    #[arg(long)]
    lookup_only: bool,
    /// Fail where no key matches
    #[arg(long)]
    fail_on_cache_miss: bool,
    /// Fail where the store cannot be reached; else the job goes on without it
    #[arg(long)]
    fail_on_error: bool,
    /// Longest time to wait for the store's index
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    key: &'a str,
    cache_hit: bool,
    matched_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    substituter: Option<&'a DaemonState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nix_config: Option<&'a str>,
    state: String,
    entry_paths: u64,
    entry_bytes: u64,
    folder_bytes: u64,
    requests: u64,
    seconds: f64,
}

pub(super) fn run(global: &Global, args: &Args) -> Outcome {
    let started = Instant::now();
    let base = Base::of_process()?;
    let key = args.key.key(&base)?.ok_or_else(no_key)?;
    args.restore_keys
        .iter()
        .try_for_each(|key| check_key(key))?;
    let location = one_location(&args.storage, None)?;
    tell_of_missing_keys(&location);
    let (folders, of_nix) = places(&args.paths, &base)?;
    for place in &of_nix {
        note(&format!(
            "{} needs no --path: Nix is served from the store",
            place.name
        ));
    }
    let state = args.state.dir()?;
    state.stop_daemon(Duration::from_secs(5))?;
    state.create()?;
    let mut job = JobState {
        storage: location.to_string(),
        cache: global.cache.clone(),
        key,
        restore_keys: args.restore_keys.clone(),
        folders: folders.iter().map(|place| place.name.clone()).collect(),
        started_at: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64),
        ..JobState::default()
    };
    let restored = restore(global, args, &state, &folders, &base, &mut job);
    let daemon = match restored {
        Ok(daemon) => daemon,
        Err(failure) if args.fail_on_error => return Err(failure),
        Err(failure) => {
            job.trouble = Some(failure.message().to_owned());
            failure.hints().iter().for_each(|hint| note(hint));
            None
        }
    };
    job.restore_seconds = started.elapsed().as_secs_f64();
    state.write("job.json", &job)?;
    tell(global, &state, &job, daemon.as_ref())?;
    if args.fail_on_cache_miss && job.matched_key.is_none() {
        return Err(Failure::new(format!("no key matches {}", job.key)).hint(
            "--fail-on-cache-miss is set; --restore-key PREFIX takes the newest key that begins so",
        ));
    }
    Ok(())
}

fn no_key() -> Failure {
    Failure::new("no key is given")
        .hint("--key nix-linux --key-files flake.lock makes a key that changes with the lock file")
}

fn note(text: &str) {
    eprintln!("note: {text}");
}

/// Finds the entry, starts the substituter, brings folders back.
fn restore(
    global: &Global,
    args: &Args,
    state: &StateDir,
    folders: &[Place],
    base: &Base,
    job: &mut JobState,
) -> Outcome<Option<DaemonState>> {
    let local = LocalStore::from_environment();
    job.baseline = match local.last_id() {
        Ok(id) => Some(id),
        Err(error) => {
            let text =
                format!("{error}: save will not know by itself what this job built; name --root");
            eprintln!("{}", warning(&process_environment, &text));
            None
        }
    };
    let store = open(args, &job.storage)?;
    let found = find_entry(&store, &global.cache, &job.key, &job.restore_keys)?;
    match &found {
        Some(found) => matched(job, found),
        None => {
            job.store_paths = count_paths(&store, &global.cache)?;
        }
    }
    job.requests = store.backend().requests();
    if args.lookup_only {
        return Ok(None);
    }
    state.write("prefetch.json", &prefetch(found.as_ref(), &local))?;
    let daemon = daemon::start(global, &args.storage, &job.storage, state)?;
    if let Some(found) = &found {
        bring_folders(&store, found, folders, base, job);
    }
    Ok(Some(daemon))
}

fn matched(job: &mut JobState, found: &Match) {
    job.matched_key = Some(found.key.clone());
    job.exact = found.exact;
    job.seconds_cold = Some(found.entry.seconds_cold);
    job.entry_paths = found.entry.paths.len() as u64;
    job.entry_bytes = found.entry.bytes;
}

/// Opens the store and reads its index, for at most some time: a place that answers slowly must not hold a job.
fn open(args: &Args, location: &str) -> Outcome<SharedStore> {
    let location = one_location(&args.storage, Some(location))?;
    let storage = args.storage.clone();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let opened = storage
            .open(&location)
            .and_then(|store| refresh(&store).map(|()| store));
        // Nobody listens any more if it took too long.
        let _sent = sender.send(opened);
    });
    receiver.recv_timeout(args.timeout).unwrap_or_else(|_| {
        let seconds = args.timeout.as_secs_f64();
        Err(Failure::new(format!(
            "the store's index did not come within {seconds:.0} s"
        ))
        .hint("--timeout TIME waits longer"))
    })
}

/// Hash parts that the last run used and this machine lacks.
fn prefetch(found: Option<&Match>, local: &LocalStore) -> Vec<String> {
    let Some(found) = found else {
        return Vec::new();
    };
    let wanted = &found.entry.used;
    match local.valid_hash_parts(wanted) {
        Ok(valid) => wanted
            .iter()
            .zip(valid)
            .filter(|(_, valid)| !valid)
            .map(|(hash, _)| hash.clone())
            .collect(),
        Err(_) => wanted.clone(),
    }
}

/// A folder that cannot be brought back is told of; the job goes on without it.
fn bring_folders(
    store: &SharedStore,
    found: &Match,
    wanted: &[Place],
    base: &Base,
    job: &mut JobState,
) {
    for folder in &found.entry.folders {
        let Some(place) = Place::of_name(&folder.path, base).filter(|place| wanted.contains(place))
        else {
            continue;
        };
        let Some(list) = folder.list_id() else {
            continue;
        };
        match restore_folder(store, list, &place.path) {
            Ok(restored) => job.folder_bytes += restored.bytes,
            Err(error) => {
                let text = format!(
                    "{} was not restored: {}",
                    folder.path,
                    Failure::from(error).message()
                );
                eprintln!("{}", warning(&process_environment, &text));
            }
        }
    }
}

/// Tells the runner, or the shell, and the reader.
fn tell(
    global: &Global,
    state: &StateDir,
    job: &JobState,
    daemon: Option<&DaemonState>,
) -> Outcome {
    let environment = &process_environment;
    let nix_config = daemon.map(|daemon| {
        nix::nix_config(
            environment("NIX_CONFIG").as_deref(),
            &daemon.url,
            &daemon.public_key,
        )
    });
    let matched = job.matched_key.as_deref();
    let cache_hit = if job.exact { "true" } else { "false" };
    append(
        environment,
        "GITHUB_OUTPUT",
        &[
            ("cache-hit", cache_hit),
            ("cache-primary-key", &job.key),
            ("matched-key", matched.unwrap_or_default()),
            ("cache-matched-key", matched.unwrap_or_default()),
        ],
    )?;
    let state_dir = std::path::absolute(state.path())?.display().to_string();
    let mut values = vec![("FIRN_CI_STATE", state_dir.as_str())];
    values.extend(nix_config.as_deref().map(|text| ("NIX_CONFIG", text)));
    let has_runner = append(environment, "GITHUB_ENV", &values)?;
    if daemon.is_some()
        && let Some(advice) = nix::trust(environment).advice()
    {
        eprintln!("{}", warning(environment, &advice));
    }
    let line = lines(job);
    if global.json {
        eprintln!("{line}");
        let report = report(job, daemon, nix_config.as_deref(), state_dir.clone());
        return show(true, &report, |_| String::new());
    }
    if has_runner {
        return show(false, &(), |()| line);
    }
    eprintln!("{line}");
    show(false, &(), |()| {
        values
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quote(value)))
            .collect()
    })
}

fn lines(job: &JobState) -> String {
    let mut line = status_line(job);
    if job.matched_key.is_some() {
        let (paths, size) = (job.entry_paths, bytes(job.entry_bytes));
        line.push_str(&format!(
            "\n{paths} paths, {size}; ready in {:.1} s",
            job.restore_seconds
        ));
    }
    if job.trouble.is_some() {
        return warning(&process_environment, &line);
    }
    line
}

fn report<'a>(
    job: &'a JobState,
    daemon: Option<&'a DaemonState>,
    nix_config: Option<&'a str>,
    state: String,
) -> Report<'a> {
    Report {
        key: &job.key,
        cache_hit: job.exact,
        matched_key: job.matched_key.as_deref(),
        trouble: job.trouble.as_deref(),
        substituter: daemon,
        nix_config,
        state,
        entry_paths: job.entry_paths,
        entry_bytes: job.entry_bytes,
        folder_bytes: job.folder_bytes,
        requests: job.requests,
        seconds: job.restore_seconds,
    }
}
