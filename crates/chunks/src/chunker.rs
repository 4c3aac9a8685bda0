//! From a stream of bytes to chunks.

use crate::boundaries::Params;

/// What a stream is, which decides its regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Format {
    /// A NAR: files are regions of their own, the rest is gathered.
    Nar,
    /// A tar, likewise.
    Tar,
    /// Anything: one region, no reference cuts.
    Opaque,
}

/// Cuts a stream whose regions the caller knows. Emits each chunk's bytes, in
/// order; concatenated they are the input. Copies only what spans two calls.
#[derive(Debug)]
pub struct Chunker {
    params: Params,
}

impl Chunker {
    /// An empty chunker.
    pub fn new(params: Params) -> Self {
        Self { params }
    }
    /// Bytes between files, and files below the threshold.
    pub fn glue(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) {
        todo!(
            "{:?} {} {}",
            self.params,
            bytes.len(),
            std::mem::size_of_val(sink)
        )
    }
    /// A regular file's content of `size` bytes follows, by [`Chunker::file`] in pieces.
    /// Below the threshold it is treated as glue.
    pub fn file_begin(&mut self, size: u64, sink: &mut dyn FnMut(&[u8])) {
        todo!("{size} {}", std::mem::size_of_val(sink))
    }
    /// Bytes of the current file.
    pub fn file(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) {
        todo!("{} {}", bytes.len(), std::mem::size_of_val(sink))
    }
    /// The current file ended.
    pub fn file_end(&mut self, sink: &mut dyn FnMut(&[u8])) {
        todo!("{}", std::mem::size_of_val(sink))
    }
    /// Ends the stream, emitting what is held back.
    pub fn finish(self, sink: &mut dyn FnMut(&[u8])) {
        todo!("{}", std::mem::size_of_val(sink))
    }
}

/// Why a stream is not of its format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FormatError {
    #[error(transparent)]
    Nar(#[from] firn_formats::nix::nar::NarError),
    #[error(transparent)]
    Tar(#[from] firn_formats::tar::TarError),
}

/// Cuts a stream of a known format, finding its regions by parsing it.
pub struct FormatChunker {
    inner: Chunker,
    format: Format,
}

impl FormatChunker {
    /// At the start of a stream.
    pub fn new(format: Format, params: Params) -> Self {
        Self {
            inner: Chunker::new(params),
            format,
        }
    }
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), FormatError> {
        todo!(
            "{:?} {:?} {} {}",
            self.inner,
            self.format,
            bytes.len(),
            std::mem::size_of_val(sink)
        )
    }
    /// Checks completeness and emits what is held back.
    pub fn finish(self, sink: &mut dyn FnMut(&[u8])) -> Result<(), FormatError> {
        todo!("{}", std::mem::size_of_val(sink))
    }
}
