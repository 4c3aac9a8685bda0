//! CI jobs on a registry that behaves as GitHub's does.

use crate::ci::project::{Job, Project};
use crate::ci::site::Site;
use crate::ci::{RESTORE, image_beside, life};
use firn_testkit::rigs::ghcr::{self, Ghcr, Quirks};

/// GitHub's habits: tokens with scopes that end soon, redirects, busy answers, dropped connections.
#[test]
fn a_life_on_a_registry_like_githubs() {
    let registry = Ghcr::start();
    let site = |name| Site::ghcr(&registry, name);
    life(
        &site("acme/app/firn"),
        "CI jobs, store in a registry like GitHub's",
    );
    image_beside(
        &site("acme/app"),
        "CI jobs, store beside the image in a registry like GitHub's",
    );
}

/// What is asked of a registry before Nix can ask is counted there, not by ourselves.
#[test]
fn a_warm_restore_asks_a_registry_little() {
    let registry = Ghcr::with(Quirks::calm());
    let storage = format!("oci://{}/acme/app/firn", registry.address());
    let project = Project::new();
    for version in ["1", "2", "3", "4", "5", "6"] {
        project.change("pak1", version);
        let mut job = Job::begin_with(&project, &storage, RESTORE, ghcr::WRITER);
        job.build();
        job.save(&[]);
    }
    registry.asked();
    let words = [RESTORE, &["--lookup-only"]].concat();
    let job = Job::begin_with(&project, &storage, &words, ghcr::WRITER);
    let asked = registry.asked();
    assert_eq!(job.output("cache-hit"), "true");
    assert!(asked.len() <= 10, "{asked:#?}");
    println!("requests of a warm restore: {}", asked.len());
}

/// A token that may only pull: the job has the cache, and save says why it sends nothing.
#[test]
fn a_job_without_the_right_to_write_reads() {
    let registry = Ghcr::with(Quirks::calm());
    let storage = format!("oci://{}/acme/app/firn", registry.address());
    let project = Project::new();
    let mut job = Job::begin_with(&project, &storage, RESTORE, ghcr::WRITER);
    job.build();
    job.save(&[]);
    project.change("pak1", "2");
    let mut reader = Job::begin_with(&project, &storage, RESTORE, ghcr::READER);
    assert_eq!(reader.output("cache-hit"), "true");
    reader.build();
    assert_eq!(reader.built, ["pak1", "app"]);
    let saved = reader.save(&[]);
    let why = saved.report["refused"].as_str().unwrap_or_default();
    assert!(why.contains("no right to write"), "{}", saved.report);
}
