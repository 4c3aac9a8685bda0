//! Stores of earlier programs open, come up to date and give the same bytes; those of later ones are refused.

use crate::support::{files, options, read_all};
use firn_formats::Sha256;
use firn_store::{EntryKind, Representation, Store, StoreError};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::process::Command;

const KINDS: [EntryKind; 12] = [
    EntryKind::Narinfo,
    EntryKind::NarAlias,
    EntryKind::Listing,
    EntryKind::Log,
    EntryKind::DebugInfo,
    EntryKind::Realisation,
    EntryKind::BuildTrace,
    EntryKind::Layer,
    EntryKind::RegistryBlob,
    EntryKind::Manifest,
    EntryKind::Tag,
    EntryKind::NarFile,
];

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found = files(&folder);
    found.retain(|path| path.to_string_lossy().ends_with(".tar.zst"));
    assert!(!found.is_empty());
    found
}

fn unpack(fixture: &Path, into: &Path) {
    let status = Command::new("tar")
        .args(["--zstd", "-xf"])
        .arg(fixture)
        .arg("-C")
        .arg(into)
        .status();
    assert!(status.unwrap().success(), "this test needs tar and zstd");
}

/// A line an entry, as in the fixtures; every byte of every blob is read in both of its forms.
fn described(store: &Store) -> String {
    let mut out = String::new();
    for name in ["acme/web", "main"] {
        let cache = store.cache(name).unwrap().unwrap();
        for kind in KINDS {
            let mut entries = store.entries(cache.id, kind, "", None, 1000).unwrap();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            for entry in entries {
                let value = Sha256::of(&entry.value).hex();
                out.push_str(&format!("{name} {} {} {value}", kind as u16, entry.key));
                for id in entry.blobs {
                    let blob = store.blob(id).unwrap().unwrap();
                    let identity = read_all(store, id, Representation::Identity, None).unwrap();
                    let zstd = read_all(store, id, Representation::Zstd, None).unwrap();
                    assert_eq!(Sha256::of(&identity), blob.identity_sha256);
                    assert_eq!(Sha256::of(&zstd), blob.zstd_sha256);
                    let hash = blob.identity_sha256.hex();
                    out.push_str(&format!(" {hash}:{}", identity.len()));
                }
                out.push('\n');
            }
        }
    }
    out
}

fn user_version(dir: &Path) -> u32 {
    let connection = Connection::open(dir.join("firn.db")).unwrap();
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0));
    version.unwrap()
}

/// The version that this program gives a new store.
fn version_now() -> u32 {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(options(dir.path())).unwrap());
    user_version(dir.path())
}

#[test]
fn a_store_of_each_earlier_version_opens_and_gives_the_same_bytes() {
    let now = version_now();
    for fixture in fixtures() {
        let dir = tempfile::tempdir().unwrap();
        unpack(&fixture, dir.path());
        let name = fixture.to_string_lossy().replace(".tar.zst", ".txt");
        let expected = std::fs::read_to_string(name).unwrap();
        let store = Store::open(options(dir.path())).unwrap();
        assert_eq!(described(&store), expected, "{}", fixture.display());
        // It is a store like any other: it takes more, and tells it again after a restart.
        let cache = store.cache("main").unwrap().unwrap();
        let session = store.session_open(&cache).unwrap();
        let more = crate::support::ingest(&store, &session, b"more").unwrap();
        let new = crate::support::entry("more", &[more.id]);
        let new = crate::support::publication(vec![new]);
        store.publish(Some(&session), cache.id, new).unwrap();
        let with_more = described(&store);
        assert_ne!(with_more, expected);
        store.close().unwrap();
        drop(store);
        assert_eq!(user_version(dir.path()), now);
        let store = Store::open(options(dir.path())).unwrap();
        assert_eq!(described(&store), with_more);
    }
}

#[test]
fn the_files_of_each_earlier_version_make_a_database_anew() {
    for fixture in fixtures() {
        let dir = tempfile::tempdir().unwrap();
        unpack(&fixture, dir.path());
        std::fs::remove_file(dir.path().join("firn.db")).unwrap();
        Store::rebuild(&options(dir.path())).unwrap();
        let name = fixture.to_string_lossy().replace(".tar.zst", ".txt");
        let store = Store::open(options(dir.path())).unwrap();
        let expected = std::fs::read_to_string(name).unwrap();
        assert_eq!(described(&store), expected, "{}", fixture.display());
    }
}

fn refused(dir: &Path) -> String {
    match Store::open(options(dir)) {
        Err(error @ StoreError::FormatVersion { .. }) => error.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a store of the future was opened"),
    }
}

#[test]
fn a_store_of_a_later_program_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    unpack(&fixtures()[0], dir.path());
    drop(Store::open(options(dir.path())).unwrap());
    let now = user_version(dir.path());

    let version = dir.path().join("VERSION");
    let known = std::fs::read(&version).unwrap();
    std::fs::write(&version, "firn-store 2\n").unwrap();
    assert!(refused(dir.path()).contains("format version 2"));
    assert_eq!(std::fs::read(&version).unwrap(), b"firn-store 2\n");
    std::fs::write(&version, &known).unwrap();

    let database = Connection::open(dir.path().join("firn.db")).unwrap();
    database.pragma_update(None, "user_version", 999).unwrap();
    drop(database);
    assert!(refused(dir.path()).contains("format version 999"));
    assert_eq!(user_version(dir.path()), 999);
    let database = Connection::open(dir.path().join("firn.db")).unwrap();
    database.pragma_update(None, "user_version", now).unwrap();
    drop(database);
    drop(Store::open(options(dir.path())).unwrap());

    // A segment that this program cannot read tells of what a rebuild would then leave out.
    let segment = files(&dir.path().join("segments")).pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[8] = 2;
    let end = bytes.len() - 32;
    let checksum = firn_chunks::ChunkId::of(&bytes[..end]).0;
    bytes[end..].copy_from_slice(&checksum);
    std::fs::write(&segment, bytes).unwrap();
    std::fs::remove_file(dir.path().join("firn.db")).unwrap();
    let error = Store::rebuild(&options(dir.path())).unwrap_err();
    assert!(
        matches!(error, StoreError::FormatVersion { known: 1, .. }),
        "{error:?}"
    );
}
