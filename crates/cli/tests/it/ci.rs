//! Lives of CI jobs without a server: real Nix, each job on a machine of its own, a store that is a
//! parameter. The scenarios are those of the second seed, whose table each life prints.

pub(crate) mod project;
pub(crate) mod site;
mod table;

use firn_testkit::rigs::program::Outcome;
use firn_testkit::rigs::registry::Registry;
use project::{Job, Project};
use serde_json::Value;
use site::Site;
use std::process::Stdio;
use std::time::Duration;
use table::Table;

pub(crate) const RESTORE: &[&str] = &[
    "--key",
    "nix-Linux-",
    "--key-files",
    "lock.json",
    "--restore-key",
    "nix-Linux-",
];

/// The whole life on one store, each job on a fresh machine.
pub(crate) fn life(site: &Site<'_>, title: &str) {
    let table = &mut Table::new(title);
    let project = Project::new();
    let total = filled(site, &project, table);
    unchanged(site, &project, table);
    changed(site, &project, table);
    bumped(site, &project, table, total);
    two_at_once(site, table);
    killed(site, &project, table);
    of_a_fork(site, &project, table);
}

/// Gives the bytes of all that is saved.
fn filled(site: &Site<'_>, project: &Project, table: &mut Table) -> u64 {
    let mut job = site.begin(project);
    assert_eq!(job.output("cache-hit"), "false");
    assert!(job.line.starts_with('❌'), "{}", job.line);
    assert!(!job.line.contains("rebuild"), "{}", job.line);
    job.build();
    assert_eq!(job.built, project::ALL);
    let cold = job.save(&[]);
    assert_eq!(cold.report["paths_pushed"], 5, "{}", cold.report);
    assert_eq!(cold.report["paths_upstream"], 1, "{}", cold.report);
    table.row("cold", table::COLD, &job, &cold);
    cold.report["bytes_total"].as_u64().unwrap()
}

fn unchanged(site: &Site<'_>, project: &Project, table: &mut Table) {
    let mut job = site.begin(project);
    assert_eq!(job.output("cache-hit"), "true");
    assert_eq!(job.output("matched-key"), job.output("cache-primary-key"));
    assert!(job.line.starts_with('✅'), "{}", job.line);
    if site.is_calm() {
        let restored = &job.restored;
        assert!(restored["requests"].as_u64() <= Some(10), "{restored}");
        assert!(restored["seconds"].as_f64() < Some(2.0), "{restored}");
    }
    job.build();
    assert_eq!(job.built, [""; 0], "all of it is in the store");
    let saved = job.save(&[]);
    assert_eq!(saved.report["unchanged"], true, "{}", saved.report);
    assert_eq!(saved.report["bytes_sent"], 0, "{}", saved.report);
    assert!(saved.page.contains("paths restored | 5 "), "{}", saved.page);
    table.row("unchanged", table::UNCHANGED, &job, &saved);
}

/// The key stays, since the lock file does: it is updated.
fn changed(site: &Site<'_>, project: &Project, table: &mut Table) {
    project.change("pak3", "2");
    let mut job = site.begin(project);
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
    table.row("one package changed", table::CHANGED, &job, &saved);
    finds_all(site, project);
}

/// Every path gets another name, and next to nothing is new.
fn bumped(site: &Site<'_>, project: &Project, table: &mut Table, total: u64) {
    project.bump("2");
    let mut job = site.begin(project);
    assert_eq!(job.output("cache-hit"), "false");
    assert_ne!(job.output("matched-key"), "");
    assert!(job.line.starts_with('◐'), "{}", job.line);
    job.build();
    assert_eq!(job.built, project::ALL);
    let saved = job.save(&[]);
    let sent = saved.report["bytes_sent"].as_u64().unwrap();
    assert!(sent < total / 50, "{sent} of {total}");
    table.row("lock file changed", table::LOCK_CHANGED, &job, &saved);
    finds_all(site, project);
}

/// Whatever came before, the next job builds nothing.
fn finds_all(site: &Site<'_>, project: &Project) {
    let mut job = site.begin(project);
    assert_eq!(job.output("cache-hit"), "true");
    job.build();
    assert_eq!(job.built, [""; 0]);
    job.save(&[]);
}

