//! `firn watch-store`.

use super::ci::args::{UpstreamArgs, one_location};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
    progress::Bar,
    storage::{StorageArgs, refresh},
    units::{bytes, parse_bytes, parse_duration},
};
use firn_client::{
    ci::{event::job_name, event::process_environment, runner::quote},
    local_store::LocalStore,
    progress::Progress,
    watch::{Filter, Queue, Watch, WatchReport},
};
use firn_formats::nix::StorePath;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    upstream: UpstreamArgs,
    /// Send only paths whose name matches: *, ?, []. Repeatable
    #[arg(long = "include", value_name = "GLOB")]
    includes: Vec<String>,
    /// Do not send paths whose name matches. Repeatable
    #[arg(long = "exclude", value_name = "GLOB")]
    excludes: Vec<String>,
    /// Do not send paths whose NAR is larger, such as 500M or 2G
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max_size: Option<u64>,
    /// Time between two looks at the Nix database
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    interval: Duration,
    /// File of the queue [default: below XDG_STATE_HOME, one for each store]
    #[arg(long, value_name = "FILE", env = "FIRN_QUEUE")]
    queue: Option<PathBuf>,
    /// Send what waits and what is new, then end
    #[arg(long)]
    once: bool,
    /// Be Nix's post-build-hook: queue OUT_PATHS; without OUT_PATHS, print the script to use as the hook
    #[arg(long, conflicts_with = "once")]
    hook: bool,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    if !args.hook {
        return watch(global, args);
    }
    match process_environment("OUT_PATHS") {
        Some(paths) => {
            // A hook that fails would fail the build.
            if let Err(failure) = queue_paths(global, args, &paths) {
                failure.print();
            }
            Ok(())
        }
        None => print_hook(global, args),
    }
}

fn queue_file(global: &Global, args: &Args) -> Outcome<PathBuf> {
    if let Some(path) = &args.queue {
        return Ok(path.clone());
    }
    let location = one_location(&args.storage, None)?.to_string();
    Queue::default_path(&location, &global.cache).ok_or_else(|| {
        Failure::new("neither XDG_STATE_HOME nor HOME says where the queue lies")
            .hint("--queue FILE says it")
    })
}

/// Returns at once: nothing is read and nothing is sent here.
fn queue_paths(global: &Global, args: &Args, paths: &str) -> Outcome {
    let paths: Vec<StorePath> = paths
        .split_whitespace()
        .filter_map(|path| StorePath::parse(path).ok())
        .collect();
    Queue::open(&queue_file(global, args)?)?.add(&paths, None)?;
    Ok(())
}

fn print_hook(global: &Global, args: &Args) -> Outcome {
    let queue = std::path::absolute(queue_file(global, args)?)?;
    // Made now, so that it is the watcher's, and not root's, whose daemon calls the hook.
    Queue::open(&queue)?;
    let program = std::env::current_exe()?;
    let script = format!(
        "#!/bin/sh\n# Save as an executable file, and name it in nix.conf: post-build-hook = /etc/nix/firn-hook\n\
         exec {} watch-store --hook --queue {}\n",
        quote(&program.display().to_string()),
        quote(&queue.display().to_string())
    );
    show(
        global.json,
        &serde_json::json!({ "script": script, "queue": queue }),
        |_| script.clone(),
    )
}

/// Says what went wrong, and draws nothing: a watch has no end to draw towards.
struct Notes;

impl Progress for Notes {
    fn note(&self, text: &str) {
        eprintln!("warning: {text}");
    }
}

fn watch(global: &Global, args: &Args) -> Outcome {
    let location = one_location(&args.storage, None)?;
    let store = args.storage.open(&location)?;
    let queue_file = queue_file(global, args)?;
    let mut queue = Queue::open(&queue_file)?;
    refresh(&store)?;
    let local = LocalStore::from_environment();
    let upstream_keys = args.upstream.keys()?;
    let writer = job_name(&process_environment);
    let watch = Watch {
        store: &store,
        cache: &global.cache,
        local: &local,
        filter: Filter::new(&args.includes, &args.excludes, args.max_size),
        upstream_keys: &upstream_keys,
        writer: &writer,
        interval: args.interval,
    };
    let report = if args.once {
        let bar: Bar = global.progress();
        watch.run(&mut queue, &|| false, &bar)?
    } else {
        eprintln!(
            "watching {}; Ctrl-C ends it",
            local.database_path().display()
        );
        let stop = stop_flag()?;
        watch.run(&mut queue, &|| !stop.load(Ordering::Relaxed), &Notes)?
    };
    show(global.json, &report, line)
}

/// True from the first SIGTERM or SIGINT on; what is under way is finished then.
fn stop_flag() -> Outcome<Arc<AtomicBool>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let catch = |kind| {
        let _inside = runtime.enter();
        signal(kind)
    };
    let (mut terminate, mut interrupt) = (
        catch(SignalKind::terminate())?,
        catch(SignalKind::interrupt())?,
    );
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        raised.store(true, Ordering::Relaxed);
    });
    Ok(flag)
}

fn line(report: &WatchReport) -> String {
    let mut text = format!(
        "sent {} paths, {}, in {} batches",
        report.paths_pushed,
        bytes(report.bytes_sent),
        report.batches
    );
    if report.paths_waiting > 0 {
        text.push_str(&format!("; {} wait for another try", report.paths_waiting));
    }
    text
}
