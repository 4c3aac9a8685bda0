//! The database made anew.

use crate::support::{Fixture, entry, files, mixed, options, packs, publication, read_all};
use firn_store::{
    BlobInfo, Entry, EntryKind, Options, Publication, RebuildReport, Representation, Store,
    StoreError,
};
use std::path::Path;

fn lose_database(dir: &Path) {
    for name in ["firn.db", "firn.db-wal", "firn.db-shm"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
    assert!(!dir.join("firn.db").exists());
}

#[test]
fn a_store_that_lost_its_database_does_not_begin_anew() {
    let fixture = Fixture::new();
    let blob = fixture.ingest(&mixed(1, 200_000)).unwrap();
    fixture.publish("key", &[blob.id]);
    fixture.store.close().unwrap();
    let dir = tempfile::tempdir().unwrap();
    copy_store(fixture.dir.path(), dir.path());
    lose_database(dir.path());
    for _ in 0..2 {
        let refused = Store::open(options(dir.path())).err().unwrap();
        assert!(matches!(refused, StoreError::DatabaseMissing(_)));
    }
    let (report, store) = rebuild(&options(dir.path()));
    assert_eq!((report.entries, report.entries_dropped), (1, 0));
    assert!(get(&store, "main", "key").is_some());
}

fn rebuild(options: &Options) -> (RebuildReport, Store) {
    let report = Store::rebuild(options).unwrap();
    (report, Store::open(options.clone()).unwrap())
}

/// A blob but for its row id, which a rebuild may change, and its gzip, which is made again on demand.
fn essence(blob: &BlobInfo) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        (blob.list_id, blob.chunks, blob.identity_sha256),
        (blob.identity_length, blob.zstd_sha256, blob.zstd_length),
    )
}

fn get(store: &Store, cache: &str, key: &str) -> Option<Entry> {
    let cache = store.cache(cache).unwrap().unwrap();
    store.entry(cache.id, EntryKind::Narinfo, key).unwrap()
}

#[test]
fn after_losing_the_database_all_is_as_before() {
    let fixture = Fixture::with(|options| options.pack_bytes_target = 2 << 20);
    let contents: Vec<Vec<u8>> = (0..5).map(|seed| mixed(seed, 2_000_000)).collect();
    let mut blobs = Vec::new();
    for (index, content) in contents.iter().enumerate() {
        let blob = fixture.ingest(content).unwrap();
        fixture.publish(&format!("key {index}"), &[blob.id]);
        blobs.push(blob);
    }
    fixture.publish("key 0", &[blobs[1].id, blobs[0].id]);
    let deletion = Publication {
        entries: Vec::new(),
        deletions: vec![(EntryKind::Narinfo, "key 4".into())],
    };
    fixture
        .store
        .publish(None, fixture.cache.id, deletion)
        .unwrap();
    fixture.store.cache_create("gone", "x", b"").unwrap();
    let gone = fixture.store.cache("gone").unwrap().unwrap();
    fixture.store.cache_delete(gone.id).unwrap();
    fixture
        .store
        .cache_configure(fixture.cache.id, b"configured")
        .unwrap();
    let before: Vec<_> = (0..5)
        .map(|index| get(&fixture.store, "main", &format!("key {index}")))
        .collect();
    fixture.store.close().unwrap();
    let options = options(fixture.dir.path());
    drop(fixture.store);
    lose_database(fixture.dir.path());

    let (report, store) = rebuild(&options);
    assert_eq!((report.entries, report.entries_dropped), (4, 0));
    assert_eq!((report.blobs, report.packs_walked), (5, 0));
    let names: Vec<_> = store.caches().unwrap();
    assert_eq!(names.len(), 1);
    assert_eq!(
        (&names[0].name[..], &names[0].config[..]),
        ("main", &b"configured"[..])
    );
    for (index, before) in before.iter().enumerate() {
        let after = get(&store, "main", &format!("key {index}"));
        assert_eq!(after.is_some(), before.is_some());
        let (Some(before), Some(after)) = (before, after) else {
            continue;
        };
        assert_eq!(
            (before.sequence, &before.value),
            (after.sequence, &after.value)
        );
        assert_eq!(before.created_at, after.created_at);
        assert_eq!(before.blobs.len(), after.blobs.len());
    }
    for (content, blob) in contents.iter().zip(&blobs) {
        let found = store.blob_by_list(names[0].domain, blob.list_id);
        let found = found.unwrap().unwrap();
        assert_eq!(essence(&found), essence(blob));
        let read = read_all(&store, found.id, Representation::Identity, None);
        assert!(&read.unwrap() == content);
    }
    // Sequences go on growing.
    let top = before.iter().flatten().map(|entry| entry.sequence).max();
    let new = publication(vec![entry("new", &[])]);
    store.publish(None, names[0].id, new).unwrap();
    assert!(get(&store, "main", "new").unwrap().sequence > top.unwrap());
}

