//! A disk that is full.

use crate::support::{entry, frames, ingest, noise, options, publication, read_all};
use firn_store::{Representation, Store, StoreError};
use firn_testkit::SmallDisk;
use std::process::Command;

fn used(disk: &SmallDisk) -> u64 {
    crate::support::files(&disk.path().join("store/packs"))
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum()
}

#[test]
fn a_full_disk_refuses_keeps_serving_and_writes_go_on_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&dir.path().join("disk"), "24m");
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 6 << 20]).unwrap();
    let store = Store::open(options(&disk.path().join("store"))).unwrap();
    let cache = store.cache_create("main", "public", b"").unwrap();
    let session = store.session_open(&cache).unwrap();
    let first = noise(1, 3_000_000);
    let blob = ingest(&store, &session, &first).unwrap();
    let new = publication(vec![entry("first", &[blob.id])]);
    store.publish(Some(&session), cache.id, new).unwrap();
    let before = used(&disk);

    for round in 0..3 {
        let pieces: Vec<Vec<u8>> = (0..200)
            .map(|index| noise(5000 + round * 1000 + index, 100_000))
            .collect();
        let result = store.put_frames(&session, frames(&pieces, 1).0);
        assert!(matches!(result, Err(StoreError::Full(_))), "{result:?}");
        assert_eq!(used(&disk), before, "the room was not given back");
        let read = read_all(&store, blob.id, Representation::Identity, None);
        assert!(read.unwrap() == first);
    }
    // A stream fails when its turn comes; the batches before it are stored, and unseen.
    let large = ingest(&store, &session, &noise(9, 30_000_000));
    assert!(matches!(large, Err(StoreError::Full(_))), "{large:?}");
    assert_eq!(store.stats().unwrap().blobs, 1);

    std::fs::remove_file(&ballast).unwrap();
    let second = noise(2, 2_000_000);
    let blob = ingest(&store, &session, &second).unwrap();
    let new = publication(vec![entry("second", &[blob.id])]);
    store.publish(Some(&session), cache.id, new).unwrap();
    let read = read_all(&store, blob.id, Representation::Identity, None);
    assert!(read.unwrap() == second);
    store.close().unwrap();
    drop(store);
    let store = Store::open(options(&disk.path().join("store"))).unwrap();
    let read = read_all(&store, blob.id, Representation::Identity, None);
    assert!(read.unwrap() == second);
    drop(store);
    drop(disk);
}

#[test]
fn a_database_without_room_refuses_whole_publications_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&dir.path().join("disk"), "8m");
    let store = Store::open(options(&disk.path().join("store"))).unwrap();
    let cache = store.cache_create("main", "public", b"").unwrap();
    let publish = |round: usize| {
        let entries = (0..8).map(|index| {
            let mut new = entry(&format!("{round}/{index}"), &[]);
            new.value = vec![index as u8; 40_000].into();
            new
        });
        store.publish(None, cache.id, publication(entries.collect()))
    };
    let count = || {
        let kind = firn_store::EntryKind::Narinfo;
        store
            .entries(cache.id, kind, "", None, 10_000)
            .unwrap()
            .len()
    };
    let mut rounds = 0;
    let error = loop {
        match publish(rounds) {
            Ok(_) => rounds += 1,
            Err(error) => break error,
        }
        assert!(rounds < 1000);
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert!(rounds > 2);
    assert_eq!(count(), rounds * 8);
    let larger = Command::new("mount")
        .args(["-o", "remount,size=32m"])
        .arg(disk.path())
        .status();
    assert!(larger.unwrap().success());
    publish(rounds).unwrap();
    assert_eq!(count(), rounds * 8 + 8);
    drop(store);
    drop(disk);
}
