//! The local cache of frames, and the local index.

use super::{KIND, bytes_below, folder, has, place_in, write};
use firn_chunks::ChunkId;
use firn_testkit::shared_store::{Call, Client, FaultyBackend};
use std::io::Write as _;

fn ids(client: &Client, key: &str) -> Vec<ChunkId> {
    let entry = client.entry("main", KIND, key).unwrap().unwrap();
    let blob = client.blob(&entry.blobs[0]).unwrap().unwrap();
    blob.list.chunks.iter().map(|chunk| chunk.id).collect()
}

#[test]
fn what_was_read_or_fetched_ahead_is_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    write(&Client::new(&place_in(dir.path())), KIND, "a");
    let counting = FaultyBackend::new(folder(dir.path()));
    let reader = Client::on(counting.clone());
    reader.refresh().unwrap();
    let ids = ids(&reader, "a");
    reader.prefetch(&ids, &|| false).unwrap();
    assert_eq!(counting.count(Call::Read), 0, "it was told to stop");
    reader.prefetch(&ids, &|| true).unwrap();
    let fetched = counting.count(Call::Read);
    assert!(fetched > 0);
    assert!(has(&reader, "a"));
    assert!(has(&reader, "a"));
    assert_eq!(counting.count(Call::Read), fetched);
}

#[test]
fn the_cache_is_bounded_and_reads_go_on_beyond_it() {
    const BYTES_MAX: u64 = 256 << 10;
    let dir = tempfile::tempdir().unwrap();
    let writer = Client::new(&place_in(dir.path()));
    let keys: Vec<String> = (0..60).map(|key| format!("key {key}")).collect();
    keys.iter().for_each(|key| write(&writer, KIND, key));
    let reader = Client::with(folder(dir.path()), |options| {
        options.cache_bytes_max = BYTES_MAX;
    });
    reader.refresh().unwrap();
    for key in &keys {
        assert!(has(&reader, key));
    }
    let frames = bytes_below(reader.dir()) - bytes_of_index(reader.dir());
    assert!(frames > BYTES_MAX / 2, "{frames}: nothing was cached");
    assert!(frames <= BYTES_MAX, "{frames}");
}

fn bytes_of_index(dir: &std::path::Path) -> u64 {
    let files = crate::support::files(dir);
    let index = files
        .iter()
        .filter(|file| file.to_string_lossy().contains("/index/"));
    index
        .map(|file| std::fs::metadata(file).unwrap().len())
        .sum()
}

#[test]
fn a_damaged_cache_never_harms_a_read() {
    let dir = tempfile::tempdir().unwrap();
    write(&Client::new(&place_in(dir.path())), KIND, "a");
    let reader = Client::new(&place_in(dir.path()));
    reader.refresh().unwrap();
    assert!(has(&reader, "a"));
    let cached = || -> Vec<_> {
        let files = crate::support::files(reader.dir());
        files
            .into_iter()
            .filter(|file| file.to_string_lossy().contains("/frames/"))
            .collect()
    };
    assert!(!cached().is_empty());
    for file in cached() {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    assert!(has(&reader, "a"));
    for file in cached() {
        std::fs::File::create(&file)
            .unwrap()
            .write_all(b"short")
            .unwrap();
    }
    assert!(has(&reader, "a"));
    cached()
        .iter()
        .for_each(|file| std::fs::remove_file(file).unwrap());
    assert!(has(&reader, "a"));
}

#[test]
fn a_damaged_index_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    write(&Client::new(&place_in(dir.path())), KIND, "a");
    let reader = Client::new(&place_in(dir.path()));
    reader.refresh().unwrap();
    let index = |client: &Client| {
        let files = crate::support::files(client.dir());
        files
            .into_iter()
            .find(|file| file.ends_with("index/index.db"))
            .unwrap()
    };
    // Whoever opens it finds no database …
    let other = Client::with(folder(dir.path()), |options| {
        options.cache_dir = reader.dir().to_owned();
    });
    for ending in ["index.db-wal", "index.db-shm"] {
        let _ = std::fs::remove_file(index(&reader).with_file_name(ending));
    }
    std::fs::write(
        index(&reader),
        b"this is no database, and long enough to be looked at".repeat(99),
    )
    .unwrap();
    drop(other);
    let other = Client::with(folder(dir.path()), |options| {
        options.cache_dir = reader.dir().to_owned();
    });
    other.refresh().unwrap();
    assert!(has(&other, "a"));
    // … and who has it open finds out when it asks.
    reader.refresh().unwrap();
    assert!(has(&reader, "a"));
}

#[test]
fn two_processes_may_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Client::new(&place_in(dir.path()));
    let one = Client::new(&place_in(dir.path()));
    let twin = || {
        Client::with(folder(dir.path()), |options| {
            options.cache_dir = one.dir().to_owned();
        })
    };
    for round in 0..5 {
        let key = format!("key {round}");
        write(&writer, KIND, &key);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let twin = twin();
                    twin.refresh().unwrap();
                    assert!(has(&twin, &key));
                });
            }
        });
    }
}

#[test]
fn many_processes_may_make_an_index_at_once() {
    let dir = tempfile::tempdir().unwrap();
    write(&Client::new(&place_in(dir.path())), KIND, "a");
    for _ in 0..5 {
        let shared = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let client = Client::with(folder(dir.path()), |options| {
                        options.cache_dir = shared.path().to_owned();
                    });
                    client.refresh().unwrap();
                    assert!(has(&client, "a"));
                });
            }
        });
    }
}
