//! A closure pushed into a store in a folder, and read back by a substituter.

use crate::fixture::Fixture;
use firn_client::{
    local_store::LocalStore,
    progress::Silent,
    storage::{
        SharedStore, StorageLocation, StoragePushReport, open_storage_with_cache, push_to_storage,
    },
    substituter::{Source, Substituter},
};
use firn_formats::nix::{NarInfo, PublicKey, SecretKey};
use firn_image::archive::Archive;
use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const CACHE: &str = "main";

/// A store in a folder, seen with an empty local cache by each who opens it.
struct Storage {
    dir: tempfile::TempDir,
}

impl Storage {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self { dir }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn open(&self, machine: &str) -> SharedStore {
        let location = StorageLocation::Folder(self.folder());
        let cache = self.dir.path().join(machine);
        let store = open_storage_with_cache(&location, None, &cache).expect("a store");
        store.refresh().expect("refreshed");
        store
    }

    fn push(&self, fixture: &Fixture) -> StoragePushReport {
        self.push_without(fixture, &[])
    }

    fn push_without(&self, fixture: &Fixture, upstream: &[PublicKey]) -> StoragePushReport {
        let store = self.open("pusher");
        let run = store.run("a test").expect("a run");
        let (local, closure) = (&fixture.store, &fixture.closure);
        let pushed = push_to_storage(&store, &run, CACHE, local, closure, upstream, &Silent);
        let pushed = pushed.expect("pushed");
        run.publish().expect("published");
        pushed
    }

    fn substituter(&self, machine: &str, local: &LocalStore) -> Arc<Substituter> {
        over(vec![self.open(machine)], local)
    }

    /// Changes a byte in the middle of each pack.
    fn damage(&self) {
        let mut damaged = 0;
        for pack in files_below(&self.folder().join("packs")) {
            let mut bytes = std::fs::read(&pack).expect("a pack");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&pack, bytes).expect("write");
            damaged += 1;
        }
        assert!(damaged > 0);
    }
}

fn over(stores: Vec<SharedStore>, local: &LocalStore) -> Arc<Substituter> {
    let sources = stores.into_iter().map(|store| Source {
        store,
        cache: CACHE.to_owned(),
    });
    let key = SecretKey::from_seed("loopback-1", [9; 32]);
    let substituter = Substituter::new(sources.collect(), key).expect("a substituter");
    Arc::new(substituter.with_local_store(local.clone()))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files_below(&path),
            false => vec![path],
        })
        .collect()
}

/// The narinfo as Nix reads it, its signature checked.
fn narinfo(substituter: &Arc<Substituter>, hash: &str) -> Option<NarInfo> {
    let text = substituter.narinfo(CACHE, hash).expect("an answer")?;
    let info = NarInfo::parse(&text).expect("a narinfo");
    let key = substituter.public_key();
    let fingerprint = info.fingerprint();
    assert!(
        info.signatures
            .iter()
            .any(|signature| key.verify(&fingerprint, signature))
    );
    Some(info)
}

/// The NAR, or how reading it failed.
fn nar(substituter: &Arc<Substituter>, info: &NarInfo) -> std::io::Result<Vec<u8>> {
    let name = info.url.strip_prefix("nar/").expect("below nar/");
    let stream = substituter.nar(CACHE, name).expect("an answer");
    let mut stream = stream.ok_or(std::io::ErrorKind::NotFound)?;
    assert_eq!(stream.length, info.nar_size);
    let mut bytes = Vec::new();
    stream.reader.read_to_end(&mut bytes).map(|_| bytes)
}

fn dump(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let archive = Archive::nar(path).expect("a tree");
    let streamed = archive.stream(&mut |block| {
        bytes.extend_from_slice(block);
        Ok(())
    });
    streamed.expect("read");
    bytes
}

fn nothing() -> (tempfile::TempDir, LocalStore) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = LocalStore::new(dir.path().join("state"), dir.path().join("store"));
    (dir, store)
}

