//! An archive's chunk list: glue and files through the chunker, known files without reading them.

use super::{Archive, ArchiveError, FileRegion, Source, read::FileReader};
use firn_chunks::{ChunkId, ChunkList, ChunkRef, Chunker, boundaries::Params};
use std::ops::Range;

/// An archive's chunks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunked {
    /// All of them, in order.
    pub list: ChunkList,
    /// Which of them are whole files, in archive order; smaller files share chunks with what surrounds them.
    pub files: Vec<FileChunks>,
}

/// A file that is a region of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChunks {
    /// Index into [`Archive::files`].
    pub file: usize,
    /// Its chunks' indices in the list.
    pub chunks: Range<usize>,
}

pub(super) fn chunk(
    archive: &Archive,
    params: Params,
    known: &dyn Fn(&FileRegion) -> Option<Vec<ChunkRef>>,
) -> Result<Chunked, ArchiveError> {
    let mut run = Run {
        params,
        chunker: Chunker::new(params),
        reader: FileReader::default(),
        chunked: Chunked::default(),
    };
    for piece in &archive.pieces {
        match piece.source {
            Source::Literal(start) => run.glue(archive.literal(start, piece.length)),
            Source::File(index) => run.file(index, &archive.files[index], known)?,
        }
    }
    let Run {
        chunker,
        mut chunked,
        ..
    } = run;
    chunker.finish(&mut |bytes| chunked.list.chunks.push(reference(bytes)));
    Ok(chunked)
}

struct Run {
    params: Params,
    chunker: Chunker,
    reader: FileReader,
    chunked: Chunked,
}

impl Run {
    fn glue(&mut self, bytes: &[u8]) {
        let chunks = &mut self.chunked.list.chunks;
        self.chunker
            .glue(bytes, &mut |bytes| chunks.push(reference(bytes)));
    }

    fn file(
        &mut self,
        index: usize,
        region: &FileRegion,
        known: &dyn Fn(&FileRegion) -> Option<Vec<ChunkRef>>,
    ) -> Result<(), ArchiveError> {
        if region.size < self.params.file_bytes_min as u64 {
            return self.read(region).map(|_| ());
        }
        let chunks = match known(region).filter(|refs| covers(refs, region.size)) {
            Some(refs) => self.take_known(&refs),
            None => self.read(region)?,
        };
        self.chunked.files.push(FileChunks {
            file: index,
            chunks,
        });
        Ok(())
    }

    /// A file of its own region begins and ends at chunk boundaries, so the chunker
    /// can end before it and another begin after it: the chunks are the same.
    fn take_known(&mut self, refs: &[ChunkRef]) -> Range<usize> {
        let chunks = &mut self.chunked.list.chunks;
        std::mem::replace(&mut self.chunker, Chunker::new(self.params))
            .finish(&mut |bytes| chunks.push(reference(bytes)));
        let start = chunks.len();
        chunks.extend_from_slice(refs);
        start..chunks.len()
    }

    fn read(&mut self, region: &FileRegion) -> Result<Range<usize>, ArchiveError> {
        let chunks = &mut self.chunked.list.chunks;
        let chunker = &mut self.chunker;
        chunker.file_begin(region.size, &mut |bytes| chunks.push(reference(bytes)));
        let start = chunks.len();
        self.reader.read(region, &mut |block| {
            chunker.file(block, &mut |bytes| chunks.push(reference(bytes)));
            Ok(())
        })?;
        chunker.file_end(&mut |bytes| chunks.push(reference(bytes)));
        Ok(start..chunks.len())
    }
}

fn covers(refs: &[ChunkRef], size: u64) -> bool {
    refs.iter()
        .map(|chunk| u64::from(chunk.raw_length))
        .sum::<u64>()
        == size
}

fn reference(bytes: &[u8]) -> ChunkRef {
    ChunkRef {
        id: ChunkId::of(bytes),
        raw_length: bytes.len() as u32,
    }
}
