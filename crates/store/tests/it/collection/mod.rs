//! The collector of a server's store.

mod concurrent;
mod keeping;
mod model;
mod packs;
mod resume;
mod segments;

use crate::support::{
    Fixture, entry, files, frames, mixed, packs as pack_files, publication, read_all,
};
use firn_store::{
    BlobId, CollectionOptions, CollectionReport, EntryKind, Publication, Representation, Session,
    Store,
};
use std::time::Duration;

/// Without a grace, and whatever little is dead.
pub(crate) fn eager() -> CollectionOptions {
    CollectionOptions {
        grace: Duration::ZERO,
        dead_percent: 0,
        dead_bytes_min: 1,
        compact_always: true,
        ..CollectionOptions::default()
    }
}

pub(crate) fn collect(store: &Store) -> CollectionReport {
    store.collect(&eager(), &|_| true).unwrap()
}

/// A store whose leases end at once.
fn unleased() -> Fixture {
    Fixture::with(|options| options.lease = Duration::ZERO)
}

/// A blob of some pieces, each a chunk.
fn put_pieces(store: &Store, session: &Session, seeds: &[u64]) -> BlobId {
    let pieces: Vec<Vec<u8>> = seeds.iter().map(|seed| piece(*seed)).collect();
    let (frames, list) = frames(&pieces, 1);
    store.put_frames(session, frames).unwrap();
    let verifier = store.verifier(session, list);
    store.put_blob(session, verifier).unwrap().id
}

fn piece(seed: u64) -> Vec<u8> {
    mixed(seed, 20_000)
}

fn content(seeds: &[u64]) -> Vec<u8> {
    seeds.iter().flat_map(|seed| piece(*seed)).collect()
}

impl Fixture {
    fn put(&self, key: &str, seeds: &[u64]) -> BlobId {
        let blob = put_pieces(&self.store, &self.session, seeds);
        self.publish(key, &[blob]);
        blob
    }

    fn delete(&self, key: &str) {
        let publication = Publication {
            entries: Vec::new(),
            deletions: vec![(EntryKind::Narinfo, key.to_owned())],
        };
        self.store
            .publish(None, self.cache.id, publication)
            .unwrap();
    }

    /// Lets go of all that the session pins.
    fn unpin(&mut self) {
        self.store.session_close(&self.session.id).unwrap();
        self.session = self.store.session_open(&self.cache).unwrap();
    }

    fn pack_bytes(&self) -> u64 {
        let lengths = pack_files(self.dir.path());
        lengths
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .sum()
    }

    fn check(&self, key: &str, seeds: &[u64]) {
        check(&self.store, self.cache.id, key, seeds);
    }

    /// Rows of a table, by a connection of its own.
    fn count(&self, table: &str) -> i64 {
        let rows = format!("SELECT count(*) FROM {table}");
        let database = rusqlite::Connection::open(self.dir.path().join("firn.db")).unwrap();
        database.query_row(&rows, [], |row| row.get(0)).unwrap()
    }
}

fn check(store: &Store, cache: firn_store::CacheId, key: &str, seeds: &[u64]) {
    let entry = store.entry(cache, EntryKind::Narinfo, key).unwrap();
    let entry = entry.unwrap_or_else(|| panic!("{key} is lost"));
    let blob = store.blob(entry.blobs[0]).unwrap().unwrap();
    let identity = read_all(store, blob.id, Representation::Identity, None).unwrap();
    assert!(identity == content(seeds), "{key} reads as something else");
    let zstd = read_all(store, blob.id, Representation::Zstd, None).unwrap();
    assert_eq!(firn_formats::Sha256::of(&zstd), blob.zstd_sha256, "{key}");
}
