//! Store paths in nobody's use.

use super::collection::{CI, collect, reader};
use super::{KIND, place_in};
use firn_store::shared::{ExpirePaths, GcOptions};
use firn_testkit::shared_store::{Client, content};
use std::path::Path;
use std::time::Duration;

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
