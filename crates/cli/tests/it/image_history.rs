//! The image's history travels with it: beside it in the registry, or in a file.

use firn_testkit::rigs::{
    Release,
    closure::Closure,
    program::{command, run},
    registry::Registry,
    serve::{Server, User},
    skopeo,
};
use serde_json::Value;

const TYPE: &str = "application/vnd.firn.image.history.v1+json";
const MANIFEST: &str =
    "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

fn json(address: &str, path: &str) -> Value {
    let url = format!("http://{address}/v2/{path}");
    let said = run(command("curl").args(["-sSf", "-H", MANIFEST, &url])).ok();
    serde_json::from_str(&said).unwrap()
}

/// The document that a manifest of a history names.
fn document(address: &str, name: &str, manifest: &Value) -> Value {
    assert_eq!(manifest["artifactType"], TYPE, "{manifest}");
    let digest = manifest["layers"][0]["digest"].as_str().unwrap();
    json(address, &format!("{name}/blobs/{digest}"))
}

fn changes(document: &Value, of: &str) -> (u64, u64) {
    let names = document["names"].as_array().unwrap();
    let entry = names.iter().find(|entry| entry["name"] == of).unwrap();
    (
        entry["changed"].as_u64().unwrap(),
        entry["seen"].as_u64().unwrap(),
    )
}

/// Each time as a machine that has never pushed.
fn push(to: &str, closure: &Closure, extra: &[&str]) -> Value {
    let user = User::alone(env!("CARGO_BIN_EXE_firn"));
    let arguments = [
        "image",
        "push",
        "--to",
        to,
        "--no-paths",
        "--max-layers",
        "4",
    ];
    user.json(&[&arguments, extra, &[closure.root.as_str()]].concat())
}

#[test]
fn a_registry_without_a_list_of_referrers_has_it_under_tags() {
    let registry = Registry::start();
    let address = registry.address();
    let to = |tag: &str| format!("{address}/team/app:{tag}");
    let (first, second) = (Closure::first(), Closure::second());

    let cold = push(&to("1"), &first, &[]);
    let changed = push(&to("1"), &second, &[]);
    // What did not change keeps its layers: the application's is new, and the one with links to it.
    assert!(changed["layers_sent"].as_u64() <= Some(2), "{changed}");

    let latest = json(address, "team/app/manifests/dev.firn.history");
    assert_eq!(latest["subject"]["digest"], changed["digest"]);
    let known = document(address, "team/app", &latest);
    assert_eq!(known["revisions"], 2, "{known}");
    assert_eq!(changes(&known, "libc6").0, 0, "{known}");
    let tag = |report: &Value| report["digest"].as_str().unwrap().replace(':', "-");
    for (report, revisions) in [(&cold, 1), (&changed, 2)] {
        let list = json(address, &format!("team/app/manifests/{}", tag(report)));
        let entries = list["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 1, "{list}");
        assert_eq!(entries[0]["artifactType"], TYPE);
        let digest = entries[0]["digest"].as_str().unwrap();
        let manifest = json(address, &format!("team/app/manifests/{digest}"));
        assert_eq!(
            document(address, "team/app", &manifest)["revisions"],
            revisions
        );
    }

    // The same again is no revision, under a new tag neither; and it is the same image.
    for tag in ["1", "2"] {
        let again = push(&to(tag), &second, &[]);
        assert_eq!(again["digest"], changed["digest"], "{again}");
        assert_eq!(json(address, "team/app/manifests/dev.firn.history"), latest);
    }
}

#[test]
fn what_is_no_history_is_passed_over_with_a_note() {
    let registry = Registry::start();
    let address = registry.address();
    let closure = Closure::first();
    let to = format!("{address}/team/app:1");
    push(&to, &closure, &["--no-history"]);
    let history = format!("docker://{address}/team/app:dev.firn.history");
    let image = format!("docker://{to}");
    skopeo::copy(Release::Bookworm, &[], &image, &history).ok();

    let user = User::alone(env!("CARGO_BIN_EXE_firn"));
    let said = user.firn(&["image", "push", "--to", &to, "--no-paths", &closure.root]);
    assert!(
        said.stderr.contains("the image's history is not used"),
        "{said}"
    );
    said.ok();
    // It has been replaced.
    let latest = json(address, "team/app/manifests/dev.firn.history");
    assert_eq!(document(address, "team/app", &latest)["revisions"], 1);
}

#[test]
fn firns_own_registry_lists_it_as_a_referrer() {
    let server: Server = crate::server();
    let admin = User::admin(&server);
    let (first, second) = (Closure::first(), Closure::second());
    let push = |closure: &Closure| admin.json(&["image", "push", "--name", "app:1", &closure.root]);
    push(&first);
    let changed = push(&second);
    let digest = changed["digest"].as_str().unwrap();
    let list = json(server.address(), &format!("main/app/referrers/{digest}"));
    let entries = list["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{list}");
    assert_eq!(entries[0]["artifactType"], TYPE, "{list}");
    assert_eq!(entries[0]["annotations"]["dev.firn.history.revisions"], "2");
    assert_eq!(push(&second)["digest"], changed["digest"]);
}

#[test]
fn without_a_registry_it_is_kept_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.json");
    let history = file.to_str().unwrap();
    let output = folder.path().join("image");
    let user = User::alone(env!("CARGO_BIN_EXE_firn"));
    for (revision, closure) in [
        (1, Closure::first()),
        (2, Closure::second()),
        (2, Closure::second()),
    ] {
        let built = [
            "image",
            "build",
            "--output",
            output.to_str().unwrap(),
            "--history",
            history,
        ];
        user.json(
            &[
                built.as_slice(),
                &["--format", "oci-archive", &closure.root],
            ]
            .concat(),
        );
        let known: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(known["revisions"], revision, "{known}");
    }
    let plan = user.json(&[
        "image",
        "plan",
        "--history",
        history,
        &Closure::second().root,
    ]);
    assert!(plan["layers_total"].as_u64() > Some(1), "{plan}");
    std::fs::write(&file, r#"{"version":9}"#).unwrap();
    let refused = user.firn(&[
        "image",
        "plan",
        "--history",
        history,
        &Closure::second().root,
    ]);
    assert!(refused.refused().contains("it is of version 9"));
}
