//! Archives that are never whole in memory: a NAR or a tar as a list of literal bytes and ranges of local files.

use firn_chunks::{ChunkList, ChunkRef, boundaries::Params};
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
    #[error("{0} is neither file, directory nor symlink")]
    Unsupported(PathBuf),
    #[error("{0} changed while it was read")]
    Changed(PathBuf),
    #[error(transparent)]
    Tar(#[from] firn_formats::tar::TarError),
}

/// A file's content inside an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FileRegion {
    /// The local file.
    pub file: PathBuf,
    /// Where its content begins in the archive.
    pub offset: u64,
    pub size: u64,
}

/// Random access to an archive that is composed on the fly.
#[derive(Debug)]
pub struct Archive {}

#[allow(unused_variables)]
impl Archive {
    /// The NAR of a file tree; walks it, reads no contents.
    pub fn nar(root: &Path) -> Result<Self, ArchiveError> {
        todo!()
    }
    /// Bytes in all.
    pub fn length(&self) -> u64 {
        todo!()
    }
    /// The contents of regular files, in archive order.
    pub fn files(&self) -> &[FileRegion] {
        todo!()
    }
    /// Replaces `out` by the bytes at `offset`.
    pub fn read_at(
        &self,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ArchiveError> {
        todo!()
    }
    /// Streams the archive through the chunker. Where `known` gives a file's chunks,
    /// the file is not read. `sink` gets each chunk's offset in the archive.
    pub fn chunk(
        &self,
        params: Params,
        known: &dyn Fn(&FileRegion) -> Option<Vec<ChunkRef>>,
    ) -> Result<ChunkList, ArchiveError> {
        todo!()
    }
    /// Streams all bytes in blocks of bounded size.
    pub fn stream(
        &self,
        sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), ArchiveError> {
        todo!()
    }
}
