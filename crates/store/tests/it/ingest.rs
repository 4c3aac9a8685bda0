//! Streams taken in.

use crate::support::{Fixture, mixed, noise, packs, read_all};
use firn_chunks::Format;
use firn_formats::Sha256;
use firn_store::{Representation, StoreError};

#[test]
fn a_long_stream_is_stored_hashed_and_read_back() {
    let fixture = Fixture::new();
    let content = [
        mixed(1, 9_000_000),
        vec![0; 3_000_000],
        noise(2, 15_000_000),
    ]
    .concat();
    let blob = fixture.ingest(&content).unwrap();
    assert_eq!(blob.identity_sha256, Sha256::of(&content));
    let zstd = read_all(&fixture.store, blob.id, Representation::Zstd, None).unwrap();
    assert_eq!(blob.zstd_sha256, Sha256::of(&zstd));
    let read = read_all(&fixture.store, blob.id, Representation::Identity, None);
    assert!(read.unwrap() == content);
}

#[test]
fn the_same_stream_again_stores_nothing_and_is_the_same_blob() {
    let fixture = Fixture::new();
    let content = mixed(3, 12_000_000);
    let blob = fixture.ingest(&content).unwrap();
    let before = fixture.store.stats().unwrap();
    assert_eq!(fixture.ingest(&content).unwrap(), blob);
    // Another stream of the same middle: its blob's digest comes from frames already held.
    let other = fixture.ingest(&content[..11_000_000]).unwrap();
    let zstd = read_all(&fixture.store, other.id, Representation::Zstd, None).unwrap();
    assert_eq!(other.zstd_sha256, Sha256::of(&zstd));
    let after = fixture.store.stats().unwrap();
    assert!(after.chunks <= before.chunks + 1, "{before:?} {after:?}");
    assert_eq!(after.blobs, 2);
    assert!(after.chunks_known_total > before.chunks_known_total);
}

#[test]
fn a_dropped_or_malformed_stream_leaves_no_blob() {
    let fixture = Fixture::new();
    let content = mixed(4, 10_000_000);
    let mut dropped = fixture.store.ingest(&fixture.session, Format::Opaque);
    dropped.write(&content).unwrap();
    drop(dropped);
    let mut malformed = fixture.store.ingest(&fixture.session, Format::Nar);
    let result = malformed.write(b"this is not a NAR at all, it is something else");
    assert!(matches!(result, Err(StoreError::Format(_))), "{result:?}");
    assert!(malformed.write(b"more").is_err());
    assert!(malformed.finish().is_err());
    let mut cut = fixture.store.ingest(&fixture.session, Format::Nar);
    cut.write(b"\x0d\0\0\0\0\0\0\0nix-archive-1").unwrap();
    assert!(matches!(cut.finish(), Err(StoreError::Format(_))));
    assert_eq!(fixture.store.stats().unwrap().blobs, 0);
    let found = fixture
        .store
        .blob_by_digest(fixture.cache.domain, &Sha256::of(&content));
    assert_eq!(found.unwrap(), None);
}

#[test]
fn packs_are_sealed_at_their_target_and_named_at_random() {
    let fixture = Fixture::with(|options| options.pack_bytes_target = 3 << 20);
    let content = noise(5, 30_000_000);
    let blob = fixture.ingest(&content).unwrap();
    let found = packs(fixture.dir.path());
    assert!(found.len() >= 3, "{found:?}");
    let read = read_all(&fixture.store, blob.id, Representation::Identity, None);
    assert!(read.unwrap() == content);
    fixture.store.close().unwrap();
    for pack in found {
        let bytes = std::fs::read(&pack).unwrap();
        assert!(bytes.ends_with(b"FIRNTAIL"), "{pack:?} is not sealed");
    }
}

#[test]
fn the_rate_of_taking_in_is_printed() {
    let fixture = Fixture::new();
    let content = noise(6, 100_000_000);
    let start = std::time::Instant::now();
    fixture.ingest(&content).unwrap();
    let rate = content.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
    eprintln!("ingest of noise: {rate:.0} MB/s");
    // A floor for a debug build on a busy machine; the benches hold the real one.
    assert!(rate > 2.0);
}
