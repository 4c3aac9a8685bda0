//! A small project and its jobs: five paths of its own, one of an upstream cache.

use firn_testkit::rigs::machine::Machine;
use firn_testkit::rigs::program::{command, run};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;
use tempfile::TempDir;

/// What a job builds that finds nothing, in order.
pub(crate) const ALL: [&str; 5] = ["base", "pak1", "pak2", "pak3", "app"];
/// New bytes of a package that is changed: the other half stays.
pub(crate) const HALF_BYTES: u64 = 2_000_000;

/// Bytes that no compressor makes smaller, the same at every build.
const EXPRESSION: &str = r#"
let
  lock = builtins.fromJSON (builtins.readFile ./lock.json);
  version = name: builtins.readFile (./. + "/${name}.version");
  make = name: script: deps: derivation {
    inherit name deps;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-ec" "mkdir -p $out; echo $deps > $out/deps; ${script}" ];
  };
  noise = seed: file: "openssl enc -aes-256-ctr -pass pass:${seed} -nosalt -in /dev/zero 2>/dev/null | head -c 2000000 > $out/${file}; ";
  upstream = make "upstream" (noise "upstream" "data") [ ];
  base = make "base" (noise "base" "one" + noise "base-two" "two" + "echo ${lock.base} > $out/version") [ upstream ];
  package = name: make name (noise name "half" + noise "${name}-${version name}" "other") [ base ];
  app = make "app" "echo app > $out/app" [ (package "pak1") (package "pak2") (package "pak3") ];
in { inherit upstream app; }
"#;

/// The files of a repository.
pub(crate) struct Project {
    checkout: TempDir,
}

impl Project {
    pub(crate) fn new() -> Self {
        let checkout = tempfile::tempdir().unwrap();
        let project = Self { checkout };
        project.write("default.nix", EXPRESSION);
        project.bump("1");
        for package in ["pak1", "pak2", "pak3"] {
            project.change(package, "1");
        }
        project
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.checkout.path().join(name), text).unwrap();
    }

    /// Changes half of one package.
    pub(crate) fn change(&self, package: &str, version: &str) {
        self.write(&format!("{package}.version"), version);
    }

    /// Changes what everything else is built on.
    pub(crate) fn bump(&self, version: &str) {
        self.write("lock.json", &format!(r#"{{"base": "{version}"}}"#));
    }

    /// A machine that knows the upstream cache.
    pub(crate) fn machine(&self) -> Machine {
        let upstream = upstream(self);
        let machine = Machine::new(self.checkout.path());
        machine.configure(&format!(
            "substituters = file://{}\ntrusted-public-keys = {}",
            upstream.folder.path().join("cache").display(),
            upstream.key
        ));
        machine
    }
}

/// A cache of others, as cache.nixos.org is one: it holds `upstream`.
struct Upstream {
    folder: TempDir,
    key: String,
}

fn upstream(project: &Project) -> &'static Upstream {
    static MADE: OnceLock<Upstream> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        run(command("nix-store").args([
            "--generate-binary-cache-key",
            "upstream-1",
            &at("secret"),
            &at("public"),
        ]))
        .ok();
        let machine = Machine::new(project.checkout.path());
        let path = machine
            .step("nix-build", &["--no-out-link", "-A", "upstream"])
            .ok();
        let cache = format!("file://{}?secret-key={}", at("cache"), at("secret"));
        machine.step("nix", &["copy", "--to", &cache, &path]).ok();
        Upstream {
            key: std::fs::read_to_string(at("public")).unwrap(),
            folder,
        }
    })
}

/// The key of the cache of others.
pub(crate) fn upstream_key(project: &Project) -> String {
    upstream(project).key.clone()
}

/// A job under way.
pub(crate) struct Job {
    pub(crate) machine: Machine,
    /// What restore said with `--json`.
    pub(crate) restored: Value,
    /// What it said to people.
    pub(crate) line: String,
    /// Names of what was built, and not fetched.
    pub(crate) built: Vec<String>,
    pub(crate) build_seconds: f64,
    pub(crate) upstream_key: String,
}

