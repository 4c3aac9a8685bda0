//! The store's clock: steps of the wall clock decide nothing about data (rule 10).

use crate::collection::{collect, eager};
use crate::support::{entry, ingest, mixed, options, packs, publication};
use firn_store::{CacheRow, CollectionOptions, NewEntry, Store, StoreError, TimeSources};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
/// Some day of 2026.
const START: i64 = 20_500 * DAY;

/// A machine whose clocks stand still until they are told otherwise.
#[derive(Clone)]
struct Machine {
    wall: Arc<AtomicI64>,
    boot: Arc<AtomicI64>,
    boot_id: i64,
}

impl Machine {
    fn new() -> Self {
        Self {
            wall: Arc::new(AtomicI64::new(START)),
            boot: Arc::new(AtomicI64::new(DAY)),
            boot_id: 1,
        }
    }

    fn sources(&self) -> TimeSources {
        let (wall, boot) = (self.wall.clone(), self.boot.clone());
        TimeSources::new(
            move || wall.load(Ordering::SeqCst),
            move || boot.load(Ordering::SeqCst),
            self.boot_id,
        )
    }

    /// Somebody sets the wall clock.
    fn step(&self, by: i64) {
        self.wall.fetch_add(by, Ordering::SeqCst);
    }

    /// Time passes.
    fn pass(&self, time: i64) {
        self.boot.fetch_add(time, Ordering::SeqCst);
        self.step(time);
    }

    /// It is started anew.
    fn reboot(&mut self) {
        self.boot.store(0, Ordering::SeqCst);
        self.boot_id += 1;
    }

    fn open(&self, dir: &Path) -> Store {
        Store::open_with_time(options(dir), self.sources()).unwrap()
    }
}

/// A store with a blob that only its lease keeps, an entry that only its lease keeps, and a session.
fn leased(store: &Store) -> (CacheRow, String) {
    let cache = store.cache_create("main", "public", b"{}").unwrap();
    let session = store.session_open(&cache).unwrap();
    ingest(store, &session, &mixed(1, 50_000)).unwrap();
    let blob = ingest(store, &session, &mixed(2, 50_000)).unwrap();
    let lapsing = NewEntry {
        lease: Some(Duration::from_secs(7200)),
        ..entry("lapsing", &[blob.id])
    };
    let new = publication(vec![lapsing]);
    store.publish(Some(&session), cache.id, new).unwrap();
    (cache, session.id)
}

fn assert_nothing_goes(store: &Store, machine: &Machine) {
    // The clock is set while the collection is under way, too.
    let report = store.collect(&eager(), &|_| {
        machine.step(40 * DAY);
        machine.step(-40 * DAY);
        true
    });
    let report = report.unwrap();
    assert_eq!((report.entries_expired, report.blobs_dropped), (0, 0));
    assert_eq!((report.chunks_condemned, report.packs_deleted), (0, 0));
}

#[test]
fn d3_no_step_of_the_clock_ends_a_lease_or_a_session() {
    let (dir, machine) = (tempfile::tempdir().unwrap(), Machine::new());
    let store = machine.open(dir.path());
    let (_, session) = leased(&store);
    for step in [40, -40, 40, 40, -120, 40] {
        machine.step(step * DAY);
        assert_nothing_goes(&store, &machine);
        store.session_touch(&session).unwrap();
    }
    assert_eq!(store.stats().unwrap().time_behind_seconds, 0);
    machine.step(-40 * DAY);
    let behind = store.stats().unwrap().time_behind_seconds;
    assert_eq!(behind, -40 * 86_400);
    // Real time ends them.
    machine.pass(3 * HOUR);
    let touched = store.session_touch(&session);
    assert!(matches!(touched, Err(StoreError::SessionGone(_))));
    let report = collect(&store);
    assert_eq!((report.entries_expired, report.blobs_dropped), (1, 2));
}

#[test]
fn d3_no_step_of_the_clock_ends_the_grace_of_a_pack() {
    let (dir, machine) = (tempfile::tempdir().unwrap(), Machine::new());
    let store = machine.open(dir.path());
    let (_, session) = leased(&store);
    store.session_close(&session).unwrap();
    machine.pass(3 * HOUR);
    let patient = CollectionOptions {
        grace: Duration::from_secs(3600),
        ..eager()
    };
    let report = store.collect(&patient, &|_| true).unwrap();
    assert!(report.chunks_condemned > 0);
    for step in [40, -40, 80] {
        machine.step(step * DAY);
        store.collect(&patient, &|_| true).unwrap();
        assert!(!packs(dir.path()).is_empty(), "a pack went in its grace");
    }
    machine.pass(2 * HOUR);
    store.collect(&patient, &|_| true).unwrap();
    assert!(packs(dir.path()).is_empty());
}

