//! `/folder`, `s3://bucket/prefix`, `oci://registry/name`.

use crate::{
    credentials::{Credential, cache_home},
    error::{ClientError, Result},
    http::Http,
    registry::Repository,
    storage::registry::RegistryBackend,
};
use firn_formats::{
    nix::{PublicKey, SecretKey},
    oci::{Reference, RepositoryName},
};
use firn_store::shared::{Backend, FolderBackend, S3Backend, SharedOptions, SharedStore};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Most bytes of frames of one store that are kept on this machine.
const CACHE_BYTES_MAX: u64 = 10 << 30;
const PACK_BYTES_TARGET: u64 = 32 << 20;
/// Requests to one registry at once.
const CONNECTIONS: usize = 16;

/// Where a store without a server lies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StorageLocation {
    Folder(PathBuf),
    S3 { bucket: String, prefix: String },
    Registry { registry: String, name: String },
}

impl StorageLocation {
    /// Reads `/folder`, `./folder`, `s3://bucket/prefix` or `oci://registry/name`. A folder becomes absolute;
    /// capital letters of a repository's name, which registries do not know but GitHub's owners do, small.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once("://") {
            Some(("oci", rest)) => parse_registry(rest),
            Some(("s3", rest)) => parse_bucket(rest),
            Some((scheme, _)) => Err(malformed(text, &format!("{scheme}:// is not known"))),
            None if text.starts_with(['/', '.']) => std::path::absolute(text)
                .map(Self::Folder)
                .map_err(|source| ClientError::io(text, source)),
            None => Err(malformed(text, "it is no location")),
        }
    }
}

fn malformed(text: &str, what: &str) -> ClientError {
    ClientError::Location {
        text: text.to_owned(),
        what: what.to_owned(),
    }
}

fn parse_registry(rest: &str) -> Result<StorageLocation> {
    let bad = |what: &str| malformed(&format!("oci://{rest}"), what);
    let (registry, name) = rest
        .trim_end_matches('/')
        .split_once('/')
        .filter(|(registry, _)| !registry.is_empty())
        .ok_or_else(|| bad("a registry and a name are needed"))?;
    if name.contains(['@', ':']) {
        return Err(bad("the name is a repository's, without a tag"));
    }
    let name = RepositoryName::parse(&name.to_ascii_lowercase())
        .map_err(|error| bad(&error.to_string()))?;
    Ok(StorageLocation::Registry {
        registry: registry.to_owned(),
        name: name.as_str().to_owned(),
    })
}

fn parse_bucket(rest: &str) -> Result<StorageLocation> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if bucket.is_empty() || !bucket.bytes().all(allowed) {
        return Err(malformed(&format!("s3://{rest}"), "it names no bucket"));
    }
    Ok(StorageLocation::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
    })
}

impl fmt::Display for StorageLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Registry { registry, name } => write!(f, "oci://{registry}/{name}"),
        }
    }
}

/// Opens a store for reading and writing. `credential` is for a registry; without one, docker's config is
/// asked, then `GITHUB_TOKEN` for a registry that is GitHub's. A bucket is opened by the environment's `AWS_…`.
///
/// `FIRN_SIGNING_KEY` (the text of a Nix secret key, or the file that holds it) signs what is written, and
/// what it has not signed is refused; so is, where `FIRN_TRUSTED_KEYS` names public keys, what none of them
/// has. What was read is kept below the user's cache folder.
pub fn open_storage(
    location: &StorageLocation,
    credential: Option<Credential>,
) -> Result<SharedStore> {
    let Some(cache) = cache_home() else {
        return Err(ClientError::Setting(
            "neither XDG_CACHE_HOME nor HOME says where to keep what is read of a store".to_owned(),
        ));
    };
    open_storage_with_cache(location, credential, &cache.join("firn/stores"))
}

/// [`open_storage`], keeping what was read of it below another folder.
pub fn open_storage_with_cache(
    location: &StorageLocation,
    credential: Option<Credential>,
    cache_dir: &Path,
) -> Result<SharedStore> {
    let options = shared_options(cache_dir)?;
    Ok(SharedStore::open(backend(location, credential)?, options)?)
}

/// As the environment wants a store to be opened, with what was read of it below `cache_dir`.
pub(crate) fn shared_options(cache_dir: &Path) -> Result<SharedOptions> {
    let signing_key = signing_key()?;
    let mut trusted_keys = trusted_keys()?;
    trusted_keys.extend(signing_key.as_ref().map(SecretKey::public));
    Ok(SharedOptions {
        cache_dir: cache_dir.to_path_buf(),
        cache_bytes_max: CACHE_BYTES_MAX,
        trusted_keys,
        signing_key: signing_key.map(Arc::new),
        pack_bytes_target: PACK_BYTES_TARGET,
    })
}

