//! What random cuts found, one by one.

use super::life::{Note, content, folder, power_options, valued, watch};
use super::verify::verify;
use crate::support::{frames, ingest, publication};
use firn_store::{
    BlobId, CacheRow, CollectionOptions, CollectionStep, EntryKind, Session, Store, StoreError,
};
use firn_testkit::power::{Disk, Event, Op, Random, Recorder};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const EIO: i32 = 5;
/// Cuts at the end of each record.
const CUTS: u64 = 24;

/// A recorded store.
struct Recorded {
    recorder: Arc<Recorder>,
    store: Store,
    cache: CacheRow,
    session: Session,
    dir: tempfile::TempDir,
}

impl Recorded {
    fn new(pack_bytes_target: u64) -> Self {
        watch();
        let dir = folder();
        let recorder = Recorder::start(dir.path(), None);
        let options = firn_store::Options {
            pack_bytes_target,
            lease: Duration::from_secs(600),
            ..power_options(&dir.path().join("data"))
        };
        let store = Store::open(options).unwrap();
        let cache = store.cache_create("main", "public", b"").unwrap();
        let session = store.session_open(&cache).unwrap();
        Self {
            recorder,
            store,
            cache,
            session,
            dir,
        }
    }

    fn ingest(&self, seed: u64) -> BlobId {
        ingest(&self.store, &self.session, &content(seed))
            .unwrap()
            .id
    }

    fn publish(&self, seed: u64, blob: BlobId) -> Result<(), StoreError> {
        let entry = valued(EntryKind::Narinfo, &seed.to_string(), seed, &[blob]);
        let new = publication(vec![entry]);
        self.store
            .publish(Some(&self.session), self.cache.id, new)
            .map(drop)
    }

    /// The next sync of the database's log fails.
    fn fail_log(&self) {
        let log = |op: &Op| matches!(op, Op::Sync(path) if path.ends_with("firn.db-wal"));
        self.recorder.fail_next(log, EIO);
    }

    /// Power cuts now: these were promised.
    fn cut(self, seeds: &[u64]) {
        let (events, _) = self.recorder.stop();
        let notes: Vec<Note> = seeds
            .iter()
            .enumerate()
            .flat_map(|(index, seed)| {
                let change = (EntryKind::Narinfo, seed.to_string(), Some(*seed));
                [Note::Asked(vec![change]), Note::Promised(2 * index)]
            })
            .collect();
        let mut disk = Disk::new(self.dir.path());
        events.iter().for_each(|event| disk.apply(event));
        for lost in 0..CUTS {
            let dir = folder();
            disk.cut(&mut Random(lost), dir.path()).unwrap();
            verify(dir.path(), &notes, false);
        }
    }
}

#[test]
fn d4_what_is_promised_after_a_failed_sync_of_the_log_is_durable() {
    let recorded = Recorded::new(1 << 20);
    let blob = recorded.ingest(1);
    recorded.fail_log();
    recorded.publish(1, blob).unwrap_err();
    recorded.publish(1, blob).unwrap();
    recorded.cut(&[1]);
}

#[test]
fn d4_a_failed_sync_of_a_checkpoint_is_not_forgotten() {
    let recorded = Recorded::new(1 << 20);
    recorded.ingest(1);
    // Nearly as much as makes one due.
    for byte in 0..15 {
        let config = vec![byte; 1 << 20];
        recorded
            .store
            .cache_configure(recorded.cache.id, &config)
            .unwrap();
    }
    recorded
        .store
        .cache_configure(recorded.cache.id, b"")
        .unwrap();
    let blob = recorded.ingest(2);
    recorded.fail_log();
    for _ in 0..2000 {
        if recorded.recorder.failed() > 0 {
            break;
        }
        recorded.store.session_open(&recorded.cache).unwrap();
    }
    assert_eq!(recorded.recorder.failed(), 1, "no checkpoint came");
    recorded.publish(2, blob).unwrap();
    recorded.cut(&[2]);
}

#[test]
fn d12_a_part_of_a_compaction_says_nothing_that_the_database_may_lose() {
    let recorded = Recorded::new(1);
    let blob = recorded.ingest(1);
    recorded.publish(1, blob).unwrap();
    let compacting = AtomicUsize::new(0);
    let options = CollectionOptions {
        grace: Duration::ZERO,
        compact_always: true,
        ..CollectionOptions::default()
    };
    let collected = recorded.store.collect(&options, &|step| {
        // The first time it has not begun, and the database is synced after it; the second time it has read a pack.
        if step == CollectionStep::Compact && compacting.fetch_add(1, Ordering::SeqCst) == 1 {
            // Its rows may be lost, until something lasting names them.
            let (frames, _) = frames(&[content(7)], 1);
            recorded
                .store
                .put_frames(&recorded.session, frames)
                .unwrap();
        }
        true
    });
    collected.unwrap();
    assert!(compacting.into_inner() > 1);
    let (events, _) = recorded.recorder.stop();
    let mut durable = true;
    let mut parts = 0;
    for event in &events {
        match event {
            Event::Done(Op::Write { path, .. }) if is_log(path) => durable = false,
            Event::Done(Op::Sync(path)) if is_log(path) => durable = true,
            Event::Done(Op::Rename(_, to)) if to.extension().is_some_and(|end| end == "seg") => {
                parts += 1;
                assert!(durable, "{} tells of rows that no disk holds", to.display());
            }
            _ => {}
        }
    }
    assert!(parts >= 2);
}

fn is_log(path: &Path) -> bool {
    path.ends_with("firn.db-wal")
}

#[test]
fn the_name_of_a_new_data_folder_is_durable() {
    let recorded = Recorded::new(1 << 20);
    let blob = recorded.ingest(1);
    recorded.publish(1, blob).unwrap();
    recorded.cut(&[1]);
}

#[test]
fn a_folder_of_packs_whose_name_was_not_synced_is_synced_by_who_uses_it_next() {
    let recorded = Recorded::new(1 << 20);
    let packs = recorded.dir.path().join("data/packs");
    let made = move |op: &Op| matches!(op, Op::SyncFolder(path) if *path == packs);
    recorded.recorder.fail_next(made, EIO);
    ingest(&recorded.store, &recorded.session, &content(1)).unwrap_err();
    assert_eq!(recorded.recorder.failed(), 1);
    let blob = recorded.ingest(1);
    recorded.publish(1, blob).unwrap();
    recorded.cut(&[1]);
}

/// SQLite gives the new mode before it commits the change.
#[test]
fn a_change_to_the_write_ahead_log_that_fails_is_not_taken_for_one() {
    watch();
    let dir = folder();
    let data = dir.path().join("data");
    drop(Store::open(power_options(&data)).unwrap());
    let database = rusqlite::Connection::open(data.join("firn.db")).unwrap();
    database
        .pragma_update(None, "journal_mode", "DELETE")
        .unwrap();
    drop(database);
    let recorder = Recorder::start(dir.path(), None);
    let committed = |op: &Op| matches!(op, Op::Delete(path) if path.ends_with("firn.db-journal"));
    recorder.fail_next(committed, EIO);
    let refused = Store::open(power_options(&data)).map(drop);
    assert!(
        matches!(refused, Err(StoreError::Database(_))),
        "{refused:?}"
    );
    assert_eq!(recorder.failed(), 1);
    drop(Store::open(power_options(&data)).unwrap());
}
