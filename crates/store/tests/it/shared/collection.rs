//! Collection, beside readers and runs.

use super::{KIND, folder, has, place_in, write};
use firn_store::EntryKind;
use firn_store::shared::{Expire, GcOptions, GcReport};
use firn_testkit::shared_store::{Client, content, put, read};
use std::path::Path;
use std::time::Duration;

pub(super) const CI: EntryKind = EntryKind::CiKey;

/// Everything of CI may go, and nothing is waited for.
pub(super) fn at_once() -> GcOptions {
    GcOptions {
        grace: Duration::ZERO,
        expire: vec![Expire {
            kind: CI,
            unused_for: Duration::ZERO,
        }],
        ..GcOptions::default()
    }
}

pub(super) fn collect(dir: &Path, options: &GcOptions) -> GcReport {
    let collector = Client::new(&place_in(dir));
    collector.plan_gc(options).unwrap().execute().unwrap()
}

pub(super) fn packs(dir: &Path) -> usize {
    crate::support::packs(dir).len()
}

/// An entry is old when its second is over.
pub(super) fn a_second_passes() {
    std::thread::sleep(Duration::from_millis(1100));
}

#[test]
fn what_expires_goes_in_steps_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Client::new(&place_in(dir.path()));
    write(&writer, CI, "goes");
    write(&writer, KIND, "stays");
    let stays = packs(dir.path()) - 1;
    a_second_passes();
    let reader = Client::new(&place_in(dir.path()));
    reader.refresh().unwrap();
    assert!(read(&reader, CI, "goes").unwrap().is_some());

    let first = collect(dir.path(), &at_once());
    assert_eq!(
        (first.entries_expired, first.packs_deleted),
        (1, 0),
        "{first:?}"
    );
    // A reader that has not looked since still finds all of it.
    assert!(read(&reader, CI, "goes").unwrap().is_some());
    // The pack of what expired holds frames that the other needs, or is deleted in two steps more.
    let second = collect(dir.path(), &at_once());
    let third = collect(dir.path(), &at_once());
    assert_eq!(second.packs_deleted, 0, "a pack is marked first");
    assert_eq!(second.packs_marked, third.packs_deleted);
    assert!(packs(dir.path()) >= stays);
    reader.refresh().unwrap();
    assert!(read(&reader, CI, "goes").unwrap().is_none());
    assert!(has(&reader, "stays"));
    assert!(has(
        &Client::new(&place_in(dir.path())).refreshed(),
        "stays"
    ));
    let last = collect(dir.path(), &at_once());
    assert_eq!(
        last.packs_deleted + last.packs_marked + last.segments_merged,
        0,
        "{last:?}"
    );
}

pub(super) trait Refreshed {
    fn refreshed(self) -> Self;
}

impl Refreshed for Client {
    fn refreshed(self) -> Self {
        self.refresh().unwrap();
        self
    }
}

/// Rule 7: two marks, a grace apart.
#[test]
fn a_pack_that_nobody_names_waits_for_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Client::new(&place_in(dir.path()));
    write(&writer, KIND, "stays");
    let dying = writer.run("dies").unwrap();
    for key in 0..20 {
        put(&dying, KIND, &format!("lost {key}")).unwrap();
    }
    drop(dying);
    let before = packs(dir.path());
    assert!(before > 3);
    let options = GcOptions {
        grace: Duration::from_secs(2),
        ..GcOptions::default()
    };
    let young = collect(dir.path(), &options);
    assert_eq!(young.packs_marked, 0, "their run may go on");
    std::thread::sleep(Duration::from_millis(3100));
    let marked = collect(dir.path(), &options);
    assert!(
        marked.packs_marked > 0 && marked.packs_deleted == 0,
        "{marked:?}"
    );
    let waiting = collect(dir.path(), &options);
    assert_eq!(
        (waiting.packs_marked, waiting.packs_deleted),
        (0, 0),
        "{waiting:?}"
    );
    std::thread::sleep(Duration::from_millis(3100));
    let deleted = collect(dir.path(), &options);
    assert_eq!(deleted.packs_deleted, marked.packs_marked);
    assert_eq!(
        packs(dir.path()) as u64,
        before as u64 - deleted.packs_deleted
    );
    assert!(has(
        &Client::new(&place_in(dir.path())).refreshed(),
        "stays"
    ));
}

