//! A machine of a CI service: an empty `/nix`, an empty home, a checkout, and a runner's files, all gone
//! with the value. Its steps are shell scripts; each sees the folder as `/nix` by a mount of its own.

use super::program::{self, Outcome, run};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// No sandbox and no users for builds; signatures are required, and nothing comes from the internet.
const NIX_CONF: &str = "\
experimental-features = nix-command flakes
build-users-group =
sandbox = false
substituters =
trusted-public-keys =
require-sigs = true
";

/// A machine on which nothing was ever built.
pub struct Machine {
    folder: TempDir,
    /// What the job itself sets for all its steps.
    environment: Vec<(String, String)>,
}

impl Machine {
    /// A fresh one, with a copy of the files of `checkout`.
    pub fn new(checkout: &Path) -> Self {
        program::need_root();
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        let machine = Self {
            folder,
            environment: Vec::new(),
        };
        for name in ["nix", "home", "temp", "conf"] {
            std::fs::create_dir(machine.path(name)).expect("cannot make a folder");
        }
        std::fs::create_dir_all("/nix").expect("cannot make /nix");
        run(program::command("cp")
            .arg("-a")
            .arg(checkout)
            .arg(machine.path("work")))
        .ok();
        std::fs::write(machine.path("conf/nix.conf"), NIX_CONF).expect("cannot write nix.conf");
        machine
    }

    /// A file or folder of it: `nix`, `home`, `temp`, `work`, `conf`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds lines to its nix.conf.
    pub fn configure(&self, lines: &str) {
        let file = self.path("conf/nix.conf");
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(file, format!("{before}{lines}\n")).expect("cannot write nix.conf");
    }

    /// Sets a variable for all steps from here on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Writes a file of the checkout.
    pub fn edit(&self, name: &str, text: &str) {
        std::fs::write(self.path("work").join(name), text).expect("cannot write");
    }

    /// A step, not yet run: `program` with the runner's variables, those that earlier steps have set among them.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = program::command("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-ec"])
            .arg(r#"mount --bind "$0" /nix; exec "$@""#)
            .arg(self.path("nix"))
            // Not through the shell's environment: it drops names with a dash, such as an action's inputs.
            .arg("env")
            .args(
                self.environment
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            )
            .arg(program)
            .args(arguments);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let foreign = [
                "FIRN_", "NIX_", "XDG_", "GITHUB_", "RUNNER_", "CI_", "INPUT_",
            ];
            if foreign.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.path("work"))
            .env("HOME", self.path("home"))
            .env("NIX_CONF_DIR", self.path("conf"))
            .env("RUNNER_TEMP", self.path("temp"))
            .env("GITHUB_WORKSPACE", self.path("work"));
        for name in ["ENV", "OUTPUT", "STATE", "PATH", "STEP_SUMMARY"] {
            command.env(format!("GITHUB_{name}"), self.path(&name.to_lowercase()));
        }
        command.envs(self.values("env"));
        command
    }

    /// Runs a step.
    pub fn step(&self, program: &str, arguments: &[&str]) -> Outcome {
        run(&mut self.command(program, arguments))
    }

    /// What steps have written for the runner: `env`, `output` or `state`; later values win.
    pub fn values(&self, file: &str) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(self.path(file)).unwrap_or_default();
        let mut values = BTreeMap::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some((name, delimiter)) = line
                .split_once("<<")
                .filter(|(name, _)| !name.contains('='))
            {
                let value: Vec<&str> = lines
                    .by_ref()
                    .take_while(|line| *line != delimiter)
                    .collect();
                values.insert(name.to_owned(), value.join("\n"));
            } else if let Some((name, value)) = line.split_once('=') {
                values.insert(name.to_owned(), value.to_owned());
            }
        }
        values
    }

    /// All that steps have written into the job's page.
    pub fn page(&self) -> String {
        std::fs::read_to_string(self.path("step_summary")).unwrap_or_default()
    }
}
