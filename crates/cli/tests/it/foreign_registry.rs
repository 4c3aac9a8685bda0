//! `firn image push --to`: a registry that knows nothing of Firn.

use firn_testkit::rigs::closure::Closure;
use firn_testkit::rigs::podman::Podman;
use firn_testkit::rigs::registry::Registry;
use firn_testkit::rigs::serve::User;

const GREETING: &str = "Hello, world!";
/// Questions and answers about an image that is there, in bytes.
const NEXT_TO_NOTHING: u64 = 16 << 10;

fn push(user: &User, closure: &Closure, to: &str, compression: &str) -> serde_json::Value {
    let hello = closure.hello();
    user.json(&[
        "image",
        "push",
        "--to",
        to,
        "--compression",
        compression,
        "--entrypoint",
        &hello,
        &closure.root,
    ])
}

/// Pushed, pushed again, pushed by a machine that has never seen it, changed, pulled and run.
fn pushes(compression: &str) {
    let server = crate::server();
    let registry = Registry::start();
    let (first, second) = (Closure::first(), Closure::second());
    let user = User::new(&server, None);
    let image = format!("{}/team/hello:1", registry.address());

    let cold = push(&user, &first, &image, compression);
    assert_eq!(cold["layers_sent"], cold["layers_total"], "{cold}");
    for other in [&user, &User::new(&server, None)] {
        let again = push(other, &first, &image, compression);
        assert_eq!(again["layers_sent"], 0, "{again}");
        assert!(
            again["bytes_sent"].as_u64() < Some(NEXT_TO_NOTHING),
            "{again}"
        );
        assert_eq!(again["digest"], cold["digest"], "{again}");
    }
    let podman = Podman::new();
    podman.pull(&image, None).ok();
    assert_eq!(podman.run(&image, &[]).ok(), GREETING, "{compression}");

    // The application's layer, and the one with the links to it.
    let changed = push(&user, &second, &image, compression);
    let sent = changed["layers_sent"].as_u64();
    assert!((Some(1)..=Some(2)).contains(&sent), "{changed}");
    assert_ne!(changed["digest"], cold["digest"], "{changed}");
    podman.pull(&image, None).ok();
    assert_eq!(podman.run(&image, &[]).ok(), GREETING, "{compression}");
}

#[test]
fn zstd_layers_go_to_any_registry() {
    pushes("zstd");
}

#[test]
fn gzip_layers_go_to_any_registry() {
    pushes("gzip");
}
