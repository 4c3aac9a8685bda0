//! The collector beside pushers and readers.

use super::*;
use firn_store::CollectionStep;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

#[test]
fn rule_6_a_collector_paused_between_scan_and_lock_takes_nothing_of_a_push_that_commits() {
    let mut fixture = unleased();
    // Chunks of an entry that was deleted: found dead by the scan.
    let seeds: Vec<u64> = (0..1000).collect();
    for some in seeds.chunks(250) {
        let old = format!("old {}", some[0]);
        fixture.put(&old, some);
        fixture.delete(&old);
    }
    fixture.unpin();
    let pushed = AtomicBool::new(false);
    let report = fixture.store.collect(&eager(), &|step| {
        if step == CollectionStep::Condemn && !pushed.swap(true, Ordering::SeqCst) {
            // All are here still, so the pusher sends nothing but their ids.
            let session = fixture.store.session_open(&fixture.cache).unwrap();
            for some in seeds.chunks(10) {
                let pieces: Vec<Vec<u8>> = some.iter().map(|seed| piece(*seed)).collect();
                let (sent, list) = frames(&pieces, 1);
                let ids: Vec<_> = sent.iter().map(|frame| frame.record().id).collect();
                let missing = fixture.store.pin(&session, &ids).unwrap();
                assert!(!missing.contains(&true), "nothing was condemned yet");
                let verifier = fixture.store.verifier(&session, list);
                let blob = fixture.store.put_blob(&session, verifier).unwrap();
                let new = publication(vec![entry(&some[0].to_string(), &[blob.id])]);
                fixture
                    .store
                    .publish(Some(&session), fixture.cache.id, new)
                    .unwrap();
            }
            fixture.store.session_close(&session.id).unwrap();
        }
        true
    });
    assert!(pushed.load(Ordering::SeqCst));
    assert_eq!(report.unwrap().chunks_condemned, 0);
    let found = fixture.store.stats().unwrap().chunks;
    assert_eq!(found, 1000);
    for some in seeds.chunks(10) {
        fixture.check(&some[0].to_string(), some);
    }
}

#[test]
fn a_pin_that_looked_before_a_condemnation_looks_again() {
    let mut fixture = unleased();
    fixture.put("1", &(0..200).collect::<Vec<_>>());
    fixture.delete("1");
    fixture.unpin();
    let pieces: Vec<Vec<u8>> = (0..200).map(piece).collect();
    let (sent, list) = frames(&pieces, 1);
    let ids: Vec<_> = sent.iter().map(|frame| frame.record().id).collect();
    let store = &fixture.store;
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| collect(store));
        let missing = store.pin(&fixture.session, &ids).unwrap();
        let to_send: Vec<_> = sent
            .into_iter()
            .zip(missing)
            .filter_map(|(frame, missing)| missing.then_some(frame))
            .collect();
        store.put_frames(&fixture.session, to_send).unwrap();
        collector.join().unwrap();
    });
    collect(store);
    let blob = store.put_blob(&fixture.session, store.verifier(&fixture.session, list));
    fixture.publish("1", &[blob.unwrap().id]);
    collect(store);
    fixture.check("1", &(0..200).collect::<Vec<_>>());
}

/// Pushers that share chunks, deleters, readers, and the collector without a pause or a grace.
#[test]
fn rules_5_to_9_nothing_is_lost_while_the_collector_runs_without_a_grace() {
    let fixture = Fixture::with(|options| {
        options.lease = Duration::from_secs(5);
        options.pack_bytes_target = 400_000;
    });
    let (store, cache) = (&fixture.store, fixture.cache.id);
    let (stop, collections) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        let (stop, collections) = (&stop, &collections);
        // On a busy machine sixty rounds may pass within one collection: the pushers go on until
        // there were several.
        let enough = move |round: u64| {
            let several = collections.load(Ordering::SeqCst) > 2;
            round >= 60 && (several || started.elapsed() > Duration::from_secs(120))
        };
        let workers: Vec<_> = (0..3_u64)
            .map(|thread| {
                let row = &fixture.cache;
                scope.spawn(move || {
                    for round in (0..).take_while(|round| !enough(*round)) {
                        let session = store.session_open(row).unwrap();
                        let key = format!("{thread}-{}", round % 7);
                        // Every pusher brings the same chunks, at other times.
                        let seeds: Vec<u64> = (0..6).map(|n| (round + thread + n) % 23).collect();
                        let blob = put_pieces(store, &session, &seeds);
                        let new = publication(vec![entry(&key, &[blob])]);
                        store.publish(Some(&session), cache, new).unwrap();
                        store.session_close(&session.id).unwrap();
                        check(store, cache, &key, &seeds);
                        if round % 3 == 0 {
                            let gone = Publication {
                                entries: Vec::new(),
                                deletions: vec![(EntryKind::Narinfo, key)],
                            };
                            store.publish(None, cache, gone).unwrap();
                        }
                    }
                })
            })
            .collect();
        let collector = scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                collect(store);
                collections.fetch_add(1, Ordering::SeqCst);
            }
        });
        let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, Ordering::SeqCst);
        collector.join().unwrap();
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    assert!(collections.load(Ordering::SeqCst) > 2);
}