#[test]
fn d3_a_start_with_a_wrong_clock_ends_nothing_within_one_boot() {
    let (dir, machine) = (tempfile::tempdir().unwrap(), Machine::new());
    let store = machine.open(dir.path());
    leased(&store);
    store.close().unwrap();
    drop(store);
    for step in [40, -40, 40, 40] {
        machine.step(step * DAY);
        machine.pass(60 * SECOND);
        let store = machine.open(dir.path());
        assert_nothing_goes(&store, &machine);
        store.close().unwrap();
    }
    let store = machine.open(dir.path());
    assert_eq!(store.now_ms(), START + 4 * 60 * SECOND);
}

#[test]
fn d3_over_a_reboot_a_stop_counts_a_day_until_an_operator_confirms() {
    let (dir, mut machine) = (tempfile::tempdir().unwrap(), Machine::new());
    let store = machine.open(dir.path());
    leased(&store);
    store.close().unwrap();
    drop(store);
    // A wrong clock at each start, and a right one soon after it.
    for _ in 0..5 {
        machine.reboot();
        machine.step(40 * DAY);
        let store = machine.open(dir.path());
        assert_eq!(store.now_ms(), START + DAY);
        machine.step(-40 * DAY);
        store.close().unwrap();
    }
    // Off for a month.
    machine.reboot();
    machine.step(30 * DAY);
    let store = machine.open(dir.path());
    assert_eq!(store.now_ms(), START + DAY);
    assert_eq!(store.stats().unwrap().time_behind_seconds, 29 * 86_400);
    assert_eq!(store.confirm_time().unwrap(), 29 * DAY);
    assert_eq!(store.now_ms(), START + 30 * DAY);
    assert_eq!(store.confirm_time().unwrap(), 0);
    drop(store);
    let store = machine.open(dir.path());
    assert_eq!(store.now_ms(), START + 30 * DAY);
}

#[test]
fn d3_a_kill_does_not_let_a_start_count_twice() {
    let (dir, mut machine) = (tempfile::tempdir().unwrap(), Machine::new());
    drop(machine.open(dir.path()));
    machine.reboot();
    machine.step(40 * DAY);
    let store = machine.open(dir.path());
    // What a kill leaves: the folder as it is while the store is open.
    let copy = tempfile::tempdir().unwrap();
    crate::rebuild::copy_store(dir.path(), copy.path());
    let killed = machine.open(copy.path());
    assert_eq!(killed.now_ms(), store.now_ms());
    assert_eq!(killed.now_ms(), START + DAY);
}

fn forget_marks(dir: &Path) {
    let database = rusqlite::Connection::open(dir.join("firn.db")).unwrap();
    let forgotten = database.execute("DELETE FROM meta WHERE name LIKE 'clock%'", []);
    assert_eq!(forgotten.unwrap(), 4);
}

#[test]
fn d3_a_folder_of_an_earlier_release_goes_on_from_the_newest_time_it_tells() {
    let (dir, mut machine) = (tempfile::tempdir().unwrap(), Machine::new());
    let store = machine.open(dir.path());
    leased(&store);
    drop(store);
    forget_marks(dir.path());
    machine.reboot();
    machine.step(30 * DAY);
    assert_eq!(machine.open(dir.path()).now_ms(), START + DAY);
    // Times ahead of the wall clock are of a wrong clock, then or now.
    forget_marks(dir.path());
    machine.step(-60 * DAY);
    assert_eq!(machine.open(dir.path()).now_ms(), START - 30 * DAY);
}

#[test]
fn d3_a_database_made_anew_goes_on_with_the_clock() {
    let (dir, mut machine) = (tempfile::tempdir().unwrap(), Machine::new());
    let store = machine.open(dir.path());
    leased(&store);
    store.close().unwrap();
    drop(store);
    machine.step(40 * DAY);
    let again = |machine: &Machine| {
        Store::rebuild_with_time(&options(dir.path()), machine.sources()).unwrap();
        machine.open(dir.path()).now_ms()
    };
    assert_eq!(again(&machine), START);
    // The database is lost: a day after the newest segment.
    machine.reboot();
    std::fs::write(dir.path().join("firn.db"), b"no database").unwrap();
    assert_eq!(again(&machine), START + DAY);
}
