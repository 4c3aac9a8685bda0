//! crane and oras, compiled by `make setup`, each with a home of its own.

use super::program::{self, Outcome, run};
use super::serve::Server;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A user of crane and oras who is logged in to a server.
pub struct OciTools {
    folder: TempDir,
}

impl OciTools {
    /// Logs both in; they share docker's configuration file.
    pub fn logged_in(server: &Server) -> Self {
        let tools = Self {
            folder: tempfile::tempdir().expect("cannot make a temporary folder"),
        };
        let token = server.token();
        tools
            .crane(&[
                "auth",
                "login",
                server.address(),
                "-u",
                "token",
                "-p",
                &token,
            ])
            .ok();
        tools
    }

    /// Their folder: what oras is to push lies here, by a relative path.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, name: &str) -> Command {
        let mut command = program::limited(&program::tool(name));
        command
            .env("HOME", self.folder())
            .env("DOCKER_CONFIG", self.folder().join("docker"))
            .current_dir(self.folder());
        command
    }

    /// Runs crane; it speaks plain HTTP to loopback.
    pub fn crane(&self, arguments: &[&str]) -> Outcome {
        run(self.command("crane").args(arguments))
    }

    /// Runs oras.
    pub fn oras(&self, arguments: &[&str]) -> Outcome {
        run(self.command("oras").args(arguments))
    }
}
