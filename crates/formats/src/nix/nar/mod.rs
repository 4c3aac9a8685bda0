//! NAR: Nix's archive format, read and written as a stream of bytes in any pieces.
//!
//! ```text
//! archive   = "nix-archive-1" node
//! node      = "(" "type" ( regular | symlink | directory ) ")"
//! regular   = "regular" [ "executable" "" ] "contents" <bytes>
//! symlink   = "symlink" "target" <bytes>
//! directory = "directory" { "entry" "(" "name" <bytes> "node" node ")" }
//! ```
//!
//! Every string, a file's content too, is its length as a little-endian `u64`,
//! its bytes, and zero bytes up to a multiple of eight. Names in a directory
//! are strictly ascending bytewise, so one tree has exactly one archive.

mod parser;
mod writer;

#[cfg(test)]
mod tests;

pub use parser::Parser;
pub use writer::Writer;

/// Deepest nesting of directories in what is new: Nix 2.34 restores no deeper.
pub const DEPTH_MAX: usize = 63;
/// Deepest nesting of directories in what is read: caches hold NARs from before the lower limit.
pub const READ_DEPTH_MAX: usize = 512;
/// Longest name of an entry, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symlink, in bytes.
pub const TARGET_BYTES_MAX: usize = 4095;

const MAGIC: &[u8] = b"nix-archive-1";

/// Zero bytes after a string of `length` bytes.
const fn padding(length: u64) -> usize {
    (length.wrapping_neg() & 7) as usize
}

/// Why bytes are not a NAR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed NAR at byte {offset}: {what}")]
pub struct NarError {
    /// Offset of the fault in the NAR.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// What the parser reports, in order. Every input byte belongs either to a
/// file's content (`Content`) or to the structure around it (`Structure`).
///
/// An event stands exactly where it is in the archive: the `Structure` before a
/// file's `Entry` reaches up to the file's first byte, and `ContentEnd` comes
/// before the padding.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bytes of headers, names, padding: everything that is not a file's content.
    Structure(&'a [u8]),
    /// An entry begins: its path inside the NAR, components joined by `/`, `""` for the root.
    Entry {
        /// The path.
        path: &'a [u8],
        /// What it is.
        kind: EntryKind<'a>,
    },
    /// Bytes of the current regular file.
    Content(&'a [u8]),
    /// The current regular file has ended.
    ContentEnd,
    /// A directory (whose `Entry` came before) has ended.
    DirectoryEnd,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
#[allow(missing_docs)]
pub enum EntryKind<'a> {
    Directory,
    /// `offset` is where the content begins in the NAR.
    Regular {
        executable: bool,
        size: u64,
        offset: u64,
    },
    Symlink {
        target: &'a [u8],
    },
}