#[test]
fn rule_1_packs_never_sealed_are_walked_and_what_came_after_the_last_segment_is_dropped() {
    let fixture = Fixture::new();
    let content = mixed(9, 3_000_000);
    let blob = fixture.ingest(&content).unwrap();
    fixture.publish("key", &[blob.id]);
    let options = options(fixture.dir.path());
    // As a kill leaves it: no segment, no trailer, half a frame at the end.
    let copy = tempfile::tempdir().unwrap();
    copy_store(fixture.dir.path(), copy.path());
    let pack = &packs(copy.path())[0];
    let mut bytes = std::fs::read(pack).unwrap();
    bytes.extend_from_within(24..1000);
    std::fs::write(pack, &bytes).unwrap();
    lose_database(copy.path());
    let options = Options {
        dir: copy.path().to_owned(),
        ..options
    };
    let (report, store) = rebuild(&options);
    assert_eq!(
        (report.packs_walked, report.entries, report.blobs),
        (1, 0, 0)
    );
    let stats = fixture.store.stats().unwrap();
    assert_eq!(report.chunks, stats.chunks);
    // Pushing again sends no chunk and makes the same blob.
    let cache = store.cache_create("main", "public", b"").unwrap();
    let session = store.session_open(&cache).unwrap();
    let again = crate::support::ingest(&store, &session, &content).unwrap();
    assert_eq!(essence(&again), essence(&blob));
    assert_eq!(store.stats().unwrap().chunks_new_total, 0);
}

#[test]
fn entries_of_lost_packs_are_dropped_and_counted() {
    let fixture = Fixture::with(|options| options.pack_bytes_target = 1 << 20);
    let first = fixture
        .ingest(&crate::support::noise(1, 1_500_000))
        .unwrap();
    let lost = packs(fixture.dir.path());
    let second = fixture
        .ingest(&crate::support::noise(2, 1_500_000))
        .unwrap();
    fixture.publish("first", &[first.id]);
    fixture.publish("second", &[second.id]);
    let options = options(fixture.dir.path());
    drop(fixture.store);
    lose_database(fixture.dir.path());
    for pack in lost {
        std::fs::remove_file(pack).unwrap();
    }
    let (report, store) = rebuild(&options);
    assert_eq!((report.entries, report.entries_dropped), (1, 1));
    assert!(get(&store, "main", "first").is_none());
    let second = get(&store, "main", "second").unwrap();
    let read = read_all(&store, second.blobs[0], Representation::Identity, None);
    assert!(read.unwrap() == crate::support::noise(2, 1_500_000));
}

#[test]
fn segments_follow_publications_without_a_close() {
    let fixture =
        Fixture::with(|options| options.segment_interval = std::time::Duration::from_millis(50));
    fixture.publish("key", &[]);
    let segments = fixture.dir.path().join("segments");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while files(&segments).is_empty() {
        assert!(std::time::Instant::now() < deadline, "no segment came");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Nothing published, nothing written.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let count = files(&segments).len();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(files(&segments).len(), count);
}

#[test]
fn a_damaged_segment_does_not_stop_a_rebuild_and_the_old_database_is_kept() {
    let fixture = Fixture::new();
    fixture.publish("key", &[]);
    let options = options(fixture.dir.path());
    drop(fixture.store);
    let damaged = fixture.dir.path().join("segments/0000000000000001-00.seg");
    std::fs::write(damaged, b"nonsense").unwrap();
    let (report, store) = rebuild(&options);
    assert_eq!((report.segments, report.entries), (1, 1));
    assert!(get(&store, "main", "key").is_some());
    let kept = files(fixture.dir.path())
        .into_iter()
        .any(|path| path.to_string_lossy().contains("firn.db.replaced-"));
    assert!(kept);
}

pub(crate) fn copy_store(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(path, target).unwrap();
    }
}

