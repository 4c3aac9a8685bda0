//! Packs that are mostly dead.

use super::collection::{CI, a_second_passes, at_once, collect, packs, reader};
use super::{KIND, folder, has, place_in};
use firn_store::EntryKind;
use firn_store::shared::GcOptions;
use firn_testkit::shared_store::{Client, put, read};
use std::path::Path;
use std::time::Duration;

/// A run whose keys lie in one pack.
fn write_together(dir: &Path, keys: &[(EntryKind, &str)]) {
    let writer = Client::with(folder(dir), |options| options.pack_bytes_target = 16 << 20);
    writer.refresh().unwrap();
    let run = writer.run("test").unwrap();
    for (kind, key) in keys {
        put(&run, *kind, key).unwrap();
    }
    run.publish().unwrap();
}

const MOSTLY_GOING: &[(EntryKind, &str)] = &[
    (CI, "goes 1"),
    (CI, "goes 2"),
    (KIND, "stays"),
    (CI, "goes 3"),
    (CI, "goes 4"),
];

/// What is needed of it lies elsewhere before it is named no more, and it goes by two marks as any other.
#[test]
fn a_pack_with_much_dead_content_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    write_together(dir.path(), MOSTLY_GOING);
    assert_eq!(packs(dir.path()), 1);
    a_second_passes();
    let before = reader(dir.path());
    let plan = Client::new(&place_in(dir.path()));
    let plan = plan.plan_gc(&at_once()).unwrap();
    assert_eq!(plan.packs_rewritten.len(), 1);
    assert_eq!(packs(dir.path()), 1, "a plan changes nothing");

    let first = collect(dir.path(), &at_once());
    assert_eq!(
        (first.packs_rewritten, first.packs_deleted),
        (1, 0),
        "{first:?}"
    );
    assert_eq!(packs(dir.path()), 2);
    // Who has looked before still has all of it.
    for (kind, key) in MOSTLY_GOING {
        assert!(read(&before, *kind, key).unwrap().is_some(), "{key}");
    }
    assert!(has(&reader(dir.path()), "stays"));

    let second = collect(dir.path(), &at_once());
    assert_eq!(
        (second.packs_marked, second.packs_deleted),
        (1, 0),
        "{second:?}"
    );
    let third = collect(dir.path(), &at_once());
    assert_eq!(third.packs_deleted, 1, "{third:?}");
    assert!(
        first.bytes_copied * 3 < third.bytes_deleted,
        "{first:?} {third:?}"
    );
    assert_eq!(packs(dir.path()), 1);
    before.refresh().unwrap();
    for reader in [before, reader(dir.path())] {
        assert!(has(&reader, "stays"));
        assert!(read(&reader, CI, "goes 1").unwrap().is_none());
    }
    let last = collect(dir.path(), &at_once());
    assert_eq!(
        last.packs_rewritten + last.packs_marked + last.segments_merged,
        0,
        "{last:?}"
    );
}

#[test]
fn a_pack_with_little_dead_content_or_a_young_one_is_left() {
    let dir = tempfile::tempdir().unwrap();
    write_together(dir.path(), MOSTLY_GOING);
    a_second_passes();
    let young = GcOptions {
        grace: Duration::from_secs(3600),
        ..at_once()
    };
    assert_eq!(
        collect(dir.path(), &young).packs_rewritten,
        0,
        "its run may go on"
    );
    let never = GcOptions {
        dead_percent_max: 100,
        ..at_once()
    };
    assert_eq!(collect(dir.path(), &never).packs_rewritten, 0);
    assert_eq!(collect(dir.path(), &at_once()).packs_rewritten, 1);

    let dir = tempfile::tempdir().unwrap();
    write_together(
        dir.path(),
        &[(KIND, "stays 1"), (KIND, "stays 2"), (CI, "goes")],
    );
    a_second_passes();
    let report = collect(dir.path(), &at_once());
    assert_eq!(
        (report.entries_expired, report.packs_rewritten),
        (1, 0),
        "{report:?}"
    );
}

/// It counts on what the collection held for dead: its segment names the old pack again.
#[test]
fn a_run_keeps_what_was_left_out_of_a_rewritten_pack() {
    let dir = tempfile::tempdir().unwrap();
    write_together(dir.path(), MOSTLY_GOING);
    a_second_passes();
    let writer = reader(dir.path());
    let run = writer.run("test").unwrap();
    put(&run, CI, "goes 2").unwrap();
    put(&run, KIND, "stays").unwrap();
    assert_eq!(collect(dir.path(), &at_once()).packs_rewritten, 1);
    assert_eq!(collect(dir.path(), &at_once()).packs_marked, 1);
    let report = run.publish().unwrap();
    assert_eq!(report.frames_new, 0, "it had nothing of its own");
    let keep = GcOptions {
        grace: Duration::ZERO,
        ..GcOptions::default()
    };
    for _ in 0..5 {
        collect(dir.path(), &keep);
        let reader = reader(dir.path());
        assert!(read(&reader, CI, "goes 2").unwrap().is_some());
        assert!(has(&reader, "stays"));
    }
}

/// Damage is not copied, and nothing is forgotten for it: another pack, or a push, may heal it.
#[test]
fn a_pack_that_cannot_be_read_is_not_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    write_together(dir.path(), MOSTLY_GOING);
    a_second_passes();
    let pack = crate::support::packs(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 1);
    let whole = std::fs::read(&pack).unwrap();
    std::fs::write(&pack, &bytes).unwrap();
    for _ in 0..3 {
        let report = collect(dir.path(), &at_once());
        assert_eq!(
            (report.packs_rewritten, report.packs_marked),
            (0, 0),
            "{report:?}"
        );
    }
    std::fs::write(&pack, whole).unwrap();
    assert!(has(&reader(dir.path()), "stays"));
    assert_eq!(collect(dir.path(), &at_once()).packs_rewritten, 1);
    assert!(has(&reader(dir.path()), "stays"));
}

/// Each collection rewrites, marks and deletes at once what it may, beside jobs that put the same content back again and
/// again. (Without any grace only what a job publishes at once is safe, so each has its turn.)
#[test]
fn rewriting_beside_jobs_that_bring_content_back_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut rewritten = 0;
    for round in 0..8 {
        let stays = format!("stays {round}");
        let goes = format!("goes {}", round % 3);
        write_together(
            dir.path(),
            &[
                (CI, &goes),
                (CI, "goes always"),
                (CI, &stays),
                (KIND, &stays),
            ],
        );
        if round % 2 == 1 {
            a_second_passes();
        }
        for _ in 0..2 {
            rewritten += collect(dir.path(), &at_once()).packs_rewritten;
            let reader = reader(dir.path());
            for round in 0..=round {
                assert!(has(&reader, &format!("stays {round}")));
            }
        }
    }
    assert!(rewritten > 0, "nothing was rewritten");
}
