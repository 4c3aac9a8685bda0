//! Private caches: nothing of them without a token, all of it with one, for both Nix versions.

use firn_testkit::rigs::Release;
use firn_testkit::rigs::closure::{Closure, hash_part};
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::{command, run};
use firn_testkit::rigs::serve::{Server, User};

const CACHE: &str = "acme/secret";

fn filled() -> (Server, Closure) {
    let server = crate::server();
    let closure = Closure::first();
    let admin = User::admin(&server);
    admin.firn(&["cache", "create", CACHE, "--private"]).ok();
    admin.firn(&["push", "--cache", CACHE, &closure.root]).ok();
    (server, closure)
}

fn token(server: &Server, arguments: &[&str]) -> String {
    let made = User::admin(server).json(&[&["token", "create"], arguments].concat());
    made["token"].as_str().expect("a token").to_owned()
}

fn realise(release: Release, server: &Server, token: Option<&str>, path: &str) -> bool {
    let nix = Nix::new(release);
    if let Some(token) = token {
        nix.netrc("127.0.0.1", token);
    }
    let key = server.public_key(CACHE);
    let store = nix.path("store");
    let outcome = nix.realise(&store, &server.cache(CACHE), &key, &[path]);
    if !outcome.status.success() {
        outcome.refused();
        return false;
    }
    nix.verify(&store, &key, path).ok();
    true
}

#[test]
fn a_cache_is_private_unless_it_is_said_to_be_public() {
    let server = crate::server();
    let admin = User::admin(&server);
    for (name, flags, public) in [
        ("unsaid", &[][..], false),
        ("private", &["--private"], false),
        ("public", &["--public"], true),
    ] {
        let made = admin.json(&[&["cache", "create", name], flags].concat());
        assert_eq!(made["public"], public, "{made}");
        let status = server.status_of(&format!("/{name}/nix-cache-info"));
        assert_eq!(status, if public { "200" } else { "401" }, "{name}");
    }
}

#[test]
fn netrc_opens_a_private_cache() {
    let (server, closure) = filled();
    let reader = token(&server, &["--cache", "acme/*", "--allow", "pull"]);
    let stranger = token(&server, &["--cache", "main", "--allow", "pull"]);
    for release in Release::ALL {
        assert!(realise(release, &server, Some(&reader), &closure.root));
        assert!(!realise(release, &server, Some(&stranger), &closure.root));
        assert!(!realise(release, &server, None, &closure.root));
    }
}

#[test]
fn a_token_ends_when_it_is_revoked() {
    let (server, closure) = filled();
    let admin = User::admin(&server);
    let made = admin.json(&["token", "create", "--cache", CACHE, "--allow", "pull"]);
    let token = made["token"].as_str().expect("a token");
    assert!(realise(
        Release::Trixie,
        &server,
        Some(token),
        &closure.root
    ));
    let id = made["id"].as_str().expect("an id");
    admin.firn(&["token", "revoke", id]).ok();
    assert!(!realise(
        Release::Trixie,
        &server,
        Some(token),
        &closure.root
    ));
}

#[test]
fn a_right_to_pull_is_no_right_to_push() {
    let (server, closure) = filled();
    let reader = token(&server, &["--cache", CACHE, "--allow", "pull"]);
    let app = Closure::second().root;
    for release in Release::ALL {
        let nix = Nix::new(release);
        nix.netrc("127.0.0.1", &reader);
        nix.copy_to(&server.cache(CACHE), &[&app]).refused();
    }
    User::new(&server, Some(reader))
        .firn(&["push", "--cache", CACHE, &app])
        .refused();
    let narinfo = format!("/{CACHE}/{}.narinfo", hash_part(&app));
    assert!(!server.get(&narinfo).status.success());
    let old = format!("/{CACHE}/{}.narinfo", hash_part(&closure.root));
    server.get(&old).ok();
}

/// Narinfo and NAR ask for the token alike, by Basic and by Bearer.
#[test]
fn a_nar_is_as_private_as_its_narinfo() {
    let (server, closure) = filled();
    let narinfo_path = format!("/{CACHE}/{}.narinfo", hash_part(&closure.root));
    let narinfo = server.get(&narinfo_path).ok();
    let url = narinfo
        .lines()
        .find_map(|line| line.strip_prefix("URL: "))
        .expect("a narinfo has a URL");
    for path in [narinfo_path, format!("/{CACHE}/{url}")] {
        assert_eq!(server.status_of(&path), "401", "{path}");
        let basic = run(command("curl")
            .args(["-sSf", "-o", "/dev/null", "--user"])
            .arg(format!("x:{}", server.token()))
            .arg(format!("{}{path}", server.url())));
        basic.ok();
        run(command("curl")
            .args(["-sSf", "-o", "/dev/null", "--header"])
            .arg(format!("Authorization: Bearer {}", server.token()))
            .arg(format!("{}{path}", server.url())))
        .ok();
    }
}
