//! Store and collector against a model, by operations in any order.

use super::*;
use crate::support::options;
use firn_store::{CacheRow, StoreError};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Operation {
    /// Ends the session, and opens another.
    NewSession,
    SendChunk(u64),
    Pin(Vec<u64>),
    /// A blob of these chunks, sending what is missing.
    PutBlob(Vec<u64>),
    /// Publishes the blob made `n` before under a key.
    Publish(usize, u8),
    Delete(u8),
    ExpireLeases,
    ExpireSessions,
    Collect,
    /// Collects up to a step.
    CollectSome(usize),
    Reopen,
    /// What lies in the folder is copied, as if the process had died, and opened.
    Crash,
    Rebuild,
}

fn operation() -> impl Strategy<Value = Operation> {
    let seed = 0..12_u64;
    prop_oneof![
        1 => Just(Operation::NewSession),
        2 => seed.clone().prop_map(Operation::SendChunk),
        2 => prop::collection::vec(seed.clone(), 1..5).prop_map(Operation::Pin),
        6 => prop::collection::vec(seed, 1..5).prop_map(Operation::PutBlob),
        5 => (0..3_usize, 0..6_u8).prop_map(|(blob, key)| Operation::Publish(blob, key)),
        3 => (0..6_u8).prop_map(Operation::Delete),
        2 => Just(Operation::ExpireLeases),
        1 => Just(Operation::ExpireSessions),
        4 => Just(Operation::Collect),
        3 => (0..40_usize).prop_map(Operation::CollectSome),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Crash),
        1 => Just(Operation::Rebuild),
    ]
}

struct World {
    dir: tempfile::TempDir,
    store: Option<Store>,
    cache: CacheRow,
    session: Session,
    blobs: Vec<(BlobId, Vec<u64>)>,
    published: BTreeMap<String, Vec<u64>>,
}

fn small(dir: &std::path::Path) -> firn_store::Options {
    let mut options = options(dir);
    options.pack_bytes_target = 60_000;
    options
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(small(dir.path())).unwrap();
        let cache = store.cache_create("main", "public", b"").unwrap();
        Self {
            session: store.session_open(&cache).unwrap(),
            cache,
            dir,
            store: Some(store),
            blobs: Vec::new(),
            published: BTreeMap::new(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn open(&mut self) {
        let store = Store::open(small(self.dir.path())).unwrap();
        self.cache = store.cache("main").unwrap().unwrap();
        self.session = store.session_open(&self.cache).unwrap();
        self.store = Some(store);
    }

    fn sql(&self, statement: &str) {
        let database = rusqlite::Connection::open(self.dir.path().join("firn.db")).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        database.execute_batch(statement).unwrap();
    }

    /// A session that lives.
    fn live(&mut self) -> Session {
        match self.store().session_touch(&self.session.id) {
            Ok(session) => session,
            Err(StoreError::SessionGone(_)) => {
                self.session = self.store().session_open(&self.cache).unwrap();
                self.session.clone()
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn run(&mut self, operation: &Operation) {
        match operation {
            Operation::NewSession => {
                self.store().session_close(&self.session.id).unwrap();
                self.session = self.store().session_open(&self.cache).unwrap();
            }
            Operation::SendChunk(seed) => {
                let session = self.live();
                let (sent, _) = frames(&[piece(*seed)], 1);
                self.store().put_frames(&session, sent).unwrap();
            }
            Operation::Pin(seeds) => {
                let session = self.live();
                let pieces: Vec<Vec<u8>> = seeds.iter().map(|seed| piece(*seed)).collect();
                let (_, list) = frames(&pieces, 1);
                let ids: Vec<_> = list.chunks.iter().map(|chunk| chunk.id).collect();
                let missing = self.store().pin(&session, &ids).unwrap();
                // Rule 5: what was said to be here is here, whatever a collector does.
                collect(self.store());
                let again = self.store().pin(&session, &ids).unwrap();
                assert_eq!(missing, again);
            }
            Operation::PutBlob(seeds) => {
                let session = self.live();
                let blob = put_pieces(self.store(), &session, seeds);
                self.blobs.push((blob, seeds.clone()));
            }
            Operation::Publish(back, key) => {
                let Some(at) = self.blobs.len().checked_sub(back + 1) else {
                    return;
                };
                let (blob, seeds) = self.blobs[at].clone();
                let key = key.to_string();
                let here = self.store().blob(blob).unwrap().is_some();
                let new = publication(vec![entry(&key, &[blob])]);
                let published = self.store().publish(None, self.cache.id, new);
                assert_eq!(published.is_ok(), here);
                if here {
                    self.published.insert(key, seeds);
                }
            }
            Operation::Delete(key) => {
                let key = key.to_string();
                let gone = Publication {
                    entries: Vec::new(),
                    deletions: vec![(EntryKind::Narinfo, key.clone())],
                };
                self.store().publish(None, self.cache.id, gone).unwrap();
                self.published.remove(&key);
            }
            Operation::ExpireLeases => self.sql("UPDATE blobs SET lease_until_ms = 0"),
            Operation::ExpireSessions => self.sql("UPDATE sessions SET expires_at_ms = 0"),
            Operation::Collect => assert!(!collect(self.store()).stopped),
            Operation::CollectSome(steps) => {
                let asked = std::cell::Cell::new(0);
                self.store()
                    .collect(&eager(), &|_| asked.replace(asked.get() + 1) < *steps)
                    .unwrap();
            }
            Operation::Reopen => {
                self.store = None;
                self.open();
            }
            Operation::Crash => {
                let copy = tempfile::tempdir().unwrap();
                crate::rebuild::copy_store(self.dir.path(), copy.path());
                self.store = None;
                self.dir = copy;
                self.open();
            }
            Operation::Rebuild => {
                self.store().close().unwrap();
                self.store = None;
                Store::rebuild(&small(self.dir.path())).unwrap();
                // Ids of a database made anew are others.
                self.blobs.clear();
                self.open();
            }
        }
    }

    fn check(&self) {
        for (key, seeds) in &self.published {
            check(self.store(), self.cache.id, key, seeds);
        }
        let found = self
            .store()
            .entries(self.cache.id, EntryKind::Narinfo, "", None, 100);
        assert_eq!(found.unwrap().len(), self.published.len());
    }

    /// With everything deleted nothing is left.
    fn end(mut self) {
        for key in 0..6 {
            self.run(&Operation::Delete(key));
        }
        self.store().session_close(&self.session.id).unwrap();
        self.run(&Operation::ExpireSessions);
        self.run(&Operation::ExpireLeases);
        self.run(&Operation::Collect);
        assert!(pack_files(self.dir.path()).is_empty());
        let database = rusqlite::Connection::open(self.dir.path().join("firn.db")).unwrap();
        for table in ["chunks", "packs", "blobs", "blob_lists", "entries", "pins"] {
            let rows = format!("SELECT count(*) FROM {table}");
            let rows: i64 = database.query_row(&rows, [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 0, "{table}");
        }
    }
}

/// More in `make soak`.
fn cases() -> u32 {
    let cases = std::env::var("FIRN_MODEL_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_every_published_entry_reads_back(
        operations in prop::collection::vec(operation(), 1..60)
    ) {
        let mut world = World::new();
        for operation in &operations {
            world.run(operation);
            world.check();
        }
        world.end();
    }
}
