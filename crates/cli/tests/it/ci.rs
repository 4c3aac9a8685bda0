//! Lives of CI jobs without a server: real Nix, each job on a machine of its own, a store that is a
//! parameter. The scenarios are those of the second seed, whose table each life prints.

pub(crate) mod project;

use firn_testkit::rigs::program::{Outcome, run};
use firn_testkit::rigs::registry::Registry;
use project::{Job, Project, Saved};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

pub(crate) const RESTORE: &[&str] = &[
    "--key",
    "nix-Linux-",
    "--key-files",
    "lock.json",
    "--restore-key",
    "nix-Linux-",
];

/// One line of the seed's table.
fn row(name: &str, seed: &str, job: &Job, saved: &Saved) {
    println!(
        "{name:<22} seed: {seed:<28} measured: restore {:.2} s, build {:.2} s, save {:.2} s, {} sent, {} built",
        job.restored["seconds"].as_f64().unwrap(),
        job.build_seconds,
        saved.report["seconds"].as_f64().unwrap(),
        saved.report["bytes_sent"],
        job.built.len(),
    );
}

/// Fill, unchanged, one package changed, lock file changed: one after the other on one store.
fn life(storage: &str) {
    let project = Project::new();
    let mut job = Job::begin(&project, storage, RESTORE);
    assert_eq!(job.output("cache-hit"), "false");
    assert!(job.line.starts_with('❌'), "{}", job.line);
    assert!(!job.line.contains("rebuild"), "{}", job.line);
    job.build();
    assert_eq!(job.built, project::ALL);
    let cold = job.save(&[]);
    assert_eq!(cold.report["paths_pushed"], 5, "{}", cold.report);
    assert_eq!(cold.report["paths_upstream"], 1, "{}", cold.report);
    row("cold", "53 min", &job, &cold);

    unchanged(&project, storage);
    changed(&project, storage);
    bumped(
        &project,
        storage,
        cold.report["bytes_total"].as_u64().unwrap(),
    );
}

fn unchanged(project: &Project, storage: &str) {
    let mut job = Job::begin(project, storage, RESTORE);
    assert_eq!(job.output("cache-hit"), "true");
    assert_eq!(job.output("matched-key"), job.output("cache-primary-key"));
    assert!(job.line.starts_with('✅'), "{}", job.line);
    assert!(
        job.restored["requests"].as_u64() <= Some(10),
        "{}",
        job.restored
    );
    assert!(
        job.restored["seconds"].as_f64() < Some(2.0),
        "{}",
        job.restored
    );
    job.build();
    assert_eq!(job.built, [""; 0], "all of it is in the store");
    let saved = job.save(&[]);
    assert_eq!(saved.report["unchanged"], true, "{}", saved.report);
    assert_eq!(saved.report["bytes_sent"], 0, "{}", saved.report);
    assert!(saved.page.contains("paths restored | 5 "), "{}", saved.page);
    row("unchanged", "3 min (2 restoring)", &job, &saved);
}

/// The key stays, since the lock file does: it is updated.
fn changed(project: &Project, storage: &str) {
    project.change("pak3", "2");
    let mut job = Job::begin(project, storage, RESTORE);
    assert_eq!(job.output("cache-hit"), "true");
    job.build();
    assert_eq!(job.built, ["pak3", "app"]);
    let saved = job.save(&[]);
    assert_eq!(saved.report["paths_pushed"], 2, "{}", saved.report);
    let sent = saved.report["bytes_sent"].as_u64().unwrap();
    let new = project::HALF_BYTES;
    assert!(
        sent > new && sent < new * 11 / 10,
        "{sent} of {new} new bytes"
    );
    row("one package changed", "9 min", &job, &saved);

    let mut again = Job::begin(project, storage, RESTORE);
    again.build();
    assert_eq!(again.built, [""; 0], "the key was updated");
    again.save(&[]);
}

