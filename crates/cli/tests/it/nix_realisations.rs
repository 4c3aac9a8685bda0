//! Content-addressed derivations: Nix uploads what each output became, and asks for it again.

use firn_testkit::rigs::Release;
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::run;
use std::path::Path;

/// Nix itself builds it, so it needs neither a shell nor a closure.
const EXPRESSION: &str = r#"derivation {
  name = "empty-environment"; system = "builtin"; builder = "builtin:buildenv";
  derivations = []; manifest = "/nowhere";
  __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
}"#;

fn nix_with(release: Release, configuration: &str) -> Nix {
    let nix = Nix::new(release);
    nix.configure("extra-experimental-features = ca-derivations");
    nix.configure(configuration);
    nix
}

/// Builds into the store under `root`, signs with a new key, and gives its public half. (Nix 2.26
/// cannot build in another store from inside a chroot.)
fn build(root: &Path, expression: &Path) -> String {
    let keys = Nix::new(Release::Bookworm);
    let (secret, public) = (keys.path("secret"), keys.path("public"));
    run(keys
        .command("nix-store")
        .args(["--generate-binary-cache-key", "builder-1"])
        .args([&secret, &public]))
    .ok();
    let builder = nix_with(Release::Bookworm, "");
    run(builder
        .command("nix")
        .args(["build", "--no-link", "--option", "secret-key-files"])
        .arg(&secret)
        .arg("--store")
        .arg(root)
        .arg("--file")
        .arg(expression))
    .ok();
    std::fs::read_to_string(public).expect("Nix wrote the key")
}

#[test]
fn realisations_come_back_as_they_were_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (root, expression) = (folder.path().join("store"), folder.path().join("ca.nix"));
    std::fs::write(&expression, EXPRESSION).unwrap();
    let builder_key = build(&root, &expression);
    for release in Release::ALL {
        let server = crate::server();
        let cache = server.cache("main");
        let pusher = nix_with(release, "");
        pusher.netrc("127.0.0.1", &server.token());
        run(pusher
            .command("nix")
            .args(["copy", "--to", &cache, "--store"])
            .arg(&root)
            .arg("--from")
            .arg(&root)
            .arg("--file")
            .arg(&expression))
        .ok();
        for reader in Release::ALL {
            let nix = nix_with(reader, &format!("substituters = {cache}"));
            let keys = format!("{} {}", server.public_key("main"), builder_key.trim());
            let built = run(nix
                .command("nix")
                .args(["build", "--no-link", "--max-jobs", "0"])
                .args(["--option", "trusted-public-keys", &keys, "--store"])
                .arg(nix.path("store"))
                .arg("--file")
                .arg(&expression));
            assert!(built.status.success(), "{release:?} to {reader:?}: {built}");
        }
    }
}
