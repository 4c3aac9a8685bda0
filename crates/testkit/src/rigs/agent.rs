//! `firn agent` as a child process.

use super::program;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// An agent on a port of loopback that the kernel chose.
pub struct Agent {
    child: Child,
    log: PathBuf,
    /// The substituter's address.
    pub url: String,
    /// The keys to trust, separated by spaces.
    pub keys: String,
}

impl Agent {
    /// Starts `firn agent ARGUMENTS`; `command` is `firn` with its environment, as a user has it. The log
    /// goes to `log`.
    pub fn start(command: &Command, log: &Path, arguments: &[&str]) -> Self {
        let stderr = File::create(log).expect("cannot make the agent's log");
        let mut daemon = program::daemon(command.get_program());
        daemon.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => daemon.env(name, value),
                None => daemon.env_remove(name),
            };
        }
        if !arguments.contains(&"--listen") {
            daemon.args(["agent", "--listen", "127.0.0.1:0"]);
        } else {
            daemon.arg("agent");
        }
        let mut child = daemon
            .args(["--json", "--log-format", "json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("cannot start firn agent");
        let stdout = child.stdout.take().expect("its output is a pipe");
        let mut said = String::new();
        let _read = BufReader::new(stdout).read_line(&mut said);
        let ready: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        let Some(url) = ready["url"].as_str() else {
            let _ = child.kill();
            let _ = child.wait();
            let log = std::fs::read_to_string(log).unwrap_or_default();
            panic!("firn agent said {said:?} and logged:\n{log}");
        };
        let keys = ready["public_keys"].as_array().cloned().unwrap_or_default();
        let keys: Vec<&str> = keys.iter().filter_map(|key| key.as_str()).collect();
        Self {
            child,
            log: log.to_owned(),
            url: url.to_owned(),
            keys: keys.join(" "),
        }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops it with SIGTERM; gives the counts that it logs last.
    pub fn stop(mut self) -> serde_json::Value {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .expect("cannot signal the agent");
        let ended = self.child.wait().expect("cannot wait for the agent");
        let log = self.log();
        assert!(ended.success(), "the agent ended with {ended}:\n{log}");
        let last = log.lines().last().unwrap_or_default();
        let last: serde_json::Value = serde_json::from_str(last).unwrap_or_default();
        last["fields"].clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
