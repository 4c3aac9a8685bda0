//! `firn check` and `firn backup` on stores that were damaged on purpose: exact lines, and what heals.

use firn_testkit::damage::{flip_bit, frames, halve, packs};
use firn_testkit::rigs::Release;
use firn_testkit::rigs::closure::{Closure, hash_part};
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::Outcome;
use firn_testkit::rigs::serve::{Server, User};
use std::fs;
use std::path::Path;

/// A closed store with the closure's paths and an image of it.
fn closed(closure: &Closure) -> (Server, User) {
    let mut server = crate::server();
    let admin = User::admin(&server);
    admin.firn(&["push", &closure.root]).ok();
    let hello = closure.hello();
    let image = ["image", "push", "--name", "app:1", "--entrypoint", &hello];
    admin.firn(&[&image[..], &[&closure.root]].concat()).ok();
    assert!(server.stop());
    (server, admin)
}

fn check(server: &Server, extra: &[&str]) -> Outcome {
    let alone = User::alone(env!("CARGO_BIN_EXE_firn"));
    let data = server.data().to_str().expect("a path");
    alone.firn(&[&["check", "--data", data], extra].concat())
}

/// The lines of a check that found damage: findings without the table, and the first hint.
fn findings(outcome: Outcome) -> (Vec<String>, String) {
    let lines = outcome.stdout.lines().map(str::to_owned);
    let found = lines
        .take_while(|line| !line.starts_with("packs "))
        .collect();
    let refused = outcome.refused();
    let hint = refused.lines().find(|line| line.starts_with("hint: "));
    (found, hint.unwrap_or_default().to_owned())
}

fn key(server: &Server, pack: &Path) -> String {
    let key = pack
        .strip_prefix(server.data())
        .expect("a pack of the store");
    key.to_str().expect("a key").to_owned()
}