/// Both write the same key, and neither loses what it built.
fn two_at_once(site: &Site<'_>, table: &mut Table) {
    let (one, other) = (Project::new(), Project::new());
    one.change("pak1", "left");
    other.change("pak2", "right");
    let work = |project: &Project| {
        let mut job = site.begin(project);
        job.build();
        let saved = job.save(&[]);
        assert_eq!(saved.report["incomplete"], false, "{}", saved.report);
        (job, saved)
    };
    let (left, right) = std::thread::scope(|scope| {
        let right = scope.spawn(|| work(&other));
        (work(&one), right.join().unwrap())
    });
    for (name, (job, saved)) in [("one of two at once", left), ("the other", right)] {
        table.row(name, table::NOTHING, &job, &saved);
    }
    finds_all(site, &one);
    finds_all(site, &other);
}

/// Whenever it dies, the next job finds a store that is whole.
fn killed(site: &Site<'_>, project: &Project, table: &mut Table) {
    for milliseconds in [20, 60, 150] {
        project.change("pak1", &format!("killed-after-{milliseconds}"));
        let mut job = site.begin(project);
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
    let mut next = site.begin(project);
    next.build();
    let saved = next.save(&[]);
    table.row("after killed saves", table::NOTHING, &next, &saved);
    finds_all(site, project);
}

/// A fork's pull request has the cache, and leaves nothing in it.
fn of_a_fork(site: &Site<'_>, project: &Project, table: &mut Table) {
    let before = site.content();
    project.change("pak1", "by-a-stranger");
    let mut fork = site.begin_of_fork(project);
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
    assert_eq!(site.content(), before);
    table.row("a fork's", table::NOTHING, &fork, &saved);
}

/// The image's layers are the store's packs: what is saved after it is what lies between the files. `site` is a
/// repository with nothing in it.
pub(crate) fn image_beside(site: &Site<'_>, title: &str) {
    let table = &mut Table::new(title);
    let project = Project::new();
    let image = site.image("app").unwrap();
    let push = |job: &Job| {
        let app = job
            .machine
            .step("nix-build", &["--no-out-link", "-A", "app"])
            .ok();
        let words = ["image", "push", "--json", "--to", &image, &app];
        let words = [&words, site.rights()].concat();
        let report = job.machine.step(env!("CARGO_BIN_EXE_firn"), &words).ok();
        serde_json::from_str::<Value>(&report).unwrap()
    };
    let mut job = site.begin(&project);
    job.build();
    let pushed = push(&job);
    assert_eq!(pushed["layers_sent"], pushed["layers_total"], "{pushed}");
    let saved = job.save(&[]);
    let sent = saved.report["bytes_sent"].as_u64().unwrap();
    let all = pushed["bytes_sent"].as_u64().unwrap();
    assert!(sent < all / 100, "{sent} beside an image of {all}");
    table.step("image, cold", table::IMAGE_COLD, &pushed);
    table.row("cold, after its image", table::COLD, &job, &saved);

    project.change("pak3", "2");
    let mut job = site.begin(&project);
    job.build();
    assert_eq!(job.built, ["pak3", "app"], "the rest came from the image");
    site.bytes_refused();
    let pushed = push(&job);
    let again = site.bytes_refused();
    let new = project::HALF_BYTES;
    let sent = pushed["bytes_sent"].as_u64().unwrap();
    assert!(
        sent < new * 5 / 2 + again,
        "{sent}: the changed package's layer, {again} of it more than once"
    );
    let saved = job.save(&[]);
    let sent = saved.report["bytes_sent"].as_u64().unwrap();
    assert!(sent < new / 10, "{sent} beside the image");
    table.step("image, one package", table::IMAGE_CHANGED, &pushed);
    table.row("changed, after its image", table::CHANGED, &job, &saved);
    finds_all(site, &project);
}

#[test]
fn a_life_on_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    life(
        &Site::folder(&folder.path().join("store")),
        "CI jobs, store in a folder",
    );
}

#[test]
fn a_life_on_a_registry() {
    let registry = Registry::start();
    let site = |name| Site::registry(registry.address(), name);
    life(&site("acme/app/firn"), "CI jobs, store in docker-registry");
    image_beside(
        &site("acme/app"),
        "CI jobs, store beside the image in docker-registry",
    );
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
