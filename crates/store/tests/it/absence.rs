//! Absence is not damage: what is away is told from what is wrong, nothing is deleted on the word of an error, and
//! what comes back is found again.

use crate::support::{Fixture, mixed, options, packs, read_all};
use firn_store::{
    BlobInfo, CheckReport, CollectionOptions, DataOptions, EntryKind, FindingKind, Meaning,
    Representation, Store, StoreError,
};
use firn_testkit::damage::{flip_bit, frames};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A store whose entries `one` and `two` have their chunks in packs of their own.
struct Held {
    fixture: Fixture,
    blobs: [BlobInfo; 2],
    contents: [Vec<u8>; 2],
}

impl Held {
    fn new() -> Self {
        let fixture = Fixture::with(|options| options.pack_bytes_target = 1);
        let contents = [mixed(1, 60_000), mixed(2, 60_000)];
        let blobs = [&contents[0], &contents[1]].map(|content| fixture.ingest(content).unwrap());
        fixture.publish("one", &[blobs[0].id]);
        fixture.publish("two", &[blobs[1].id]);
        Self {
            fixture,
            blobs,
            contents,
        }
    }

    /// Opened anew, so that no pack is held open by readers.
    fn reopened(mut self) -> Self {
        self.fixture.store.close().unwrap();
        drop(std::mem::replace(
            &mut self.fixture.store,
            Fixture::new().store,
        ));
        self.fixture.store = Store::open(self.options()).unwrap();
        self
    }

    fn options(&self) -> firn_store::Options {
        let mut options = options(self.dir());
        options.pack_bytes_target = 1;
        options
    }

    fn dir(&self) -> &Path {
        self.fixture.dir.path()
    }

    fn store(&self) -> &Store {
        &self.fixture.store
    }

    fn read(&self, index: usize) -> Result<Vec<u8>, StoreError> {
        let representation = Representation::Identity;
        read_all(self.store(), self.blobs[index].id, representation, None)
    }

    fn visible(&self, key: &str) -> bool {
        let cache = self.fixture.cache.id;
        let entry = self.store().entry(cache, EntryKind::Narinfo, key);
        entry.unwrap().is_some()
    }

    fn damaged(&self) -> usize {
        self.store().damaged(None, 1000).unwrap().len()
    }

    fn check(&self, data: bool) -> CheckReport {
        let options = DataOptions::default();
        let explain = |_: &_, entry: &firn_store::Entry, _: &[BlobInfo]| Meaning {
            name: Some(entry.key.clone()),
            ..Meaning::default()
        };
        let data = data.then_some(&options);
        self.store().check(data, &explain, &mut |_| true).unwrap()
    }

    fn collect(&self) -> Result<firn_store::CollectionReport, StoreError> {
        let options = CollectionOptions {
            grace: Duration::ZERO,
            dead_percent: 0,
            dead_bytes_min: 1,
            ..CollectionOptions::default()
        };
        self.store().collect(&options, &|_| true)
    }

    /// The packs of the entry `one`.
    fn packs_of_one(&self) -> Vec<PathBuf> {
        let all = packs(self.dir());
        let first = &self.contents[0][..1000];
        let mine = |pack: &PathBuf| {
            let raw = decoded(pack);
            raw.windows(first.len()).any(|window| window == first)
        };
        let mine: Vec<PathBuf> = all.into_iter().filter(mine).collect();
        assert!(!mine.is_empty());
        mine
    }

    fn all_is_well(&self) {
        for (index, key) in ["one", "two"].iter().enumerate() {
            assert!(self.visible(key), "{key}");
            assert!(self.read(index).unwrap() == self.contents[index]);
        }
        assert_eq!(self.damaged(), 0);
        assert_eq!(self.check(true).findings, []);
    }
}

fn decoded(pack: &Path) -> Vec<u8> {
    let bytes = std::fs::read(pack).unwrap();
    let mut raw = Vec::new();
    for (offset, length) in frames(pack) {
        let frame = &bytes[offset as usize..(offset + length) as usize];
        let mut some = Vec::new();
        firn_chunks::Decoder::new()
            .decode(frame, &mut some)
            .unwrap();
        raw.extend_from_slice(&some);
    }
    raw
}

fn kinds(report: &CheckReport) -> Vec<&'static str> {
    let mut kinds: Vec<_> = report
        .findings
        .iter()
        .map(|found| found.kind.name())
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

