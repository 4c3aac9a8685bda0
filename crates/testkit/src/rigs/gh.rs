//! GitHub's own command line, Debian 13's, before a server that it takes for GitHub Enterprise.

use super::program::{Outcome, run};
use super::tls::Tls;
use super::trixie;
use std::path::PathBuf;
use tempfile::TempDir;

/// Somebody with `gh`, a token and an empty home.
pub struct Gh {
    host: String,
    token: String,
    authority: PathBuf,
    home: TempDir,
}

impl Gh {
    /// Speaks to the server behind `tls`; `gh` speaks no plain HTTP.
    pub fn new(tls: &Tls, token: &str) -> Self {
        Self {
            host: tls.url().trim_start_matches("https://").to_owned(),
            token: token.to_owned(),
            authority: tls.authority(),
            home: TempDir::new().expect("cannot make a temporary folder"),
        }
    }

    /// Runs `gh ARGUMENTS` for a repository.
    pub fn run(&self, repository: &str, arguments: &[&str]) -> Outcome {
        run(trixie::command("gh")
            .args(arguments)
            .args(["--repo", &format!("{}/{repository}", self.host)])
            .env("GH_HOST", &self.host)
            .env("GH_ENTERPRISE_TOKEN", &self.token)
            .env("GH_NO_UPDATE_NOTIFIER", "1")
            .env("GH_PROMPT_DISABLED", "1")
            .env("SSL_CERT_FILE", &self.authority)
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path())
            .env_remove("GH_TOKEN")
            .env_remove("GITHUB_TOKEN"))
    }
}