fn backend(location: &StorageLocation, credential: Option<Credential>) -> Result<Arc<dyn Backend>> {
    let text = location.to_string();
    match location {
        StorageLocation::Folder(path) => Ok(Arc::new(FolderBackend::new(path)?)),
        StorageLocation::Registry { registry, name } => {
            let reference = Reference {
                registry: Some(registry.clone()),
                name: RepositoryName::parse(name)?,
                tag: None,
                digest: None,
            };
            let http = Http::new(CONNECTIONS)?;
            let repository = Repository::of_reference(http, &reference, credential)?;
            Ok(Arc::new(RegistryBackend::new(repository, &text)?))
        }
        StorageLocation::S3 { bucket, prefix } => {
            let endpoint = variable("AWS_ENDPOINT_URL").unwrap_or_else(|| "https:".to_owned());
            let agent = Http::new(CONNECTIONS)?.agent_for(&endpoint)?;
            Ok(Arc::new(S3Backend::from_env(bucket, prefix, agent)?))
        }
    }
}

/// Whether readers of a store believe whoever may write to it: it is a registry or bucket, which jobs of several
/// branches may write, and no key is set. A folder's writers are kept apart by its permissions.
pub fn believes_all_writers(location: &StorageLocation) -> bool {
    let is_set = |name| variable(name).is_some();
    !matches!(location, StorageLocation::Folder(_))
        && !is_set("FIRN_TRUSTED_KEYS")
        && !is_set("FIRN_SIGNING_KEY")
}

/// The key that `FIRN_SIGNING_KEY` gives or names the file of.
pub(crate) fn signing_key() -> Result<Option<SecretKey>> {
    match variable("FIRN_SIGNING_KEY") {
        Some(text) => read_signing_key(&text).map(Some),
        None => Ok(None),
    }
}

fn read_signing_key(text: &str) -> Result<SecretKey> {
    // A key has a colon behind its name; no path to a key file is a key.
    if let Ok(key) = SecretKey::parse(text) {
        return Ok(key);
    }
    let fault = |what: &str| {
        // The text may be a damaged secret: it is not repeated.
        ClientError::Setting(format!("FIRN_SIGNING_KEY {what}"))
    };
    if text.contains(':') && !Path::new(text).exists() {
        return Err(fault("is no secret key of Nix's, NAME:BASE64"));
    }
    let key = std::fs::read_to_string(text)
        .map_err(|_| fault("is neither a secret key of Nix's nor a file that can be read"))?;
    SecretKey::parse(key.trim()).map_err(|_| fault("names a file without a secret key of Nix's"))
}

/// The keys that `FIRN_TRUSTED_KEYS` names, separated by white space.
pub(crate) fn trusted_keys() -> Result<Vec<PublicKey>> {
    let text = variable("FIRN_TRUSTED_KEYS").unwrap_or_default();
    read_trusted_keys(&text)
}

fn read_trusted_keys(text: &str) -> Result<Vec<PublicKey>> {
    let keys = text.split_ascii_whitespace().map(|key| {
        PublicKey::parse(key).map_err(|_| {
            ClientError::Setting(format!("FIRN_TRUSTED_KEYS: {key} is not NAME:BASE64"))
        })
    });
    keys.collect()
}

fn variable(name: &str) -> Option<String> {
    let text = std::env::var(name).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_told_apart() {
        for (text, written) in [
            ("/srv/firn", "/srv/firn"),
            (
                "oci://ghcr.io/Acme/App-Cache/",
                "oci://ghcr.io/acme/app-cache",
            ),
            ("oci://127.0.0.1:5000/a", "oci://127.0.0.1:5000/a"),
            ("s3://bucket", "s3://bucket"),
            ("s3://my.bucket/a/b/", "s3://my.bucket/a/b"),
        ] {
            let location = StorageLocation::parse(text).expect(text);
            assert_eq!(location.to_string(), written);
            assert_eq!(StorageLocation::parse(written).expect(written), location);
        }
        let here = std::env::current_dir().expect("a folder");
        assert_eq!(
            StorageLocation::parse("./x").expect("a folder"),
            StorageLocation::Folder(here.join("x"))
        );
        for bad in [
            "",
            "folder",
            "ftp://x/y",
            "oci://ghcr.io",
            "oci:///a",
            "oci://ghcr.io/a:1",
            "oci://ghcr.io/a b",
            "s3://",
            "s3://a b/c",
        ] {
            assert!(
                matches!(
                    StorageLocation::parse(bad),
                    Err(ClientError::Location { .. })
                ),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_signing_key_is_a_text_or_a_file_and_never_repeated() {
        let text = SecretKey::from_seed("team-1", [5; 32]).to_secret_string();
        assert_eq!(read_signing_key(&text).expect("a key").name(), "team-1");
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("key");
        std::fs::write(&file, format!("{text}\n")).expect("write");
        let key = read_signing_key(&file.display().to_string()).expect("a key");
        assert_eq!(key.name(), "team-1");
        let damaged = &text[..text.len() - 8];
        let error = read_signing_key(damaged).expect_err("no key").to_string();
        assert!(!error.contains(&damaged[10..20]), "{error}");
        assert!(read_signing_key("/nonexistent/key").is_err());
    }

    #[test]
    fn trusted_keys_are_separated_by_white_space() {
        let key = |name| SecretKey::from_seed(name, [6; 32]).public().to_string();
        let text = format!(" {}\n{} ", key("a"), key("b"));
        assert_eq!(read_trusted_keys(&text).expect("keys").len(), 2);
        assert!(read_trusted_keys("a:b").is_err());
        assert!(read_trusted_keys("").expect("none").is_empty());
    }
}