#[test]
fn each_damaged_store_is_named_and_what_it_breaks() {
    let closure = Closure::first();
    let (server, _) = closed(&closure);
    let sound = check(&server, &["--read-data"]).ok();
    assert!(
        sound
            .lines()
            .any(|line| line.starts_with("damage ") && line.ends_with("none")),
        "{sound}"
    );

    // Versions of the past and of the future.
    let version = server.data().join("VERSION");
    for other in ["0", "2"] {
        fs::write(&version, format!("firn-store {other}\n")).expect("cannot write");
        let (found, hint) = findings(check(&server, &[]));
        assert_eq!(
            found,
            [format!(
                "damage: version: VERSION: the folder has format {other}; this program knows 1"
            )]
        );
        assert_eq!(
            hint,
            "hint: a newer or older firn wrote this folder: use that one"
        );
    }
    fs::write(&version, "firn-store 1\n").expect("cannot write");

    // Half a database, and none.
    let database = server.data().join("firn.db");
    let whole = fs::read(&database).expect("cannot read");
    halve(&database);
    let (found, hint) = findings(check(&server, &[]));
    assert!(
        found[0].starts_with("damage: database: firn.db: it is damaged: "),
        "{found:?}"
    );
    assert!(
        hint.starts_with("hint: `firn rebuild` makes the database anew"),
        "{hint}"
    );
    fs::remove_file(&database).expect("cannot remove");
    let (found, _) = findings(check(&server, &[]));
    assert_eq!(found, ["damage: database: firn.db: it is not here"]);
    fs::write(&database, whole).expect("cannot write");

    // The disk of the packs is not mounted: nothing is damaged, and nothing is changed.
    let (folder, aside) = (server.data().join("packs"), server.data().join("aside"));
    fs::rename(&folder, &aside).expect("cannot rename");
    let (found, hint) = findings(check(&server, &["--read-data"]));
    let line = format!("unreadable: packs-away: packs: {}/", folder.display());
    assert!(found[0].starts_with(&line), "{found:?}");
    assert!(found[1].starts_with("  breaks: "), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        hint.starts_with("hint: mount what holds the packs"),
        "{hint}"
    );
    fs::rename(&aside, &folder).expect("cannot rename");
    check(&server, &["--read-data"]).ok();

    // A flipped bit, first: it is in quarantine after that.
    let pack = &packs(server.data())[0];
    let (offset, length) = frames(pack)[0];
    flip_bit(pack, offset + length / 2);
    let (found, hint) = findings(check(&server, &["--read-data"]));
    let end = format!(
        "its frame at byte {offset} of {} is damaged; it counts as missing until it is pushed again",
        key(&server, pack)
    );
    assert!(
        found[0].starts_with("damage: chunk-damaged: chunk "),
        "{found:?}"
    );
    assert!(found[0].ends_with(&end), "{found:?}");
    assert!(found[1].starts_with("  breaks: "), "{found:?}");
    assert!(
        found[1].contains("narinfo /nix/store/") || found[1].contains("image main/app:1"),
        "{found:?}"
    );
    assert_eq!(
        hint,
        "hint: push what is broken again, or heal it from a copy: firn check --repair-from LOCATION"
    );

    // A pack cut short, then lost.
    let said = fs::metadata(pack).expect("a pack").len();
    halve(pack);
    let (found, _) = findings(check(&server, &[]));
    let line = format!(
        "damage: pack-length: {}: it has {} bytes, and its row says {said}",
        key(&server, pack),
        said / 2
    );
    assert!(found.contains(&line), "{found:?}");
    assert!(
        found.iter().any(|line| line.contains("image main/app:1")),
        "{found:?}"
    );
    fs::remove_file(pack).expect("cannot remove");
    let (found, _) = findings(check(&server, &[]));
    let line = format!(
        "damage: pack-lost: {}: its file is not here; ",
        key(&server, pack)
    );
    assert!(
        found.iter().any(|found| found.starts_with(&line)),
        "{found:?}"
    );
    let json = check(&server, &["--json"]).stdout;
    // The check before took what lay in the pack into quarantine.
    let view: serde_json::Value = serde_json::from_str(&json).expect("one document");
    assert_eq!(view["damaged"], true);
    let breaks = |finding: &serde_json::Value| finding["breaks_total"].as_u64() > Some(0);
    let findings = view["findings"].as_array().expect("findings");
    assert!(findings.iter().any(breaks), "{view}");
}

