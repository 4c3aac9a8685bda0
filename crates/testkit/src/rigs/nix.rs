//! Nix of both releases, each with a configuration, a home and caches of its own.

use super::program::{Outcome, run};
use super::{Release, program};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Builds need no users of their own, nothing comes from the internet, signatures are required.
const CONFIGURATION: &str = "\
experimental-features = nix-command flakes
build-users-group =
sandbox = false
substituters =
trusted-public-keys =
require-sigs = true
";

/// A Nix without memory: what it was told of a cache ends with this value.
pub struct Nix {
    release: Release,
    folder: TempDir,
}

impl Nix {
    /// A Nix that has never spoken to a cache.
    pub fn new(release: Release) -> Self {
        program::need_root();
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        std::fs::write(folder.path().join("nix.conf"), CONFIGURATION).expect("cannot write");
        Self { release, folder }
    }

    /// A file or folder beside its configuration; both releases see it under this name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds lines to its nix.conf.
    pub fn configure(&self, lines: &str) {
        let before = std::fs::read_to_string(self.path("nix.conf")).unwrap_or_default();
        std::fs::write(self.path("nix.conf"), format!("{before}{lines}\n")).expect("cannot write");
    }

    /// Lets it say `token` to a machine, as the password.
    pub fn netrc(&self, machine: &str, token: &str) {
        let line = format!("machine {machine} login firn password {token}\n");
        std::fs::write(self.path("netrc"), line).expect("cannot write netrc");
        self.configure(&format!("netrc-file = {}", self.path("netrc").display()));
    }

    /// `nix`, `nix-store`, `nix-build`, … of this release.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.release.command(program);
        command
            .env("NIX_CONF_DIR", self.folder.path())
            .env("HOME", self.path("home"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env_remove("NIX_REMOTE")
            .env_remove("NIX_PATH");
        command
    }

    /// `nix copy --to URL PATHS`.
    pub fn copy_to(&self, url: &str, paths: &[&str]) -> Outcome {
        run(self.command("nix").args(["copy", "--to", url]).args(paths))
    }

    /// Substitutes into the store under `root` by `nix-store --realise`.
    pub fn realise(&self, root: &Path, url: &str, key: &str, paths: &[&str]) -> Outcome {
        run(self
            .command("nix-store")
            .arg("--store")
            .arg(root)
            .args(["--option", "substituters", url])
            .args(["--option", "trusted-public-keys", key, "--realise"])
            .args(paths))
    }

    /// Substitutes into the store under `root` by `nix build`.
    pub fn build(&self, root: &Path, url: &str, key: &str, paths: &[&str]) -> Outcome {
        run(self
            .command("nix")
            .args(["build", "--no-link", "--store"])
            .arg(root)
            .args(["--option", "substituters", url])
            .args(["--option", "trusted-public-keys", key])
            .args(paths))
    }

    /// Hashes every path of a closure in the store under `root` again, and checks that each is
    /// signed by `key`.
    pub fn verify(&self, root: &Path, key: &str, path: &str) -> Outcome {
        run(self
            .command("nix")
            .args(["store", "verify", "--recursive", "--store"])
            .arg(root)
            .args(["--option", "trusted-public-keys", key, path]))
    }
}
