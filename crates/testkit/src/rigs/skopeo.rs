//! skopeo of both releases, each time as on a machine that has never copied an image.

use super::program::{Outcome, run};
use super::{Release, program};
use std::process::Command;
use tempfile::TempDir;

/// skopeo remembers in a database of the machine which blobs it saw where. For root its place is
/// fixed; told that it serves another user, it takes `XDG_DATA_HOME`.
fn command(release: Release) -> (Command, TempDir) {
    program::need_root();
    let memory = tempfile::tempdir().expect("cannot make a temporary folder");
    let mut command = release.command("skopeo");
    command
        .env("_CONTAINERS_ROOTLESS_UID", "1000")
        .env("XDG_DATA_HOME", memory.path())
        .arg("--insecure-policy");
    (command, memory)
}

/// Copies an image; plain HTTP is allowed on both sides. `extra` are further options.
pub fn copy(release: Release, extra: &[&str], source: &str, destination: &str) -> Outcome {
    let (mut command, _memory) = command(release);
    run(command
        .args(["copy", "--quiet"])
        .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
        .args(extra)
        .args([source, destination]))
}

/// The manifest as it is stored.
pub fn raw_manifest(release: Release, credentials: &str, image: &str) -> Outcome {
    let (mut command, _memory) = command(release);
    run(command
        .args(["inspect", "--raw", "--tls-verify=false"])
        .args(["--creds", credentials, image]))
}
