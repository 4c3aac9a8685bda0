//! `firn push`, `pull`, `status`, `use`, `login` against a running server.

use firn_testkit::rigs::Release;
use firn_testkit::rigs::closure::{Closure, hash_part};
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::{command, run};
use firn_testkit::rigs::serve::User;
use std::path::Path;

/// Half of the application is the same in both versions.
const CHANGED_BYTES: u64 = 1_000_000;

#[test]
fn a_push_sends_what_is_missing_and_nothing_else() {
    let server = crate::server();
    let admin = User::admin(&server);
    let (first, second) = (Closure::first(), Closure::second());

    let cold = admin.json(&["push", &first.root]);
    assert_eq!(cold["paths_total"], first.paths.len(), "{cold}");
    assert_eq!(cold["paths_pushed"], first.paths.len(), "{cold}");
    for path in &first.paths {
        let narinfo = format!("/main/{}.narinfo", hash_part(path));
        assert_eq!(server.status_of(&narinfo), "200", "{path}");
    }

    let again = admin.json(&["push", &first.root]);
    assert_eq!(again["paths_pushed"], 0, "{again}");
    assert_eq!(again["chunks_sent"], 0, "{again}");
    assert!(again["bytes_sent"].as_u64() < Some(32 << 10), "{again}");

    let changed = admin.json(&["push", &second.root]);
    assert_eq!(changed["paths_pushed"], 1, "{changed}");
    let sent = changed["bytes_sent"].as_u64();
    assert!(sent > Some(CHANGED_BYTES), "{changed}");
    assert!(sent < Some(CHANGED_BYTES * 115 / 100), "{changed}");
}

/// A colleague's machine asks the server, and remembers nothing of the first push.
#[test]
fn another_machine_pushes_nothing_again() {
    let server = crate::server();
    let closure = Closure::first();
    User::admin(&server).firn(&["push", &closure.root]).ok();
    let again = User::admin(&server).json(&["push", &closure.root]);
    assert_eq!(again["paths_pushed"], 0, "{again}");
    assert_eq!(again["chunks_sent"], 0, "{again}");
}

#[test]
fn a_link_is_pushed_as_the_path_it_leads_to() {
    let server = crate::server();
    let admin = User::admin(&server);
    let closure = Closure::first();
    std::os::unix::fs::symlink(&closure.root, admin.home().join("result")).expect("cannot link");
    let pushed = admin.json(&["push", "./result"]);
    assert_eq!(pushed["paths_total"], closure.paths.len(), "{pushed}");
}

#[test]
fn what_is_no_store_path_is_refused_with_a_hint() {
    let server = crate::server();
    let said = User::admin(&server)
        .firn(&["push", "/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-absent"])
        .refused();
    assert!(said.contains("error:") && said.contains("hint:"), "{said}");
}

#[test]
fn login_is_remembered_until_another_home() {
    let server = crate::server();
    let closure = Closure::first();
    let user = User::new(&server, None);
    run(user
        .bare_command()
        .args(["login", &server.url()])
        .env("FIRN_TOKEN", server.token()))
    .ok();
    user.firn(&["push", &closure.root]).ok();
    let stranger = User::new(&server, None);
    let said = stranger.firn(&["push", &closure.root]).refused();
    assert!(said.contains("hint:"), "{said}");
}

