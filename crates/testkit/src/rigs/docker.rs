//! A Docker daemon of either release, with data, socket and containerd of its own.

use super::program::{self, Outcome, run};
use super::{Release, trixie};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_SECONDS_MAX: u64 = 60;
const STOP_SECONDS_MAX: u64 = 20;

/// A running daemon; ends with this value.
pub struct Docker {
    release: Release,
    folder: TempDir,
    daemon: Child,
}

impl Docker {
    /// Starts a daemon and waits until it answers.
    pub fn start(release: Release) -> Self {
        Self::configured(release, "{}")
    }

    /// The newer one, with its images in containerd: so its BuildKit can export a cache.
    pub fn with_exporters() -> Self {
        let config = r#"{"features": {"containerd-snapshotter": true}}"#;
        Self::configured(Release::Trixie, config)
    }

    fn configured(release: Release, config: &str) -> Self {
        program::need_root();
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        let mut command = match release {
            Release::Bookworm => program::daemon(program::find("dockerd")),
            Release::Trixie => trixie::daemon("dockerd"),
        };
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("daemon.json"), config).expect("cannot write daemon.json");
        let log = File::create(at("log")).expect("cannot make the daemon's log");
        let daemon = command
            .arg("--host")
            .arg(format!("unix://{}", at("socket").display()))
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--config-file")
            .arg(at("daemon.json"))
            // Containers without a network need neither a bridge nor the firewall.
            .args(["--iptables=false", "--bridge=none"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("cannot start dockerd");
        let mut docker = Self {
            release,
            folder,
            daemon,
        };
        docker.wait_until_up();
        docker
    }

    fn wait_until_up(&mut self) {
        let until = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while !self.version().status.success() {
            let ended = self.daemon.try_wait().expect("cannot ask for dockerd");
            assert!(
                ended.is_none() && Instant::now() < until,
                "dockerd did not start ({ended:?}):\n{}",
                std::fs::read_to_string(self.path("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = self.release.command("docker");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.path("socket").display()))
            .env("DOCKER_CONFIG", self.path("config"));
        command
    }

    /// Writes a `docker` that speaks to this daemon into a folder.
    pub fn shim(&self, folder: &std::path::Path) {
        program::shim(folder, "docker", &self.command());
    }

    /// The daemon's version.
    pub fn version(&self) -> Outcome {
        run(self
            .command()
            .args(["version", "--format", "{{.Server.Version}}"]))
    }

    /// Logs in to a registry, as its users do: the password is a token.
    pub fn login(&self, registry: &str, token: &str) -> Outcome {
        run(self.command().args([
            "login",
            "--username",
            "token",
            "--password",
            token,
            registry,
        ]))
    }

    /// Pulls an image; Docker speaks plain HTTP to loopback registries.
    pub fn pull(&self, image: &str) -> Outcome {
        run(self.command().args(["pull", "--quiet", image]))
    }

    /// Pushes an image that it has.
    pub fn push(&self, image: &str) -> Outcome {
        run(self.command().args(["push", "--quiet", image]))
    }

    /// Gives an image a further name.
    pub fn tag(&self, image: &str, name: &str) -> Outcome {
        run(self.command().args(["tag", image, name]))
    }

    /// Loads a docker-archive.
    pub fn load(&self, archive: &std::path::Path) -> Outcome {
        run(self
            .command()
            .args(["load", "--quiet", "--input"])
            .arg(archive))
    }

    /// `docker buildx build` of a folder, with a cache as `type=gha` that `environment` says where to find.
    pub fn build_cached(
        &self,
        image: &str,
        folder: &std::path::Path,
        environment: impl FnOnce(&mut Command),
    ) -> Outcome {
        let mut command = self.command();
        command
            .args(["buildx", "build", "--progress=plain", "--tag", image])
            .args([
                "--cache-from",
                "type=gha",
                "--cache-to",
                "type=gha,mode=max",
            ])
            .arg(folder);
        environment(&mut command);
        run(&mut command)
    }

    /// Copies a file out of an image that holds no program.
    pub fn copy_out(&self, image: &str, file: &str, to: &std::path::Path) -> Outcome {
        let created = run(self.command().args(["create", image, "/none"])).ok();
        let from = format!("{}:{file}", created.trim());
        run(self.command().args(["cp", &from]).arg(to))
    }

    /// Runs a container without a network.
    pub fn run(&self, image: &str, arguments: &[&str]) -> Outcome {
        run(self
            .command()
            .args(["run", "--rm", "--network", "none", image])
            .args(arguments))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // SIGTERM: it ends its containerd too.
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let until = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        while Instant::now() < until && matches!(self.daemon.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
