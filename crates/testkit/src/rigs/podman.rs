//! podman with a storage of its own.

use super::program::{self, Outcome, run};
use std::process::Command;
use tempfile::TempDir;

/// Containers in a folder: nothing of the user's podman is read or changed.
pub struct Podman {
    folder: TempDir,
}

impl Podman {
    /// An empty storage.
    pub fn new() -> Self {
        program::need_root();
        Self {
            folder: tempfile::tempdir().expect("cannot make a temporary folder"),
        }
    }

    /// `vfs` leaves no mount behind; `runc` runs under cgroups of version 1 and 2, where crun 1.8
    /// refuses the mixture of both.
    fn command(&self) -> Command {
        let folder = self.folder.path();
        let mut command = program::command("podman");
        command
            .arg("--root")
            .arg(folder.join("root"))
            .arg("--runroot")
            .arg(folder.join("run"))
            .arg("--tmpdir")
            .arg(folder.join("tmp"))
            .args(["--storage-driver", "vfs", "--runtime", "runc"])
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command
    }

    /// Writes a `podman` with this storage into a folder.
    pub fn shim(&self, folder: &std::path::Path) {
        program::shim(folder, "podman", &self.command());
    }

    /// Pulls over plain HTTP, as `user:password` if that is given.
    pub fn pull(&self, image: &str, credentials: Option<&str>) -> Outcome {
        let mut command = self.command();
        command.args(["pull", "--quiet", "--tls-verify=false"]);
        if let Some(credentials) = credentials {
            command.args(["--creds", credentials]);
        }
        run(command.arg(image))
    }

    /// Pushes an image that it has under another name, likewise.
    pub fn push(&self, image: &str, name: &str, credentials: Option<&str>) -> Outcome {
        let mut command = self.command();
        command.args(["push", "--quiet", "--tls-verify=false"]);
        if let Some(credentials) = credentials {
            command.args(["--creds", credentials]);
        }
        run(command.args([image, &format!("docker://{name}")]))
    }

    /// Runs a container without a network. The limits are set low because raising them needs a
    /// right that containers of CI lack.
    pub fn run(&self, image: &str, arguments: &[&str]) -> Outcome {
        run(self
            .command()
            .args(["run", "--rm", "--pull=never", "--network=none"])
            .args([
                "--ulimit",
                "nofile=1024:1024",
                "--ulimit",
                "nproc=4096:4096",
            ])
            .arg(image)
            .args(arguments))
    }

    /// `podman inspect` of an image by a Go template.
    pub fn inspect(&self, image: &str, format: &str) -> Outcome {
        run(self
            .command()
            .args(["image", "inspect", "--format", format, image]))
    }
}

impl Default for Podman {
    fn default() -> Self {
        Self::new()
    }
}
