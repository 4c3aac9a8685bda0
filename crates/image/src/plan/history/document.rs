//! A history as a document: JSON, so that it can be read without Firn.
//!
//! ```text
//! {"version": 1, "revisions": 57,
//!  "names": [{"name": "glibc-bin", "hash": "<32 characters>", "size": 1234, "layer": 3, "changed": 1, "seen": 40}],
//!  "recent": [{"changed": ["app"], "paths": 3, "bytes": 910}]}
//! ```
//!
//! `names` is what the newest revision has, sorted; `recent` are the steps to the newest revisions, oldest first.
//! Fields that are not known are passed over; another version is refused.

use super::{
    History, Name, Revision,
    past::{CHANGED_MAX, RECENT_MAX, SEEN_MAX},
};
use firn_formats::nix::StorePathHash;
use serde::{Deserialize, Serialize};

/// Longest document that is read, in bytes.
pub const HISTORY_BYTES_MAX: usize = 32 << 20;

const VERSION: u32 = 1;
const NAMES_MAX: usize = 100_000;
/// A store path's name, and a number.
const KEY_BYTES_MAX: usize = 232;
const LAYERS_MAX: u32 = 10_000;
const BYTES_MAX: u64 = 1 << 56;

/// Why bytes are not a history.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum HistoryError {
    #[error("it is longer than {HISTORY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("it is not JSON of a history")]
    Json(#[from] serde_json::Error),
    #[error("it is of version {0}; version {VERSION} is known")]
    Version(u32),
    #[error("{what} of {name:?} is out of bounds")]
    Bounds { what: &'static str, name: String },
    #[error("{0:?} is there twice")]
    Duplicate(String),
    #[error("it has too many {0}")]
    TooMany(&'static str),
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    revisions: u64,
    names: Vec<Entry>,
    #[serde(default)]
    recent: Vec<Step>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    hash: String,
    size: u64,
    layer: u32,
    changed: u32,
    seen: u32,
}

#[derive(Serialize, Deserialize)]
struct Step {
    changed: Vec<String>,
    paths: u64,
    bytes: u64,
}

/// The version alone, so that another one is told from rubbish.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl History {
    /// Reads a document.
    pub fn parse(json: &[u8]) -> Result<Self, HistoryError> {
        if json.len() > HISTORY_BYTES_MAX {
            return Err(HistoryError::TooLarge);
        }
        let Version { version } = serde_json::from_slice(json)?;
        if version != VERSION {
            return Err(HistoryError::Version(version));
        }
        let document: Document = serde_json::from_slice(json)?;
        if document.names.len() > NAMES_MAX {
            return Err(HistoryError::TooMany("names"));
        }
        if document.recent.len() > RECENT_MAX {
            return Err(HistoryError::TooMany("steps"));
        }
        let mut history = Self {
            revisions: document.revisions.min(u64::from(u32::MAX)),
            ..Self::default()
        };
        for entry in document.names {
            let (key, name) = entry.checked()?;
            if history.names.insert(key.clone(), name).is_some() {
                return Err(HistoryError::Duplicate(key));
            }
        }
        for step in document.recent {
            history.recent.push_back(step.checked()?);
        }
        Ok(history)
    }

    /// The document; the same history gives the same bytes.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let entry = |(key, name): (&String, &Name)| Entry {
            name: key.clone(),
            hash: name.hash.to_string(),
            size: name.size,
            layer: name.layer,
            changed: name.changed,
            seen: name.seen,
        };
        let step = |revision: &Revision| Step {
            changed: revision.changed.clone(),
            paths: revision.paths,
            bytes: revision.bytes,
        };
        serde_json::to_vec(&Document {
            version: VERSION,
            revisions: self.revisions,
            names: self.names.iter().map(entry).collect(),
            recent: self.recent.iter().map(step).collect(),
        })
    }
}

fn key_checked(name: &str) -> Result<(), HistoryError> {
    if name.is_empty() || name.len() > KEY_BYTES_MAX || !name.bytes().all(|b| b.is_ascii_graphic())
    {
        let name = name.chars().take(40).collect();
        return Err(HistoryError::Bounds {
            what: "the name",
            name,
        });
    }
    Ok(())
}

impl Entry {
    fn checked(self) -> Result<(String, Name), HistoryError> {
        key_checked(&self.name)?;
        let bounds = |what| HistoryError::Bounds {
            what,
            name: self.name.clone(),
        };
        let hash = StorePathHash::parse(&self.hash).map_err(|_| bounds("the hash"))?;
        if self.size > BYTES_MAX {
            return Err(bounds("the size"));
        }
        if self.layer >= LAYERS_MAX {
            return Err(bounds("the layer"));
        }
        if self.seen > SEEN_MAX || self.changed > self.seen {
            return Err(bounds("the count"));
        }
        let name = Name {
            hash,
            size: self.size,
            layer: self.layer,
            changed: self.changed,
            seen: self.seen,
        };
        Ok((self.name, name))
    }
}

impl Step {
    fn checked(self) -> Result<Revision, HistoryError> {
        if self.changed.len() > CHANGED_MAX {
            return Err(HistoryError::TooMany("changes in a step"));
        }
        self.changed.iter().try_for_each(|name| key_checked(name))?;
        Ok(Revision {
            changed: self.changed,
            paths: self.paths,
            bytes: self.bytes,
        })
    }
}
