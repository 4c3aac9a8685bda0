//! `firn image push --to`: a registry that knows nothing of Firn.

use firn_testkit::rigs::closure::Closure;
use firn_testkit::rigs::ghcr::{Asked, Ghcr, Quirks, WRITER};
use firn_testkit::rigs::podman::Podman;
use firn_testkit::rigs::program::run;
use firn_testkit::rigs::registry::Registry;
use firn_testkit::rigs::serve::User;
use firn_testkit::rigs::{Release, skopeo};
use serde_json::Value;
use std::path::Path;

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

/// A job on a fresh machine: nothing in its home, no server, the token on the command line.
struct Job<'a> {
    ghcr: &'a Ghcr,
    user: User,
}

impl<'a> Job<'a> {
    fn on(ghcr: &'a Ghcr) -> Self {
        ghcr.asked();
        Self {
            ghcr,
            user: User::alone(env!("CARGO_BIN_EXE_firn")),
        }
    }

    /// The report, and what the registry was asked.
    fn push(&self, closure: &Closure, tag: &str, extra: &[&str]) -> (Value, Vec<Asked>) {
        let to = format!("{}/acme/hello:{tag}", self.ghcr.address());
        let hello = closure.hello();
        let mut arguments = vec!["image", "push", "--to", &to, "--dest-creds", WRITER];
        arguments.extend(["--entrypoint", &hello]);
        arguments.extend(extra);
        arguments.push(&closure.root);
        let report = self.user.json(&arguments);
        (report, self.ghcr.asked())
    }
}

fn number(report: &Value, field: &str) -> u64 {
    let number = report[field].as_u64();
    number.unwrap_or_else(|| panic!("no {field} in {report}"))
}

/// Bytes of all bodies that were sent.
fn sent(asked: &[Asked]) -> u64 {
    asked.iter().map(|asked| asked.bytes).sum()
}

fn count(asked: &[Asked], matches: impl Fn(&Asked) -> bool) -> usize {
    asked.iter().filter(|asked| matches(asked)).count()
}

fn is_upload(asked: &Asked) -> bool {
    asked.path.contains("/blobs/uploads/")
}

#[test]
fn a_job_with_an_empty_home_pushes_to_a_registry_like_githubs() {
    let ghcr = Ghcr::with(Quirks::calm());
    let (first, second) = (Closure::first(), Closure::second());

    let (cold, asked) = Job::on(&ghcr).push(&first, "1", &[]);
    let layers = number(&cold, "layers_total");
    assert_eq!(number(&cold, "layers_sent"), layers, "{cold}");
    assert_eq!(number(&cold, "layers_reused"), 0, "{cold}");
    assert_eq!(
        number(&cold, "paths_pushed"),
        first.paths.len() as u64,
        "{cold}"
    );
    assert_eq!(
        count(&asked, |asked| asked.path.starts_with("/token")),
        1,
        "{asked:?}"
    );
    assert_eq!(
        count(&asked, |asked| asked.method == "PATCH"),
        0,
        "{asked:?}"
    );
    assert!(
        sent(&asked) < number(&cold, "bytes_total") * 21 / 20,
        "{cold} {asked:?}"
    );

    // Unchanged, on a machine that has never seen it: the refusal, the token, the tags, a segment and where it
    // lies, whether each layer is there, and whether the tag is right; before that the image's history: the tag,
    // a list that this registry does not have, the tag for it, the document's manifest, the document and where it
    // lies.
    let (warm, asked) = Job::on(&ghcr).push(&first, "1", &[]);
    assert_eq!(number(&warm, "layers_sent"), 0, "{warm}");
    assert_eq!(number(&warm, "layers_reused"), layers, "{warm}");
    assert_eq!(warm["digest"], cold["digest"]);
    assert_eq!(
        (sent(&asked), count(&asked, is_upload)),
        (0, 0),
        "{asked:?}"
    );
    assert!(asked.len() as u64 <= layers + 12, "{asked:?}");

    // Under another tag the layers are known too, without the image of that tag.
    let (other, asked) = Job::on(&ghcr).push(&first, "other", &[]);
    assert_eq!(number(&other, "layers_reused"), layers, "{other}");
    assert_eq!(count(&asked, is_upload), 0, "{asked:?}");

    // The application's layer, the one with the links to it, and what the store learns of them.
    let (changed, asked) = Job::on(&ghcr).push(&second, "2", &[]);
    assert!(
        (1..=2).contains(&number(&changed, "layers_sent")),
        "{changed}"
    );
    assert_eq!(number(&changed, "paths_pushed"), 1, "{changed}");
    assert!(sent(&asked) < 5 << 20, "{asked:?}");

    let copies = tempfile::tempdir().unwrap();
    for (tag, report) in [("1", &cold), ("2", &changed)] {
        let source = format!("docker://{}/acme/hello:{tag}", ghcr.address());
        let copy = copies.path().join(tag);
        let to = format!("dir:{}", copy.display());
        skopeo::copy(Release::Bookworm, &["--src-creds", WRITER], &source, &to).ok();
        assert_eq!(digest_of_copy(&copy), report["digest"]);
    }
    let podman = Podman::new();
    let image = format!("{}/acme/hello:2", ghcr.address());
    podman.pull(&image, Some(WRITER)).ok();
    assert_eq!(podman.run(&image, &[]).ok(), GREETING);
}

