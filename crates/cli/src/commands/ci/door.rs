//! The substituter behind a name that only this job knows.
//!
//! ```text
//! /<nonce>/stats        what was asked for, as JSON
//! /<nonce>/<cache>/…    the substituter
//! ```
//! Nix remembers what a URL did not have, by URL, for an hour, and ports are used again: the nonce keeps one
//! job's memory from another's.

use crate::door::NixDoor;
use firn_client::{ci::state::DaemonStats, storage::SharedStore, substituter::Substituter};
use firn_server::loopback::{LoopbackAnswer, LoopbackDoor};
use std::sync::Arc;

/// The door of one job.
pub(super) struct Door {
    /// `/<nonce>`.
    pub(super) prefix: String,
    pub(super) nix: NixDoor,
    pub(super) substituter: Arc<Substituter>,
    pub(super) store: SharedStore,
    pub(super) requests_before: u64,
}

impl Door {
    /// What was asked for so far.
    pub(super) fn stats(&self) -> DaemonStats {
        let stats = self.substituter.stats();
        DaemonStats {
            narinfo_hits: stats.narinfo_hits,
            narinfo_misses: stats.narinfo_misses,
            nars: stats.nars,
            nar_bytes: stats.nar_bytes,
            bytes_local: stats.bytes_local,
            bytes_fetched: stats.bytes_fetched,
            requests: self.store.backend().requests() - self.requests_before,
            used: self.substituter.used(),
        }
    }
}

impl LoopbackDoor for Door {
    fn get(&self, path: &str) -> LoopbackAnswer {
        let Some(path) = path.strip_prefix(&self.prefix) else {
            return LoopbackAnswer::NotFound;
        };
        if path != "/stats" {
            return self.nix.get(path);
        }
        match serde_json::to_vec(&self.stats()) {
            Ok(bytes) => LoopbackAnswer::Bytes {
                media_type: "application/json",
                bytes,
            },
            Err(error) => LoopbackAnswer::Failed(error.to_string()),
        }
    }
}
