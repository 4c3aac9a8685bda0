//! Making the Nix of a job use the loopback substituter, and knowing when it will not.

use super::event::Environment;
use crate::command::run;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The value of `NIX_CONFIG` for a job: what is there already, and the substituter. A substituter that fails
/// must not fail a build that could be made here, hence `fallback`.
pub fn nix_config(before: Option<&str>, url: &str, public_key: &str) -> String {
    let mut text = before.unwrap_or_default().trim_end().to_owned();
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!(
        "extra-substituters = {url}\nextra-trusted-public-keys = {public_key}\nfallback = true"
    ));
    text
}

/// Whether Nix takes substituters from us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// It works on the store itself, or its daemon trusts the user.
    Trusted,
    /// Its daemon does not trust this user, and ignores what `NIX_CONFIG` says of substituters.
    Untrusted {
        /// Who is not trusted.
        user: String,
    },
    /// It could not be asked.
    Unknown,
}

impl Trust {
    /// What to do, if something is to be done.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Trusted => None,
            Self::Untrusted { user } => Some(format!(
                "Nix's daemon does not trust {user}, and so it will not use the cache. Let it, before \
                 this step: echo 'extra-trusted-users = {user}' | sudo tee -a /etc/nix/nix.conf && \
                 sudo systemctl restart nix-daemon"
            )),
            Self::Unknown => Some(
                "could not ask Nix whether its daemon trusts this user; if it does not, it will not \
                 use the cache"
                    .to_owned(),
            ),
        }
    }
}

/// Asks Nix, where it works through a daemon.
pub fn trust(environment: Environment<'_>) -> Trust {
    if !uses_daemon(environment) {
        return Trust::Trusted;
    }
    match (names("-un"), names("-Gn"), trusted_users()) {
        (Some(user), Some(groups), Some(trusted)) => {
            let user = user.into_iter().next().unwrap_or_default();
            match is_trusted(&user, &groups, &trusted) {
                true => Trust::Trusted,
                false => Trust::Untrusted { user },
            }
        }
        _ => Trust::Unknown,
    }
}

/// As Nix itself decides: by `NIX_REMOTE`, else by whether the state can be written.
fn uses_daemon(environment: Environment<'_>) -> bool {
    match environment("NIX_REMOTE").as_deref() {
        None | Some("auto") => {}
        Some(remote) => return remote == "daemon" || remote.starts_with("unix:"),
    }
    let state = environment("NIX_STATE_DIR").unwrap_or_else(|| "/nix/var/nix".to_owned());
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    let writable = rustix::fs::access(Path::new(&state), access).is_ok();
    let socket = PathBuf::from(&state).join("daemon-socket/socket");
    !writable && socket.exists()
}

fn is_trusted(user: &str, groups: &[String], trusted: &[String]) -> bool {
    trusted.iter().any(|name| match name.strip_prefix('@') {
        Some(group) => groups.iter().any(|own| own == group),
        None => name == "*" || name == user,
    })
}

fn names(flag: &str) -> Option<Vec<String>> {
    let output = run(Command::new("id").arg(flag)).ok()?;
    let text = String::from_utf8(output).ok()?;
    Some(text.split_whitespace().map(str::to_owned).collect())
}

/// `nix config show` has another name in older versions.
fn trusted_users() -> Option<Vec<String>> {
    let ask = |words: &[&str]| {
        let mut nix = Command::new("nix");
        nix.args(["--extra-experimental-features", "nix-command"])
            .args(words)
            .arg("--json");
        let settings: serde_json::Value = serde_json::from_slice(&run(&mut nix).ok()?).ok()?;
        let users = settings["trusted-users"]["value"].as_array()?.clone();
        Some(users)
    };
    let users = ask(&["config", "show"]).or_else(|| ask(&["show-config"]))?;
    Some(
        users
            .iter()
            .filter_map(|user| user.as_str().map(str::to_owned))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_configured_stays() {
        let text = nix_config(
            Some("max-jobs = 3\n"),
            "http://127.0.0.1:1/x/main",
            "k:AAAA",
        );
        assert_eq!(
            text,
            "max-jobs = 3\nextra-substituters = http://127.0.0.1:1/x/main\n\
             extra-trusted-public-keys = k:AAAA\nfallback = true"
        );
        assert!(nix_config(None, "u", "k").starts_with("extra-substituters"));
    }

    #[test]
    fn users_are_trusted_by_name_by_group_or_all() {
        let words =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        let trusted = |list: &str| is_trusted("me", &words("me docker"), &words(list));
        assert!(trusted("root me"));
        assert!(trusted("@docker"));
        assert!(trusted("*"));
        assert!(!trusted("root @wheel"));
        assert!(Trust::Trusted.advice().is_none());
        let advice = Trust::Untrusted {
            user: "me".to_owned(),
        }
        .advice()
        .expect("advice");
        assert!(advice.contains("trusted-users = me"));
    }

    #[test]
    fn a_store_that_can_be_written_needs_no_daemon() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = dir.path().display().to_string();
        let of = |remote: Option<&str>| {
            uses_daemon(&|name| match name {
                "NIX_STATE_DIR" => Some(state.clone()),
                "NIX_REMOTE" => remote.map(str::to_owned),
                _ => None,
            })
        };
        assert!(!of(None) && !of(Some("local")) && of(Some("daemon")));
    }
}
