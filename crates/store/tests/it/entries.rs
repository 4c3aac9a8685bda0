//! Entries, caches, leases.

use crate::support::{Fixture, entry, mixed, options, publication};
use firn_formats::Sha256;
use firn_store::{
    EntryKind, IfExists, NewEntry, Publication, PublishedEntry, Representation, Store, StoreError,
};

#[test]
fn rule_3_a_publication_is_visible_whole_or_not_at_all() {
    let fixture = Fixture::new();
    let blob = fixture.ingest(&mixed(1, 10_000)).unwrap();
    fixture.publish("old", &[blob.id]);
    let mut refused = entry("old", &[]);
    refused.if_exists = IfExists::Refuse;
    let result = fixture.store.publish(
        Some(&fixture.session),
        fixture.cache.id,
        publication(vec![entry("new", &[blob.id]), refused]),
    );
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    let kind = EntryKind::Narinfo;
    let present = fixture
        .store
        .entries_present(fixture.cache.id, kind, &["new", "old"]);
    assert_eq!(present.unwrap(), [false, true]);
}

#[test]
fn rule_4_required_entries_count_from_the_same_publication_and_are_demanded_otherwise() {
    let fixture = Fixture::new();
    let cache = fixture.cache.id;
    let mut app = entry("app", &[]);
    app.requires = vec![(EntryKind::Narinfo, "libc".into())];
    let alone = fixture
        .store
        .publish(None, cache, publication(vec![app.clone()]));
    assert!(matches!(alone, Err(StoreError::MissingEntry(key)) if key == "libc"));
    let app_entry = fixture.store.entry(cache, EntryKind::Narinfo, "app");
    assert_eq!(app_entry.unwrap(), None);
    let both = publication(vec![app, entry("libc", &[])]);
    let published = fixture.store.publish(None, cache, both).unwrap();
    assert!(matches!(
        published[..],
        [PublishedEntry::New(one), PublishedEntry::New(other)] if one < other
    ));
}

#[test]
fn rule_2_an_entry_cannot_name_a_blob_of_another_domain_or_none() {
    let fixture = Fixture::new();
    let blob = fixture.ingest(&mixed(2, 10_000)).unwrap();
    let other = fixture.store.cache_create("other", "own", b"").unwrap();
    for (cache, id) in [
        (other.id, blob.id),
        (fixture.cache.id, firn_store::BlobId(4711)),
    ] {
        let result = fixture
            .store
            .publish(None, cache, publication(vec![entry("x", &[id])]));
        assert!(matches!(result, Err(StoreError::MissingEntry(_))));
    }
}

#[test]
fn an_entry_published_again_has_a_greater_sequence_and_is_seen_at_once() {
    let fixture = Fixture::new();
    let get = || {
        let found = fixture
            .store
            .entry(fixture.cache.id, EntryKind::Narinfo, "key");
        found.unwrap().unwrap()
    };
    fixture.publish("key", &[]);
    let first = get();
    assert_eq!(get(), first);
    let mut next = entry("key", &[]);
    next.value = "another".into();
    let kept = NewEntry {
        if_exists: IfExists::Keep,
        ..next.clone()
    };
    let publish = |new| {
        let result = fixture
            .store
            .publish(None, fixture.cache.id, publication(vec![new]));
        result.unwrap()
    };
    assert_eq!(publish(kept), [PublishedEntry::Kept]);
    assert_eq!(get(), first);
    assert!(matches!(publish(next)[..], [PublishedEntry::Replaced(_)]));
    let second = get();
    assert_eq!(&second.value[..], b"another");
    assert!(second.sequence > first.sequence);
    let deletion = Publication {
        entries: Vec::new(),
        deletions: vec![(EntryKind::Narinfo, "key".into())],
    };
    fixture
        .store
        .publish(None, fixture.cache.id, deletion)
        .unwrap();
    let gone = fixture
        .store
        .entry(fixture.cache.id, EntryKind::Narinfo, "key");
    assert_eq!(gone.unwrap(), None);
}

#[test]
fn entries_are_listed_by_prefix_in_byte_order_page_by_page() {
    let fixture = Fixture::new();
    for key in ["a:1", "a:2", "a:10", "a:é", "b:1", "a"] {
        fixture.publish(key, &[]);
    }
    let list = |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        let found =
            fixture
                .store
                .entries(fixture.cache.id, EntryKind::Narinfo, prefix, after, limit);
        found.unwrap().into_iter().map(|entry| entry.key).collect()
    };
    assert_eq!(list("a:", None, 9), ["a:1", "a:10", "a:2", "a:é"]);
    assert_eq!(list("a:", Some("a:10"), 1), ["a:2"]);
    assert_eq!(list("", None, 9).len(), 6);
    assert_eq!(list("c", None, 9).len(), 0);
}

