//! `nix copy --to http://…`: every compression that Nix knows, from both Nix versions.

use firn_testkit::rigs::Release;
use firn_testkit::rigs::closure::{Closure, hash_part};
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::{command, run};
use firn_testkit::rigs::serve::{Server, User};

/// The names that Nix's `compression=` takes; both versions write `gzip` into a plain `.nar`.
const COMPRESSIONS: [&str; 6] = ["xz", "zstd", "none", "bzip2", "gzip", "br"];

fn pusher(release: Release, server: &Server) -> Nix {
    let nix = Nix::new(release);
    nix.netrc("127.0.0.1", &server.token());
    nix
}

/// Uploads with `release` in every compression, each to a cache of its own; then reads each back
/// with the other Nix into an empty store.
fn uploads_of(release: Release) {
    let server = crate::server();
    let admin = User::admin(&server);
    let closure = Closure::first();
    let reader = match release {
        Release::Bookworm => Release::Trixie,
        Release::Trixie => Release::Bookworm,
    };
    for compression in COMPRESSIONS {
        let cache = format!("nix-{compression}");
        admin.firn(&["cache", "create", &cache, "--public"]).ok();
        let url = server.cache(&cache);
        pusher(release, &server)
            .copy_to(
                &format!("{url}?compression={compression}"),
                &[&closure.root],
            )
            .ok();

        let key = server.public_key(&cache);
        let nix = Nix::new(reader);
        let store = nix.path("store");
        nix.realise(&store, &url, &key, &[&closure.root]).ok();
        nix.verify(&store, &key, &closure.root).ok();
    }
}

#[test]
fn nix_2_8_uploads_in_every_compression() {
    uploads_of(Release::Bookworm);
}

#[test]
fn nix_2_26_uploads_in_every_compression() {
    uploads_of(Release::Trixie);
}

/// Nix remembers for 30 days where it put a NAR, so that name must go on working.
#[test]
fn the_name_under_which_nix_uploaded_keeps_working() {
    let server = crate::server();
    let closure = Closure::first();
    let path = closure.path_of("gcc-12-base");
    let cache = server.cache("main");
    pusher(Release::Bookworm, &server)
        .copy_to(&format!("{cache}?compression=xz"), &[&path])
        .ok();
    // What Nix would have written into a folder: the same name, made by the same encoder.
    let nix = Nix::new(Release::Bookworm);
    let flat = nix.path("flat");
    let to = format!("file://{}?compression=xz", flat.display());
    nix.copy_to(&to, &[&path]).ok();
    let narinfo = std::fs::read_to_string(flat.join(format!("{}.narinfo", hash_part(&path))))
        .expect("nix copy wrote a narinfo");
    let name = narinfo
        .lines()
        .find_map(|line| line.strip_prefix("URL: "))
        .expect("a narinfo has a URL");

    let nar = run(command("sh")
        .args(["-ec", "curl -sSf \"$1\" | xz -dc | sha256sum", "sh"])
        .arg(format!("{cache}/{name}")))
    .ok();
    let dumped = run(command("sh")
        .args(["-ec", "nix-store --dump \"$1\" | sha256sum", "sh"])
        .arg(&path))
    .ok();
    assert_eq!(nar, dumped);
}

#[test]
fn an_upload_without_a_token_is_refused() {
    let server = crate::server();
    let closure = Closure::first();
    let path = closure.path_of("gcc-12-base");
    for release in Release::ALL {
        Nix::new(release)
            .copy_to(&server.cache("main"), &[&path])
            .refused();
        let narinfo = format!("/main/{}.narinfo", hash_part(&path));
        assert_eq!(server.status_of(&narinfo), "404");
    }
}

/// A second upload asks by HEAD and sends nothing; the signatures of the first pusher stay.
#[test]
fn a_pushers_own_signature_is_kept_beside_the_caches() {
    let server = crate::server();
    let closure = Closure::first();
    let path = closure.path_of("gcc-12-base");
    let nix = pusher(Release::Trixie, &server);
    let key = nix.path("secret-key");
    let made = run(nix
        .command("nix")
        .args(["key", "generate-secret", "--key-name", "builder-1"]))
    .ok();
    std::fs::write(&key, made).expect("cannot write the key");
    let cache = server.cache("main");
    nix.copy_to(&format!("{cache}?secret-key={}", key.display()), &[&path])
        .ok();
    let narinfo = server
        .get(&format!("/main/{}.narinfo", hash_part(&path)))
        .ok();
    let own = server.public_key("main");
    let own = own.split(':').next().unwrap_or_default();
    assert!(narinfo.contains("\nSig: builder-1:"), "{narinfo}");
    assert!(narinfo.contains(&format!("\nSig: {own}:")), "{narinfo}");
}

/// Nix asks for `.ls` and logs by name; both are kept as they were sent.
#[test]
fn listings_and_build_logs_are_kept() {
    let server = crate::server();
    let nix = pusher(Release::Bookworm, &server);
    let expression = r#"derivation {
      name = "speaks"; system = builtins.currentSystem; builder = "/bin/sh";
      args = [ "-c" "echo a line of the log; /bin/mkdir $out; echo x > $out/file" ];
    }"#;
    let path = run(nix
        .command("nix-build")
        .args(["--no-out-link", "-E", expression]))
    .ok();
    let cache = server.cache("main");
    nix.copy_to(&format!("{cache}?write-nar-listing=true"), &[&path])
        .ok();
    let deriver = run(nix.command("nix-store").args(["-q", "--deriver", &path])).ok();
    run(nix
        .command("nix")
        .args(["store", "copy-log", "--to", &cache, &deriver]))
    .ok();

    for release in Release::ALL {
        let reader = Nix::new(release);
        let listed = run(reader.command("nix").args([
            "store",
            "ls",
            "--store",
            &cache,
            "--recursive",
            &path,
        ]))
        .ok();
        assert_eq!(listed, "./file", "{release:?}");
        let log = run(reader
            .command("nix")
            .args(["log", "--store", &cache, &path]))
        .ok();
        assert_eq!(log, "a line of the log", "{release:?}");
    }
    let listing = server.get(&format!("/main/{}.ls", hash_part(&path))).ok();
    assert!(listing.contains("\"version\":1"), "{listing}");
}
