//! Archives that are never whole in memory: a NAR or a tar as a list of literal bytes and ranges of local files.
//!
//! Building one walks the tree and reads metadata only. Contents are read when bytes are
//! asked for, one file open at a time, and each file must then still have the size it had.

mod builder;
mod chunking;
mod nar;
mod read;
pub(crate) mod tree;

pub(crate) use builder::Builder;
pub use chunking::{Chunked, FileChunks};
pub use read::ArchiveReader;

use firn_chunks::{ChunkList, ChunkRef, boundaries::Params};
use firn_formats::nix::StorePath;
use std::path::{Path, PathBuf};

/// Why a tree cannot be archived.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ArchiveError {
    #[error("{path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not on this machine, and its files decide what lies at the image's root", .0.absolute())]
    Absent(StorePath),
    #[error("{0} is neither file, directory nor symlink")]
    Unsupported(PathBuf),
    #[error("{path}: directories deeper than {limit}, which Nix does not restore")]
    TooDeep { path: PathBuf, limit: usize },
    #[error("{0} changed while it was read")]
    Changed(PathBuf),
    #[error("the archive has {length} bytes, {wanted} were asked for")]
    PastEnd { length: u64, wanted: u64 },
    #[error("the chunk list is of {listed} bytes, the archive has {length}")]
    WrongList { length: u64, listed: u64 },
    #[error("the receiver of the archive's bytes failed")]
    Sink(#[source] std::io::Error),
    #[error(transparent)]
    Tar(#[from] firn_formats::tar::TarError),
}

impl ArchiveError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// A file's content inside an archive. Empty files have none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FileRegion {
    /// The local file.
    pub file: PathBuf,
    /// Where its content begins in the archive.
    pub offset: u64,
    pub size: u64,
}

/// A run of bytes with one source. Pieces follow each other without gaps; none is empty.
#[derive(Debug, Clone, Copy)]
struct Piece {
    offset: u64,
    length: u64,
    source: Source,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// Begins here in the buffer of literals.
    Literal(usize),
    /// Index of the file region.
    File(usize),
}

/// Random access to an archive that is composed on the fly.
#[derive(Debug)]
pub struct Archive {
    literals: Vec<u8>,
    pieces: Vec<Piece>,
    files: Vec<FileRegion>,
    length: u64,
}

impl Archive {
    /// The NAR of a file tree; walks it, reads no contents.
    pub fn nar(root: &Path) -> Result<Self, ArchiveError> {
        nar::build(root)
    }
    /// Bytes in all.
    pub fn length(&self) -> u64 {
        self.length
    }
    /// The contents of regular files, in archive order.
    pub fn files(&self) -> &[FileRegion] {
        &self.files
    }
    /// Replaces `out` by the `length` bytes at `offset`.
    pub fn read_at(
        &self,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ArchiveError> {
        read::read_at(self, offset, length, out)
    }
    /// Streams the archive through the chunker. Where `known` gives a file's chunks,
    /// the file is not read; only files of at least `params.file_bytes_min` are asked for.
    pub fn chunk(
        &self,
        params: Params,
        known: &dyn Fn(&FileRegion) -> Option<Vec<ChunkRef>>,
    ) -> Result<ChunkList, ArchiveError> {
        Ok(self.chunk_files(params, known)?.list)
    }
    /// [`Archive::chunk`] that also says which chunks are which file's, to be remembered.
    pub fn chunk_files(
        &self,
        params: Params,
        known: &dyn Fn(&FileRegion) -> Option<Vec<ChunkRef>>,
    ) -> Result<Chunked, ArchiveError> {
        chunking::chunk(self, params, known)
    }
    /// All bytes as a stream that is read.
    pub fn reader(&self) -> ArchiveReader<'_> {
        ArchiveReader::new(self)
    }
    /// Streams all bytes in blocks of at most 1 MiB.
    pub fn stream(
        &self,
        sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), ArchiveError> {
        read::stream(self, sink)
    }

    /// Everything but files' contents.
    pub(crate) fn literals(&self) -> &[u8] {
        &self.literals
    }

    fn literal(&self, start: usize, length: u64) -> &[u8] {
        &self.literals[start..start + length as usize]
    }
}
