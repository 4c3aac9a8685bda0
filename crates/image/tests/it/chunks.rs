//! Chunk lists of archives: as the format-aware chunker finds them, and the same without reading what is known.

use crate::support::{Store, bytes, chunk, noise, write};
use firn_chunks::{ChunkId, ChunkList, ChunkRef, Format, FormatChunker, boundaries::V1};
use firn_image::{
    archive::{Archive, FileRegion},
    spec::ImageSpec,
};
use std::{cell::Cell, collections::HashMap, fs, path::PathBuf};

fn by_format(format: Format, all: &[u8]) -> ChunkList {
    let mut list = ChunkList::default();
    let mut sink = |bytes: &[u8]| {
        list.chunks.push(ChunkRef {
            id: ChunkId::of(bytes),
            raw_length: bytes.len() as u32,
        });
    };
    let mut chunker = FormatChunker::new(format, V1);
    for piece in all.chunks(10_007) {
        chunker.push(piece, &mut sink).unwrap();
    }
    chunker.finish(&mut sink).unwrap();
    list
}

fn file_chunks(archive: &Archive) -> HashMap<PathBuf, Vec<ChunkRef>> {
    let chunked = archive.chunk_files(V1, &|_| None).unwrap();
    let chunks = |range: std::ops::Range<usize>| chunked.list.chunks[range].to_vec();
    let files = chunked.files.iter();
    files
        .map(|of| {
            (
                archive.files()[of.file].file.clone(),
                chunks(of.chunks.clone()),
            )
        })
        .collect()
}

#[test]
fn a_composed_archive_is_cut_like_a_parsed_one() {
    let store = Store::new();
    for name in ["libc", "tool", "app"] {
        let archive = Archive::nar(&store.local(name)).unwrap();
        assert_eq!(chunk(&archive), by_format(Format::Nar, &bytes(&archive)));
    }
    let image = store.image(&["app"], ImageSpec::default());
    for index in 0..image.layers.len() {
        let archive = image.layer_archive(index).unwrap();
        assert_eq!(chunk(&archive), by_format(Format::Tar, &bytes(&archive)));
    }
}

#[test]
fn a_file_has_the_same_chunks_in_nar_and_layer() {
    let store = Store::new();
    let spec = ImageSpec {
        max_layers: 1,
        ..ImageSpec::default()
    };
    let layer = store.image(&["app"], spec).layer_archive(0).unwrap();
    let in_layer = file_chunks(&layer);
    for (name, size) in [("libc", 300_000), ("tool", 40_000), ("app", 5_000)] {
        let in_nar = file_chunks(&Archive::nar(&store.local(name)).unwrap());
        assert_eq!(in_nar.len(), 1, "one file of {name} is at least 4 KiB");
        for (file, chunks) in in_nar {
            let length: u32 = chunks.iter().map(|chunk| chunk.raw_length).sum();
            assert_eq!(length, size);
            assert_eq!(in_layer[&file], chunks);
        }
    }
}

#[test]
fn known_files_are_not_read() {
    let store = Store::new();
    write(
        &store.local("libc").join("lib/other.so"),
        &noise(100_000, 8),
        0o555,
    );
    let archive = Archive::nar(&store.local("libc")).unwrap();
    let all = chunk(&archive);
    let known = file_chunks(&archive);
    for file in known.keys() {
        fs::remove_file(file).unwrap();
    }
    let asked = Cell::new(0);
    let lookup = |region: &FileRegion| {
        asked.set(asked.get() + 1);
        known.get(&region.file).cloned()
    };
    assert_eq!(archive.chunk(V1, &lookup).unwrap(), all);
    assert_eq!(asked.get(), 2, "smaller files are not asked for");
}

#[test]
fn what_is_known_wrongly_is_read() {
    let store = Store::new();
    let archive = Archive::nar(&store.local("libc")).unwrap();
    let short = |_: &FileRegion| Some(Vec::new());
    assert_eq!(archive.chunk(V1, &short).unwrap(), chunk(&archive));
}
