//! What is staged: parts in any order and again, after a restart, and nothing left when it has ended.

use crate::support::{Fixture, files, noise, options};
use firn_store::{Staged, Store, StoreError};
use std::io::Read as _;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);

fn put(store: &Store, staged: &Staged, name: &str, bytes: &[u8]) {
    let mut part = store.staged_part(&staged.id, LONG).unwrap();
    part.write(bytes).unwrap();
    part.finish(name).unwrap();
}

fn read(store: &Store, staged: &Staged, order: &[&str]) -> Vec<u8> {
    let parts = store.staged_parts(&staged.id).unwrap();
    let order = order
        .iter()
        .map(|name| parts.iter().find(|part| part.name == *name));
    let parts: Vec<_> = order.map(|part| part.unwrap().clone()).collect();
    let mut out = Vec::new();
    store
        .staged_reader(&parts)
        .unwrap()
        .read_to_end(&mut out)
        .unwrap();
    out
}

fn parts_on_disk(fixture: &Fixture) -> usize {
    files(&fixture.dir.path().join("staged")).len()
}

#[test]
fn parts_are_read_in_the_order_asked_and_the_last_of_a_name_counts() {
    let fixture = Fixture::new();
    let (store, cache) = (&fixture.store, &fixture.cache);
    let staged = store.stage(cache, "o", "k", b"note", LONG, 9).unwrap();
    let bytes = noise(1, 700_000);
    put(store, &staged, "b", &bytes[300_000..]);
    put(store, &staged, "a", b"first try");
    put(store, &staged, "a", &bytes[..300_000]);
    put(store, &staged, "c", b"");
    // One that is dropped leaves nothing.
    drop(store.staged_part(&staged.id, LONG).unwrap());
    assert_eq!(parts_on_disk(&fixture), 3);
    assert!(read(store, &staged, &["a", "c", "b"]) == bytes);
    assert_eq!(store.staged_bytes(cache.id, "o").unwrap(), 700_000);
    store.staged_note(&staged.id, b"other").unwrap();
    let found = store.staged_for(cache.id, "k").unwrap().unwrap();
    assert_eq!(
        (&found.note[..], found.number),
        (&b"other"[..], staged.number)
    );
    // Who reads when it ends reads on.
    let parts = store.staged_parts(&staged.id).unwrap();
    let mut reader = store.staged_reader(&parts).unwrap();
    store.staged_end(&staged.id).unwrap();
    assert_eq!(parts_on_disk(&fixture), 0);
    let mut out = Vec::new();
    assert_eq!(reader.read_to_end(&mut out).unwrap(), 700_000);
    let gone = store.staged_part(&staged.id, LONG);
    assert!(matches!(gone, Err(StoreError::SessionGone(_))));
}

#[test]
fn a_key_is_held_until_its_time_is_over() {
    let fixture = Fixture::new();
    let (store, cache) = (&fixture.store, &fixture.cache);
    let short = Duration::from_millis(50);
    let first = store.stage(cache, "o", "k", b"", short, 2).unwrap();
    put(store, &first, "a", b"bytes");
    let second = store.stage(cache, "o", "k", b"", LONG, 2);
    assert!(
        matches!(second, Err(StoreError::Conflict(_))),
        "a part puts the end off"
    );
    store.staged_touch(&first.id, short).unwrap();
    std::thread::sleep(short * 2);
    assert!(store.staged(&first.id).unwrap().is_none());
    let second = store.stage(cache, "o", "k", b"", LONG, 2).unwrap();
    assert!(second.number > first.number);
    store.staged_reap().unwrap();
    assert_eq!(parts_on_disk(&fixture), 0);
    // Each owner may have so many at a time.
    store.stage(cache, "o", "l", b"", LONG, 2).unwrap();
    let many = store.stage(cache, "o", "m", b"", LONG, 2);
    assert!(matches!(many, Err(StoreError::TooManyUploads(2))));
    store.stage(cache, "p", "m", b"", LONG, 2).unwrap();
    // It ends with its cache.
    put(store, &second, "a", b"bytes");
    store.cache_delete(cache.id).unwrap();
    store.staged_reap().unwrap();
    assert_eq!(parts_on_disk(&fixture), 0);
}

#[test]
fn what_was_finished_survives_and_what_was_not_leaves_no_file() {
    let fixture = Fixture::new();
    let staged = fixture
        .store
        .stage(&fixture.cache, "o", "k", b"n", LONG, 9)
        .unwrap();
    put(&fixture.store, &staged, "a", b"bytes");
    put(&fixture.store, &staged, "lost", b"bytes");
    let lost = fixture
        .store
        .staged_parts(&staged.id)
        .unwrap()
        .pop()
        .unwrap();
    let Fixture { store, dir, .. } = fixture;
    store.close().unwrap();
    drop(store);
    // As a crash leaves them, and a copy of the folder.
    std::fs::write(dir.path().join("staged/half-written"), b"half").unwrap();
    std::fs::remove_file(dir.path().join(lost.file)).unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    let found = store.staged_for(staged.cache, "k").unwrap().unwrap();
    assert_eq!(found, staged);
    let parts = store.staged_parts(&staged.id).unwrap();
    assert_eq!((parts.len(), &*parts[0].name), (1, "a"));
    assert_eq!(read(&store, &staged, &["a"]), b"bytes");
    assert_eq!(files(&dir.path().join("staged")).len(), 1);
}
