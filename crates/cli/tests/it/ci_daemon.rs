//! A job whose user works through Nix's daemon: where that does not trust the user, restore says so, and what to do.

use crate::ci::RESTORE;
use crate::ci::project::{ALL, Job, Project};
use firn_testkit::rigs::machine::Machine;
use firn_testkit::rigs::program::{self, Outcome, run};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The job's user, as on a runner that is not root's.
const USER: &str = "nobody";

/// A machine with a daemon.
struct Desk {
    machine: Machine,
    /// A copy that the user may run.
    firn: String,
    daemon: Option<Child>,
}

impl Desk {
    fn new(project: &Project) -> Self {
        let machine = project.machine();
        let firn = machine.path("firn");
        std::fs::copy(env!("CARGO_BIN_EXE_firn"), &firn).unwrap();
        machine.step("nix-store", &["--init"]).ok();
        for name in ["env", "output", "state", "path", "step_summary"] {
            std::fs::write(machine.path(name), "").unwrap();
        }
        let all = machine.path("");
        readable(&all);
        run(program::command("chown").args(["-R", USER]).args(
            [
                "home",
                "temp",
                "work",
                "env",
                "output",
                "state",
                "path",
                "step_summary",
            ]
            .map(|name| machine.path(name)),
        ))
        .ok();
        Self {
            firn: firn.display().to_string(),
            machine,
            daemon: None,
        }
    }

    fn start_daemon(&mut self) {
        self.stop_daemon();
        let step = self.machine.command("nix-daemon", &[]);
        // Without the limit of time that a step has.
        let mut daemon = program::daemon(step.get_args().nth(2).unwrap());
        daemon.args(step.get_args().skip(3));
        for (name, value) in step.get_envs() {
            match value {
                Some(value) => daemon.env(name, value),
                None => daemon.env_remove(name),
            };
        }
        self.daemon = Some(daemon.spawn().unwrap());
        let socket = self.machine.path("nix/var/nix/daemon-socket/socket");
        let until = Instant::now() + Duration::from_secs(60);
        while !socket.exists() {
            assert!(Instant::now() < until, "nix-daemon did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            let socket = self.machine.path("nix/var/nix/daemon-socket/socket");
            std::fs::remove_file(socket).unwrap();
        }
    }

    /// A step of the user's.
    fn step(&self, program: &str, arguments: &[&str]) -> Outcome {
        let user = [
            "--reuid",
            USER,
            "--regid",
            "nogroup",
            "--clear-groups",
            program,
        ];
        self.machine.step("setpriv", &[&user, arguments].concat())
    }

    /// Restores and builds; gives what restore said, and what was built.
    fn job(&self, storage: &str) -> (String, usize) {
        let restore = ["ci", "restore", "--storage", storage];
        let said = self.step(&self.firn, &[&restore, RESTORE].concat());
        assert!(said.status.success(), "{said}");
        let built = self.step("nix-build", &["--no-out-link", "-A", "app"]);
        assert!(built.status.success(), "{built}");
        let lines = built.stderr.lines();
        let count = lines.filter(|line| line.starts_with("building '")).count();
        let text = format!("{}{}", said.stdout, said.stderr);
        (text, count)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop_daemon();
    }
}

/// Others may read it.
fn readable(folder: &Path) {
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(folder)).ok();
}

#[test]
fn a_daemon_that_does_not_trust_the_user_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("store");
    let storage = storage.to_str().unwrap();
    let project = Project::new();
    let mut filled = Job::begin(&project, storage, RESTORE);
    filled.build();
    filled.save(&[]);
    readable(folder.path());

    let mut desk = Desk::new(&project);
    desk.start_daemon();
    let (said, built) = desk.job(storage);
    assert!(said.contains(&format!("does not trust {USER}")), "{said}");
    assert!(
        said.contains(&format!("extra-trusted-users = {USER}")),
        "{said}"
    );
    assert_eq!(built, ALL.len(), "the daemon does not use the cache");

    let mut desk = Desk::new(&project);
    desk.machine
        .configure(&format!("trusted-users = root {USER}"));
    desk.start_daemon();
    let (said, built) = desk.job(storage);
    assert!(!said.contains("does not trust"), "{said}");
    assert_eq!(built, 0, "all of it comes from the cache: {said}");
}