#[test]
fn a_running_server_is_checked_and_healed_from_a_backup_and_by_a_push() {
    let closure = Closure::first();
    let (mut server, admin) = closed(&closure);
    let data = server.data().to_str().expect("a path").to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let backup = folder.path().join("backup");
    let backup = backup.to_str().expect("a path");
    server.restart();
    let alone = User::alone(env!("CARGO_BIN_EXE_firn"));
    let made = alone.json(&["backup", "--data", &data, "--copy", backup]);
    assert!(made["packs_copied"].as_u64() > Some(0), "{made}");
    let again = alone.json(&["backup", "--data", &data, "--copy", backup]);
    assert_eq!(again["packs_copied"], 0, "{again}");
    for secret in ["admin.token", "keys/main.secret"] {
        use std::os::unix::fs::PermissionsExt as _;
        let held = fs::metadata(Path::new(backup).join(secret)).expect("a secret");
        assert_eq!(held.permissions().mode() & 0o777, 0o600, "{secret}");
    }
    // In use: the server has to be asked.
    let locked = alone.firn(&["check", "--data", &data]).refused();
    assert!(locked.contains("hint: --server URL"), "{locked}");

    let rot = || {
        for pack in packs(server.data()) {
            for (offset, length) in frames(&pack) {
                flip_bit(&pack, offset + length / 3);
            }
        }
    };
    rot();
    let found = admin.firn(&["check", "--read-data"]);
    assert!(
        found.stdout.contains("breaks: narinfo /nix/store/"),
        "{found}"
    );
    found.refused();
    for path in &closure.paths {
        let narinfo = format!("/main/{}.narinfo", hash_part(path));
        assert_eq!(server.status_of(&narinfo), "404", "{path}");
    }
    assert_eq!(server.status_of("/v2/main/app/manifests/1"), "404");

    let healed = admin.firn(&["check", "--repair-from", backup]).ok();
    assert!(healed.contains("chunks healed"), "{healed}");
    admin.firn(&["check", "--read-data"]).ok();
    for path in &closure.paths {
        let narinfo = format!("/main/{}.narinfo", hash_part(path));
        assert_eq!(server.status_of(&narinfo), "200", "{path}");
    }
    assert_eq!(server.status_of("/v2/main/app/manifests/1"), "200");

    // Once more, from a binary cache that has the same paths, written by Nix.
    rot();
    admin.firn(&["check", "--read-data"]).refused();
    let upstream = crate::server();
    let nix = Nix::new(Release::Bookworm);
    nix.netrc("127.0.0.1", &upstream.token());
    let to = format!("{}?compression=xz", upstream.cache("main"));
    nix.copy_to(&to, &[&closure.root]).ok();
    let from = upstream.cache("main");
    let healed = admin.firn(&["check", "--repair-from", &from]);
    assert!(healed.stdout.contains("chunks healed"), "{healed}");
    for path in &closure.paths {
        let narinfo = format!("/main/{}.narinfo", hash_part(path));
        assert_eq!(server.status_of(&narinfo), "200", "{path}");
    }

    // Once more, and now by pushing.
    rot();
    admin.firn(&["check", "--read-data"]).refused();
    admin.firn(&["push", &closure.root]).ok();
    let hello = closure.hello();
    let image = ["image", "push", "--name", "app:1", "--entrypoint", &hello];
    admin.firn(&[&image[..], &[&closure.root]].concat()).ok();
    admin.firn(&["check", "--read-data"]).ok();
    assert!(server.stop());

    // The backup is a data folder.
    let checked = alone.firn(&["check", "--data", backup, "--read-data"]).ok();
    assert!(checked.contains("none"), "{checked}");
}

#[test]
fn a_store_without_a_server_is_checked() {
    let closure = Closure::first();
    let folder = tempfile::tempdir().expect("a folder");
    let storage = folder.path().join("store");
    let name = storage.to_str().expect("a path");
    let alone = User::alone(env!("CARGO_BIN_EXE_firn"));
    alone.firn(&["push", "--storage", name, &closure.root]).ok();
    alone
        .firn(&["check", "--storage", name, "--read-data"])
        .ok();
    let read = |part: &str| {
        let option = format!("--read-data={part}");
        let checked = alone.json(&["check", "--storage", name, &option]);
        checked["bytes_read"].as_u64().expect("bytes")
    };
    let parts: Vec<u64> = ["1/3", "2/3", "3/3"].map(read).into();
    assert_eq!(parts.iter().sum::<u64>(), read("1/1"), "{parts:?}");
    let pack = &packs(&storage)[0];
    let (offset, length) = frames(pack)[0];
    flip_bit(pack, offset + length / 2);
    alone.firn(&["check", "--storage", name]).ok();
    let found = alone.firn(&["check", "--storage", name, "--read-data"]);
    assert!(
        found.stdout.contains("damage: chunk-damaged: chunk "),
        "{found}"
    );
    assert!(
        found.stdout.contains("breaks: narinfo /nix/store/"),
        "{found}"
    );
    found.refused();
    halve(pack);
    let found = alone.firn(&["check", "--storage", name]);
    assert!(
        found.stdout.contains("damage: pack-length: pack "),
        "{found}"
    );
    fs::remove_file(pack).expect("cannot remove");
    let found = alone.firn(&["check", "--storage", name]);
    assert!(found.stdout.contains("damage: pack-lost: pack "), "{found}");
}
