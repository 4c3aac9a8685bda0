//! Messages of `/api/v1` besides pushing: caches, tokens, status.
//!
//! ```text
//! GET    /api/v1/whoami                    -> WhoAmI
//! GET    /api/v1/caches                    -> [CacheView]        (those the token may see)
//! POST   /api/v1/caches       CacheCreate  -> CacheView
//! GET    /api/v1/caches/NAME               -> CacheView          (NAME may hold one `/`)
//! PATCH  /api/v1/caches/NAME  CacheConfigure -> CacheView
//! DELETE /api/v1/caches/NAME               -> 204
//! GET    /api/v1/tokens                    -> [TokenView]
//! POST   /api/v1/tokens       TokenCreate  -> TokenCreated
//! DELETE /api/v1/tokens/ID                 -> 204
//! POST   /api/v1/status       StatusQuery  -> StatusAnswer
//! GET    /api/v1/stats                     -> StatsView
//! POST   /api/v1/gc       CollectionRequest -> CollectionView, empty lines before it if it takes long
//! GET    /api/v1/images?cache=NAME         -> [ImageView]        (&image=NAME:TAG: that one, with its layers)
//! POST   /api/v1/check        CheckRequest -> CheckEvent, one a line; empty lines meanwhile
//! GET    /api/v1/damage?after=DOMAIN-CHUNK -> [DamagedView]
//! POST   /api/v1/heal         frames       -> Healed
//! ```
//! What a cache keeps, and its keys: [`retention`].

mod actions;
mod retention;

pub use actions::*;
pub use retention::*;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Right {
    Pull,
    /// Images that are new, under tags that are new. Who may push may do this too.
    Create,
    Push,
    Delete,
    Admin,
}

/// A cache to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CacheCreate {
    pub name: String,
    /// Anyone may pull.
    #[serde(default)]
    pub public: bool,
    #[serde(default = "default_priority")]
    pub priority: u32,
    /// The domain to share chunks in; by default the common one for public caches, an own one for private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Caches whose paths count as present when references are checked, such as `https://cache.nixos.org`:
    /// references signed by these keys (`name:base64`) need not be here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream_keys: Vec<String>,
    /// What nobody used for so long goes; 0 or absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_for_seconds: Option<u64>,
    /// Stored bytes beyond which what was used least recently goes; 0 or absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// Whether a repository of the Actions cache may read what the others saved on their default branches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions_shared: Option<bool>,
}

/// What to change of a cache; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CacheConfigure {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// 0 is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_for_seconds: Option<u64>,
    /// 0 is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// Of each repository of the Actions cache; 0 is the default again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions_keep_for_seconds: Option<u64>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions_quota_bytes: Option<u64>,
    /// Whether a repository of the Actions cache may read what the others saved on their default branches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions_shared: Option<bool>,
}

fn default_priority() -> u32 {
    40
}

/// A cache as its users see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CacheView {
    pub name: String,
    pub public: bool,
    pub priority: u32,
    pub domain: String,
    /// `name:base64`.
    pub public_keys: Vec<String>,
    pub store_paths: u64,
    pub images: u64,
    /// Sum of the distinct blobs' stored sizes: what a quota counts.
    pub stored_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_for_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// Repositories of the Actions cache read what the others saved on their default branches.
    #[serde(default)]
    pub actions_shared: bool,
    /// Names that pin something.
    #[serde(default)]
    pub roots: u64,
    /// What the server remembers of what it took away.
    #[serde(default)]
    pub evicted: EvictedSummary,
}

/// A token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TokenCreate {
    /// Names with `*`, such as `main` or `acme/*`.
    pub caches: Vec<String>,
    pub allow: Vec<Right>,
    /// Seconds from now; absent is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// For a job's Actions cache; then `caches` is one name without `*`, and `allow` may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<ActionsGrant>,
}

/// A repository of the Actions cache, and scopes in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionsGrant {
    /// `OWNER/NAME`.
    pub repository: String,
    /// In the order in which they are looked through; the first that may be written is where entries go, the last
    /// is the default branch.
    pub scopes: Vec<crate::actions::Scope>,
}

/// A token just made: the only time it is shown, and its `Debug` does not.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TokenCreated {
    pub id: String,
    pub token: String,
    /// RFC 3339, or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

impl std::fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCreated")
            .field("id", &self.id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// A token's public face.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TokenView {
    pub id: String,
    pub caches: Vec<String>,
    pub allow: Vec<Right>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    pub revoked: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Who the server takes the caller for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct WhoAmI {
    pub anonymous: bool,
    pub caches: Vec<String>,
    pub allow: Vec<Right>,
    pub server_version: String,
}

/// Asks what is cached of these store paths (base names or hashes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StatusQuery {
    pub cache: String,
    pub paths: Vec<String>,
}

/// The answer, keyed as asked; absent paths are missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StatusAnswer {
    pub present: BTreeMap<String, PathStatus>,
    /// When and why those that are missing went, as far as it is remembered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evicted: BTreeMap<String, EvictionView>,
}

/// One cached path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PathStatus {
    pub nar_size: u64,
    pub stored_bytes: u64,
    /// Seconds since 1970.
    pub published_at: i64,
}