#[test]
fn blobs_entries_and_caches_survive_a_restart() {
    let content = mixed(3, 3_000_000);
    let fixture = Fixture::new();
    let blob = fixture.ingest(&content).unwrap();
    fixture.publish("key", &[blob.id]);
    fixture
        .store
        .cache_configure(fixture.cache.id, b"configured")
        .unwrap();
    let options = options(fixture.dir.path());
    fixture.store.close().unwrap();
    drop(fixture.store);
    let store = Store::open(options).unwrap();
    let cache = store.cache("main").unwrap().unwrap();
    assert_eq!(cache.config, b"configured");
    let found = store.entry(cache.id, EntryKind::Narinfo, "key");
    assert_eq!(found.unwrap().unwrap().blobs, [blob.id]);
    let by_digest = store.blob_by_digest(cache.domain, &Sha256::of(&content));
    assert_eq!(
        by_digest.unwrap(),
        Some((blob.clone(), Representation::Identity))
    );
    let read = crate::support::read_all(&store, blob.id, Representation::Identity, None);
    assert!(read.unwrap() == content);
}

#[test]
fn a_folder_in_use_is_locked_and_free_after_the_store_is_dropped() {
    let fixture = Fixture::new();
    let options = options(fixture.dir.path());
    let second = Store::open(options.clone());
    assert!(matches!(second.err(), Some(StoreError::Locked(_))));
    drop(fixture.store);
    assert!(Store::open(options).is_ok());
}

#[test]
fn another_format_version_is_refused() {
    let fixture = Fixture::new();
    let options = options(fixture.dir.path());
    drop(fixture.store);
    std::fs::write(fixture.dir.path().join("VERSION"), "firn-store 2\n").unwrap();
    let opened = Store::open(options).err();
    assert!(
        matches!(&opened, Some(StoreError::FormatVersion { found, .. }) if found == "2"),
        "{opened:?}"
    );
}

#[test]
fn names_of_caches_are_unique_and_deletion_takes_entries_and_sessions_along() {
    let fixture = Fixture::new();
    let again = fixture.store.cache_create("main", "public", b"");
    assert!(matches!(again, Err(StoreError::Conflict(_))));
    let blob = fixture.ingest(&mixed(4, 50_000)).unwrap();
    fixture.publish("key", &[blob.id]);
    let usage = fixture.store.cache_usage(fixture.cache.id).unwrap();
    assert_eq!((usage.narinfos, usage.stored_bytes), (1, blob.zstd_length));
    fixture.store.cache_delete(fixture.cache.id).unwrap();
    let published = fixture
        .store
        .publish(None, fixture.cache.id, publication(vec![]));
    assert!(matches!(published, Err(StoreError::NoSuchCache(_))));
    let touched = fixture.store.session_touch(&fixture.session.id);
    assert!(matches!(touched, Err(StoreError::SessionGone(_))));
    let kept = fixture.store.blob(blob.id).unwrap();
    assert_eq!(kept, Some(blob));
}

#[test]
fn d5_a_deletion_that_has_begun_hides_the_cache_keeps_its_name_and_goes_on_after_a_restart() {
    let fixture = Fixture::new();
    let blob = fixture.ingest(&mixed(4, 50_000)).unwrap();
    for index in 0..1200 {
        fixture.publish(&format!("key{index:04}"), &[blob.id]);
    }
    let id = fixture.cache.id;
    fixture.store.cache_delete_begin(id).unwrap();
    let check = |store: &Store| {
        assert_eq!(store.cache("main").unwrap(), None);
        assert!(store.caches().unwrap().is_empty());
        assert_eq!(store.caches_deleting().unwrap().len(), 1);
        let published = store.publish(None, id, publication(vec![entry("new", &[])]));
        assert!(matches!(published, Err(StoreError::NoSuchCache(_))));
        let again = store.cache_create("main", "public", b"");
        let Err(StoreError::Conflict(why)) = again else {
            panic!("{again:?}");
        };
        assert!(why.contains("being deleted"), "{why}");
    };
    check(&fixture.store);
    let touched = fixture.store.session_touch(&fixture.session.id);
    assert!(matches!(touched, Err(StoreError::SessionGone(_))));
    let Fixture { store, dir, .. } = fixture;
    drop(store);
    let store = Store::open(options(dir.path())).unwrap();
    check(&store);
    let row = store.caches_deleting().unwrap().remove(0);
    store.cache_delete_finish(&row).unwrap();
    store.cache_delete_finish(&row).unwrap();
    let new = store.cache_create("main", "public", b"").unwrap();
    assert!(new.id != id);
    store.close().unwrap();
    drop(store);
    // The segments know that the entries are not the new cache's.
    Store::rebuild(&options(dir.path())).unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    let cache = store.cache("main").unwrap().unwrap();
    assert_eq!(store.cache_usage(cache.id).unwrap().narinfos, 0);
}
