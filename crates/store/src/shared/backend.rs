//! What a place must be able to do to hold a store.

use crate::StoreError;
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;

/// A pack that lies in a backend, and how it is held there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StoredPack {
    /// What [`Backend::read`] takes. Random in a folder or bucket, `sha256:<hex>` in a registry.
    pub name: String,
    pub length: u64,
}

/// A pack as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PackFile {
    pub name: String,
    pub length: u64,
    /// Seconds since 1970, by the backend.
    pub modified_at: i64,
}

/// How a place tells the age of segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentTimes {
    /// When it stored each, in seconds since 1970. Its own time is that of what it stores now.
    Stored(HashMap<String, i64>),
    /// Its own time alone, in seconds since 1970.
    Now(i64),
}

/// A place for immutable files under names that are never used again. Implementations retry what may pass,
/// count nothing as done that is not durable, and name their location in errors ([`StoreError::Backend`]).
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// The location as the user gave it.
    fn location(&self) -> &str;

    /// Names of the segments that are visible now. A place where nothing was written yet has none. Names
    /// begin with 16 hex digits, the time of publication in microseconds, and sort by it.
    fn segments(&self) -> Result<Vec<String>, StoreError>;

    /// By the place's clock. Only a collector asks for it.
    fn segment_times(&self) -> Result<SegmentTimes, StoreError>;

    /// A segment's bytes; `None` if it has gone meanwhile.
    fn segment(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Stores a finished pack, read from the beginning of `file`. Durable on return (rule 1).
    fn put_pack(&self, file: &File, length: u64) -> Result<StoredPack, StoreError>;

    /// Makes a segment visible under a new name that begins with `at` (microseconds since 1970). Durable on
    /// return (rule 3). `packs` are all that the segment names: a registry must be told, or it drops them.
    fn publish(&self, at: u64, segment: &[u8], packs: &[StoredPack]) -> Result<String, StoreError>;

    /// Bytes of a pack, exactly as many as asked for.
    fn read(&self, pack: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError>;

    /// All packs that could be deleted, named by a segment or not. `None` where the place keeps what a segment
    /// names and drops the rest by itself (a registry).
    fn packs(&self) -> Result<Option<Vec<PackFile>>, StoreError>;

    /// Deletes; gone already counts as deleted. `Unsupported` where nothing can be deleted.
    fn delete_pack(&self, name: &str) -> Result<(), StoreError>;

    /// Deletes; gone already counts as deleted.
    fn delete_segment(&self, name: &str) -> Result<(), StoreError>;

    /// Requests sent so far, where that is a meaningful number.
    fn requests(&self) -> u64 {
        0
    }
}
