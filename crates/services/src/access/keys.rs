//! Signing keys: one file a cache, `keys/<cache with / as %2F>.secret`, one key a line.
//!
//! They lie beside the database and never in it, so that they survive its loss. Every key in
//! the file signs; to rotate, add a line below, and take the old one away when clients know
//! the new.

use crate::{ServiceError, secret_file};
use firn_formats::nix::SecretKey;
use std::path::{Path, PathBuf};

/// Where a cache's keys lie.
pub(crate) fn path(dir: &Path, cache: &str) -> PathBuf {
    dir.join("keys")
        .join(format!("{}.secret", cache.replace('/', "%2F")))
}

/// Reads a cache's keys, or makes the first.
pub(crate) fn load_or_make(dir: &Path, cache: &str) -> Result<Vec<SecretKey>, ServiceError> {
    let path = path(dir, cache);
    if let Some(text) = secret_file::read(&path)? {
        return parse(&path, &text);
    }
    secret_file::make_folder(&dir.join("keys"))?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(ServiceError::Random)?;
    let name = format!("{}-1", cache.replace('/', "-"));
    let key = SecretKey::from_seed(&name, seed);
    secret_file::write(&path, &format!("{}\n", key.to_secret_string()))?;
    tracing::info!(cache, key = name, "made a signing key");
    Ok(vec![key])
}

fn parse(path: &Path, text: &str) -> Result<Vec<SecretKey>, ServiceError> {
    let keys: Result<Vec<SecretKey>, _> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(SecretKey::parse)
        .collect();
    match keys {
        Ok(keys) if !keys.is_empty() => Ok(keys),
        Ok(_) => Err(ServiceError::SecretContent {
            path: path.to_owned(),
            what: "it holds no key".to_owned(),
        }),
        Err(error) => Err(ServiceError::SecretContent {
            path: path.to_owned(),
            what: error.to_string(),
        }),
    }
}
