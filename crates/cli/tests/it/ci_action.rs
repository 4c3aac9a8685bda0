//! The action, run as a runner runs it: the scripts by node, inputs and files by the environment, the second
//! script after the job.

use crate::ci::project::{ALL, Project};
use firn_testkit::rigs::machine::Machine;
use firn_testkit::rigs::program::{Outcome, command, run, workspace};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

/// A job that uses the action.
struct Job {
    machine: Machine,
}

impl Job {
    fn new(project: &Project, storage: &str) -> Self {
        let mut machine = project.machine();
        machine.set("INPUT_STORAGE", storage);
        machine.set("INPUT_KEY", "nix-Linux-");
        machine.set("INPUT_KEY-FILES", "lock.json\n");
        machine.set("INPUT_RESTORE-KEYS", "nix-Linux-\n");
        machine.set("INPUT_PATH", "/nix/store\n~/.cache/tool");
        machine.set("INPUT_CACHE", "main");
        machine.set("INPUT_DEADLINE", "1m");
        machine.set(
            "INPUT_UPSTREAM-KEYS",
            crate::ci::project::upstream_key(project),
        );
        machine.set("INPUT_FIRN-BINARY", env!("CARGO_BIN_EXE_firn"));
        machine.set("GITHUB_ACTIONS", "true");
        machine.set("GITHUB_EVENT_NAME", "push");
        machine.edit("event.json", r#"{"ref": "refs/heads/main"}"#);
        let event = machine.path("work/event.json").display().to_string();
        machine.set("GITHUB_EVENT_PATH", event);
        Self { machine }
    }

    fn script(&self, name: &str) -> Outcome {
        let script = workspace().join("action").join(name).display().to_string();
        let mut step = self.machine.command("node", &[&script]);
        for (name, value) in self.machine.values("state") {
            step.env(format!("STATE_{name}"), value);
        }
        run(&mut step)
    }

    fn output(&self, name: &str) -> String {
        self.machine
            .values("output")
            .remove(name)
            .unwrap_or_default()
    }

    fn built(&self) -> usize {
        let outcome = self
            .machine
            .step("nix-build", &["--no-out-link", "-A", "app"]);
        let built = outcome.stderr.matches("building '/nix/store/").count();
        outcome.ok();
        built
    }
}

#[test]
fn main_and_post_are_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().to_str().unwrap();
    let project = Project::new();
    let job = Job::new(&project, storage);
    job.script("main.js").ok();
    assert_eq!(job.output("cache-hit"), "false");
    assert_eq!(job.built(), ALL.len());
    job.machine
        .step(
            "sh",
            &["-ec", "mkdir -p ~/.cache/tool; echo kept > ~/.cache/tool/f"],
        )
        .ok();
    let said = job.script("post.js").ok();
    assert!(said.contains("saved nix-Linux-"), "{said}");
    assert!(
        job.machine.page().contains("| paths saved | 5 |"),
        "{}",
        job.machine.page()
    );

    let job = Job::new(&project, storage);
    let said = job.script("main.js").ok();
    assert!(said.contains('✅'), "{said}");
    assert_eq!(job.output("cache-hit"), "true");
    assert_eq!(
        job.output("cache-matched-key"),
        job.output("cache-primary-key")
    );
    let kept = std::fs::read_to_string(job.machine.path("home/.cache/tool/f")).unwrap();
    assert_eq!(kept, "kept\n");
    assert_eq!(job.built(), 0);
    let said = job.script("post.js").ok();
    assert!(said.contains("nothing new: nothing sent"), "{said}");
}

/// What the job's steps have put in the program's place does not get the rights of the second half.
#[test]
fn s25_a_binary_that_was_changed_is_not_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let project = Project::new();
    let mut job = Job::new(&project, folder.path().to_str().unwrap());
    let firn = job.machine.path("temp/firn");
    std::fs::copy(env!("CARGO_BIN_EXE_firn"), &firn).unwrap();
    job.machine.set("INPUT_FIRN-BINARY", firn.to_str().unwrap());
    job.script("main.js").ok();
    let trace = job.machine.path("temp/ran");
    std::fs::remove_file(&firn).unwrap();
    std::fs::write(
        &firn,
        format!("#!/bin/sh\necho ran > {}\n", trace.display()),
    )
    .unwrap();
    std::fs::set_permissions(&firn, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let outcome = job.script("post.js");
    assert!(!outcome.status.success());
    assert!(
        outcome.stdout.contains("it was changed while the job ran"),
        "{}",
        outcome.stdout
    );
    assert!(!trace.exists());
}

#[test]
fn the_halves_are_actions_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().to_str().unwrap();
    let project = Project::new();
    let job = Job::new(&project, storage);
    assert_eq!(job.built(), ALL.len());
    let said = job.script("save.js").ok();
    assert!(
        said.contains("saved nix-Linux-"),
        "without a restore: {said}"
    );

    let job = Job::new(&project, storage);
    job.script("restore.js").ok();
    assert_eq!(job.built(), 0);
    let said = job.script("save.js").ok();
    assert!(said.contains("nothing new"), "{said}");
}

#[test]
fn lookups_serve_nothing_and_misses_fail_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let project = Project::new();
    let mut job = Job::new(&project, folder.path().to_str().unwrap());
    job.machine.set("INPUT_LOOKUP-ONLY", "true");
    job.script("main.js").ok();
    assert_eq!(job.output("cache-hit"), "false");
    assert_eq!(job.machine.values("env").get("NIX_CONFIG"), None);
    job.script("post.js").ok();
    assert_eq!(job.machine.page(), "", "there was nothing to do");
    job.machine.set("INPUT_FAIL-ON-CACHE-MISS", "true");
    let said = job.script("main.js");
    assert!(said.stdout.contains("::error"), "{said}");
    said.refused();
}

/// A place to download from; serves what it is given to whoever asks.
fn serve(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/firn", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _head = stream.read(&mut [0; 4096]).unwrap();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                bytes.len()
            );
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&bytes));
        }
    });
    url
}

#[test]
fn a_downloaded_binary_is_checked_before_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_firn"));
    let url = serve(std::fs::read(binary).unwrap());
    let digest = run(command("sha256sum").arg(binary)).ok()[..64].to_owned();
    let project = Project::new();
    let job = |digest: &str| {
        let mut job = Job::new(&project, folder.path().to_str().unwrap());
        job.machine.set("INPUT_FIRN-BINARY", "");
        job.machine.set("INPUT_FIRN-URL", url.as_str());
        job.machine.set("INPUT_FIRN-SHA256", digest);
        job.machine.set("INPUT_LOOKUP-ONLY", "true");
        job
    };
    let sound = job(&digest);
    sound.script("main.js").ok();
    let folders = std::fs::read_to_string(sound.machine.path("path")).unwrap();
    assert!(
        Path::new(folders.trim()).join("firn").is_file(),
        "{folders}"
    );
    for (digest, what) in [("0".repeat(64), "SHA-256"), (String::new(), "firn-sha256")] {
        let said = job(&digest).script("main.js");
        assert!(said.stdout.contains(what), "{said}");
        said.refused();
    }
}