/// Every path gets another name, and next to nothing is new.
fn bumped(project: &Project, storage: &str, total: u64) {
    project.bump("2");
    let mut job = Job::begin(project, storage, RESTORE);
    assert_eq!(job.output("cache-hit"), "false");
    assert_ne!(job.output("matched-key"), "");
    assert!(job.line.starts_with('◐'), "{}", job.line);
    job.build();
    assert_eq!(job.built, project::ALL);
    let saved = job.save(&[]);
    let sent = saved.report["bytes_sent"].as_u64().unwrap();
    assert!(sent < total / 50, "{sent} of {total}");
    row("lock file changed", "53 min", &job, &saved);

    let mut again = Job::begin(project, storage, RESTORE);
    assert_eq!(again.output("cache-hit"), "true");
    again.build();
    assert_eq!(again.built, [""; 0]);
    again.save(&[]);
}

#[test]
fn a_life_on_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    life(folder.path().join("store").to_str().unwrap());
}

#[test]
fn a_life_on_a_registry() {
    let registry = Registry::start();
    life(&format!("oci://{}/acme/app/firn", registry.address()));
}

/// Both write the same key, and neither loses what it built.
#[test]
fn two_jobs_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().to_str().unwrap();
    let (one, other) = (Project::new(), Project::new());
    one.change("pak1", "left");
    other.change("pak2", "right");
    let work = |project: &Project| {
        let mut job = Job::begin(project, storage, RESTORE);
        job.build();
        let saved = job.save(&[]);
        assert_eq!(saved.report["incomplete"], false, "{}", saved.report);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(&one));
        scope.spawn(|| work(&other));
    });
    for project in [&one, &other] {
        let mut job = Job::begin(project, storage, RESTORE);
        assert_eq!(job.output("cache-hit"), "true");
        job.build();
        assert_eq!(job.built, [""; 0]);
        job.save(&[]);
    }
}

/// Whenever it dies, the next job finds a store that is whole.
#[test]
fn a_killed_save() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().to_str().unwrap();
    let project = Project::new();
    for milliseconds in [20, 60, 120, 250] {
        project.change("pak1", &format!("killed-after-{milliseconds}"));
        let mut job = Job::begin(&project, storage, RESTORE);
        job.build();
        let mut save = std::process::Command::new(env!("CARGO_BIN_EXE_firn"));
        save.args(["ci", "save", "--upstream-key", &job.upstream_key]);
        let mut child = job
            .inside(&mut save)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        job.end();
    }
    let mut next = Job::begin(&project, storage, RESTORE);
    next.build();
    next.save(&[]);
    let mut last = Job::begin(&project, storage, RESTORE);
    assert_eq!(last.output("cache-hit"), "true");
    last.build();
    assert_eq!(last.built, [""; 0]);
    last.save(&[]);
}

/// A fork's pull request has the cache, and leaves nothing in it.
#[test]
fn a_forks_job_reads_and_does_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().to_str().unwrap();
    let project = Project::new();
    let mut job = Job::begin(&project, storage, RESTORE);
    job.build();
    job.save(&[]);
    let before = files(folder.path());

    project.change("pak1", "by-a-stranger");
    let mut fork = Job::begin(&project, storage, RESTORE);
    assert_eq!(fork.output("cache-hit"), "true");
    fork.machine.edit(
        "event.json",
        r#"{"repository": {"id": 1, "full_name": "acme/app"}, "pull_request": {
            "head": {"repo": {"id": 2, "full_name": "eve/app"}},
            "base": {"repo": {"id": 1, "full_name": "acme/app"}}}}"#,
    );
    let event = fork.machine.path("work/event.json").display().to_string();
    fork.machine.set("GITHUB_EVENT_PATH", event);
    fork.build();
    assert_eq!(fork.built, ["pak1", "app"], "the rest came from the store");
    let saved = fork.save(&[]);
    let why = saved.report["refused"].as_str().unwrap_or_default();
    assert!(why.contains("eve/app"), "{}", saved.report);
    assert!(saved.page.contains("eve/app"), "{}", saved.page);
    assert_eq!(files(folder.path()), before);
}

fn files(folder: &Path) -> String {
    run(std::process::Command::new("find")
        .arg(folder)
        .args(["-type", "f", "-printf", "%P %s\n"]))
    .ok()
}