/// The store and its database are read as they lie, so pushing needs no right but to read them.
#[test]
fn a_normal_user_pushes() {
    let server = crate::server();
    let closure = Closure::first();
    let user = User::admin(&server);
    // The build folder may be closed to other users; their home is theirs.
    let firn = user.home().join("firn");
    std::fs::copy(env!("CARGO_BIN_EXE_firn"), &firn).unwrap();
    run(command("chown").args(["-R", "nobody"]).arg(user.home())).ok();
    let pushed = run(command("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .arg(&firn)
        .args(["push", "--json", &closure.root])
        .env("HOME", user.home())
        .env("FIRN_SERVER", server.url())
        .env("FIRN_TOKEN", server.token()))
    .ok();
    let pushed: serde_json::Value = serde_json::from_str(&pushed).unwrap();
    assert_eq!(pushed["paths_pushed"], closure.paths.len(), "{pushed}");
}

/// What `firn use` writes is all that Nix needs, for a private cache too; twice is as good as once.
#[test]
fn use_configures_nix() {
    let server = crate::server();
    let admin = User::admin(&server);
    let closure = Closure::first();
    admin.firn(&["cache", "create", "team", "--private"]).ok();
    admin.firn(&["push", "--cache", "team", &closure.root]).ok();
    for release in Release::ALL {
        let nix = Nix::new(release);
        let before = std::fs::read_to_string(nix.path("nix.conf")).unwrap();
        let use_team = || {
            run(admin
                .command()
                .env("NIX_CONF_DIR", nix.path(""))
                .args(["use", "team"]))
            .ok();
            std::fs::read_to_string(nix.path("nix.conf")).unwrap()
        };
        let after = use_team();
        assert!(after.contains(before.trim_end()), "{after}");
        assert_eq!(use_team(), after);
        let store = nix.path("store");
        run(nix
            .command("nix-store")
            .arg("--store")
            .arg(&store)
            .args(["--realise", &closure.root]))
        .ok();
        nix.verify(&store, &server.public_key("team"), &closure.root)
            .ok();
    }
}

/// By Nix, into the store that it says is the local one: signatures are required.
#[test]
fn pull_goes_through_nix() {
    let server = crate::server();
    let admin = User::admin(&server);
    let closure = Closure::first();
    admin.firn(&["cache", "create", "team"]).ok();
    admin.firn(&["push", "--cache", "team", &closure.root]).ok();
    // Where both releases see it.
    let firn = admin.home().join("firn");
    std::fs::copy(env!("CARGO_BIN_EXE_firn"), &firn).unwrap();
    let nix_store_only = admin.home().join("bin");
    std::fs::create_dir(&nix_store_only).unwrap();
    std::os::unix::fs::symlink("/usr/bin/nix-store", nix_store_only.join("nix-store")).unwrap();
    for release in Release::ALL {
        for path in [Path::new("/usr/bin"), &nix_store_only] {
            let nix = Nix::new(release);
            let store = nix.path("store");
            let pull = |trust: &[&str]| {
                run(nix
                    .command("env")
                    .arg(format!("PATH={}", path.display()))
                    .arg(&firn)
                    .args(["pull", "--cache", "team", &closure.root])
                    .args(trust)
                    .env("NIX_REMOTE", format!("local?root={}", store.display()))
                    .env("FIRN_SERVER", server.url())
                    .env("FIRN_TOKEN", server.token()))
            };
            let said = pull(&[]).refused();
            assert!(said.contains("hint:") && said.contains("--trust"), "{said}");
            pull(&["--trust"]).ok();
            nix.verify(&store, &server.public_key("team"), &closure.root)
                .ok();
        }
    }
}

/// Into a folder, by a machine without Nix: hashes and signatures are checked all the same.
#[test]
fn pull_needs_no_nix() {
    let server = crate::server();
    let closure = Closure::first();
    User::admin(&server).firn(&["push", &closure.root]).ok();
    let user = User::new(&server, None);
    let folder = user.home().join("root");
    let pull = |trust: &[&str]| {
        run(user
            .command()
            .env("PATH", user.home())
            .args(["pull", &closure.root, "--to"])
            .arg(&folder)
            .args(trust))
    };
    let said = pull(&[]).refused();
    assert!(said.contains("hint:"), "{said}");
    let key = server.public_key("main");
    pull(&["--public-key", &key]).ok();
    for path in &closure.paths {
        let pulled = folder.join(&path[1..]);
        let dump = "for path; do nix-store --dump \"$path\" | sha256sum; done | uniq | wc -l";
        let different = run(command("sh").args(["-ec", dump, "sh", path]).arg(&pulled)).ok();
        assert_eq!(different, "1", "{path}");
    }
}

#[test]
fn status_tells_cached_from_missing() {
    let server = crate::server();
    let admin = User::admin(&server);
    let (first, second) = (Closure::first(), Closure::second());
    admin.firn(&["push", &first.root]).ok();
    let status = admin.json(&["status", &second.root]);
    assert_eq!(status["paths_total"], second.paths.len(), "{status}");
    assert_eq!(status["paths_present"], second.paths.len() - 1, "{status}");
    for path in status["paths"].as_array().unwrap() {
        let is_app = path["path"].as_str().unwrap().contains("-app-");
        assert_eq!(path["present"], !is_app, "{status}");
    }
}