/// A tag of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ImageView {
    /// The image's name in its cache.
    pub name: String,
    pub tag: String,
    pub digest: String,
    pub media_type: String,
    /// Manifests of an index; 1 for an image of one platform.
    pub platforms: u64,
    /// Distinct layers, and their size as they are pulled.
    pub layers: u64,
    pub size: u64,
    /// Size of the layers that no other image of the cache has.
    pub own_bytes: u64,
    /// Seconds since 1970 at which the tag came to name this.
    pub pushed_at: i64,
    /// The layers, if one image was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<ImageLayer>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ImageLayer {
    pub digest: String,
    pub size: u64,
    /// How many other images of the cache have it.
    pub other_images: u64,
}

/// Figures of the server's store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StatsView {
    pub chunks: u64,
    pub chunk_raw_bytes: u64,
    pub chunk_stored_bytes: u64,
    pub blobs: u64,
    pub blob_identity_bytes: u64,
    pub packs: u64,
    pub sessions: u64,
    /// By how much the wall clock is ahead of the clock that decides about data; less than 0 if it is behind.
    #[serde(default)]
    pub time_behind_seconds: i64,
}

/// Asks the server to take away what nothing needs any more, or to say what that would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct CollectionRequest {
    #[serde(default)]
    pub dry_run: bool,
    /// How long readers may go on with packs that hold nothing any more; by default as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// Packs of which more than this share is dead are rewritten; by default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_percent: Option<u8>,
    /// Before that, puts the store's clock forward to the wall clock's time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirm_time: bool,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CollectionView {
    pub dry_run: bool,
    pub entries_expired: u64,
    pub blobs_dropped: u64,
    pub chunks_total: u64,
    pub chunks_condemned: u64,
    pub bytes_condemned: u64,
    pub packs_rewritten: u64,
    pub bytes_rewritten: u64,
    pub packs_deleted: u64,
    pub bytes_deleted: u64,
    pub packs_waiting: u64,
    pub bytes_waiting: u64,
    pub packs_damaged: u64,
    pub segments_written: u64,
    pub segments_deleted: u64,
    /// The server stopped meanwhile; the next collection goes on.
    pub stopped: bool,
    pub seconds: f64,
}

/// What to check of the server's store: the structure, and perhaps all data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CheckRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_data: Option<ReadData>,
}

/// How all data is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadData {
    /// Part n of t.
    pub part: (u32, u32),
    /// Bytes a second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Goes on where the last reading of the part stopped.
    #[serde(default)]
    pub resume: bool,
}

/// What a check says while it runs, and in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum CheckEvent {
    Progress {
        bytes_done: u64,
        bytes_total: u64,
        chunks_damaged: u64,
    },
    Report(CheckView),
    Failed(String),
}

/// What was looked at, and found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CheckView {
    /// Whether anything is damaged, or cannot be read now.
    pub damaged: bool,
    pub packs: u64,
    pub chunks: u64,
    pub blobs: u64,
    pub entries: u64,
    pub segments: u64,
    pub bytes_read: u64,
    pub chunks_read: u64,
    pub chunks_quarantined: u64,
    /// They were in quarantine and are good.
    #[serde(default)]
    pub chunks_restored: u64,
    pub findings: Vec<FindingView>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct FindingView {
    /// Such as `pack-lost`.
    pub what: String,
    /// Whether anything cannot be served because of it.
    pub damage: bool,
    pub subject: String,
    pub detail: String,
    /// What cannot be served because of it; not all, if it is much.
    pub breaks: Vec<String>,
    pub breaks_total: u64,
}

/// A chunk in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DamagedView {
    /// Number of its domain.
    pub domain: i64,
    /// Its id in hexadecimal.
    pub chunk: String,
    pub raw_length: u32,
    pub found_by: String,
    /// Seconds since 1970.
    pub found_at: i64,
}

/// What came of frames that were sent to heal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healed {
    /// Chunks that are out of quarantine now.
    pub chunks: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_needs_only_its_name() {
        let create: CacheCreate = serde_json::from_str(r#"{"name":"acme/web"}"#).unwrap();
        assert!(!create.public, "a cache is private unless said");
        assert_eq!((create.priority, create.domain), (40, None));
    }

    #[test]
    fn rights_are_lower_case_words_and_unknown_ones_are_refused() {
        let text = r#"{"caches":["acme/*"],"allow":["pull","push","delete","admin"]}"#;
        let create: TokenCreate = serde_json::from_str(text).unwrap();
        let all = [Right::Pull, Right::Push, Right::Delete, Right::Admin];
        assert_eq!(create.allow, all);
        assert_eq!(serde_json::to_string(&create).unwrap(), text);
        assert!(serde_json::from_str::<Right>(r#""Admin""#).is_err());
        assert!(serde_json::from_str::<Right>(r#""root""#).is_err());
    }

    #[test]
    fn what_is_absent_is_left_out() {
        let created = TokenCreated {
            id: "i".to_owned(),
            token: "t".to_owned(),
            expires: None,
        };
        let json = serde_json::to_string(&created).unwrap();
        assert_eq!(json, r#"{"id":"i","token":"t"}"#);
        assert!(!format!("{created:?}").contains("\"t\""));
        assert_eq!(
            serde_json::from_str::<TokenCreated>(&json).unwrap(),
            created
        );
    }
}