fn fetch_all(substituter: &Arc<Substituter>, fixture: &Fixture) {
    for info in &fixture.closure.paths {
        let offered = narinfo(substituter, &info.path.hash().to_string()).expect("offered");
        assert_eq!(offered.nar_hash, info.nar_hash);
        assert_eq!(offered.references, info.references);
        let bytes = nar(substituter, &offered).expect("a NAR");
        assert_eq!(bytes, dump(&fixture.store.physical(&info.path)));
    }
}

#[test]
fn what_was_pushed_comes_back_byte_by_byte() {
    let (storage, fixture) = (Storage::new(), Fixture::new(6));
    let pushed = storage.push(&fixture);
    assert_eq!((pushed.paths_total, pushed.paths_pushed), (6, 6));
    assert!(pushed.chunks_sent < pushed.chunks_total, "shared files");
    let (_dir, empty) = nothing();
    let substituter = storage.substituter("reader", &empty);
    fetch_all(&substituter, &fixture);
    let stats = substituter.stats();
    assert_eq!((stats.narinfo_hits, stats.nars), (6, 6));
    assert_eq!(stats.nar_bytes, fixture.closure.nar_bytes());
    assert_eq!(stats.bytes_local, 0);
    assert!(stats.bytes_fetched > 0);
    assert_eq!(substituter.used().len(), 6);
    assert_eq!(
        substituter.used()[0],
        fixture.closure.paths[0].path.hash().to_string()
    );
    assert!(narinfo(&substituter, &"z".repeat(32)).is_none());
    assert!(
        substituter
            .narinfo("other", &substituter.used()[0])
            .expect("an answer")
            .is_none()
    );
    assert!(
        substituter
            .narinfo(CACHE, "../../etc/passwd")
            .expect("an answer")
            .is_none()
    );
}

#[test]
fn what_is_there_is_not_pushed_again() {
    let (storage, fixture) = (Storage::new(), Fixture::new(4));
    storage.push(&fixture);
    let segments = files_below(&storage.folder().join("segments"));
    let again = storage.push(&fixture);
    assert_eq!((again.paths_pushed, again.chunks_sent), (0, 0));
    assert_eq!(again.bytes_sent, 0);
    assert_eq!(files_below(&storage.folder().join("segments")), segments);
}

#[test]
fn what_an_upstream_has_signed_stays_there() {
    let (storage, mut fixture) = (Storage::new(), Fixture::new(4));
    let upstream = SecretKey::from_seed("cache.nixos.org-1", [1; 32]);
    let first = &mut fixture.closure.paths[0];
    let fingerprint = firn_formats::nix::narinfo::fingerprint(
        &first.path,
        &first.nar_hash,
        first.nar_size,
        &first.references,
    );
    first.signatures = vec![upstream.sign(&fingerprint)];
    let hash = first.path.hash().to_string();
    let pushed = storage.push_without(&fixture, &[upstream.public()]);
    assert_eq!((pushed.paths_pushed, pushed.paths_upstream), (3, 1));
    let (_dir, empty) = nothing();
    let substituter = storage.substituter("reader", &empty);
    assert!(narinfo(&substituter, &hash).is_none());
}

#[test]
fn chunks_that_the_machine_has_are_not_fetched() {
    let (storage, fixture) = (Storage::new(), Fixture::new(2));
    storage.push(&fixture);
    // A machine with an older version of the first path: another hash, the same files but one.
    let (_dir, local) = nothing();
    let name = fixture.closure.paths[0].path.name();
    let old = local.store_dir().join(format!("{}-{name}", "9".repeat(32)));
    std::fs::create_dir_all(old.join("bin")).expect("folder");
    let new = fixture.store.physical(&fixture.closure.paths[0].path);
    for file in ["bin/own", "bin/shared"] {
        std::fs::copy(new.join(file), old.join(file)).expect("copied");
    }
    let substituter = storage.substituter("reader", &local);
    fetch_all(&substituter, &fixture);
    let stats = substituter.stats();
    // Own and shared file of the first, the shared file of the second, and a little between the files.
    let expected = 300_000 + 200_000 + 200_000;
    assert!(
        (expected..expected + 2000).contains(&stats.bytes_local),
        "{stats:?}"
    );
    assert!(stats.bytes_fetched < 320_000, "{stats:?}");
}

