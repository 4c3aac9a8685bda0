//! What was acknowledged survives a crash, and the database can be made anew.

use firn_testkit::rigs::Release;
use firn_testkit::rigs::closure::{Closure, hash_part};
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::{command, run};
use firn_testkit::rigs::serve::{Server, User};
use std::process::Stdio;
use std::time::Duration;

/// The whole closure comes out again, hashed and signed.
fn substitutes(server: &Server, key: &str, path: &str) {
    let nix = Nix::new(Release::Trixie);
    let store = nix.path("store");
    nix.realise(&store, &server.cache("main"), key, &[path])
        .ok();
    nix.verify(&store, key, path).ok();
}

/// A narinfo that is visible has its NAR and its references.
fn visible_paths_are_whole(server: &Server, closure: &Closure) {
    let key = server.public_key("main");
    for path in &closure.paths {
        let narinfo = format!("/main/{}.narinfo", hash_part(path));
        if server.status_of(&narinfo) == "200" {
            substitutes(server, &key, path);
        }
    }
}

/// Rules 1 to 4: SIGKILL at several moments of a push.
#[test]
fn a_push_is_repeated_after_the_server_was_killed() {
    let closure = Closure::first();
    for milliseconds in [15, 40, 80, 160, 320] {
        let mut server = crate::server();
        let admin = User::admin(&server);
        let mut push = admin
            .command()
            .args(["push", &closure.root])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot start firn push");
        std::thread::sleep(Duration::from_millis(milliseconds));
        server.crash();
        server.restart();
        let acknowledged = push.wait().expect("cannot wait for firn push").success();
        visible_paths_are_whole(&server, &closure);
        if !acknowledged {
            admin.firn(&["push", &closure.root]).ok();
        }
        substitutes(&server, &server.public_key("main"), &closure.root);
    }
}

/// An acknowledged push is durable at once, not only after a graceful stop.
#[test]
fn what_was_acknowledged_survives_a_crash() {
    let closure = Closure::first();
    let mut server = crate::server();
    let (key, token) = (server.public_key("main"), server.token());
    User::admin(&server).firn(&["push", &closure.root]).ok();
    server.crash();
    server.restart();
    assert_eq!(server.public_key("main"), key);
    assert_eq!(server.token(), token);
    substitutes(&server, &key, &closure.root);
}

#[test]
fn the_database_is_rebuilt_from_packs_and_segments() {
    let closure = Closure::first();
    let mut server = crate::server();
    let admin = User::admin(&server);
    let key = server.public_key("main");
    admin.firn(&["push", &closure.root]).ok();
    let hello = closure.hello();
    let image = ["image", "push", "--name", "hello:1", "--entrypoint", &hello];
    let pushed = admin.json(&[&image, [closure.root.as_str()].as_slice()].concat());
    assert!(server.stop(), "SIGTERM is not a failure");

    run(command("sh")
        .current_dir(server.data())
        .args(["-ec", "test -e firn.db && rm firn.db*"]))
    .ok();
    let data = server.data().display().to_string();
    run(admin.bare_command().args(["rebuild", "--data", &data])).ok();

    server.restart();
    assert_eq!(server.public_key("main"), key);
    substitutes(&server, &key, &closure.root);
    let manifest = format!(
        "/v2/main/hello/manifests/{}",
        pushed["digest"].as_str().unwrap()
    );
    server.get(&manifest).ok();
    server.get("/v2/main/hello/manifests/1").ok();
    // And it takes more.
    let second = Closure::second();
    let more = User::admin(&server).json(&["push", &second.root]);
    assert_eq!(more["paths_pushed"], 1, "{more}");
}

#[test]
fn sigterm_drains_and_ends_well() {
    let mut server = crate::server();
    assert!(server.stop());
    server.restart();
    assert_eq!(server.status_of("/healthz"), "200");
    assert_eq!(server.status_of("/readyz"), "200");
}