/// Bytes, permissions, times and links of other folders come back.
#[test]
fn other_folders_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().to_str().unwrap();
    let project = Project::new();
    let arguments = [
        RESTORE,
        &[
            "--path",
            "~/.cache/tool",
            "--path",
            "target",
            "--path",
            "/nix/store",
        ],
    ]
    .concat();
    let mut job = Job::begin(&project, storage, &arguments);
    let script = "mkdir -p ~/.cache/tool/deep target; seq 1 200000 > ~/.cache/tool/deep/numbers
        chmod 640 ~/.cache/tool/deep/numbers; touch -d @1500000000 ~/.cache/tool/deep/numbers ~/.cache/tool/deep
        ln -s deep/numbers ~/.cache/tool/link; ln ~/.cache/tool/deep/numbers ~/.cache/tool/second
        printf x > target/out; chmod 755 target/out";
    job.machine.step("sh", &["-ec", script]).ok();
    job.build();
    let saved = job.save(&[]);
    assert_eq!(saved.report["folders"], 2, "{}", saved.report);
    let look = "cd; find .cache/tool ../work/target -printf '%p %y %m %n %l ' -type f -printf '%s %T@' -printf '\\n' | sort
        find .cache/tool -type f -exec sha256sum {} + | sort; stat -c %Y .cache/tool/deep";
    let before = shape(job.machine.step("sh", &["-ec", look]));

    let mut again = Job::begin(&project, storage, &arguments);
    assert_eq!(shape(again.machine.step("sh", &["-ec", look])), before);
    assert!(again.restored["folder_bytes"].as_u64() > Some(1_000_000));
    again.build();
    again.save(&[]);
}

/// Times of files are kept to the second.
fn shape(outcome: Outcome) -> Vec<String> {
    let text = outcome.ok();
    text.lines()
        .map(|line| {
            line.split('.')
                .map(|part| part.trim_end_matches('0'))
                .collect::<Vec<_>>()
                .join(".")
        })
        .map(|line| match line.rsplit_once('.') {
            Some((head, tail)) if tail.chars().all(|c| c.is_ascii_digit()) => head.to_owned(),
            _ => line,
        })
        .collect()
}

/// The seed's advice was to look whether the lock file is committed; here it is an error.
#[test]
fn a_pattern_that_matches_nothing_is_an_error() {
    let project = Project::new();
    let machine = project.machine();
    let said = machine
        .step(
            env!("CARGO_BIN_EXE_firn"),
            &[
                "ci",
                "restore",
                "--storage",
                "/tmp/none",
                "--key-files",
                "flake.lock",
            ],
        )
        .refused();
    assert!(
        said.contains("flake.lock") && said.contains("hint:"),
        "{said}"
    );
}

/// The job goes on, unless it asked not to.
#[test]
fn a_store_that_cannot_be_reached_is_a_warning() {
    let project = Project::new();
    let machine = project.machine();
    let restore = |more: &[&str]| {
        let words = [
            "ci",
            "restore",
            "--storage",
            "oci://127.0.0.1:9/acme/app",
            "--key",
            "k",
        ];
        machine.step(env!("CARGO_BIN_EXE_firn"), &[&words, more].concat())
    };
    let said = restore(&["--timeout", "20s"]);
    assert!(said.status.success(), "{said}");
    assert!(said.stdout.contains("goes on without it"), "{said}");
    assert_eq!(machine.values("output")["cache-hit"], "false");
    restore(&["--timeout", "20s", "--fail-on-error"]).refused();
}

/// A place that never answers costs the deadline and no more.
#[test]
fn a_save_ends_by_its_deadline() {
    let project = Project::new();
    let machine = project.machine();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let storage = format!("oci://{}/acme/app", silent.local_addr().unwrap());
    let begun = std::time::Instant::now();
    let said = machine
        .step(
            env!("CARGO_BIN_EXE_firn"),
            &[
                "ci",
                "save",
                "--all",
                "--storage",
                &storage,
                "--key",
                "k",
                "--deadline",
                "2s",
            ],
        )
        .ok();
    assert!(said.contains("deadline"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}