/// A cache was made and deleted while the clock was ahead; after it was set right, the store was rebuilt, and the
/// cache made anew: another rebuild must not take the old deletion for the last word.
#[test]
fn d9_segments_after_a_rebuild_are_later_than_those_before() {
    let fixture = Fixture::new();
    let (options, day) = (options(fixture.dir.path()), 86_400_000_000_i64);
    fixture.store.close().unwrap();
    let Fixture { store, dir, .. } = fixture;
    drop(store);
    let database = rusqlite::Connection::open(dir.path().join("firn.db")).unwrap();
    let ahead = "UPDATE meta SET value = value + ? WHERE name = 'segment_at'";
    database.execute(ahead, [400 * day]).unwrap();
    drop(database);
    let store = Store::open(options.clone()).unwrap();
    let made = store.cache_create("made", "public", b"").unwrap();
    store.cache_delete(made.id).unwrap();
    store.close().unwrap();
    drop(store);

    let (_, store) = rebuild(&options);
    let made = store.cache_create("made", "public", b"").unwrap();
    for index in 0..9 {
        let new = publication(vec![entry(&format!("path{index}"), &[])]);
        store.publish(None, made.id, new).unwrap();
    }
    store.close().unwrap();
    drop(store);
    let (_, store) = rebuild(&options);
    for index in 0..9 {
        let key = format!("path{index}");
        assert!(store.cache("made").unwrap().is_some(), "the cache is gone");
        assert!(get(&store, "made", &key).is_some(), "{key}");
    }
}

/// After a power cut recovery gives the places of frames that were never synced to others, and a segment may still
/// tell of the first.
#[test]
fn d12_a_rebuild_trusts_packs_over_segments() {
    use firn_chunks::pack::{END_BYTES, read_trailer, trailer_length};
    use firn_chunks::segment::{Record, encode};
    for sealed in [true, false] {
        let fixture = Fixture::with(|options| options.pack_bytes_target = 1);
        let contents = [mixed(1, 3_000), mixed(2, 30_000)];
        let blobs = contents.each_ref().map(|content| {
            let blob = fixture.ingest(content).unwrap();
            fixture.publish(&content.len().to_string(), &[blob.id]);
            blob
        });
        fixture.store.close().unwrap();
        let options = options(fixture.dir.path());
        let Fixture { store, dir, .. } = fixture;
        drop(store);
        // The frame of the one and the pack of the other.
        let frames = |path: &Path| {
            let bytes = std::fs::read(path).unwrap();
            let end = &bytes[bytes.len() - END_BYTES..];
            let length = trailer_length(end).unwrap() as usize;
            let frames = read_trailer(&bytes[bytes.len() - length..]).unwrap();
            (frames, bytes.len() - length)
        };
        let mut all = packs(dir.path());
        all.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
        let mut wrong = frames(&all[0]).0[0];
        let other = all.last().unwrap();
        let (held, end) = frames(other);
        wrong.offset = held[0].offset;
        if !sealed {
            let file = std::fs::OpenOptions::new().write(true).open(other).unwrap();
            file.set_len(end as u64).unwrap();
        }
        let record = Record::Pack {
            domain: "public".to_owned(),
            pack: other.file_stem().unwrap().to_str().unwrap().to_owned(),
            sealed_length: 0,
            frames: vec![wrong],
        };
        let later = dir
            .path()
            .join("segments/0fffffff00000000-0000000000000000.seg");
        std::fs::write(later, encode("a test", 0, &[record])).unwrap();

        let (report, store) = rebuild(&options);
        assert_eq!((report.entries, report.entries_dropped), (2, 0));
        let domain = store.cache("main").unwrap().unwrap().domain;
        for (blob, content) in blobs.iter().zip(&contents) {
            let blob = store.blob_by_list(domain, blob.list_id).unwrap().unwrap();
            let read = read_all(&store, blob.id, Representation::Identity, None);
            assert!(&read.unwrap() == content);
        }
    }
}
