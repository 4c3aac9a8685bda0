//! Segments after a collection: the database made from them is the same.

use super::*;
use crate::support::options;
use firn_store::NewEntry;
use std::collections::BTreeMap;

type Content = BTreeMap<(String, String), (Vec<u8>, Vec<(firn_formats::Sha256, u64)>, u64)>;

/// Every entry with what its blobs are.
fn everything(store: &Store) -> Content {
    let mut all = BTreeMap::new();
    for cache in store.caches().unwrap() {
        for kind in [
            EntryKind::Narinfo,
            EntryKind::Manifest,
            EntryKind::RegistryBlob,
        ] {
            for entry in store.entries(cache.id, kind, "", None, 10_000).unwrap() {
                let blobs = entry.blobs.iter().map(|id| {
                    let blob = store.blob(*id).unwrap().unwrap();
                    (blob.zstd_sha256, blob.zstd_length)
                });
                let value = (entry.value.to_vec(), blobs.collect(), entry.sequence);
                all.insert((format!("{} {kind:?}", cache.name), entry.key), value);
            }
        }
    }
    all
}

fn segments(dir: &std::path::Path) -> usize {
    files(&dir.join("segments")).len()
}

#[test]
fn what_segments_tell_is_the_same_before_and_after_compaction() {
    let mut fixture = unleased();
    for round in 0..5_u64 {
        for seed in 0..30_u64 {
            let seed = round * 7 + seed;
            fixture.put(&seed.to_string(), &[seed, seed + 1]);
        }
        fixture.unpin();
        for seed in (0..30_u64).filter(|seed| seed % 3 != 0) {
            fixture.delete(&(round * 7 + seed).to_string());
        }
        let report = collect(&fixture.store);
        assert!(report.segments_written >= 2, "{report:?}");
        assert_eq!(segments(fixture.dir.path()) as u64, report.segments_written);
    }
    let image = put_pieces(&fixture.store, &fixture.session, &[5000]);
    let entries = [EntryKind::RegistryBlob, EntryKind::Manifest].map(|kind| NewEntry {
        kind,
        lease: (kind == EntryKind::RegistryBlob).then_some(Duration::ZERO),
        ..entry("image", &[image])
    });
    let new = publication(entries.to_vec());
    fixture.store.publish(None, fixture.cache.id, new).unwrap();
    let gone = fixture.store.cache_create("gone", "public", b"").unwrap();
    fixture.store.cache_delete(gone.id).unwrap();
    let expected = everything(&fixture.store);
    fixture.store.close().unwrap();
    let before = fixture.store.stats();
    drop(before);
    let dir = fixture.dir;
    drop(fixture.store);
    let mut options = options(dir.path());
    options.lease = Duration::ZERO;
    let report = Store::rebuild(&options).unwrap();
    assert_eq!(report.entries_dropped, 0);
    let store = Store::open(options.clone()).unwrap();
    assert_eq!(everything(&store), expected);
    // Entries that a manifest keeps do not last for ever because the database was made anew.
    collect(&store);
    assert_eq!(everything(&store), expected);
    drop(store);
    assert_eq!(Store::rebuild(&options).unwrap().entries_dropped, 0);
    assert_eq!(everything(&Store::open(options).unwrap()), expected);
}

#[test]
fn covered_segments_say_nothing_more_and_go_after_the_grace() {
    let fixture = unleased();
    fixture.put("stays", &[1]);
    fixture.put("goes", &[2]);
    collect(&fixture.store);
    fixture.delete("goes");
    let patient = CollectionOptions {
        grace: Duration::from_secs(3600),
        ..eager()
    };
    let report = fixture.store.collect(&patient, &|_| true).unwrap();
    assert_eq!(report.segments_deleted, 0);
    // Old and new ones lie side by side; the old one that tells of the entry does not bring it back.
    let dir = fixture.dir;
    fixture.store.close().unwrap();
    drop(fixture.store);
    let options = options(dir.path());
    Store::rebuild(&options).unwrap();
    let store = Store::open(options).unwrap();
    let cache = store.cache("main").unwrap().unwrap().id;
    let keys: Vec<String> = store
        .entries(cache, EntryKind::Narinfo, "", None, 10)
        .unwrap()
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert_eq!(keys, ["stays"]);
    let report = collect(&store);
    assert!(report.segments_deleted > 0);
}

#[test]
fn segments_are_compacted_when_there_are_many() {
    let fixture = Fixture::with(|options| {
        options.segment_interval = Duration::from_millis(1);
    });
    let lazy = CollectionOptions {
        grace: Duration::ZERO,
        ..CollectionOptions::default()
    };
    for seed in 0..200_u64 {
        fixture.put(&seed.to_string(), &[seed % 3]);
        std::thread::sleep(Duration::from_millis(3));
        if segments(fixture.dir.path()) > 40 {
            break;
        }
    }
    assert!(segments(fixture.dir.path()) > 40);
    let report = fixture.store.collect(&lazy, &|_| true).unwrap();
    assert!(report.segments_written > 0);
    assert!(segments(fixture.dir.path()) < 10);
    let report = fixture.store.collect(&lazy, &|_| true).unwrap();
    assert_eq!(report.segments_written, 0, "nothing to do so soon");
}
