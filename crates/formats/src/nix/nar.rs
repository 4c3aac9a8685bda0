//! NAR: Nix's archive format, read and written as a stream of bytes in any pieces.

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

/// A push parser with limits (depth 64, names 255, targets 4095 bytes).
#[derive(Debug, Default)]
pub struct Parser {}

impl Parser {
    /// At the start of a NAR.
    pub fn new() -> Self {
        Self::default()
    }
    /// Takes the next bytes and reports what they hold. All of `input` is
    /// consumed: `Structure` and `Content` slices, concatenated, equal the input.
    pub fn push(&mut self, input: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> Result<(), NarError> {
        todo!("{} {}", input.len(), std::mem::size_of_val(sink))
    }
    /// Checks that the NAR is complete.
    pub fn finish(self) -> Result<(), NarError> {
        todo!()
    }
}

/// Writes the structure bytes of a NAR into a buffer; the caller writes contents
/// itself between [`Writer::file_begin`] and [`Writer::file_end`].
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Starts an archive: appends the magic to `out`.
    pub fn new(out: &mut Vec<u8>) -> Self {
        todo!("{}", out.len())
    }
    /// Opens a directory node.
    pub fn directory_begin(&mut self, out: &mut Vec<u8>) {
        todo!("{}", out.len())
    }
    /// Opens an entry of the current directory; names must come sorted bytewise.
    pub fn entry_begin(&mut self, out: &mut Vec<u8>, name: &[u8]) {
        todo!("{} {name:?}", out.len())
    }
    /// Closes an entry.
    pub fn entry_end(&mut self, out: &mut Vec<u8>) {
        todo!("{}", out.len())
    }
    /// Closes a directory node.
    pub fn directory_end(&mut self, out: &mut Vec<u8>) {
        todo!("{}", out.len())
    }
    /// A symlink node.
    pub fn symlink(&mut self, out: &mut Vec<u8>, target: &[u8]) {
        todo!("{} {target:?}", out.len())
    }
    /// Opens a regular file; exactly `size` content bytes follow.
    pub fn file_begin(&mut self, out: &mut Vec<u8>, executable: bool, size: u64) {
        todo!("{} {executable} {size}", out.len())
    }
    /// Padding and closing of a file of `size` bytes.
    pub fn file_end(&mut self, out: &mut Vec<u8>, size: u64) {
        todo!("{} {size}", out.len())
    }
}
