//! Rotated keys, as Nix of both releases sees them, and `firn use`.

use firn_testkit::rigs::Release;
use firn_testkit::rigs::closure::Closure;
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::serve::{Server, User};

/// Whether a Nix that trusts `key` alone substitutes a path.
fn substitutes(release: Release, server: &Server, key: &str, path: &str) -> bool {
    let nix = Nix::new(release);
    let store = nix.path("store");
    let realised = nix.realise(&store, &server.cache("main"), key, &[path]);
    if !realised.status.success() {
        realised.refused();
        return false;
    }
    nix.verify(&store, key, path).ok();
    true
}

#[test]
fn nix_that_trusts_the_old_key_or_the_new_one_is_served_while_they_overlap() {
    let mut server = crate::server();
    let admin = User::admin(&server);
    let (before, after) = (Closure::first(), Closure::second());
    admin.firn(&["push", &before.root]).ok();
    let old = server.public_key("main");
    let rotated = admin.json(&["cache", "key", "rotate", "main", "--overlap", "20s"]);
    let keys: Vec<String> = server
        .public_key("main")
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!((keys.len(), &keys[0]), (2, &old));
    assert_eq!(rotated["public_keys"].as_array().map(Vec::len), Some(2));
    let new = &keys[1];
    admin.firn(&["push", &after.root]).ok();
    admin.firn(&["use", "main"]).ok();
    let conf = admin.home().join("nix/nix.conf");
    let trusted = || std::fs::read_to_string(&conf).unwrap();
    assert!(trusted().contains(&old) && trusted().contains(new.as_str()));
    for key in [&old, new] {
        for path in [&before.root, &after.root] {
            assert!(
                substitutes(Release::Bookworm, &server, key, path),
                "{key} {path}"
            );
        }
    }
    assert!(substitutes(Release::Trixie, &server, new, &before.root));
    // The overlap ends; a start is one of the moments at which that is seen.
    std::thread::sleep(std::time::Duration::from_secs(20));
    assert!(server.stop());
    server.restart();
    assert_eq!(server.public_key("main"), *new);
    for release in Release::ALL {
        assert!(!substitutes(release, &server, &old, &before.root));
        assert!(substitutes(release, &server, new, &before.root));
    }
    assert!(!substitutes(Release::Trixie, &server, &old, &after.root));
    admin.firn(&["use", "main"]).ok();
    assert!(!trusted().contains(&old) && trusted().contains(new.as_str()));
}
