//! Representations of a layer: each decodes to the tar, has the digests it says, and is the same every time.

use crate::support::{Store, bytes, chunk, noise, sha256, write};
use firn_chunks::{ChunkId, ChunkList, Decoder, Encoder, boundaries::V1};
use firn_formats::{Sha256, oci::Digest};
use firn_image::{
    archive::{Archive, ArchiveError},
    compose::LayerBlob,
    encode::{Representation, encode_layer, encode_packed_layer},
    spec::ImageSpec,
};
use std::{collections::HashSet, fs, io::Read};

fn layer(store: &Store) -> Archive {
    let spec = ImageSpec {
        max_layers: 1,
        ..ImageSpec::default()
    };
    store.image(&["app"], spec).layer_archive(0).unwrap()
}

fn encoded(
    archive: &Archive,
    list: Option<&ChunkList>,
    representation: Representation,
) -> (LayerBlob, Vec<u8>) {
    let mut out = Vec::new();
    let blob = encode_layer(archive, list, representation, &mut |bytes| {
        out.extend_from_slice(bytes);
        Ok(())
    })
    .unwrap();
    assert_eq!(blob.representation, representation);
    assert_eq!(blob.size, out.len() as u64);
    assert_eq!(blob.digest, Digest::from(Sha256::of(&out)));
    assert_eq!(blob.diff_id, Digest::from(sha256(archive)));
    assert_eq!(blob.tar_size, archive.length());
    (blob, out)
}

#[test]
fn zstd_is_the_frames_of_the_chunks() {
    let store = Store::new();
    // More than one batch, with a file that repeats.
    for name in ["one", "two"] {
        let file = store.local("tool").join(name);
        write(&file, &noise(6 << 20, 5), 0o444);
    }
    let archive = layer(&store);
    let list = chunk(&archive);
    let (_, stream) = encoded(&archive, Some(&list), Representation::Zstd);
    let tar = bytes(&archive);
    let mut encoder = Encoder::new(V1.zstd_level);
    let mut decoder = Decoder::new();
    let (mut at, mut frame_at) = (0, 0);
    let mut raw = Vec::new();
    for part in &list.chunks {
        let slice = &tar[at..at + part.raw_length as usize];
        assert_eq!(ChunkId::of(slice), part.id);
        let frame = encoder.encode(slice).frame().clone();
        assert!(stream[frame_at..].starts_with(&frame));
        decoder.decode(&frame, &mut raw).unwrap();
        assert!(raw == slice);
        at += slice.len();
        frame_at += frame.len();
    }
    assert_eq!((at, frame_at), (tar.len(), stream.len()));
    assert!(encoded(&archive, None, Representation::Zstd).1 == stream);
}

#[test]
fn a_packed_layer_tells_where_each_chunk_lies() {
    let store = Store::new();
    for name in ["one", "two"] {
        write(&store.local("tool").join(name), &noise(6 << 20, 5), 0o444);
    }
    let archive = layer(&store);
    let list = chunk(&archive);
    let (blob, stream) = encoded(&archive, Some(&list), Representation::Zstd);
    let mut again = Vec::new();
    let packed = encode_packed_layer(&archive, &list, &mut |bytes| {
        again.extend_from_slice(bytes);
        Ok(())
    })
    .unwrap();
    assert_eq!(packed.blob, blob);
    assert!(again == stream);

    let distinct: HashSet<ChunkId> = list.chunks.iter().map(|chunk| chunk.id).collect();
    assert!(distinct.len() < list.chunks.len(), "a file repeats");
    assert_eq!(packed.frames.len(), distinct.len());
    let mut decoder = Decoder::new();
    let mut raw = Vec::new();
    for placed in &packed.frames {
        let begin = placed.offset as usize;
        let frame = &stream[begin..begin + placed.record.frame_length as usize];
        assert_eq!(firn_chunks::frame::checksum(frame), placed.record.checksum);
        decoder.decode(frame, &mut raw).unwrap();
        assert_eq!(ChunkId::of(&raw), placed.record.id);
        assert_eq!(raw.len(), placed.record.raw_length as usize);
        assert!(distinct.contains(&placed.record.id));
    }
}

#[test]
fn gzip_is_deterministic_and_decodes() {
    let store = Store::new();
    let archive = layer(&store);
    let (_, stream) = encoded(&archive, None, Representation::Gzip);
    assert_eq!(stream[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(stream.as_slice())
        .read_to_end(&mut tar)
        .unwrap();
    assert!(tar == bytes(&archive));
    // Whoever makes it of the bytes alone gets the same.
    let mut encoder = firn_chunks::GzipEncoder::new(Vec::new());
    std::io::Write::write_all(&mut encoder, &tar).unwrap();
    assert!(encoder.finish().unwrap() == stream);
}

#[test]
fn a_plain_tar_is_itself() {
    let store = Store::new();
    let archive = layer(&store);
    let (blob, stream) = encoded(&archive, None, Representation::Tar);
    assert!(stream == bytes(&archive));
    assert_eq!(blob.digest, blob.diff_id);
}

#[test]
fn a_list_of_other_bytes_is_noticed() {
    let store = Store::new();
    let archive = layer(&store);
    let list = chunk(&archive);
    let mut shorter = list.clone();
    shorter.chunks.pop();
    let encode = |list: &ChunkList| {
        encode_layer(&archive, Some(list), Representation::Zstd, &mut |_| Ok(()))
    };
    assert!(matches!(
        encode(&shorter),
        Err(ArchiveError::WrongList { .. })
    ));
    let file = store.local("tool").join("bin/tool");
    fs::remove_file(&file).unwrap();
    write(&file, &noise(40_000, 77), 0o555);
    match encode(&list) {
        Err(ArchiveError::Changed(path)) => assert_eq!(path, file),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_number_of_threads_does_not_show() {
    let store = Store::new();
    let digest = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let encode = || encoded(&layer(&store), None, Representation::Zstd).0;
        pool.build().unwrap().install(encode).digest
    };
    assert_eq!(digest(1), digest(5));
}
