//! The entry of a CI key: what a job had, and what the next one with this key will want.

use super::error::{CiError, Result};
use firn_chunks::ListId;
use firn_formats::Sha256;
use firn_store::{
    EntryKind,
    shared::{SharedEntry, SharedStore},
};
use serde::{Deserialize, Serialize};

/// Longest key, in bytes, as in GitHub's cache.
pub const KEY_BYTES_MAX: usize = 512;
const VERSION: u32 = 1;

/// The value of an entry of kind `CiKey`, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CiEntry {
    /// Of this form; readers ignore entries of a later one.
    pub version: u32,
    /// Base names of paths to which no other saved path refers.
    pub roots: Vec<String>,
    /// Hash parts of all paths of the job that the store holds, references first.
    pub paths: Vec<String>,
    /// Hash parts in the order in which the last run asked for them or built them.
    pub used: Vec<String>,
    /// Other folders.
    pub folders: Vec<FolderEntry>,
    /// When the key was first written, in seconds since 1970.
    pub created_at: i64,
    /// When it was written last.
    pub updated_at: i64,
    /// Who wrote it: a workflow and a run.
    pub job: String,
    /// Sum of the NAR sizes of `paths`.
    pub bytes: u64,
    /// From restore to save in the run that had nothing to begin with.
    pub seconds_cold: f64,
}

/// A folder beside the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderEntry {
    /// As the user names it: `~/…` below the home, relative to the working directory, or absolute.
    pub path: String,
    /// The blob with its tar, 64 hexadecimal digits.
    pub list: String,
    /// Bytes of the tar.
    pub bytes: u64,
    /// Files in it.
    pub files: u64,
}

impl FolderEntry {
    /// The blob.
    pub fn list_id(&self) -> Option<ListId> {
        Sha256::from_hex(&self.list).map(|hash| ListId(hash.0))
    }

    /// A blob's name as it stands in an entry.
    pub fn list_text(list: ListId) -> String {
        Sha256(list.0).hex()
    }
}

impl CiEntry {
    /// An entry of this form.
    pub fn new() -> Self {
        Self {
            version: VERSION,
            ..Self::default()
        }
    }

    /// The value as it is stored.
    ///
    /// # Errors
    /// Never for what this program makes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|source| CiError::Document {
            path: "a CI entry".to_owned(),
            source,
        })
    }

    /// A stored value, if it is one of this form.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let parsed: Self = serde_json::from_slice(value).ok()?;
        (parsed.version == VERSION).then_some(parsed)
    }

    /// Hash parts of the paths that a stored value names, for `firn gc`; `None` if it is of another form.
    pub fn paths_of(value: &[u8]) -> Option<Vec<String>> {
        let entry = Self::parse(value)?;
        let roots = entry.roots.iter().filter_map(|root| root.get(..32));
        let roots: Vec<String> = roots.map(str::to_owned).collect();
        Some([entry.paths, entry.used, roots].concat())
    }

    fn decode(entry: &SharedEntry) -> Option<Self> {
        Self::parse(&entry.value)
    }
}

/// A key that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// The key it was saved under.
    pub key: String,
    /// Whether that is the key that was asked for.
    pub exact: bool,
    /// What was saved.
    pub entry: CiEntry,
}

/// Finds the entry for a key: the key itself, else the newest that begins with the key, else the newest that
/// begins with the first restore key that any begins with.
///
/// # Errors
/// If the index cannot be read.
pub fn find_entry(
    store: &SharedStore,
    cache: &str,
    key: &str,
    restore_keys: &[String],
) -> Result<Option<Match>> {
    let exact = store.entry(cache, EntryKind::CiKey, key)?;
    if let Some(entry) = exact.as_ref().and_then(CiEntry::decode) {
        return Ok(Some(Match {
            key: key.to_owned(),
            exact: true,
            entry,
        }));
    }
    let prefixes = std::iter::once(key).chain(restore_keys.iter().map(String::as_str));
    for prefix in prefixes.filter(|prefix| !prefix.is_empty()) {
        for candidate in store.entries(cache, EntryKind::CiKey, prefix)? {
            if let Some(entry) = CiEntry::decode(&candidate) {
                return Ok(Some(Match {
                    exact: candidate.key == key,
                    key: candidate.key,
                    entry,
                }));
            }
        }
    }
    Ok(None)
}

/// How many paths a store holds for a cache.
///
/// # Errors
/// If the index cannot be read.
pub fn count_paths(store: &SharedStore, cache: &str) -> Result<u64> {
    Ok(store.entries(cache, EntryKind::Narinfo, "")?.len() as u64)
}

/// Checks that a text can be a key.
///
/// # Errors
/// If it is empty, too long, or has control characters.
pub fn check_key(key: &str) -> Result<()> {
    let what = if key.is_empty() {
        "a key is empty".to_owned()
    } else if key.len() > KEY_BYTES_MAX {
        format!("a key has {} bytes; {KEY_BYTES_MAX} are allowed", key.len())
    } else if key.chars().any(char::is_control) {
        format!("the key {key:?} has control characters")
    } else {
        return Ok(());
    };
    Err(CiError::Setting(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_encoding_and_later_forms_are_ignored() {
        let entry = CiEntry {
            used: vec!["0".repeat(32)],
            seconds_cold: 2.5,
            ..CiEntry::new()
        };
        let stored = |entry: &CiEntry| SharedEntry {
            kind: EntryKind::CiKey,
            key: "k".to_owned(),
            value: entry.encode().expect("json"),
            blobs: Vec::new(),
            sequence: 1,
            at: 1,
        };
        assert_eq!(CiEntry::decode(&stored(&entry)), Some(entry.clone()));
        let later = CiEntry {
            version: 2,
            ..entry
        };
        assert_eq!(CiEntry::decode(&stored(&later)), None);
    }

    #[test]
    fn keys_have_bounds() {
        for (key, sound) in [
            ("k", true),
            ("", false),
            ("a\nb", false),
            ("nix-Linux-ü", true),
        ] {
            assert_eq!(check_key(key).is_ok(), sound, "{key:?}");
        }
        assert!(check_key(&"k".repeat(513)).is_err());
    }
}
