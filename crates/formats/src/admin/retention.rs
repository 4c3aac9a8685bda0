//! Messages about what a cache keeps, and about keys.
//!
//! ```text
//! GET    /api/v1/roots?cache=NAME                        -> [RootView]
//! POST   /api/v1/roots?cache=NAME           RootPin      -> RootView
//! DELETE /api/v1/roots?cache=NAME&name=ROOT              -> 204
//! POST   /api/v1/evict?cache=NAME           Evict        -> EvictReport
//! GET    /api/v1/evictions?cache=NAME&limit=N            -> [EvictionView]   (the newest first)
//! POST   /api/v1/keys/rotate?cache=NAME     Rotate       -> CacheView
//! POST   /api/v1/tokens/rotate              Rotate       -> TokenKeyRotated
//! ```

use serde::{Deserialize, Serialize};

/// Something to pin under a name: a path or an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RootPin {
    pub name: String,
    /// A store path or its base name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `NAME:TAG` or `NAME@DIGEST` in the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How many of what the name has pinned stay pinned; if absent as before, at first 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
}

/// A root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RootView {
    pub name: String,
    pub keep: u32,
    /// The newest first.
    pub pinned: Vec<PinnedView>,
}

/// What a root pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PinnedView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Seconds since 1970.
    pub at: u64,
}

/// Asks to bring a cache within its limits now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evict {
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// What went, or would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct EvictReport {
    pub dry_run: bool,
    pub paths: u64,
    pub images: u64,
    pub bytes: u64,
    /// What was to go, and was used or needed again meanwhile.
    pub stayed: u64,
    /// The first thousand.
    pub evicted: Vec<EvictionView>,
}

/// Why something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvictionCause {
    /// Nobody used it for longer than the cache keeps things.
    Unused,
    /// The cache held more than its quota, and this was used least recently.
    Quota,
    /// Somebody deleted it.
    Deleted,
    /// Somebody put another in its place.
    Replaced,
}

/// A store path or image that went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct EvictionView {
    /// A store path's base name, or an image.
    pub name: String,
    /// Seconds since 1970; absent before it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
    pub reason: EvictionCause,
    pub bytes: u64,
    /// The last use of it, or of anything that needed it; seconds since 1970.
    pub used_at: i64,
}

/// What is remembered of a cache's evictions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct EvictedSummary {
    pub paths: u64,
    pub images: u64,
    pub bytes: u64,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<i64>,
}

/// Asks for a new key beside the old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotate {
    /// How long the old ones are good still, in seconds.
    pub overlap_seconds: u64,
}

/// The key that signs tokens is a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKeyRotated {
    /// Until when the tokens made before are good: RFC 3339.
    pub old_tokens_until: String,
}
