//! Debian's containerd with a root, a state and a socket of its own, and its client `ctr`.

use super::program::{self, Outcome, run};
use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_SECONDS_MAX: u64 = 60;

/// A running containerd; ends with this value.
pub struct Containerd {
    folder: TempDir,
    daemon: Child,
}

impl Containerd {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        program::need_root();
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        let at = |name: &str| folder.path().join(name);
        // The plugin for Kubernetes wants a network.
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        std::fs::write(at("config.toml"), config).expect("cannot write config.toml");
        let log = File::create(at("log")).expect("cannot make the daemon's log");
        let daemon = program::daemon(program::find("containerd"))
            .arg("--config")
            .arg(at("config.toml"))
            .arg("--root")
            .arg(at("root"))
            .arg("--state")
            .arg(at("state"))
            .arg("--address")
            .arg(at("socket"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("cannot start containerd");
        let mut containerd = Self { folder, daemon };
        let until = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while !containerd.ctr(&["version"]).status.success() {
            let ended = containerd
                .daemon
                .try_wait()
                .expect("cannot ask for containerd");
            let log = containerd.folder.path().join("log");
            assert!(
                ended.is_none() && Instant::now() < until,
                "containerd did not start ({ended:?}):\n{}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        containerd
    }

    /// Runs `ctr`.
    pub fn ctr(&self, arguments: &[&str]) -> Outcome {
        run(program::command("ctr")
            .arg("--address")
            .arg(self.folder.path().join("socket"))
            .args(arguments))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
