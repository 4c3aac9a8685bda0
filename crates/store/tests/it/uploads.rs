//! Uploads that go on after a restart. Each step is tried with the process gone after it.

use crate::support::{mixed, noise, options, read_all};
use firn_chunks::Format;
use firn_store::{CacheRow, Representation, Store, StoreError, UploadLimits};
use std::time::Duration;

const LIMITS: UploadLimits = UploadLimits {
    idle: Duration::from_secs(600),
    fresh: Duration::from_secs(600),
    open_max: 4,
};

fn open(dir: &std::path::Path) -> (Store, CacheRow) {
    let store = Store::open(options(dir)).unwrap();
    let cache = match store.cache("main").unwrap() {
        Some(cache) => cache,
        None => store.cache_create("main", "public", b"{}").unwrap(),
    };
    (store, cache)
}

#[test]
fn what_is_checkpointed_survives_and_has_the_chunks_of_an_unbroken_stream() {
    let dir = tempfile::tempdir().unwrap();
    let content = [mixed(1, 3_000_000), noise(2, 2_000_000)].concat();
    let (store, cache) = open(dir.path());
    let upload = store.upload_begin(&cache, "app", LIMITS).unwrap();
    let id = upload.id().to_owned();
    drop(upload);
    let mut store = Some(store);
    // Pieces around every bound: less than a chunk, more than a batch, nothing.
    let mut sent = 0;
    for piece in [0, 1, 10_000, 300_000, 16_384, 3_000_000, 70_000, 900_000] {
        drop(store.take());
        let (opened, _) = open(dir.path());
        let mut upload = opened.upload_resume(&id, LIMITS).unwrap();
        assert_eq!(
            (upload.offset(), upload.durable()),
            (sent as u64, sent as u64)
        );
        assert_eq!(upload.owner(), "app");
        upload.write(&content[sent..sent + piece]).unwrap();
        upload.checkpoint().unwrap();
        sent += piece;
        assert_eq!(upload.durable(), sent as u64);
        // What comes after the checkpoint and never was acknowledged may go; so little of it does.
        let after = content.len().min(sent + 200_000);
        upload.write(&content[sent..after]).unwrap();
        store = Some(opened);
    }
    drop(store.take());
    let (store, cache) = open(dir.path());
    let mut upload = store.upload_resume(&id, LIMITS).unwrap();
    assert!(upload.offset() >= sent as u64, "it went back");
    let from = upload.offset() as usize;
    upload.write(&content[from..]).unwrap();
    let blob = upload.finish_as(None).unwrap();
    let read = read_all(&store, blob.id, Representation::Identity, None).unwrap();
    assert!(read == content);
    let session = store.session_open(&cache).unwrap();
    let mut whole = store.ingest(&session, Format::Opaque);
    whole.write(&content).unwrap();
    assert_eq!(
        whole.finish().unwrap(),
        blob,
        "cut otherwise than in one go"
    );
    store.session_close(&id).unwrap();
    assert!(matches!(
        store.upload_resume(&id, LIMITS),
        Err(StoreError::SessionGone(_))
    ));
}

#[test]
fn an_upload_that_is_not_broken_goes_on_over_many_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let content = mixed(3, 6_000_000);
    let (store, cache) = open(dir.path());
    let mut upload = store.upload_begin(&cache, "app", LIMITS).unwrap();
    for piece in content.chunks(777_777) {
        upload.write(piece).unwrap();
        upload.checkpoint().unwrap();
        assert_eq!(upload.durable(), upload.offset());
    }
    let blob = upload.finish_as(None).unwrap();
    let read = read_all(&store, blob.id, Representation::Identity, None).unwrap();
    assert!(read == content);
    assert_eq!(blob.identity_sha256, firn_formats::Sha256::of(&content));
}

#[test]
fn rule_5_uploads_end_when_they_are_idle_and_give_way_when_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cache) = open(dir.path());
    let ids: Vec<String> = (0..4)
        .map(|_| {
            store
                .upload_begin(&cache, "app", LIMITS)
                .unwrap()
                .id()
                .to_owned()
        })
        .collect();
    assert!(matches!(
        store.upload_begin(&cache, "app", LIMITS),
        Err(StoreError::TooManyUploads(4))
    ));
    let none_is_fresh = UploadLimits {
        fresh: Duration::ZERO,
        ..LIMITS
    };
    std::thread::sleep(Duration::from_millis(20));
    store.upload_begin(&cache, "app", none_is_fresh).unwrap();
    let alive = ids
        .iter()
        .filter(|id| store.upload_resume(id, LIMITS).is_ok());
    assert_eq!(alive.count(), 3, "the oldest gives way");
    let short = UploadLimits {
        idle: Duration::from_millis(300),
        fresh: Duration::ZERO,
        open_max: 10,
    };
    let brief = store
        .upload_begin(&cache, "app", short)
        .unwrap()
        .id()
        .to_owned();
    std::thread::sleep(Duration::from_millis(400));
    assert!(matches!(
        store.upload_resume(&brief, short),
        Err(StoreError::SessionGone(_))
    ));
    // A cache goes with its uploads.
    store.cache_delete(cache.id).unwrap();
}
