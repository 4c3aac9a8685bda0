//! What Nix itself says: its settings, and whether the daemon takes ours.

use crate::{
    command::{is_in_path, run},
    error::{ClientError, Result},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

/// A substituter that no configuration names.
const STRANGER: &str = "http://substituter-that-nobody-trusts.invalid";

/// Nix's settings as a command of this user has them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NixSettings {
    pub substituters: Vec<String>,
    pub trusted_substituters: Vec<String>,
    pub trusted_public_keys: Vec<String>,
    pub netrc_file: PathBuf,
    /// The netrc that is read where nothing names another.
    pub netrc_file_default: PathBuf,
}

#[derive(Deserialize)]
struct Setting {
    value: serde_json::Value,
    #[serde(default, rename = "defaultValue")]
    default: serde_json::Value,
}

/// Whether there is a Nix to ask.
pub fn nix_is_here() -> bool {
    is_in_path("nix")
}

fn nix() -> Command {
    let mut command = Command::new("nix");
    command.args(["--extra-experimental-features", "nix-command"]);
    command
}

impl NixSettings {
    /// Of a command of this user.
    pub fn of_user() -> Result<Self> {
        Self::ask(&[])
    }

    /// Of the system's configuration alone, which is the daemon's.
    pub fn of_system() -> Result<Self> {
        Self::ask(&[("NIX_USER_CONF_FILES", ""), ("NIX_CONFIG", "")])
    }

    fn ask(environment: &[(&str, &str)]) -> Result<Self> {
        let ask = |words: &[&str]| {
            let mut command = nix();
            command.args(words).arg("--json");
            run(command.envs(environment.iter().copied()))
        };
        // Nix 2.8 knows the second only.
        let json = ask(&["config", "show"]).or_else(|_| ask(&["show-config"]))?;
        let settings: HashMap<String, Setting> = serde_json::from_slice(&json)
            .map_err(|source| ClientError::json("settings of Nix", source))?;
        Self::read(&settings).ok_or_else(|| {
            ClientError::Setting("`nix show-config` names no substituters".to_owned())
        })
    }

    fn read(settings: &HashMap<String, Setting>) -> Option<Self> {
        let words = |name: &str| -> Option<Vec<String>> {
            let list = settings.get(name)?.value.as_array()?;
            let words = list.iter().filter_map(|word| word.as_str());
            Some(words.map(str::to_owned).collect())
        };
        let netrc = settings.get("netrc-file")?;
        let netrc_file = PathBuf::from(netrc.value.as_str()?);
        Some(Self {
            substituters: words("substituters")?,
            trusted_substituters: words("trusted-substituters").unwrap_or_default(),
            trusted_public_keys: words("trusted-public-keys")?,
            netrc_file_default: netrc
                .default
                .as_str()
                .map_or_else(|| PathBuf::from("/etc/nix/netrc"), PathBuf::from),
            netrc_file,
        })
    }

    /// Whether a substituter is asked.
    pub fn has_substituter(&self, url: &str) -> bool {
        self.substituters.iter().any(|other| same_url(other, url))
    }

    /// Whether anybody may name a substituter.
    pub fn trusts_substituter(&self, url: &str) -> bool {
        let mut trusted = self.trusted_substituters.iter();
        self.has_substituter(url) || trusted.any(|other| same_url(other, url))
    }

    /// Whether all of some keys are trusted.
    pub fn trusts(&self, keys: &[String]) -> bool {
        keys.iter()
            .all(|key| self.trusted_public_keys.contains(key))
    }

    /// The name of a key that stands for another key too. Nix keeps one of the two.
    pub fn name_of_two(&self, keys: &[String]) -> Option<String> {
        let name = |key: &String| key.split(':').next().unwrap_or_default().to_owned();
        let clash = |key: &&String| {
            let mut others = self.trusted_public_keys.iter();
            others.any(|other| other != *key && name(other) == name(key))
        };
        keys.iter().find(clash).map(name)
    }
}

fn same_url(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// Whether the store takes substituters and keys from this user: a daemon takes them from its trusted users alone.
pub fn user_is_trusted() -> Result<bool> {
    let said = ping(&["--option", "extra-substituters", STRANGER], None)?;
    Ok(!said.contains(&format!("ignoring untrusted substituter '{STRANGER}'")))
}

/// Has Nix open a cache as a store, remembering nothing of it.
pub fn open_cache(url: &str) -> Result<()> {
    let memory =
        tempfile::tempdir().map_err(|source| ClientError::io(std::env::temp_dir(), source))?;
    ping(&["--store", url], Some(memory.path())).map(drop)
}

/// `nix store ping`, which newer versions call `nix store info`. Gives what it says beside its answer.
fn ping(options: &[&str], memory: Option<&Path>) -> Result<String> {
    let ask = |name: &str| {
        let mut command = nix();
        command.args(["store", name]).args(options);
        if let Some(memory) = memory {
            command.env("XDG_CACHE_HOME", memory);
        }
        crate::command::run_with_errors(&mut command)
    };
    match ask("ping") {
        Err(ClientError::Command { message, .. })
            if message.contains("not a recognised command") =>
        {
            ask("info")
        }
        said => said,
    }
}

/// Whether a daemon of Nix listens on this machine.
pub fn daemon_listens() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let socket = set("NIX_DAEMON_SOCKET_PATH").map_or_else(
        || {
            let state = set("NIX_STATE_DIR").unwrap_or_else(|| "/nix/var/nix".into());
            PathBuf::from(state).join("daemon-socket/socket")
        },
        PathBuf::from,
    );
    UnixStream::connect(socket).is_ok()
}
