//! Substitution by both Nix versions, with signatures required; and what Nix must refuse.

use firn_testkit::rigs::Release;
use firn_testkit::rigs::closure::{Closure, hash_part};
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::run;
use firn_testkit::rigs::proxy::Proxy;
use firn_testkit::rigs::serve::{Server, User};

/// A server with a closure in its cache `main`.
fn filled() -> (Server, Closure) {
    let server = crate::server();
    let closure = Closure::first();
    User::admin(&server).firn(&["push", &closure.root]).ok();
    (server, closure)
}

#[test]
fn an_empty_store_is_filled_by_nix_store_and_by_nix_build() {
    let (server, closure) = filled();
    let (url, key) = (server.cache("main"), server.public_key("main"));
    for release in Release::ALL {
        let nix = Nix::new(release);
        let store = nix.path("by-nix-store");
        nix.realise(&store, &url, &key, &[&closure.root]).ok();
        nix.verify(&store, &key, &closure.root).ok();

        let store = nix.path("by-nix-build");
        nix.build(&store, &url, &key, &[&closure.root]).ok();
        nix.verify(&store, &key, &closure.root).ok();
    }
}

#[test]
fn a_cache_that_is_not_trusted_is_not_used() {
    let (server, closure) = filled();
    let url = server.cache("main");
    let other = "other-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
    for release in Release::ALL {
        let nix = Nix::new(release);
        let store = nix.path("store");
        nix.realise(&store, &url, other, &[&closure.root]).refused();
        assert!(!store.join(&closure.root[1..]).exists());
    }
}

#[test]
fn path_info_and_ls_answer_from_the_cache() {
    let (server, closure) = filled();
    let url = server.cache("main");
    let hello = closure.path_of("hello-2");
    for release in Release::ALL {
        let nix = Nix::new(release);
        let mut paths: Vec<String> = run(nix.command("nix").args([
            "path-info",
            "--recursive",
            "--store",
            &url,
            &closure.root,
        ]))
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
        paths.sort();
        let mut expected = closure.paths.clone();
        expected.sort();
        assert_eq!(paths, expected, "{release:?}");

        let listed =
            run(nix
                .command("nix")
                .args(["store", "ls", "--store", &url, &format!("{hello}/usr")]))
            .ok();
        assert_eq!(listed, "./bin\n./share", "{release:?}");
    }
}

#[test]
fn nix_copies_out_of_the_cache_into_a_folder() {
    let (server, closure) = filled();
    for release in Release::ALL {
        let nix = Nix::new(release);
        let key = server.public_key("main");
        let flat = format!("file://{}", nix.path("flat").display());
        run(nix
            .command("nix")
            .args(["copy", "--from", &server.cache("main"), "--to", &flat])
            .args(["--option", "trusted-public-keys", &key, &closure.root]))
        .ok();
        for path in &closure.paths {
            let narinfo = format!("flat/{}.narinfo", hash_part(path));
            assert!(nix.path(&narinfo).is_file(), "{release:?}: {path}");
        }
    }
}

/// Pulls through `alter`; both versions of Nix must refuse.
fn refuses(alter: impl Fn(&str, Vec<u8>) -> Vec<u8> + Send + Sync + 'static) {
    let (server, closure) = filled();
    refuses_from(&server, &closure.path_of("hello-2"), alter);
}

fn refuses_from(
    server: &Server,
    victim: &str,
    alter: impl Fn(&str, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
) {
    let proxy = Proxy::before(server.address(), alter);
    let key = server.public_key("main");
    for release in Release::ALL {
        let nix = Nix::new(release);
        let store = nix.path("store");
        nix.realise(&store, &proxy.cache("main"), &key, &[victim])
            .refused();
        let valid = run(nix
            .command("nix-store")
            .arg("--store")
            .arg(&store)
            .args(["--check-validity", victim]));
        valid.refused();
    }
}

#[test]
fn a_proxy_that_changes_nothing_is_not_refused() {
    let (server, closure) = filled();
    let proxy = Proxy::before(server.address(), |_, body| body);
    let key = server.public_key("main");
    for release in Release::ALL {
        let nix = Nix::new(release);
        let store = nix.path("store");
        nix.realise(&store, &proxy.cache("main"), &key, &[&closure.root])
            .ok();
    }
}

#[test]
fn a_nar_with_one_bit_changed_is_refused() {
    refuses(|path, mut body| {
        if path.contains("/nar/") {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        body
    });
}

#[test]
fn a_nar_that_ends_too_early_is_refused() {
    refuses(|path, mut body| {
        if path.contains("/nar/") {
            body.truncate(body.len() - 1);
        }
        body
    });
}

/// Another path's NAR, whole and with its own hash and size: only the signature tells.
#[test]
fn a_narinfo_that_names_another_nar_is_refused() {
    let (server, closure) = filled();
    let (victim, other) = (closure.path_of("hello-2"), closure.path_of("gcc-12-base"));
    let narinfo_of = |path: &str| {
        let name = format!("/main/{}.narinfo", hash_part(path));
        (server.get(&name).ok(), name)
    };
    let (mut forged, name) = narinfo_of(&victim);
    let (donor, _) = narinfo_of(&other);
    for field in ["URL", "FileHash", "FileSize", "NarHash", "NarSize"] {
        let line_of = |text: &str| {
            let prefix = format!("{field}: ");
            let line = text.lines().find(|line| line.starts_with(&prefix));
            line.unwrap_or_default().to_owned()
        };
        forged = forged.replace(&line_of(&forged), &line_of(&donor));
    }
    refuses_from(&server, &victim, move |path, body| match path == name {
        true => format!("{forged}\n").into_bytes(),
        false => body,
    });
}
