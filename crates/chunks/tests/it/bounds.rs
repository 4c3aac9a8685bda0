//! Bounds of chunks, and what an edit changes.

use crate::input::{added_bytes, file_chunks, noise};
use firn_chunks::boundaries::V1;
use proptest::prelude::*;

#[test]
fn bounds_hold_in_any_content() {
    for content in [
        noise(1, 5_000_000),
        vec![0; 3_000_000],
        b"abcdefgh".repeat(200_000),
    ] {
        let chunks = file_chunks(&content);
        let (last, others) = chunks.split_last().unwrap();
        assert!(last.len() <= V1.chunk_bytes_max);
        for chunk in others {
            assert!((V1.chunk_bytes_min..=V1.chunk_bytes_max).contains(&chunk.len()));
        }
        assert!(chunks.concat() == content);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// An insertion changes the chunk that it falls in and at most a few after it.
    #[test]
    fn an_insertion_changes_few_chunks(at in 0usize..4_000_000, length in 1usize..5000) {
        let before = noise(1, 4_000_000);
        let after = [&before[..at], &noise(2, length), &before[at..]].concat();
        let added = added_bytes(&file_chunks(&before), &file_chunks(&after));
        prop_assert!(added <= 4 * V1.chunk_bytes_max, "{added}");
    }
}
