//! A collection that ends anywhere is gone on with by the next.

use super::*;
use crate::support::options;
use firn_store::{CacheRow, CollectionStep};
use std::sync::atomic::{AtomicU32, Ordering};

const LIVE: u64 = 2;

fn prepared(dir: &std::path::Path) -> CacheRow {
    let mut options = options(dir);
    options.lease = Duration::ZERO;
    options.pack_bytes_target = 150_000;
    let store = Store::open(options).unwrap();
    let cache = store.cache_create("main", "public", b"").unwrap();
    let session = store.session_open(&cache).unwrap();
    let mut deletions = Vec::new();
    for seed in 0..20_u64 {
        let blob = put_pieces(&store, &session, &[seed]);
        let mut new = entry(&seed.to_string(), &[blob]);
        if seed % 4 == 1 {
            new.lease = Some(Duration::ZERO);
        } else if seed % 10 != 0 {
            deletions.push((EntryKind::Narinfo, seed.to_string()));
        }
        store
            .publish(Some(&session), cache.id, publication(vec![new]))
            .unwrap();
    }
    let gone = Publication {
        entries: Vec::new(),
        deletions,
    };
    store.publish(None, cache.id, gone).unwrap();
    store.session_close(&session.id).unwrap();
    cache
}

/// Stops a collection before its `n`th step, in a process that then dies: its store is copied as it lies. Gives
/// the step, `None` if there is no such.
fn stopped_at(n: u32) -> Option<CollectionStep> {
    let dir = tempfile::tempdir().unwrap();
    let cache = prepared(dir.path());
    let mut options = options(dir.path());
    options.lease = Duration::ZERO;
    let store = Store::open(options.clone()).unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let (asked, last) = (AtomicU32::new(0), std::sync::Mutex::new(None));
    let report = store.collect(&eager(), &|step| {
        *last.lock().unwrap() = Some(step);
        asked.fetch_add(1, Ordering::SeqCst) < n
    });
    let stopped = report.unwrap().stopped;
    crate::rebuild::copy_store(dir.path(), crashed.path());
    drop(store);
    options.dir = crashed.path().to_owned();
    let store = Store::open(options.clone()).unwrap();
    let all_read = |store: &Store| {
        for n in 0..LIVE {
            check(store, cache.id, &(n * 10).to_string(), &[n * 10]);
        }
    };
    all_read(&store);
    let report = store.collect(&eager(), &|_| true).unwrap();
    assert!(!report.stopped);
    all_read(&store);
    let stats = store.stats().unwrap();
    assert_eq!(
        (stats.chunks, stats.blobs),
        (LIVE, LIVE),
        "stopped at step {n}"
    );
    let bytes: u64 = pack_files(crashed.path())
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(
        bytes < stats.chunk_stored_bytes + 1000 * stats.packs,
        "stopped at step {n}"
    );
    assert_eq!(stats.packs as usize, pack_files(crashed.path()).len());
    drop(store);
    // The index beside the database tells the same.
    let report = Store::rebuild(&options).unwrap();
    assert_eq!(
        (report.chunks, report.blobs, report.entries),
        (LIVE, LIVE, LIVE),
        "stopped at step {n}"
    );
    all_read(&Store::open(options).unwrap());
    stopped.then(|| last.lock().unwrap().unwrap())
}

#[test]
fn a_collection_that_ends_before_any_step_is_gone_on_with_by_the_next() {
    let mut steps = std::collections::HashSet::new();
    let mut n = 0;
    while let Some(step) = stopped_at(n) {
        steps.insert(step);
        n += 1;
    }
    use CollectionStep::*;
    for step in [
        Sessions, Entries, Blobs, Mark, Scan, Condemn, Copy, Move, Delete, DeleteFile, DeleteRows,
    ] {
        assert!(steps.contains(&step), "{step:?} was never reached");
    }
    for step in [Compact, DeleteSegment] {
        assert!(steps.contains(&step), "{step:?} was never reached");
    }
}
