//! Inputs and what the tests ask of their chunks.

use firn_chunks::{ChunkId, Chunker, Format, FormatChunker, boundaries::V1};
use firn_formats::{nix::nar, tar};
use std::collections::HashSet;

/// Bytes like no other seed's, the same on every machine.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// A reference to a store path whose hash is made of `letter`.
pub(crate) fn reference(letter: u8) -> Vec<u8> {
    [b"/nix/store/", &[letter; 32][..], b"-glibc-2.40/lib"].concat()
}

/// The chunks of a file that is a region of its own.
pub(crate) fn file_chunks(content: &[u8]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    let mut sink = |chunk: &[u8]| chunks.push(chunk.to_vec());
    let mut chunker = Chunker::new(V1);
    chunker.file_begin(content.len() as u64, &mut sink);
    chunker.file(content, &mut sink);
    chunker.file_end(&mut sink);
    chunker.finish(&mut sink);
    chunks
}

/// The chunks of a stream that comes in pieces of the given lengths (0 is 1), over and over.
pub(crate) fn stream_chunks(format: Format, stream: &[u8], pieces: &[usize]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    let mut sink = |chunk: &[u8]| chunks.push(chunk.to_vec());
    let mut chunker = FormatChunker::new(format, V1);
    let (mut rest, mut pieces) = (stream, pieces.iter().cycle());
    while !rest.is_empty() {
        let length = pieces
            .next()
            .map_or(rest.len(), |piece| (*piece).clamp(1, rest.len()));
        chunker.push(&rest[..length], &mut sink).unwrap();
        rest = &rest[length..];
    }
    chunker.finish(&mut sink).unwrap();
    chunks
}

pub(crate) fn ids(chunks: &[Vec<u8>]) -> HashSet<ChunkId> {
    chunks.iter().map(|chunk| ChunkId::of(chunk)).collect()
}

/// Bytes of the chunks of `new` that `old` does not have.
pub(crate) fn added_bytes(old: &[Vec<u8>], new: &[Vec<u8>]) -> usize {
    let known = ids(old);
    new.iter()
        .filter(|chunk| !known.contains(&ChunkId::of(chunk)))
        .map(Vec::len)
        .sum()
}

/// A NAR of a directory of files, whose names must be sorted.
pub(crate) fn nar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = nar::Writer::new(&mut out);
    writer.directory_begin(&mut out);
    for (name, content) in files {
        writer.entry_begin(&mut out, name.as_bytes());
        writer.file_begin(&mut out, false, content.len() as u64);
        out.extend_from_slice(content);
        writer.file_end(&mut out, content.len() as u64);
        writer.entry_end(&mut out);
    }
    writer.directory_end(&mut out);
    out
}

/// A layer of the same files under `root`.
pub(crate) fn layer(root: &str, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let size = content.len() as u64;
        let entry = tar::Entry {
            path: format!("{root}/{name}").into_bytes(),
            kind: tar::EntryKind::Regular { size },
            mode: 0o444,
            uid: 0,
            gid: 0,
            mtime: 1,
        };
        tar::header(&entry, &mut out).unwrap();
        out.extend_from_slice(content);
        out.resize(out.len() + tar::padding(size), 0);
    }
    out.resize(out.len() + tar::TRAILER_BYTES, 0);
    out
}