#[test]
fn a_local_path_that_lies_is_not_believed() {
    let (storage, fixture) = (Storage::new(), Fixture::new(1));
    storage.push(&fixture);
    let (_dir, local) = nothing();
    let name = fixture.closure.paths[0].path.name();
    let old = local.store_dir().join(format!("{}-{name}", "9".repeat(32)));
    std::fs::create_dir_all(old.join("bin")).expect("folder");
    let new = fixture.store.physical(&fixture.closure.paths[0].path);
    std::fs::copy(new.join("bin/own"), old.join("bin/own")).expect("copied");
    let substituter = storage.substituter("reader", &local);
    let hash = fixture.closure.paths[0].path.hash().to_string();
    let offered = narinfo(&substituter, &hash).expect("offered");
    // The path is cut while this NAR is made, and then changes behind the index's back.
    nar(&substituter, &offered).expect("a NAR");
    let before = substituter.stats().bytes_local;
    assert!(before >= 300_000);
    std::fs::write(old.join("bin/own"), vec![0; 300_000]).expect("write");
    let bytes = nar(&substituter, &offered).expect("a NAR");
    assert_eq!(bytes, dump(&new));
    // What lies between the files is still what it was.
    assert!(substituter.stats().bytes_local < before + 2000);
}

#[test]
fn a_damaged_pack_breaks_the_stream_off_and_is_not_offered_again() {
    let (storage, fixture) = (Storage::new(), Fixture::new(1));
    storage.push(&fixture);
    storage.damage();
    let (_dir, empty) = nothing();
    let substituter = storage.substituter("reader", &empty);
    let hash = fixture.closure.paths[0].path.hash().to_string();
    let offered = narinfo(&substituter, &hash).expect("offered: nobody has looked yet");
    nar(&substituter, &offered).expect_err("never wrong bytes");
    assert!(narinfo(&substituter, &hash).is_none());
    let error = nar(&substituter, &offered).expect_err("not offered");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_second_store_gives_what_the_first_has_lost() {
    let (first, second, fixture) = (Storage::new(), Storage::new(), Fixture::new(3));
    first.push(&fixture);
    second.push(&fixture);
    first.damage();
    let (_dir, empty) = nothing();
    let stores = vec![first.open("reader"), second.open("reader")];
    fetch_all(&over(stores, &empty), &fixture);
}

#[test]
fn what_is_fetched_ahead_is_not_read_from_the_store_again() {
    let (storage, fixture) = (Storage::new(), Fixture::new(3));
    storage.push(&fixture);
    let (_dir, empty) = nothing();
    let substituter = storage.substituter("reader", &empty);
    let hashes = fixture.closure.paths.iter();
    let hashes: Vec<String> = hashes.map(|info| info.path.hash().to_string()).collect();
    substituter.prefetch(CACHE, hashes);
    let cached = || -> u64 {
        let files = files_below(&storage.dir.path().join("reader"));
        let frames = files
            .iter()
            .filter(|file| file.to_string_lossy().contains("/frames/"));
        frames
            .map(|file| file.metadata().map_or(0, |data| data.len()))
            .sum()
    };
    // Three own files and the shared one do not compress.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while cached() < 1_100_000 && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::rename(
        storage.folder().join("packs"),
        storage.folder().join("away"),
    )
    .expect("moved");
    fetch_all(&substituter, &fixture);
}

#[test]
fn what_others_push_later_is_found() {
    let (storage, fixture) = (Storage::new(), Fixture::new(1));
    let (_dir, empty) = nothing();
    let hash = fixture.closure.paths[0].path.hash().to_string();
    let patient = storage.substituter("patient", &empty);
    let source = Source {
        store: storage.open("curious"),
        cache: CACHE.to_owned(),
    };
    let key = SecretKey::from_seed("loopback-1", [9; 32]);
    let curious = Substituter::new(vec![source], key).expect("a substituter");
    let curious = Arc::new(curious.with_refresh_after(Duration::ZERO));
    assert!(narinfo(&curious, &hash).is_none());
    storage.push(&fixture);
    assert!(narinfo(&patient, &hash).is_none());
    assert!(narinfo(&curious, &hash).is_some());
}