fn broken(report: &CheckReport) -> Vec<&str> {
    let findings = report.findings.iter();
    let mut names: Vec<&str> = findings
        .flat_map(|finding| finding.breaks.iter().map(String::as_str))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Moves a file or folder away; gives what brings it back.
fn away(path: &Path) -> impl FnOnce() + use<> {
    let aside = path.with_extension("aside");
    std::fs::rename(path, &aside).unwrap();
    let path = path.to_owned();
    move || {
        if path.is_symlink() {
            std::fs::remove_file(&path).unwrap();
        } else if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        std::fs::rename(aside, path).unwrap();
    }
}

fn scrub(store: &Store) -> Result<firn_store::DataProgress, StoreError> {
    store.scrub(&DataOptions::default(), &mut |_| true)
}

#[test]
fn d1_packs_that_are_not_mounted_are_no_damage_and_found_again_by_themselves() {
    let held = Held::new().reopened();
    let mounted = away(&held.dir().join("packs"));
    // The empty folder on which a disk is mounted.
    std::fs::create_dir(held.dir().join("packs")).unwrap();

    let read = held.read(0);
    assert!(matches!(read, Err(StoreError::Away(_))), "{read:?}");
    held.store().settle();
    assert!(scrub(held.store()).is_err(), "nothing was read");
    let report = held.check(true);
    assert_eq!(kinds(&report), ["packs-away"]);
    assert_eq!(broken(&report), ["one", "two"]);
    assert_eq!(report.chunks_quarantined, 0);
    assert!(held.visible("one") && held.visible("two"));
    assert!(matches!(held.collect(), Err(StoreError::Away(_))));
    // Nothing is written below the mount point, where it would vanish.
    let pushed = held.fixture.ingest(&mixed(9, 60_000));
    assert!(matches!(pushed, Err(StoreError::Away(_))), "{pushed:?}");
    let below: Vec<_> = std::fs::read_dir(held.dir().join("packs"))
        .unwrap()
        .collect();
    assert_eq!(below.len(), 0, "{below:?}");

    mounted();
    held.all_is_well();
    held.collect().unwrap();
    held.all_is_well();
    held.fixture.ingest(&mixed(9, 60_000)).unwrap();
}

#[test]
fn d1_a_store_that_is_opened_before_its_packs_are_mounted_loses_nothing() {
    let held = Held::new();
    held.store().close().unwrap();
    let mounted = away(&held.dir().join("packs"));
    let held = held.reopened();
    assert!(matches!(held.read(0), Err(StoreError::Away(_))));
    assert_eq!(kinds(&held.check(false)), ["packs-away"]);
    assert!(matches!(
        held.fixture.ingest(&mixed(9, 60_000)),
        Err(StoreError::Away(_))
    ));
    mounted();
    held.all_is_well();
}

/// A pack that cannot be opened, and one whose bytes cannot be read.
#[test]
fn d1_what_cannot_be_read_is_no_damage() {
    for to in ["itself", "/proc/self/mem"] {
        let held = Held::new().reopened();
        let pack = held.packs_of_one().remove(0);
        let back = away(&pack);
        match to {
            "itself" => symlink(&pack, &pack).unwrap(),
            _ => symlink(to, &pack).unwrap(),
        }
        let read = held.read(0);
        assert!(matches!(read, Err(StoreError::Io { .. })), "{to}: {read:?}");
        held.store().settle();
        assert_eq!(held.damaged(), 0, "{to}");
        assert_eq!(scrub(held.store()).unwrap().chunks_damaged, 0, "{to}");
        let report = held.check(true);
        assert_eq!(report.chunks_quarantined, 0, "{to}");
        if to == "itself" {
            assert_eq!(kinds(&report), ["pack-unreadable"]);
            assert_eq!(broken(&report), ["one"]);
        }
        assert!(held.visible("one") && held.visible("two"), "{to}");
        // A collection leaves it where it is, and does the rest.
        held.collect().unwrap();
        assert!(held.read(1).unwrap() == held.contents[1]);
        back();
        held.all_is_well();
    }
}

#[test]
fn d1_a_link_that_leads_nowhere_is_away_and_not_lost() {
    let held = Held::new().reopened();
    let other = tempfile::tempdir().unwrap();
    let folder = held.dir().join("packs/public");
    let disk = other.path().join("disk");
    let copied = std::process::Command::new("cp")
        .args(["-a".as_ref(), folder.as_os_str(), disk.as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    std::fs::remove_dir_all(&folder).unwrap();
    symlink(&disk, &folder).unwrap();
    held.all_is_well();

    let held = held.reopened();
    let mounted = away(&disk);
    assert!(matches!(held.read(0), Err(StoreError::Away(_))));
    let report = held.check(true);
    assert_eq!(report.chunks_quarantined, 0);
    assert_eq!(broken(&report), ["one", "two"]);
    assert_eq!(held.damaged(), 0);
    mounted();
    held.all_is_well();
}

#[test]
fn d1_a_lost_pack_heals_by_a_push_and_one_that_comes_back_is_found_again() {
    for finder in ["check", "scrub", "collection"] {
        let held = Held::new().reopened();
        let lost: Vec<_> = held.packs_of_one().iter().map(|pack| away(pack)).collect();
        let read = held.read(0);
        assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
        held.store().settle();
        held.check(false);
        assert!(held.damaged() > 0 && !held.visible("one") && held.visible("two"));
        // What damage names stays, whatever a collection finds.
        held.collect().unwrap();
        held.collect().unwrap();

        lost.into_iter().for_each(|back| back());
        match finder {
            "check" => drop(held.check(false)),
            "scrub" => drop(scrub(held.store()).unwrap()),
            _ => drop(held.collect().unwrap()),
        }
        assert!(held.visible("one"), "{finder}");
        held.all_is_well();
        held.collect().unwrap();
        held.all_is_well();
    }

    // Lost for good.
    let held = Held::new().reopened();
    for pack in held.packs_of_one() {
        std::fs::remove_file(pack).unwrap();
    }
    held.check(false);
    assert!(!held.visible("one"));
    assert_eq!(
        held.fixture.ingest(&held.contents[0]).unwrap(),
        held.blobs[0]
    );
    held.collect().unwrap();
    held.all_is_well();
}

/// As a store that the release before put into quarantine when its packs were not mounted.
#[test]
fn d1_a_good_frame_in_quarantine_is_never_deleted() {
    let held = Held::new();
    let pack = held.packs_of_one().remove(0);
    let (offset, length) = frames(&pack)[0];
    flip_bit(&pack, offset + length / 2);
    assert_eq!(scrub(held.store()).unwrap().chunks_damaged, 1);
    assert!(!held.visible("one"));
    // A chunk that is damaged indeed stays in quarantine, however often it is looked at.
    assert_eq!(scrub(held.store()).unwrap().chunks_damaged, 0);
    held.check(false);
    assert_eq!(held.damaged(), 1);
    flip_bit(&pack, offset + length / 2);
    held.collect().unwrap();
    assert!(held.visible("one"));
    held.all_is_well();
}

#[test]
fn d1_a_packs_place_of_another_store_is_not_taken_for_this_ones() {
    let (held, other) = (Held::new().reopened(), Held::new());
    other.store().close().unwrap();
    let mounted = away(&held.dir().join("packs"));
    symlink(other.dir().join("packs"), held.dir().join("packs")).unwrap();
    assert!(matches!(held.read(0), Err(StoreError::Away(_))));
    assert_eq!(kinds(&held.check(false)), ["packs-away"]);
    assert_eq!(held.damaged(), 0);
    mounted();
    held.all_is_well();
}

#[test]
fn d1_a_store_without_a_mark_gets_one_when_its_packs_are_there() {
    let held = Held::new();
    held.store().close().unwrap();
    let marks = || {
        let names = std::fs::read_dir(held.dir().join("packs")).unwrap();
        let names = names.map(|entry| entry.unwrap().path());
        names
            .filter(|path| path.extension().is_some_and(|end| end == "mark"))
            .collect::<Vec<_>>()
    };
    let mark = marks();
    assert_eq!(mark.len(), 1, "{mark:?}");
    std::fs::remove_file(&mark[0]).unwrap();
    let database = rusqlite::Connection::open(held.dir().join("firn.db")).unwrap();
    database
        .execute("DELETE FROM meta WHERE name = 'packs_mark'", [])
        .unwrap();
    drop(database);
    let held = {
        let dir = held.dir().to_owned();
        let mounted = away(&dir.join("packs"));
        let held = held.reopened();
        assert!(matches!(held.read(0), Err(StoreError::Away(_))));
        assert!(!dir.join("packs").exists());
        mounted();
        held
    };
    held.all_is_well();
    // Lost for good, and said so: the place is marked again, by hand.
    let mark = {
        let database = rusqlite::Connection::open(held.dir().join("firn.db")).unwrap();
        let mark: i64 = database
            .query_row(
                "SELECT value FROM meta WHERE name = 'packs_mark'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        format!("{mark:016x}.mark")
    };
    let held = held.reopened();
    std::fs::remove_dir_all(held.dir().join("packs")).unwrap();
    std::fs::create_dir(held.dir().join("packs")).unwrap();
    let report = held.check(false);
    assert_eq!(kinds(&report), ["packs-away"]);
    assert!(report.findings[0].detail.contains(&mark), "{report:?}");
    std::fs::write(held.dir().join("packs").join(mark), b"").unwrap();
    assert_eq!(kinds(&held.check(false)), ["pack-lost"]);
    for (content, blob) in held.contents.iter().zip(&held.blobs) {
        assert_eq!(&held.fixture.ingest(content).unwrap(), blob);
    }
    for key in ["one", "two"] {
        assert!(held.visible(key));
    }
    assert!(held.read(0).unwrap() == held.contents[0]);
}

#[test]
fn d1_a_rebuild_does_not_take_packs_that_are_away_for_gone() {
    let held = Held::new();
    held.store().close().unwrap();
    let mounted = away(&held.dir().join("packs"));
    let held = {
        let Held {
            fixture,
            blobs,
            contents,
        } = held;
        let Fixture {
            store,
            cache,
            session,
            dir,
        } = fixture;
        drop(store);
        let mut options = options(dir.path());
        options.pack_bytes_target = 1;
        let refused = Store::rebuild(&options);
        assert!(matches!(refused, Err(StoreError::Away(_))), "{refused:?}");
        mounted();
        let report = Store::rebuild(&options).unwrap();
        assert_eq!((report.entries, report.entries_dropped), (2, 0));
        let store = Store::open(options).unwrap();
        let fixture = Fixture {
            store,
            cache,
            session,
            dir,
        };
        Held {
            fixture,
            blobs,
            contents,
        }
    };
    assert!(held.visible("one") && held.visible("two"));
    assert_eq!(held.check(true).findings, []);
}

#[test]
fn d14_a_rebuild_reads_packs_below_a_folder_that_is_a_link() {
    let held = Held::new();
    held.store().close().unwrap();
    let Fixture { store, dir, .. } = held.fixture;
    drop(store);
    let other = tempfile::tempdir().unwrap();
    for pack in packs(dir.path()) {
        let fan_out = pack.parent().unwrap();
        if !fan_out.is_symlink() {
            let target = other.path().join(fan_out.file_name().unwrap());
            std::fs::create_dir(&target).unwrap();
            for entry in std::fs::read_dir(fan_out).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, target.join(path.file_name().unwrap())).unwrap();
            }
            std::fs::remove_dir_all(fan_out).unwrap();
            symlink(&target, fan_out).unwrap();
        }
    }
    let report = Store::rebuild(&options(dir.path())).unwrap();
    assert_eq!((report.entries, report.entries_dropped), (2, 0));

    // One that leads nowhere is an error, and not an empty folder.
    let moved = away(&std::fs::canonicalize(packs(dir.path())[0].parent().unwrap()).unwrap());
    let refused = Store::rebuild(&options(dir.path()));
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    moved();
    let report = Store::rebuild(&options(dir.path())).unwrap();
    assert_eq!((report.entries, report.entries_dropped), (2, 0));
}

#[test]
fn d1_a_segment_that_cannot_be_read_is_a_finding_and_not_the_end_of_the_check() {
    let held = Held::new().reopened();
    let segments = crate::support::files(&held.dir().join("segments"));
    let back = away(&segments[0]);
    symlink(&segments[0], &segments[0]).unwrap();
    let report = held.check(false);
    let segment = |found: &firn_store::Finding| found.kind == FindingKind::Segment;
    assert!(report.findings.iter().any(segment), "{report:?}");
    back();
}
