//! Quotas, roots and ages with the real Nix: what stays substitutes whole, what went says why.

use firn_testkit::rigs::Release;
use firn_testkit::rigs::closure::Closure;
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::serve::{Server, User};
use std::time::Duration;

/// What is pushed, or asked for by a pusher, may go after three seconds.
fn server() -> Server {
    Server::start_with(
        env!("CARGO_BIN_EXE_firn"),
        r#"{"lease_seconds": 3}"#,
        "info",
    )
}

fn leases_end() {
    std::thread::sleep(Duration::from_millis(4500));
}

fn substitutes(release: Release, server: &Server, path: &str) -> bool {
    let nix = Nix::new(release);
    let (store, key) = (nix.path("store"), server.public_key("main"));
    let realised = nix.realise(&store, &server.cache("main"), &key, &[path]);
    if !realised.status.success() {
        realised.refused();
        return false;
    }
    nix.verify(&store, &key, path).ok();
    true
}

#[test]
fn over_quota_the_closure_used_least_recently_goes_and_the_rest_substitutes_whole() {
    let server = server();
    let admin = User::admin(&server);
    let (first, second) = (Closure::first(), Closure::second());
    admin.firn(&["push", &first.root]).ok();
    admin.firn(&["push", &second.root]).ok();
    leases_end();
    assert!(substitutes(Release::Bookworm, &server, &second.root));
    let stored = admin.json(&["cache", "show", "main"])["stored_bytes"]
        .as_u64()
        .unwrap();
    let quota = (stored - 1).to_string();
    admin
        .firn(&["cache", "configure", "main", "--quota", &quota])
        .ok();
    let would = admin.json(&["cache", "evict", "--dry-run"]);
    assert_eq!(
        (&would["paths"], &would["dry_run"]),
        (&1.into(), &true.into()),
        "{would}"
    );
    assert!(substitutes(Release::Trixie, &server, &second.root));
    let went = admin.json(&["cache", "evict"]);
    assert_eq!(
        went["evicted"][0]["name"],
        first.root["/nix/store/".len()..],
        "{went}"
    );
    assert_eq!(went["paths"], 1);
    for release in Release::ALL {
        assert!(!substitutes(release, &server, &first.root));
        assert!(substitutes(release, &server, &second.root));
    }
    let status = admin.json(&["status", &first.root]);
    let missing: Vec<_> = status["paths"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|path| path["present"] == false)
        .collect();
    assert_eq!(
        (missing.len(), &missing[0]["evicted"]["reason"]),
        (1, &"quota".into()),
        "{status}"
    );
    let said = admin.firn(&["status", &first.root]).ok();
    assert!(
        said.contains("taken away") && said.contains("over quota; last used"),
        "{said}"
    );
    let shown = admin.firn(&["cache", "show", "main"]).ok();
    assert!(
        shown.contains("taken away") && shown.contains("1 paths"),
        "{shown}"
    );
    assert!(
        admin
            .firn(&["cache", "evictions"])
            .ok()
            .contains("over quota")
    );
    // It may come back, from Nix as well.
    admin
        .firn(&["cache", "configure", "main", "--quota", "none"])
        .ok();
    let nix = Nix::new(Release::Trixie);
    nix.netrc("127.0.0.1", &server.token());
    nix.copy_to(&server.cache("main"), &[&first.root]).ok();
    assert!(substitutes(Release::Bookworm, &server, &first.root));
}

#[test]
fn a_root_stays_with_its_closure_whatever_the_limits() {
    let server = server();
    let admin = User::admin(&server);
    let (first, second) = (Closure::first(), Closure::second());
    for closure in [&first, &second] {
        admin.firn(&["push", &closure.root]).ok();
    }
    let other = first.path_of("gcc-12-base");
    admin.firn(&["cache", "pin", "main", &first.root]).ok();
    admin
        .firn(&["cache", "pin", "main", &second.root, "--keep", "1"])
        .ok();
    let pins = admin.json(&["cache", "pin", "--list"]);
    assert_eq!(
        pins[0]["pinned"].as_array().map(Vec::len),
        Some(1),
        "{pins}"
    );
    leases_end();
    let configure = [
        "cache",
        "configure",
        "main",
        "--keep-for",
        "1s",
        "--quota",
        "1",
    ];
    admin.firn(&configure).ok();
    let went = admin.json(&["cache", "evict"]);
    assert_eq!(
        (&went["paths"], &went["evicted"][0]["reason"]),
        (&1.into(), &"unused".into()),
        "{went}"
    );
    assert!(substitutes(Release::Bookworm, &server, &second.root));
    admin.firn(&["cache", "unpin", "main"]).ok();
    leases_end();
    admin.firn(&["cache", "evict"]).ok();
    assert!(!substitutes(Release::Bookworm, &server, &other));
    let show = admin.json(&["cache", "show", "main"]);
    assert_eq!(
        (&show["store_paths"], &show["stored_bytes"]),
        (&0.into(), &0.into()),
        "{show}"
    );
}

#[test]
fn a_closure_larger_than_the_quota_is_refused_with_a_hint() {
    let server = server();
    let admin = User::admin(&server);
    let closure = Closure::first();
    admin
        .firn(&["cache", "create", "small", "--quota", "1M"])
        .ok();
    let said = admin
        .firn(&["push", "--cache", "small", &closure.root])
        .refused();
    assert!(
        said.contains("more than the quota of 1048576 bytes of the cache small"),
        "{said}"
    );
    assert!(
        said.contains("hint: ") && said.contains("firn cache configure"),
        "{said}"
    );
}
