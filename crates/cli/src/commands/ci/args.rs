//! What the commands share: where the store is, which key, which rights.

use crate::{
    failure::{Failure, Outcome},
    storage::StorageArgs,
};
use firn_client::{
    ci::{Base, entry::check_key, hash_files::hash_files, state::StateDir},
    storage::{StorageLocation, believes_all_writers},
};
use firn_formats::nix::PublicKey;
use std::path::PathBuf;

/// The key of cache.nixos.org, whose paths need not be kept.
const NIXOS_KEY: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

/// The store that is given, else the one that restore has noted. A job has one: it is the one that is written.
pub(crate) fn one_location(args: &StorageArgs, noted: Option<&str>) -> Outcome<StorageLocation> {
    let mut given = args.locations()?.into_iter();
    match (given.next(), given.next(), noted) {
        (Some(location), None, _) => Ok(location),
        (None, _, Some(noted)) => Ok(StorageLocation::parse(noted)?),
        (None, _, None) => Err(Failure::new("no store is named").hint(
            "--storage or FIRN_STORAGE says where it lies: oci://ghcr.io/OWNER/NAME, \
             s3://BUCKET/PREFIX or /FOLDER",
        )),
        (Some(_), Some(_), _) => Err(Failure::new("several stores are named")
            .hint("a job reads and writes one; `firn agent` serves several")),
    }
}

/// The key of a job.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeyArgs {
    /// Key of what is saved and restored; the hash of --key-files is added to it
    #[arg(long, value_name = "KEY", default_value = "")]
    key: String,
    /// Files whose hash is part of the key, as in hashFiles: *, ?, [], **, and ! to exclude
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    key_files: Vec<String>,
}

impl KeyArgs {
    /// The key, if one is given.
    pub(crate) fn key(&self, base: &Base) -> Outcome<Option<String>> {
        if self.key_files.is_empty() {
            let key = (!self.key.is_empty()).then(|| self.key.clone());
            key.as_deref().map_or(Ok(()), check_key)?;
            return Ok(key);
        }
        let hash = hash_files(&self.key_files, base).map_err(firn_client::ci::CiError::from)?;
        let separator = match self.key.is_empty() || self.key.ends_with('-') {
            true => "",
            false => "-",
        };
        let key = format!("{}{separator}{hash}", self.key);
        check_key(&key)?;
        Ok(Some(key))
    }
}

/// Whose paths are left where they are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpstreamArgs {
    /// Paths signed by this key are not kept: their cache has them. Repeatable; `none` keeps all
    #[arg(long = "upstream-key", value_name = "NAME:KEY", default_value = NIXOS_KEY)]
    keys: Vec<String>,
}

impl UpstreamArgs {
    pub(crate) fn keys(&self) -> Outcome<Vec<PublicKey>> {
        let given = self.keys.iter().filter(|text| *text != "none");
        given
            .map(|text| {
                PublicKey::parse(text).map_err(|error| {
                    Failure::of(&error)
                        .hint("--upstream-key has the form NAME:BASE64, as in trusted-public-keys")
                })
            })
            .collect()
    }
}

/// Where the steps of a job meet.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StateArgs {
    /// Folder in which the steps of one job find each other [default: below RUNNER_TEMP, XDG_RUNTIME_DIR or /tmp]
    #[arg(long, value_name = "DIR", env = "FIRN_CI_STATE")]
    state: Option<PathBuf>,
}

impl StateArgs {
    pub(crate) fn dir(&self) -> Outcome<StateDir> {
        Ok(StateDir::locate(self.state.as_deref())?)
    }
}

/// Says where nothing keeps the branches of a repository apart.
pub(super) fn tell_of_missing_keys(location: &StorageLocation) {
    if believes_all_writers(location) {
        eprintln!(
            "note: no keys are set, so every job that may write {location} decides what this job gets: \
             FIRN_TRUSTED_KEYS names the keys that count (docs/ci.md, Branches)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_nixos_is_a_key() {
        let args = UpstreamArgs {
            keys: vec![NIXOS_KEY.to_owned()],
        };
        assert_eq!(args.keys().map(|keys| keys.len()).ok(), Some(1));
        let none = UpstreamArgs {
            keys: vec!["none".to_owned()],
        };
        assert_eq!(none.keys().map(|keys| keys.len()).ok(), Some(0));
    }

    #[test]
    fn hashes_are_added_to_the_key() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("lock"), "x").expect("a file");
        let base = Base {
            directory: dir.path().to_path_buf(),
            home: None,
        };
        let key = |key: &str, files: &[&str]| {
            let args = KeyArgs {
                key: key.to_owned(),
                key_files: files.iter().map(|&file| file.to_owned()).collect(),
            };
            args.key(&base).expect("a key")
        };
        assert_eq!(key("", &[]), None);
        assert_eq!(key("nix", &[]).as_deref(), Some("nix"));
        let hash = key("", &["lock"]).expect("a hash");
        assert_eq!(hash.len(), 64);
        assert_eq!(key("nix", &["lock"]), Some(format!("nix-{hash}")));
        assert_eq!(key("nix-", &["lo*"]), Some(format!("nix-{hash}")));
    }
}
