//! `firn watch-store`, beside a job and as Nix's hook.

use crate::ci::RESTORE;
use crate::ci::project::{Job, Project};

/// New paths are in the store before the job saves; the hook queues what it is told.
#[test]
fn watch_store_sends_while_the_job_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().to_str().unwrap();
    let project = Project::new();
    let firn = env!("CARGO_BIN_EXE_firn");
    let mut job = Job::begin(&project, storage, RESTORE);
    let watch = [
        "watch-store",
        "--storage",
        storage,
        "--upstream-key",
        "none",
        "--exclude",
        "pak2",
        "--once",
    ];
    job.machine.step(firn, &watch).ok();
    job.build();
    let watched = job
        .machine
        .step(firn, &[&watch[..], &["--json"]].concat())
        .ok();
    let watched: serde_json::Value = serde_json::from_str(&watched).unwrap();
    // `app` refers to all, and brings its closure.
    assert_eq!(watched["paths_pushed"], 6, "{watched}");
    let saved = job.save(&[]);
    assert_eq!(saved.report["paths_pushed"], 0, "{}", saved.report);
    assert_eq!(
        saved.report["unchanged"], false,
        "the entry is still to be written"
    );

    let script = job
        .machine
        .step(firn, &["watch-store", "--storage", storage, "--hook"])
        .ok();
    assert!(script.starts_with("#!/bin/sh"), "{script}");
    job.machine.edit("hook", &script);
    job.machine.set(
        "OUT_PATHS",
        "/nix/store/00000000000000000000000000000000-gone",
    );
    job.machine.step("sh", &["hook"]).ok();
    let drained = job
        .machine
        .step(firn, &[&watch[..], &["--json"]].concat())
        .ok();
    let drained: serde_json::Value = serde_json::from_str(&drained).unwrap();
    assert_eq!(drained["paths_dropped"], 1, "{drained}");
    assert_eq!(drained["paths_waiting"], 0, "{drained}");
}
