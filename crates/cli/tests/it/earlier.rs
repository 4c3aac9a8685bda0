//! Old and new together: the release before, built by `make setup` from its commit, and this one.

use firn_testkit::rigs::closure::Closure;
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::podman::Podman;
use firn_testkit::rigs::program::{command, run, tool};
use firn_testkit::rigs::serve::{Server, User};
use firn_testkit::rigs::{Release, job::Job};
use serde_json::Value;
use std::path::{Path, PathBuf};

const NEW: &str = env!("CARGO_BIN_EXE_firn");

fn earlier() -> PathBuf {
    tool("firn-14b2e6b")
}

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

/// Pushes, pulls and composes with one age of the client at one age of the server.
fn meets(server: &Path, client: &Path) {
    let server = Server::start(plain(server));
    let user = User::admin(&server).with_binary(client);
    let (first, second) = (Closure::first(), Closure::second());
    let pushed = user.json(&["push", &first.root]);
    assert_eq!(pushed["paths_pushed"], first.paths.len(), "{pushed}");
    let again = user.json(&["push", &first.root]);
    assert_eq!(again["chunks_sent"], 0, "{again}");
    pulls_all(&user, &["pull", "--trust"], &first);

    let nix = Nix::new(Release::Trixie);
    let (url, key) = (server.cache("main"), server.public_key("main"));
    let root = nix.path("store");
    nix.realise(&root, &url, &key, &[&first.root]).ok();
    nix.verify(&root, &key, &first.root).ok();

    let hello = first.hello();
    let image = [
        "image",
        "push",
        "--name",
        "hello:1",
        "--entrypoint",
        &hello,
        &first.root,
    ];
    let pushed = user.json(&image);
    let again = user.json(&image);
    assert_eq!(pushed["digest"], again["digest"]);
    // Layers may be proposed again across the ages; their bytes are not.
    assert!(again["bytes_sent"].as_u64() < Some(200_000), "{again}");
    let podman = Podman::new();
    let name = format!("{}/main/hello:1", server.address());
    podman.pull(&name, None).ok();
    assert_eq!(podman.run(&name, &[]).ok(), "Hello, world!");

    let pushed = user.json(&["push", &second.root]);
    assert_eq!(pushed["paths_pushed"], 1, "{pushed}");
    pulls_all(&user, &["pull", "--trust"], &second);
}

/// Every path comes out as it went in.
#[track_caller]
fn pulls_all(user: &User, command_line: &[&str], closure: &Closure) {
    let folder = tempfile::tempdir().unwrap();
    let to = plain(folder.path());
    user.json(&[command_line, &["--to", to, &closure.root]].concat());
    for path in &closure.paths {
        let other = folder.path().join(&path[1..]);
        let dump = "for path; do nix-store --dump \"$path\" | sha256sum; done | uniq | wc -l";
        let different = run(command("sh").args(["-ec", dump, "sh", path]).arg(other)).ok();
        assert_eq!(different, "1", "{path}");
    }
}

#[test]
fn an_earlier_client_works_with_this_server() {
    meets(Path::new(NEW), &earlier());
}

#[test]
fn this_client_works_with_an_earlier_server() {
    meets(&earlier(), Path::new(NEW));
}

/// What an earlier server wrote is read, checked and added to; then the earlier one refuses it, and says why.
#[test]
fn a_data_folder_of_an_earlier_server_goes_on() {
    let mut server = Server::start(plain(&earlier()));
    let (first, second) = (Closure::first(), Closure::second());
    let admin = User::admin(&server);
    admin.json(&["push", &first.root]);
    let hello = first.hello();
    let image = [
        "image",
        "push",
        "--name",
        "hello:1",
        "--entrypoint",
        &hello,
        &first.root,
    ];
    let digest = admin.json(&image)["digest"].clone();
    let job = Job::new(&server, "acme/web", &["refs/heads/main:3"]);
    assert_eq!(job.save("deps-1", b"saved before", false), 204);
    let key = server.public_key("main");
    assert!(server.stop());

    server.restart_as(Path::new(NEW));
    assert_eq!(
        server.public_key("main"),
        key,
        "a cache that exists keeps its key"
    );
    let admin = User::admin(&server);
    pulls_all(&admin, &["pull", "--trust"], &first);
    let checked = admin.json(&["check", "--read-data"]);
    assert_eq!(checked["damaged"], false, "{checked}");
    assert_eq!(admin.json(&image)["digest"], digest);
    assert_eq!(job.look_up("deps-1").as_deref(), Some("deps-1"));
    let pushed = admin.json(&["push", &second.root]);
    assert_eq!(pushed["paths_pushed"], 1, "{pushed}");
    assert!(server.stop());

    let data = plain(server.data());
    let old = User::alone(plain(&earlier()));
    let refused =
        run(old
            .bare_command()
            .args(["serve", "--listen", "127.0.0.1:0", "--data", data]));
    assert!(!refused.status.success(), "{refused}");
    assert!(refused.stderr.contains("format version 7"), "{refused}");
}

/// A folder that several machines write: each age reads what the other wrote.
#[test]
fn a_store_without_a_server_is_shared_by_both() {
    let folder = tempfile::tempdir().unwrap();
    let storage = plain(folder.path());
    let (first, second) = (Closure::first(), Closure::second());
    let (old, new) = (User::alone(plain(&earlier())), User::alone(NEW));
    let push = |user: &User, closure: &Closure| -> Value {
        user.json(&["push", "--storage", storage, &closure.root])
    };
    assert_eq!(push(&old, &first)["paths_pushed"], first.paths.len());
    assert_eq!(push(&new, &first)["chunks_sent"], 0);
    assert_eq!(push(&new, &second)["paths_pushed"], 1);
    assert_eq!(push(&old, &second)["chunks_sent"], 0);
    for user in [&old, &new] {
        for closure in [&first, &second] {
            pulls_all(user, &["pull", "--storage", storage], closure);
        }
    }
    new.json(&["gc", "--storage", storage]);
    old.json(&["check", "--storage", storage, "--read-data"]);
    pulls_all(&old, &["pull", "--storage", storage], &second);
}

/// Jobs of both ages save under one key, and each restores what the other saved.
#[test]
fn jobs_of_both_ages_share_their_store() {
    let folder = tempfile::tempdir().unwrap();
    let storage = plain(folder.path());
    let closure = Closure::first();
    let old = earlier();
    for (saves, restores, key) in [
        (old.as_path(), Path::new(NEW), "a"),
        (Path::new(NEW), old.as_path(), "b"),
    ] {
        let saver = User::alone(plain(saves));
        let saved = saver.json(&[
            "ci",
            "save",
            "--storage",
            storage,
            "--key",
            key,
            "--root",
            &closure.root,
        ]);
        assert!(saved["paths_total"].as_u64() > Some(0), "{saved}");
        let restorer = User::alone(plain(restores));
        let state = restorer.home().join("state");
        let common = ["--storage", storage, "--key", key, "--state", plain(&state)];
        let restored = restorer.json(&[&["ci", "restore"], &common[..]].concat());
        assert_eq!(restored["matched_key"], key, "{restored}");
        restorer.firn(&[&["ci", "save"], &common[..]].concat()).ok();
    }
}
