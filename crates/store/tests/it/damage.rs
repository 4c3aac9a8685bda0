//! Bits that flipped, files that are gone.

use crate::support::{Fixture, mixed, options, packs, read_all};
use firn_store::{Representation, Store, StoreError};
use firn_testkit::damage::flip_bit;
use std::os::unix::fs::FileExt as _;

#[test]
fn rule_9_a_flipped_bit_is_an_error_and_never_a_byte() {
    for round in 0..12 {
        let fixture = Fixture::new();
        let content = mixed(1, 1_000_000);
        let blob = fixture.ingest(&content).unwrap();
        let zstd = read_all(&fixture.store, blob.id, Representation::Zstd, None).unwrap();
        let pack = &packs(fixture.dir.path())[0];
        flip_bit(pack, 30 + round * (zstd.len() as u64 / 12));
        for (representation, whole) in [
            (Representation::Zstd, &zstd),
            (Representation::Identity, &content),
        ] {
            let mut reader = match fixture.store.read(blob.id, representation, None) {
                Ok(reader) => reader,
                // The reader before has told of it: now it is said before the first byte.
                Err(error) => {
                    assert!(matches!(error, StoreError::MissingChunks(_)), "{error:?}");
                    continue;
                }
            };
            let mut out = Vec::new();
            let error = loop {
                match reader.next_block() {
                    Ok(Some(block)) => out.extend_from_slice(&block),
                    Ok(None) => panic!("a damaged blob was read to its end"),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
            assert!(whole.starts_with(&out), "a damaged byte came out");
        }
        fixture.store.settle();
        // In quarantine until it is pushed again.
        assert_eq!(fixture.store.damaged(None, 10).unwrap().len(), 1);
        assert_eq!(fixture.ingest(&content).unwrap(), blob);
        let read = read_all(&fixture.store, blob.id, Representation::Zstd, None);
        assert!(read.unwrap() == zstd);
    }
}

#[test]
fn rule_2_a_damaged_frame_makes_no_digest() {
    let fixture = Fixture::new();
    let content = mixed(2, 1_000_000);
    fixture.ingest(&content).unwrap();
    let pack = &packs(fixture.dir.path())[0];
    let file = std::fs::OpenOptions::new().write(true).open(pack).unwrap();
    file.write_all_at(b"damage", 3000).unwrap();
    // Another blob of the same first chunk would have to hash the damaged frame.
    let result = fixture.ingest(&content[..900_000]);
    assert!(matches!(result, Err(StoreError::Damaged(_))), "{result:?}");
}

#[test]
fn rule_9_a_pack_that_is_gone_is_told_before_the_first_byte() {
    let fixture = Fixture::new();
    let blob = fixture.ingest(&mixed(3, 500_000)).unwrap();
    let options = options(fixture.dir.path());
    drop(fixture.store);
    std::fs::remove_file(&packs(fixture.dir.path())[0]).unwrap();
    let store = Store::open(options).unwrap();
    let result = store.read(blob.id, Representation::Zstd, None).err();
    assert!(matches!(result, Some(StoreError::Damaged(_))), "{result:?}");
}

#[test]
fn a_pack_cut_short_is_damaged() {
    let fixture = Fixture::new();
    let blob = fixture.ingest(&mixed(4, 500_000)).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&packs(fixture.dir.path())[0])
        .unwrap();
    file.set_len(100_000).unwrap();
    let read = read_all(&fixture.store, blob.id, Representation::Zstd, None);
    assert!(matches!(read, Err(StoreError::Damaged(_))));
}
