//! The same file in a NAR and in a layer.

use crate::input::{file_chunks, ids, layer, nar, noise, reference, stream_chunks};
use firn_chunks::{Format, boundaries::V1};
use proptest::prelude::*;

fn files() -> Vec<(&'static str, Vec<u8>)> {
    let with_references = [noise(1, 9000), reference(b'a'), noise(2, 300_000)].concat();
    vec![
        ("a-small", noise(3, 100)),
        ("b-16KiB", noise(4, 16 << 10)),
        ("c-odd", with_references),
        ("d-threshold", noise(5, V1.file_bytes_min)),
        ("e-below", noise(6, V1.file_bytes_min - 1)),
        ("f-large", noise(7, 3_000_001)),
        ("g-empty", Vec::new()),
    ]
}

#[test]
fn a_file_has_the_same_chunks_in_a_nar_and_in_a_layer() {
    let files = files();
    let in_nar = ids(&stream_chunks(Format::Nar, &nar(&files), &[]));
    let in_layer = ids(&stream_chunks(
        Format::Tar,
        &layer("nix/store/x", &files),
        &[],
    ));
    for (name, content) in &files {
        if content.len() >= V1.file_bytes_min {
            let alone = ids(&file_chunks(content));
            assert!(alone.is_subset(&in_nar), "{name} in the NAR");
            assert!(alone.is_subset(&in_layer), "{name} in the layer");
        }
    }
}

#[test]
fn a_layer_adds_little_to_its_nars() {
    let files = files();
    let in_nar = stream_chunks(Format::Nar, &nar(&files), &[]);
    let in_layer = stream_chunks(Format::Tar, &layer("nix/store/x", &files), &[]);
    let added = crate::input::added_bytes(&in_nar, &in_layer);
    // Headers, padding, the end, and the files below the threshold.
    assert!(
        added < files.len() * 1024 + 1024 + 3 * V1.file_bytes_min,
        "{added}"
    );
}

#[test]
fn a_broken_stream_is_an_error() {
    let nar = nar(&files());
    let mut chunker = firn_chunks::FormatChunker::new(Format::Nar, V1);
    chunker.push(&nar[..nar.len() - 8], &mut |_| {}).unwrap();
    assert!(chunker.finish(&mut |_| {}).is_err());
    let mut chunker = firn_chunks::FormatChunker::new(Format::Nar, V1);
    assert!(
        chunker
            .push(b"this is no archive at all", &mut |_| {})
            .is_err()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn pieces_do_not_matter(pieces in prop::collection::vec(1usize..400_000, 1..12)) {
        let files = files();
        for (format, stream) in [
            (Format::Nar, nar(&files)),
            (Format::Tar, layer("nix/store/x", &files)),
            (Format::Opaque, nar(&files)),
        ] {
            let whole = stream_chunks(format, &stream, &[]);
            prop_assert!(whole.concat() == stream, "the chunks are the stream");
            prop_assert!(stream_chunks(format, &stream, &pieces) == whole, "{format:?}");
        }
    }
}

#[test]
fn small_pieces_do_not_matter() {
    let stream = nar(&files());
    let whole = stream_chunks(Format::Nar, &stream, &[]);
    assert!(stream_chunks(Format::Nar, &stream, &[1]) == whole);
    assert!(stream_chunks(Format::Nar, &stream, &[61, 7]) == whole);
}