/// A run counts on frames of a pack that is un-named and marked while it goes on: its segment names the pack again.
#[test]
fn a_run_keeps_the_packs_it_counts_on() {
    let dir = tempfile::tempdir().unwrap();
    write(&Client::new(&place_in(dir.path())), CI, "shared content");
    a_second_passes();
    let writer = Client::new(&place_in(dir.path())).refreshed();
    let run = writer.run("test").unwrap();
    put(&run, CI, "shared content").unwrap();
    // Un-named by the first, marked by the second.
    let first = collect(dir.path(), &at_once());
    assert_eq!(first.entries_expired, 1);
    let second = collect(dir.path(), &at_once());
    assert!(second.packs_marked > 0);
    let report = run.publish().unwrap();
    assert_eq!(report.frames_new, 0, "it had nothing of its own");
    let keep = GcOptions {
        grace: Duration::ZERO,
        ..GcOptions::default()
    };
    for _ in 0..3 {
        let report = collect(dir.path(), &keep);
        assert_eq!(report.packs_deleted, 0, "{report:?}");
    }
    let reader = Client::new(&place_in(dir.path())).refreshed();
    assert!(read(&reader, CI, "shared content").unwrap().is_some());
}

/// All of a store may go; who comes after sends it again.
#[test]
fn what_was_collected_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    write(&Client::new(&place_in(dir.path())), CI, "content");
    a_second_passes();
    let writer = Client::new(&place_in(dir.path())).refreshed();
    for _ in 0..3 {
        collect(dir.path(), &at_once());
    }
    assert_eq!(packs(dir.path()), 0);
    writer.refresh().unwrap();
    let run = writer.run("test").unwrap();
    put(&run, CI, "content").unwrap();
    let report = run.publish().unwrap();
    // One of its pieces comes twice.
    assert_eq!(report.frames_new as usize, content("content").len() - 1);
    let reader = Client::new(&place_in(dir.path())).refreshed();
    assert!(read(&reader, CI, "content").unwrap().is_some());
}

#[test]
fn nothing_goes_while_a_segment_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Client::new(&place_in(dir.path()));
    write(&writer, KIND, "a");
    let segment = crate::support::files(&dir.path().join("segments"))
        .pop()
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let collector = Client::new(&place_in(dir.path()));
    let options = GcOptions {
        grace: Duration::ZERO,
        ..GcOptions::default()
    };
    let plan = collector.plan_gc(&options).unwrap();
    assert_eq!((plan.segments_in_the_way, plan.packs_marked.len()), (1, 0));
    plan.execute().unwrap();
    let options = GcOptions {
        ignore_unreadable: true,
        ..options
    };
    let plan = collector.plan_gc(&options).unwrap();
    assert_eq!(plan.packs_marked.len(), packs(dir.path()));
}

/// Collections without any grace for what expires, beside jobs: what is published stays.
#[test]
fn collections_beside_many_jobs_lose_nothing() {
    const WRITERS: usize = 3;
    const RUNS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let options = GcOptions {
        grace: Duration::from_secs(3600),
        expire: at_once().expire,
        ..GcOptions::default()
    };
    let key = |writer: usize, run: usize| format!("{writer} {run}");
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (path, key) = (dir.path(), &key);
                scope.spawn(move || {
                    for run in 0..RUNS {
                        let client = Client::new(&place_in(path)).refreshed();
                        write(&client, CI, &format!("gone {writer} {run}"));
                        write(&client, KIND, &key(writer, run));
                    }
                })
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            collect(dir.path(), &options);
        }
    });
    a_second_passes();
    collect(dir.path(), &options);
    let reader = Client::on(folder(dir.path())).refreshed();
    for (writer, run) in (0..WRITERS).flat_map(|writer| (0..RUNS).map(move |run| (writer, run))) {
        assert!(has(&reader, &key(writer, run)));
    }
    assert!(reader.entries("main", CI, "").unwrap().is_empty());
    assert_eq!(
        reader.entries("main", KIND, "").unwrap().len(),
        WRITERS * RUNS
    );
}

pub(super) fn reader(dir: &Path) -> Client {
    Client::new(&place_in(dir)).refreshed()
}
