//! Putting an archive together, front to back.

use super::{Archive, FileRegion, Piece, Source};
use std::path::PathBuf;

/// Collects literals and files in archive order.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    literals: Vec<u8>,
    /// Literals before this one lie in a piece already.
    placed: usize,
    pieces: Vec<Piece>,
    files: Vec<FileRegion>,
    length: u64,
}

impl Builder {
    /// The buffer to which literal bytes are appended; what is there must not be touched.
    pub(crate) fn literals(&mut self) -> &mut Vec<u8> {
        &mut self.literals
    }

    /// A file's content comes next.
    pub(crate) fn file(&mut self, file: PathBuf, size: u64) {
        if size == 0 {
            return;
        }
        self.place_literals();
        let offset = self.length;
        self.push(size, Source::File(self.files.len()));
        self.files.push(FileRegion { file, offset, size });
    }

    pub(crate) fn finish(mut self) -> Archive {
        self.place_literals();
        Archive {
            literals: self.literals,
            pieces: self.pieces,
            files: self.files,
            length: self.length,
        }
    }

    fn place_literals(&mut self) {
        let start = self.placed;
        let length = self.literals.len() - start;
        if length > 0 {
            self.placed = self.literals.len();
            self.push(length as u64, Source::Literal(start));
        }
    }

    fn push(&mut self, length: u64, source: Source) {
        self.pieces.push(Piece {
            offset: self.length,
            length,
            source,
        });
        self.length += length;
    }
}
