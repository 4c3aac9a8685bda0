//! Many at once.

use crate::support::{Fixture, entry, frames, ingest, mixed, noise, publication, read_all};
use firn_formats::Sha256;
use firn_store::Representation;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn rule_1_eight_threads_sharing_chunks_store_each_once_and_all_can_publish() {
    let fixture = Fixture::new();
    let shared: Vec<Vec<u8>> = (0..60).map(|index| mixed(index, 20_000)).collect();
    let new_total = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (fixture, shared, new_total) = (&fixture, &shared, &new_total);
            scope.spawn(move || {
                let session = fixture.store.session_open(&fixture.cache).unwrap();
                let mut pieces = shared.clone();
                pieces.rotate_left(thread as usize * 7);
                pieces.push(noise(1000 + thread, 30_000));
                let (some, list) = frames(&pieces, 2);
                for batch in some.chunks(10) {
                    let new = fixture.store.put_frames(&session, batch.to_vec()).unwrap();
                    new_total.fetch_add(new, Ordering::Relaxed);
                }
                let verifier = fixture.store.verifier(&session, list);
                let blob = fixture.store.put_blob(&session, verifier).unwrap();
                let key = format!("thread {thread}");
                let entries = publication(vec![entry(&key, &[blob.id])]);
                fixture
                    .store
                    .publish(Some(&session), fixture.cache.id, entries)
                    .unwrap();
                let read = read_all(&fixture.store, blob.id, Representation::Identity, None);
                assert!(read.unwrap() == pieces.concat());
            });
        }
    });
    assert_eq!(new_total.into_inner(), 60 + 8);
    let stats = fixture.store.stats().unwrap();
    assert_eq!(stats.chunks, 60 + 8);
    assert_eq!((stats.chunks_new_total, stats.blobs), (68, 8));
}

#[test]
fn streams_of_the_same_bytes_at_once_are_one_blob() {
    let fixture = Fixture::new();
    let content = mixed(77, 9_000_000);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| ingest(&fixture.store, &fixture.session, &content).unwrap()))
            .collect();
        for handle in handles {
            let blob = handle.join().unwrap();
            assert_eq!(blob.identity_sha256, Sha256::of(&content));
        }
    });
    assert_eq!(fixture.store.stats().unwrap().blobs, 1);
}

#[test]
fn one_dead_session_in_a_batch_does_not_fail_the_others() {
    let fixture = Fixture::new();
    let dead = fixture.store.session_open(&fixture.cache).unwrap();
    fixture.store.session_close(&dead.id).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let session = if thread % 2 == 0 {
                &dead
            } else {
                &fixture.session
            };
            let store = &fixture.store;
            scope.spawn(move || {
                for round in 0..20 {
                    let (some, _) = frames(&[noise(thread * 100 + round, 5000)], 1);
                    assert_eq!(store.put_frames(session, some).is_ok(), thread % 2 == 1);
                }
            });
        }
    });
}

#[test]
fn entries_read_while_they_are_published_are_never_older_than_known() {
    let fixture = Fixture::new();
    let kind = firn_store::EntryKind::Narinfo;
    fixture.publish("key", &[]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                for _ in 0..5000 {
                    let found = fixture.store.entry(fixture.cache.id, kind, "key");
                    let sequence = found.unwrap().unwrap().sequence;
                    assert!(sequence >= last);
                    last = sequence;
                }
            });
        }
        for _ in 0..20 {
            let known = fixture.store.entry(fixture.cache.id, kind, "key");
            let known = known.unwrap().unwrap().sequence;
            fixture.publish("key", &[]);
            let after = fixture.store.entry(fixture.cache.id, kind, "key");
            assert!(after.unwrap().unwrap().sequence > known);
        }
    });
}
