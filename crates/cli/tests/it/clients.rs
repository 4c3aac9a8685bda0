//! The clients are the ones we mean: what Firn promises of old and new ones is tested with those.

use firn_testkit::rigs::docker::Docker;
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::{command, run};
use firn_testkit::rigs::{Release, trixie};

#[test]
fn nix_is_2_8_and_2_26() {
    for (release, version) in [(Release::Bookworm, " 2.8."), (Release::Trixie, " 2.26.")] {
        let said = run(Nix::new(release).command("nix").arg("--version")).ok();
        assert!(said.contains(version), "{release:?}: {said}");
    }
}

#[test]
fn skopeo_is_1_9_and_1_18() {
    let old = run(command("skopeo").arg("--version")).ok();
    assert!(old.starts_with("skopeo version 1.9"), "{old}");
    let new = run(trixie::command("skopeo").arg("--version")).ok();
    assert!(new.starts_with("skopeo version 1.18"), "{new}");
}

#[test]
fn docker_is_20_10_and_26_1() {
    for (release, version) in [(Release::Bookworm, "20.10."), (Release::Trixie, "26.1.")] {
        let said = Docker::start(release).version().ok();
        assert!(said.starts_with(version), "{release:?}: {said}");
    }
}