/// Of the manifest in a folder that skopeo copied an image to.
fn digest_of_copy(folder: &Path) -> String {
    let manifest = folder.join("manifest.json");
    let sum = run(std::process::Command::new("sha256sum").arg(manifest)).ok();
    format!("sha256:{}", sum.split(' ').next().unwrap_or_default())
}

#[test]
fn what_a_bad_network_breaks_is_sent_again() {
    let ghcr = Ghcr::start();
    let closure = Closure::first();
    let (cold, asked) = Job::on(&ghcr).push(&closure, "1", &[]);
    assert_eq!(cold["layers_sent"], cold["layers_total"], "{cold}");
    assert!(count(&asked, |asked| asked.status == 0) > 0, "{asked:?}");
    let source = format!("docker://{}/acme/hello:1", ghcr.behind());
    let copy = tempfile::tempdir().unwrap();
    let to = format!("dir:{}", copy.path().display());
    skopeo::copy(Release::Bookworm, &[], &source, &to).ok();
    assert_eq!(digest_of_copy(copy.path()), cold["digest"]);
}

#[test]
fn the_image_alone_leaves_no_store_behind() {
    let ghcr = Ghcr::with(Quirks::calm());
    let closure = Closure::first();
    let (alone, asked) = Job::on(&ghcr).push(&closure, "1", &["--no-paths"]);
    assert_eq!(number(&alone, "paths_pushed"), 0, "{alone}");
    assert_eq!(
        count(&asked, |asked| asked.path.contains("/manifests/firn-")),
        0,
        "{asked:?}"
    );
    // The image under the tag says which layers there are.
    let (again, asked) = Job::on(&ghcr).push(&closure, "1", &["--no-paths"]);
    assert_eq!(again["layers_reused"], again["layers_total"], "{again}");
    assert_eq!(sent(&asked), 0, "{asked:?}");
}

#[test]
fn a_home_is_not_needed_and_nothing_is_left_in_the_temporary_folder() {
    let registry = Registry::start();
    let closure = Closure::first();
    let user = User::alone(env!("CARGO_BIN_EXE_firn"));
    let temporary = tempfile::tempdir().unwrap();
    let mut command = user.command();
    for name in [
        "HOME",
        "XDG_CONFIG_HOME",
        "XDG_CACHE_HOME",
        "XDG_STATE_HOME",
    ] {
        command.env_remove(name);
    }
    let to = format!("{}/hello:1", registry.address());
    let said = run(command.env("TMPDIR", temporary.path()).args([
        "image",
        "push",
        "--to",
        &to,
        &closure.root,
    ]))
    .ok();
    assert!(said.contains(" layers sent, 0 already exist"), "{said}");
    let left = std::fs::read_dir(temporary.path()).unwrap().count();
    assert_eq!(left, 0, "files are left in the temporary folder");
    assert_eq!(std::fs::read_dir(user.home()).unwrap().count(), 0);
}

#[test]
fn wrong_credentials_are_told_with_what_to_do() {
    let ghcr = Ghcr::with(Quirks::calm());
    let closure = Closure::first();
    let user = User::alone(env!("CARGO_BIN_EXE_firn"));
    let to = format!("{}/acme/hello:1", ghcr.address());
    for credentials in ["octo:wrong", firn_testkit::rigs::ghcr::READER] {
        let arguments = ["image", "push", "--to", &to, "--dest-creds", credentials];
        let said = user
            .firn(&[&arguments[..], &[&closure.root]].concat())
            .refused();
        assert!(
            said.contains("hint: the credentials do not allow"),
            "{said}"
        );
    }
}
