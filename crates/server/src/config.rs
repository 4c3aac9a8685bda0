//! Configuration: works with none; a JSON file, then flags, change it.

use crate::limits::Limits;
use firn_services::access::oidc::Issuer;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the server listens if nothing is said.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8484";
/// Where its data lie if nothing is said.
pub const DEFAULT_DATA: &str = "./firn-data";

/// What can be configured. In a file: a JSON object with any of these fields.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A second address and port, for `/metrics` alone and without a token: for Prometheus in a network of its own.
    /// At the first address figures are for tokens that may pull from all caches.
    pub metrics_listen: Option<SocketAddr>,
    /// The folder of everything: store, keys, tokens.
    pub data: PathBuf,
    /// How clients reach the server, such as `https://cache.example.org`, if not by its address.
    pub public_url: Option<String>,
    /// Size at which a pack is sealed, in bytes.
    pub pack_bytes_target: u64,
    /// Memory for the layout of blobs that are read, in bytes.
    pub layout_cache_bytes: u64,
    /// Life of a push session without a request, in seconds.
    pub session_ttl_seconds: u64,
    /// How long is kept what waits for the entry that needs it: a NAR without its narinfo, a layer without its
    /// manifest, in seconds.
    pub lease_seconds: u64,
    /// How often the store's segments follow its database, in seconds.
    pub segment_interval_seconds: u64,
    /// How often what nothing needs any more is taken away, in seconds; 0 is never by itself.
    pub gc_interval_seconds: u64,
    /// How long packs that hold nothing any more are kept for their readers, in seconds.
    pub gc_grace_seconds: u64,
    /// Within how long all stored bytes are read once to find those that rot, in seconds; 0 is never.
    pub scrub_interval_seconds: u64,
    /// How often caches with a quota or a time to keep are looked at, in seconds. A push that exceeds a quota
    /// does not wait for it.
    pub retention_interval_seconds: u64,
    /// How long a stop waits for requests under way, in seconds.
    pub drain_seconds: u64,
    /// Most connections at a time.
    pub connections_max: usize,
    /// What one client may cost.
    pub limits: Limits,
    /// Whose tokens are exchanged for tokens of the Actions cache, and for which repositories.
    pub actions_oidc: Vec<Issuer>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8484)),
            metrics_listen: None,
            data: PathBuf::from(DEFAULT_DATA),
            public_url: None,
            pack_bytes_target: 32 << 20,
            layout_cache_bytes: 16 << 20,
            session_ttl_seconds: 600,
            lease_seconds: 24 * 3600,
            segment_interval_seconds: 30,
            gc_interval_seconds: 3600,
            gc_grace_seconds: 3600,
            scrub_interval_seconds: 30 * 24 * 3600,
            retention_interval_seconds: 600,
            drain_seconds: 30,
            connections_max: 4096,
            limits: Limits::default(),
            actions_oidc: Vec::new(),
        }
    }
}

/// Why a configuration is of no use.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("the configuration file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the configuration file {path} is malformed")]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read or has unknown or ill-typed fields.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_slice(&bytes).map_err(|source| ConfigError::Malformed {
            path: path.to_owned(),
            source,
        })
    }

    /// The store's options.
    pub fn store_options(&self) -> firn_store::Options {
        firn_store::Options {
            dir: self.data.clone(),
            pack_bytes_target: self.pack_bytes_target,
            session_ttl: Duration::from_secs(self.session_ttl_seconds),
            lease: Duration::from_secs(self.lease_seconds),
            segment_interval: Duration::from_secs(self.segment_interval_seconds),
            layout_cache_bytes: self.layout_cache_bytes,
        }
    }
}