/// What save did, and the job's page.
pub(crate) struct Saved {
    pub(crate) report: Value,
    /// Figures of the whole job.
    pub(crate) summary: Value,
    pub(crate) page: String,
}

impl Job {
    /// Restores on a fresh machine.
    pub(crate) fn begin(project: &Project, storage: &str, arguments: &[&str]) -> Self {
        Self::begin_on(project.machine(), project, storage, arguments)
    }

    /// The same, with rights to a registry.
    pub(crate) fn begin_with(
        project: &Project,
        storage: &str,
        arguments: &[&str],
        rights: &str,
    ) -> Self {
        let mut machine = project.machine();
        machine.set("FIRN_DEST_CREDS", rights);
        Self::begin_on(machine, project, storage, arguments)
    }

    pub(crate) fn begin_on(
        machine: Machine,
        project: &Project,
        storage: &str,
        arguments: &[&str],
    ) -> Self {
        let words = [
            &["ci", "restore", "--storage", storage, "--json"],
            arguments,
        ]
        .concat();
        let said = machine.step(env!("CARGO_BIN_EXE_firn"), &words);
        let line = said
            .stderr
            .lines()
            .filter(|line| !line.starts_with("note:"));
        let line = line.collect::<Vec<_>>().join("\n");
        Self {
            line,
            restored: serde_json::from_str(&said.ok()).unwrap(),
            machine,
            built: Vec::new(),
            build_seconds: 0.0,
            upstream_key: upstream(project).key.clone(),
        }
    }

    /// A value that restore gave to later steps.
    pub(crate) fn output(&self, name: &str) -> String {
        self.machine
            .values("output")
            .remove(name)
            .unwrap_or_default()
    }

    /// Builds the project.
    pub(crate) fn build(&mut self) {
        let begun = Instant::now();
        let outcome = self
            .machine
            .step("nix-build", &["--no-out-link", "-A", "app"]);
        self.build_seconds = begun.elapsed().as_secs_f64();
        let built = outcome.stderr.lines().filter_map(|line| {
            let path = line.strip_prefix("building '/nix/store/")?;
            Some(path.get(33..)?.split(".drv").next()?.to_owned())
        });
        self.built = built.collect();
        self.built
            .sort_by_key(|name| ALL.iter().position(|one| one == name));
        outcome.ok();
    }

    /// `command` with the variables of a step, and its `/nix`.
    pub(crate) fn inside(&self, command: &mut Command) -> Command {
        let program = command.get_program().to_str().unwrap().to_owned();
        let words: Vec<&str> = command
            .get_args()
            .map(|word| word.to_str().unwrap())
            .collect();
        // Without the limit of time that a step has: it would be the one to be killed.
        let step = self.machine.command(&program, &words);
        let mut arguments = step.get_args().skip(2);
        let mut inside = Command::new(arguments.next().unwrap());
        inside
            .args(arguments)
            .current_dir(self.machine.path("work"));
        for (name, value) in step.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// Saves, and writes the summary.
    pub(crate) fn save(&self, arguments: &[&str]) -> Saved {
        let firn = env!("CARGO_BIN_EXE_firn");
        let words = ["ci", "save", "--json", "--upstream-key", &self.upstream_key];
        let report = self.machine.step(firn, &[&words, arguments].concat()).ok();
        let summary = self.machine.step(firn, &["ci", "summary", "--json"]).ok();
        Saved {
            report: serde_json::from_str(&report).unwrap(),
            summary: serde_json::from_str(&summary).unwrap(),
            page: self.machine.page(),
        }
    }

    /// Ends the substituter of a job that will not save.
    pub(crate) fn end(self) {
        let state = self.machine.values("env").remove("FIRN_CI_STATE").unwrap();
        // It ends by itself when its folder has gone; until then it may write there.
        let gone = || std::fs::remove_dir_all(Path::new(&state));
        let mut tries = 100;
        while let Err(error) = gone() {
            if error.kind() == std::io::ErrorKind::NotFound {
                break;
            }
            tries -= 1;
            assert!(tries > 0, "{error}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}
