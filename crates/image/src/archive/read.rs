//! Reading an archive's bytes: at random, or all in order.

use super::{Archive, ArchiveError, FileRegion, Source};
use std::{fs::File, io::Read, os::unix::fs::FileExt};

/// Bytes read from a file in one call.
const BLOCK_BYTES: usize = 1 << 20;

pub(super) fn read_at(
    archive: &Archive,
    offset: u64,
    length: usize,
    out: &mut Vec<u8>,
) -> Result<(), ArchiveError> {
    out.clear();
    let end = offset.saturating_add(length as u64);
    if end > archive.length {
        return Err(ArchiveError::PastEnd {
            length: archive.length,
            wanted: end,
        });
    }
    out.reserve(length);
    let first = archive
        .pieces
        .partition_point(|piece| piece.offset + piece.length <= offset);
    for piece in &archive.pieces[first..] {
        if piece.offset >= end {
            break;
        }
        let from = offset.max(piece.offset) - piece.offset;
        let to = end.min(piece.offset + piece.length) - piece.offset;
        match piece.source {
            Source::Literal(start) => {
                out.extend_from_slice(archive.literal(start + from as usize, to - from));
            }
            Source::File(index) => read_range(&archive.files[index], from, to, out)?,
        }
    }
    Ok(())
}

fn read_range(
    region: &FileRegion,
    from: u64,
    to: u64,
    out: &mut Vec<u8>,
) -> Result<(), ArchiveError> {
    let io = || ArchiveError::io(&region.file);
    let file = File::open(&region.file).map_err(io())?;
    if file.metadata().map_err(io())?.len() != region.size {
        return Err(ArchiveError::Changed(region.file.clone()));
    }
    let start = out.len();
    out.resize(start + (to - from) as usize, 0);
    match file.read_exact_at(&mut out[start..], from) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(ArchiveError::Changed(region.file.clone()))
        }
        result => result.map_err(io()),
    }
}

pub(super) fn stream(
    archive: &Archive,
    sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), ArchiveError> {
    let mut reader = FileReader::default();
    for piece in &archive.pieces {
        match piece.source {
            Source::Literal(start) => archive
                .literal(start, piece.length)
                .chunks(BLOCK_BYTES)
                .try_for_each(&mut *sink)
                .map_err(ArchiveError::Sink)?,
            Source::File(index) => reader.read(&archive.files[index], &mut |block| {
                sink(block).map_err(ArchiveError::Sink)
            })?,
        }
    }
    Ok(())
}

/// Reads an archive from its beginning to its end, a block at a time.
#[derive(Debug)]
pub struct ArchiveReader<'a> {
    archive: &'a Archive,
    offset: u64,
    block: Vec<u8>,
    taken: usize,
}

impl<'a> ArchiveReader<'a> {
    pub(super) fn new(archive: &'a Archive) -> Self {
        Self {
            archive,
            offset: 0,
            block: Vec::new(),
            taken: 0,
        }
    }
}

impl Read for ArchiveReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.taken == self.block.len() {
            let rest = self.archive.length - self.offset;
            let length = rest.min(BLOCK_BYTES as u64) as usize;
            read_at(self.archive, self.offset, length, &mut self.block)
                .map_err(std::io::Error::other)?;
            self.offset += length as u64;
            self.taken = 0;
        }
        let rest = &self.block[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

/// Reads whole files through one buffer.
#[derive(Default)]
pub(super) struct FileReader {
    buffer: Vec<u8>,
}

impl FileReader {
    /// Gives the file's bytes to `sink` in blocks; fails if there are more or fewer than announced.
    pub(super) fn read(
        &mut self,
        region: &FileRegion,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let changed = || ArchiveError::Changed(region.file.clone());
        let mut file = File::open(&region.file).map_err(ArchiveError::io(&region.file))?;
        let mut rest = region.size;
        loop {
            // One byte more than should be there, so that growth shows without another call.
            let wanted = rest.saturating_add(1).min(BLOCK_BYTES as u64) as usize;
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
            let count = read_retrying(&mut file, &mut self.buffer[..wanted])
                .map_err(ArchiveError::io(&region.file))?;
            if count as u64 > rest || (count == 0 && rest > 0) {
                return Err(changed());
            }
            rest -= count as u64;
            if count > 0 {
                sink(&self.buffer[..count])?;
            }
            if rest == 0 && count < wanted {
                return Ok(());
            }
        }
    }
}

fn read_retrying(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
