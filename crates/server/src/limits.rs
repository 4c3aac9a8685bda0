//! What a client may cost before it is told no. `docs/limits.md` has the whole table.

use std::time::Duration;

/// Limits that can be configured; `limits` in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most connections of one address, or of one network of IPv6 (/64). Behind a proxy all come from one.
    pub connections_per_address_max: usize,
    /// Time for a request's head, and for a connection between two requests, in seconds.
    pub head_seconds_max: u64,
    /// Longest silence in a request's body, in seconds.
    pub silence_seconds_max: u64,
    /// A body must come, and an answer be taken, at this rate …
    pub rate_bytes_min: u64,
    /// … measured over this much waiting for the client, in seconds.
    pub rate_seconds: u64,
    /// The rate at which a body must come while others wait for its place.
    pub contended_rate_bytes_min: u64,
    /// How long a request waits for a place before it is told to come again, in seconds.
    pub place_seconds_max: u64,
    /// How long an answer may wait for a client that takes nothing, or less than the least rate, in seconds.
    pub answer_seconds_max: u64,
    /// NAR and blob uploads worked on at a time: each holds a decompressor and chunks.
    pub uploads_max: usize,
    /// Uploads that a repository of the Actions cache may begin in a minute; 0 is as many as come.
    pub actions_uploads_per_minute_max: usize,
    /// An Actions upload that no byte came for in this time ends, and its key is free, in seconds.
    pub actions_idle_seconds_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_address_max: 512,
            head_seconds_max: 30,
            silence_seconds_max: 60,
            rate_bytes_min: 1024,
            rate_seconds: 30,
            contended_rate_bytes_min: 16 << 10,
            place_seconds_max: 300,
            answer_seconds_max: 300,
            uploads_max: 16,
            actions_uploads_per_minute_max: 200,
            actions_idle_seconds_max: 300,
        }
    }
}

impl Limits {
    pub(crate) fn head(&self) -> Duration {
        Duration::from_secs(self.head_seconds_max)
    }
}
