//! Collection, beside readers and runs.

use super::{KIND, folder, has, place_in, write};
use firn_store::EntryKind;
use firn_store::shared::{Expire, ExpirePaths, GcOptions, GcReport};
use firn_testkit::shared_store::{Client, content, put, read};
use std::path::Path;
use std::time::Duration;

const CI: EntryKind = EntryKind::CiKey;

/// Everything of CI may go, and nothing is waited for.
fn at_once() -> GcOptions {
    GcOptions {
        grace: Duration::ZERO,
        expire: vec![Expire {
            kind: CI,
            unused_for: Duration::ZERO,
        }],
        ..GcOptions::default()
    }
}

fn collect(dir: &Path, options: &GcOptions) -> GcReport {
    let collector = Client::new(&place_in(dir));
    collector.plan_gc(options).unwrap().execute().unwrap()
}

fn packs(dir: &Path) -> usize {
    crate::support::packs(dir).len()
}

/// An entry is old when its second is over.
fn a_second_passes() {
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

trait Refreshed {
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

fn reader(dir: &Path) -> Client {
    Client::new(&place_in(dir)).refreshed()
}

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

/// Longer than a test takes between saving a key and collecting.
const UNUSED_FOR: Duration = Duration::from_secs(3);

fn everything_grows_old() {
    std::thread::sleep(UNUSED_FOR + Duration::from_millis(1200));
}

/// A CI key's value in these tests: hash parts, separated by spaces.
fn named_by(value: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(value).ok()?;
    let words = text.split_ascii_whitespace().map(str::to_owned);
    (text != "unreadable").then(|| words.collect())
}

fn unused_paths(grace: Duration) -> GcOptions {
    GcOptions {
        grace,
        paths: Some(ExpirePaths {
            unused_for: UNUSED_FOR,
            named_by,
        }),
        ..GcOptions::default()
    }
}

fn hash_part(name: &str) -> String {
    // Of the letters that Nix uses, all that these names have.
    format!("{name:0<32}")
}

/// Pushes a path that refers to others.
fn push_path(dir: &Path, name: &str, references: &[&str]) {
    let writer = reader(dir);
    let references: Vec<String> = references
        .iter()
        .map(|name| format!("{}-x", hash_part(name)))
        .collect();
    let narinfo = format!(
        "StorePath: /nix/store/{}-x\nURL: nar/x.nar\nCompression: none\nNarHash: sha256:{}\nNarSize: 1\n\
         References: {}\n",
        hash_part(name),
        "0".repeat(52),
        references.join(" ")
    );
    let run = writer.run("test").unwrap();
    let (frames, list) = firn_testkit::shared_store::frames(&content(name));
    for frame in &frames {
        run.add_frame(frame).unwrap();
    }
    let id = list.id();
    run.add_blob(firn_chunks::segment::BlobRecord {
        domain: firn_store::shared::SHARED_DOMAIN.into(),
        flags: firn_store::shared::BLOB_FLAG_NO_ZSTD_DIGEST,
        list,
        identity_sha256: [7; 32],
        zstd_sha256: [0; 32],
        zstd_length: 0,
    })
    .unwrap();
    run.add_entry("main", KIND, &hash_part(name), narinfo.as_bytes(), &[id])
        .unwrap();
    run.publish().unwrap();
}

fn save_key(dir: &Path, key: &str, value: &str) {
    let run = reader(dir).run("test").unwrap();
    run.add_entry("main", CI, key, value.as_bytes(), &[])
        .unwrap();
    run.publish().unwrap();
}

/// Names of the paths that are here.
fn paths_here(dir: &Path) -> Vec<String> {
    let entries = reader(dir).entries("main", KIND, "").unwrap();
    let names = entries.iter().map(|entry| entry.key.trim_end_matches('0'));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// A fresh key holds `app`, which holds `lib`; `old` refers to `lib` and to `base`, and nobody wants it.
fn with_paths() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, references) in [
        ("bas", &[][..]),
        ("lib", &[]),
        ("ap", &["lib"]),
        ("ad", &["lib", "bas"]),
    ] {
        push_path(dir.path(), name, references);
    }
    save_key(dir.path(), "stale", &hash_part("ad"));
    everything_grows_old();
    save_key(dir.path(), "fresh", &hash_part("ap"));
    dir
}

#[test]
fn paths_in_nobodys_use_go_in_steps_and_closures_stay_whole() {
    let dir = with_paths();
    let options = GcOptions {
        paths: Some(ExpirePaths {
            unused_for: Duration::from_secs(600),
            named_by,
        }),
        ..unused_paths(Duration::ZERO)
    };
    let report = collect(dir.path(), &options);
    assert_eq!(
        (report.paths_marked, report.paths_expired),
        (0, 0),
        "all are young"
    );

    let keep_fresh = || save_key(dir.path(), "fresh", &hash_part("ap"));
    keep_fresh();
    let plan = Client::new(&place_in(dir.path()));
    assert_eq!(
        plan.plan_gc(&unused_paths(Duration::ZERO))
            .unwrap()
            .paths_marked,
        2
    );
    let first = collect(dir.path(), &unused_paths(Duration::ZERO));
    assert_eq!(
        (first.paths_marked, first.paths_expired),
        (2, 0),
        "{first:?}"
    );
    assert_eq!(paths_here(dir.path()), ["ad", "ap", "bas", "lib"]);
    // Who pushes now brings them along; what is in use need not be.
    let kept = reader(dir.path());
    let hashes = ["ad", "ap", "bas", "lib"].map(hash_part);
    let hashes: Vec<&str> = hashes.iter().map(String::as_str).collect();
    assert_eq!(
        kept.paths_kept("main", &hashes).unwrap(),
        [false, true, false, true]
    );

    keep_fresh();
    let second = collect(dir.path(), &unused_paths(Duration::ZERO));
    assert_eq!(second.paths_expired, 2, "{second:?}");
    assert_eq!(paths_here(dir.path()), ["ap", "lib"]);
    keep_fresh();
    let third = collect(dir.path(), &unused_paths(Duration::ZERO));
    assert_eq!(
        (third.paths_marked, third.paths_expired),
        (0, 0),
        "{third:?}"
    );
}

/// A run that looked before the mark refers to a path, and publishes before the path goes: then it stays.
#[test]
fn a_marked_path_that_is_used_again_stays_with_all_below_it() {
    let dir = with_paths();
    let options = unused_paths(Duration::ZERO);
    save_key(dir.path(), "fresh", &hash_part("ap"));
    assert_eq!(collect(dir.path(), &options).paths_marked, 2);
    push_path(dir.path(), "daad", &["ad"]);
    save_key(
        dir.path(),
        "fresh",
        &format!("{} {}", hash_part("ap"), hash_part("daad")),
    );
    let report = collect(dir.path(), &options);
    assert_eq!(report.paths_expired, 0, "{report:?}");
    assert_eq!(paths_here(dir.path()), ["ad", "ap", "bas", "daad", "lib"]);
    // Its mark was taken back, so it is begun anew.
    everything_grows_old();
    save_key(dir.path(), "fresh", &hash_part("ap"));
    let report = collect(dir.path(), &options);
    assert_eq!(
        (report.paths_marked, report.paths_expired),
        (3, 0),
        "{report:?}"
    );
}

#[test]
fn no_path_goes_within_the_grace_or_for_a_key_that_cannot_be_read() {
    let dir = with_paths();
    save_key(dir.path(), "fresh", &hash_part("ap"));
    let waits = unused_paths(Duration::from_secs(3600));
    assert_eq!(collect(dir.path(), &waits).paths_marked, 2);
    save_key(dir.path(), "fresh", &hash_part("ap"));
    let plan = Client::new(&place_in(dir.path()));
    let plan = plan.plan_gc(&waits).unwrap();
    assert_eq!((plan.paths_waiting, plan.paths_expired.len()), (2, 0));

    let dir = with_paths();
    save_key(dir.path(), "of a later form", "unreadable");
    let report = collect(dir.path(), &unused_paths(Duration::ZERO));
    assert_eq!(report.paths_marked, 0, "{report:?}");
}
