//! A hostile branch: a job that may write the registry's repository, as a pull request's with `packages: write`, and
//! that has not the key that main's jobs have.

use crate::ci::RESTORE;
use crate::ci::project::{ALL, Job, Project};
use firn_formats::nix::SecretKey;
use firn_testkit::rigs::machine::Machine;
use firn_testkit::rigs::registry::Registry;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const FIRN: &str = env!("CARGO_BIN_EXE_firn");

/// A job with these variables.
fn begin(project: &Project, storage: &str, variables: &[(&str, &str)]) -> Job {
    let mut machine = project.machine();
    for (name, value) in variables {
        machine.set(name, *value);
    }
    Job::begin_on(machine, project, storage, RESTORE)
}

/// The project's output on the machine of a job, and a hash of all its files.
fn output(job: &Job) -> (String, String) {
    let app = job
        .machine
        .step("nix-build", &["--no-out-link", "-A", "app"])
        .ok();
    let hash = job
        .machine
        .step("nix-store", &["--query", "--hash", &app])
        .ok();
    (app, hash)
}

/// Other bytes under the name of a path that main has saved: what a build on a machine of one's own can always do.
fn poison(job: &Job, path: &str) {
    let script = "chmod -R u+w \"$0\" && echo poison > \"$0/app\" && chmod -R a-w \"$0\"
        hash=$(nix-hash --type sha256 \"$0\") && nar=$(nix-store --dump \"$0\" | wc -c)
        python3 - \"$0\" \"$hash\" \"$nar\" <<'E'
import sqlite3, sys
path, hash, size = sys.argv[1:]
store = sqlite3.connect('/nix/var/nix/db/db.sqlite')
values = ('sha256:' + hash, int(size), path)
store.execute('UPDATE ValidPaths SET hash = ?, narSize = ? WHERE path = ?', values)
store.commit()
E";
    job.machine.step("sh", &["-ec", script, path]).ok();
}

fn push_image(machine: &Machine, image: &str, path: &str) -> Value {
    let words = [
        "image",
        "push",
        "--json",
        "--no-history",
        "--to",
        image,
        path,
    ];
    serde_json::from_str(&machine.step(FIRN, &words).ok()).unwrap()
}

/// The manifest of an image, as the registry has it.
fn manifest(registry: &Registry, name: &str) -> Value {
    let url = format!("http://{}/v2/{name}/manifests/app", registry.address());
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let mut curl = Command::new("curl");
    let text =
        firn_testkit::rigs::program::run(curl.args(["-sS", "--fail", "-H", accept, &url])).ok();
    serde_json::from_str(&text).unwrap()
}

/// Main's image again, under its tag, with blobs of the branch's in place of main's: main's layer keys, and main's
/// signatures of them, stand beside the branch's digests.
fn forge(registry: &Registry, name: &str, mains: &Value, branchs: &Value) {
    let mut forged = mains.clone();
    let blob = &branchs["layers"].as_array().unwrap().last().unwrap();
    for layer in forged["layers"].as_array_mut().unwrap() {
        layer["digest"] = blob["digest"].clone();
        layer["size"] = blob["size"].clone();
    }
    let url = format!("http://{}/v2/{name}/manifests/app", registry.address());
    let media = "Content-Type: application/vnd.oci.image.manifest.v1+json";
    let mut curl = Command::new("curl");
    let body = forged.to_string();
    curl.args(["-sS", "--fail", "-X", "PUT", "-H", media, "-d", &body, &url]);
    firn_testkit::rigs::program::run(&mut curl).ok();
    assert_eq!(manifest(registry, name)["layers"], forged["layers"]);
}

/// Main saves; a branch without a key, and one with another, save poison under main's paths and CI key and push an
/// image under main's tag; each time, main's next job finds what main saved, byte for byte.
#[test]
fn branches_without_mains_key_change_nothing_for_main() {
    let registry = Registry::start();
    let name = "acme/app";
    let storage = format!("oci://{}/{name}", registry.address());
    let image = format!("{}/{name}:app", registry.address());
    let key = |name: &str, seed| SecretKey::from_seed(name, [seed; 32]);
    let main = key("main-1", 1);
    let (secret, public) = (main.to_secret_string(), main.public().to_string());
    let as_main = [
        ("FIRN_SIGNING_KEY", secret.as_str()),
        ("FIRN_TRUSTED_KEYS", &public),
    ];
    // Its name is main's, its bytes are not.
    let other = key("main-1", 2).to_secret_string();

    let project = Project::new();
    let mut job = begin(&project, &storage, &as_main);
    job.build();
    assert_eq!(job.built, ALL);
    let (app, saved) = output(&job);
    job.save(&[]);
    let pushed = push_image(&job.machine, &image, &app);
    let mains = manifest(&registry, name);
    job.end();

    for hostile in [&[][..], &[("FIRN_SIGNING_KEY", other.as_str())]] {
        let branch = begin(&project, &storage, hostile);
        let (same, _) = output(&branch);
        assert_eq!(same, app);
        poison(&branch, &app);
        let (_, poisoned) = output(&branch);
        assert_ne!(poisoned, saved, "the branch has other bytes under the name");
        // All of it, under main's key, and an image under main's tag that says it has main's layers.
        let report = branch.save(&["--all"]).report;
        assert!(report["refused"].is_null(), "{report}");
        push_image(&branch.machine, &image, &app);
        let branchs = manifest(&registry, name);
        assert_ne!(branchs["layers"], mains["layers"]);
        forge(&registry, name, &mains, &branchs);
        branch.end();

        let mut next = begin(&project, &storage, &as_main);
        assert_eq!(next.output("cache-hit"), "true", "{}", next.line);
        next.build();
        assert_eq!(next.built, [""; 0], "what main saved is there");
        assert_eq!(output(&next), (app.clone(), saved.clone()));
        let text = std::fs::read_to_string(inside(&next.machine, &app).join("app")).unwrap();
        assert_eq!(text, "app\n");
        let again = push_image(&next.machine, &image, &app);
        assert_eq!(again["digest"], pushed["digest"], "{again}");
        assert_eq!(manifest(&registry, name), mains);
        next.save(&[]);
        next.end();
    }
}

/// A path of the machine's own `/nix`, from outside.
fn inside(machine: &Machine, path: &str) -> std::path::PathBuf {
    let below = Path::new(path).strip_prefix("/nix").unwrap();
    machine.path("nix").join(below)
}

/// Whom nobody keeps apart are told so, once, where others than the machine's own users may write.
#[test]
fn branches_are_told_of_a_store_without_keys() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let project = Project::new();
    let key = SecretKey::from_seed("main-1", [1; 32]).public().to_string();
    let notes = |storage: &str, trusted: Option<&str>| {
        let mut machine = project.machine();
        if let Some(key) = trusted {
            machine.set("FIRN_TRUSTED_KEYS", key);
        }
        let common = ["--storage", storage, "--key", "k"];
        let count = |words: &[&str]| {
            let said = machine.step(FIRN, &[words, &common].concat());
            assert!(said.status.success(), "{said}");
            said.stderr.matches("FIRN_TRUSTED_KEYS").count()
        };
        let restored = count(&["ci", "restore", "--lookup-only"]);
        (restored, count(&["ci", "save"]))
    };
    let storage = format!("oci://{}/acme/app", registry.address());
    // Restore says it for the job; save says it where no restore was.
    assert_eq!(notes(&storage, None), (1, 0));
    assert_eq!(notes(&storage, Some(&key)), (0, 0));
    assert_eq!(notes(folder.path().to_str().unwrap(), None), (0, 0));
    let machine = project.machine();
    let said = machine.step(
        FIRN,
        &["ci", "save", "--all", "--storage", &storage, "--key", "k"],
    );
    assert_eq!(
        said.stderr.matches("FIRN_TRUSTED_KEYS").count(),
        1,
        "{said}"
    );
}
