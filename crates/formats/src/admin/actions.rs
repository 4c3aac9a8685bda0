//! Messages about the Actions cache, beyond what GitHub's own REST says ([`crate::actions::github`]).
//!
//! ```text
//! GET  /api/v1/actions/repositories?cache=NAME            -> [ActionsRepositoryView]
//! GET  /api/v1/actions/history?cache=NAME&repository=OWNER/NAME&limit=N[&key=KEY][&since=SECONDS]
//!                                                         -> ActionsHistory
//! POST /api/v1/actions/replace?cache=NAME&repository=OWNER/NAME   ActionsReplace -> ActionsReplaceable
//! ```
//! Without `cache`: that of a job's token, or the one cache that the token names, or `main`.

use super::EvictionCause;
use serde::{Deserialize, Serialize};

/// A repository that has entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ActionsRepositoryView {
    pub repository: String,
    pub entries: u64,
    /// As they were uploaded.
    pub bytes: u64,
    /// As they are stored: what the quota counts.
    pub stored_bytes: u64,
    pub quota_bytes: u64,
    pub keep_for_seconds: u64,
}

/// What was looked for and what went, each the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ActionsHistory {
    pub lookups: Vec<ActionsLookupView>,
    pub gone: Vec<ActionsGoneView>,
}

/// A look-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ActionsLookupView {
    /// Seconds since 1970.
    pub at: i64,
    /// The primary key.
    pub key: String,
    pub restore_keys: Vec<String>,
    pub version: String,
    /// The first scope of the token that asked.
    pub scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit: Option<ActionsHitView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miss: Option<ActionsMissView>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ActionsHitView {
    pub id: u64,
    pub key: String,
    pub scope: String,
    /// By the primary key, not by a beginning or a restore key.
    pub exact: bool,
    /// As it was uploaded.
    pub size: u64,
    /// How long its download took, if all of it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_ms: Option<u64>,
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum ActionsMissView {
    /// Another job was saving it.
    Saving,
    /// It was here.
    #[allow(missing_docs)]
    Evicted { why: EvictionCause, at: i64 },
    /// The key was here under another version: other paths, or another compression.
    OtherVersion,
    /// It was here, in a scope that the token does not read.
    #[allow(missing_docs)]
    OtherScope { scope: String },
    /// There were entries, none with this key; the newest of them.
    #[allow(missing_docs)]
    KeyChanged { newest: String },
    /// Nothing of this version was ever saved where the token reads, or all of it is long gone.
    NeverSaved,
}

/// An entry that went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ActionsGoneView {
    /// Seconds since 1970.
    pub at: i64,
    pub key: String,
    pub version: String,
    pub scope: String,
    pub size: u64,
    pub reason: EvictionCause,
    /// Its last use, in seconds since 1970.
    pub used_at: i64,
}

/// Asks that the next save of a key may take the place of the entry that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ActionsReplace {
    pub key: String,
    /// In one scope only.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "ref")]
    pub scope: Option<String>,
}

/// Which entries may be replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ActionsReplaceable {
    pub entries: u64,
    /// Seconds since 1970: a save that begins later is refused as before.
    pub until: i64,
}
