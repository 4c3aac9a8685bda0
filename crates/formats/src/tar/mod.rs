//! Deterministic tar: one way to write an entry, so that equal trees have equal
//! bytes; and a push parser of the tars that others write.
//!
//! The formats are those of POSIX.1-2017 `pax` (ustar and its extended headers)
//! and of the GNU tar manual's "Basic Tar Format".

mod block;
mod parse;
mod pax;
mod write;

pub use parse::{Event, NAME_BYTES_MAX, PAX_BYTES_MAX, Parser};
pub use write::header;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EntryKind {
    Directory,
    Regular { size: u64 },
    Symlink { target: Vec<u8> },
    Hardlink { target: Vec<u8> },
}

/// An entry's header data. `path` is relative, without a leading or trailing `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: EntryKind,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
}

/// Why an entry cannot be written or bytes are not a tar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TarError {
    #[error("path {0:?} cannot stand in a tar")]
    Path(String),
    #[error("malformed tar at byte {offset}: {what}")]
    Malformed { offset: u64, what: String },
}

/// Bytes of a block: headers are one, contents are padded to it.
pub const BLOCK_BYTES: usize = 512;

/// Zero bytes after a content of `size` bytes.
pub fn padding(size: u64) -> usize {
    ((512 - size % 512) % 512) as usize
}

/// Bytes of the end marker: two zero blocks.
pub const TRAILER_BYTES: usize = 1024;
