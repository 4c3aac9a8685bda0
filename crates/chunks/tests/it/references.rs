//! Cuts at store references.

use crate::input::{added_bytes, file_chunks, noise, reference};
use firn_chunks::{Chunker, boundaries::V1};
use proptest::prelude::*;

/// Content with references `gaps` bytes of noise apart, their hashes made of `letter`.
fn content(letter: u8, gaps: &[usize]) -> Vec<u8> {
    let mut out = noise(0, 20_000);
    for (index, gap) in gaps.iter().enumerate() {
        out.extend_from_slice(&reference(letter));
        out.extend_from_slice(&noise(index as u64 + 1, *gap));
    }
    out
}

#[test]
fn a_lone_hash_is_a_chunk_of_its_own() {
    let chunks = file_chunks(&content(b'a', &[300_000, 50_000]));
    let lone = chunks.iter().filter(|chunk| chunk.as_slice() == [b'a'; 32]);
    assert_eq!(lone.count(), 2);
}

#[test]
fn a_dense_run_is_one_chunk_from_hash_to_hash() {
    let chunks = file_chunks(&content(
        b'a',
        &[100, V1.reference_distance_bytes - 1000, 50_000],
    ));
    let run = chunks
        .iter()
        .find(|chunk| chunk.starts_with(&[b'a'; 32]))
        .unwrap();
    assert!(run.ends_with(&[b'a'; 32]));
    assert_eq!(
        run.windows(11)
            .filter(|window| window == b"/nix/store/")
            .count(),
        2
    );
}

#[test]
fn what_only_looks_like_a_hash_is_not_cut() {
    let mut text = noise(0, 20_000);
    text.extend_from_slice(b"/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-e is not base 32");
    text.extend_from_slice(&noise(1, 20_000));
    text.extend_from_slice(b"/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    assert!(file_chunks(&text).iter().all(|chunk| chunk.len() > 32));
}

#[test]
fn glue_is_not_cut_at_references() {
    let bytes = content(b'a', &[5000, 9000]);
    let mut lengths = Vec::new();
    let mut sink = |chunk: &[u8]| lengths.push(chunk.len());
    let mut chunker = Chunker::new(V1);
    chunker.glue(&bytes, &mut sink);
    chunker.finish(&mut sink);
    assert!(lengths.iter().all(|length| *length > 32), "{lengths:?}");
}

fn gaps() -> impl Strategy<Value = Vec<usize>> {
    let gap = prop_oneof![
        0usize..200,
        4000usize..4200,
        4200usize..100_000,
        250_000usize..280_000
    ];
    prop::collection::vec(gap, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_rename_changes_only_the_runs(gaps in gaps()) {
        let (before, after) = (content(b'a', &gaps), content(b'b', &gaps));
        let added = added_bytes(&file_chunks(&before), &file_chunks(&after));
        // A run grows by the text between its hashes, never by what stands around it.
        let between: usize = gaps.iter().filter(|gap| **gap < V1.reference_distance_bytes).sum();
        prop_assert!(added <= gaps.len() * reference(b'b').len() + between, "{added}");
    }

    #[test]
    fn bounds_and_bytes_hold_with_references(gaps in gaps(), pieces in prop::collection::vec(1usize..300_000, 1..8)) {
        let bytes = content(b'a', &gaps);
        let whole = file_chunks(&bytes);
        prop_assert!(whole.concat() == bytes);
        prop_assert!(whole.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= V1.chunk_bytes_max));
        let mut split = Vec::new();
        let mut sink = |chunk: &[u8]| split.push(chunk.to_vec());
        let mut chunker = Chunker::new(V1);
        chunker.file_begin(bytes.len() as u64, &mut sink);
        let (mut rest, mut pieces) = (&bytes[..], pieces.iter().cycle());
        while let Some(piece) = pieces.next().filter(|_| !rest.is_empty()) {
            let (piece, after) = rest.split_at((*piece).min(rest.len()));
            chunker.file(piece, &mut sink);
            rest = after;
        }
        chunker.file_end(&mut sink);
        chunker.finish(&mut sink);
        prop_assert!(split == whole, "pieces matter");
    }

    /// Runs longer than any chunk are cut by content.
    #[test]
    fn a_very_long_run_is_bounded(gap in 1usize..500) {
        let bytes = content(b'a', &vec![gap; 900_000 / (gap + 60)]);
        let chunks = file_chunks(&bytes);
        prop_assert!(chunks.concat() == bytes);
        prop_assert!(chunks.iter().all(|chunk| chunk.len() <= V1.chunk_bytes_max));
    }
}
