//! Bills of materials: beside images in registries, and as those who wrote the forms read them.

use firn_testkit::rigs::{
    Release,
    closure::Closure,
    nix::Nix,
    oci_tools::OciTools,
    program::{Outcome, run},
    registry::Registry,
    sbom,
    serve::User,
};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Says whether a file holds a document of its form.
type Judge = fn(&Path) -> Outcome;

/// The forms as they are asked for, with their media types and who judges them.
const FORMS: [(&str, &str, Judge); 2] = [
    ("spdx", "application/spdx+json", sbom::spdx),
    (
        "cyclonedx",
        "application/vnd.cyclonedx+json",
        sbom::cyclonedx,
    ),
];

fn alone() -> User {
    User::alone(env!("CARGO_BIN_EXE_firn"))
}

/// What a judge says of a document.
fn judged(judge: Judge, document: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    // SPDX's judge goes by the end of the name.
    let file = folder.path().join("bill.spdx.json");
    fs::write(&file, document).unwrap();
    judge(&file)
}

fn bill(form: &str, arguments: &[&str]) -> String {
    let fixed = ["image", "sbom", "--format", form];
    alone().firn(&[&fixed, arguments].concat()).ok()
}

#[test]
fn a_bill_of_materials_goes_beside_the_image() {
    let server = crate::server();
    let registry = Registry::start();
    let closure = Closure::first();
    let admin = User::admin(&server);
    let to = format!("{}/team/app:1", registry.address());
    let tools = OciTools::logged_in(&server);
    let here = format!("{}/main/app:1", server.address());
    for (form, kind, judge) in FORMS {
        let fixed = ["image", "push", "--sbom", form, &closure.root];
        admin.json(&[&fixed[..], &["--to", &to]].concat());
        admin.json(&[&fixed[..], &["--name", "app:1"]].concat());
        for image in [&to, &here] {
            let found = beside(&tools, image, kind);
            judged(judge, &found).ok();
            for path in &closure.paths {
                assert!(found.contains(path.as_str()), "{path} is not in {found}");
            }
        }
    }
}

/// The one document of a kind that refers to an image.
fn beside(tools: &OciTools, image: &str, kind: &str) -> String {
    let fixed = ["discover", "--plain-http", "--format", "json"];
    let asked = [&fixed[..], &["--artifact-type", kind, image]].concat();
    let found: Value = serde_json::from_str(&tools.oras(&asked).ok()).unwrap();
    let referrers = found["referrers"].as_array().unwrap();
    assert_eq!(referrers.len(), 1, "{found}");
    let repository = image.strip_suffix(":1").unwrap();
    let at = |digest: &Value| format!("{repository}@{}", digest.as_str().unwrap());
    let manifest = tools
        .crane(&["manifest", &at(&referrers[0]["digest"])])
        .ok();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    tools
        .crane(&["blob", &at(&manifest["layers"][0]["digest"])])
        .ok()
}

#[test]
fn the_same_closure_gives_the_same_bill() {
    let closure = Closure::first();
    for (form, ..) in FORMS {
        let text = || bill(form, &["--name", "app:1", &closure.root]);
        assert_eq!(text(), text());
    }
}

/// Of all that can be an image, with names and times of which the forms say more than Nix and RFC 3339 do.
#[test]
fn those_who_wrote_the_forms_read_them() {
    let closure = Closure::first();
    let nix = Nix::new(Release::Bookworm);
    let odd = odd_paths(&nix);
    let spec = |name: &str, fields: Value| {
        let file = nix.path(name);
        fs::write(&file, fields.to_string()).unwrap();
        file.display().to_string()
    };
    let empty = spec("empty.json", json!({ "version": 1, "name": "none" }));
    let copied = spec(
        "copied.json",
        json!({
            "version": 1, "name": "ghcr.io/acme/app", "created": "now",
            "contents": [closure.root], "copyToRoot": [closure.path_of("libc6")],
        }),
    );
    let odd: Vec<&str> = odd.iter().map(String::as_str).collect();
    let zone = ["--created", "2026-01-31T13:00:00.5+01:00"];
    let leap = ["--created", "2016-12-31T23:59:60Z"];
    for arguments in [
        vec![closure.root.as_str()],
        vec!["--spec", &empty],
        vec!["--spec", &copied],
        [&zone[..], &odd].concat(),
        [&leap[..], &odd].concat(),
    ] {
        for (form, _, judge) in FORMS {
            judged(judge, &bill(form, &arguments)).ok();
        }
    }
    let spdx: Value = serde_json::from_str(&bill("spdx", &[&zone[..], &odd].concat())).unwrap();
    assert_eq!(spdx["creationInfo"]["created"], "2026-01-31T12:00:00Z");
    let read = judged(sbom::cyclonedx, &bill("cyclonedx", &odd)).ok();
    let mut read: Vec<&str> = read.lines().collect();
    read.sort_unstable();
    assert_eq!(
        read,
        [
            "-1.0 None pkg:nix/-1.0",
            "a -1 pkg:nix/a@-1",
            "a=b_c?x 1.0_2+3 pkg:nix/a%3Db_c%3Fx@1.0_2%2B3",
        ]
    );
}

/// Store paths whose names are at the edge of what Nix allows.
fn odd_paths(nix: &Nix) -> Vec<String> {
    let added = |name: &str| {
        let file = nix.path(name);
        fs::write(&file, name).unwrap();
        run(nix.command("nix-store").arg("--add").arg(file)).ok()
    };
    ["-1.0", "a--1", "a=b_c?x-1.0_2+3"].map(added).into()
}

/// Else the judges could be deaf.
#[test]
fn a_broken_bill_is_refused() {
    let closure = Closure::first();
    let whole = FORMS.map(|(form, _, judge)| {
        let text = bill(form, &[&closure.root]);
        judged(judge, &text).ok();
        serde_json::from_str::<Value>(&text).unwrap()
    });
    let broken = |at: usize, pointer: &str, value: Value| {
        let mut document = whole[at].clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[key] = value;
        let (.., judge) = FORMS[at];
        judged(judge, &document.to_string()).refused()
    };
    for (at, pointer, value, said) in [
        (0, "/documentNamespace", json!("firn"), "document_namespace"),
        (
            0,
            "/creationInfo/created",
            json!("2026-01-31T12:00:00+01:00"),
            "does not match format",
        ),
        (
            0,
            "/packages/1/SPDXID",
            json!("SPDXRef-a+b"),
            "must only contain letters",
        ),
        (
            0,
            "/packages/1/downloadLocation",
            json!("here"),
            "download_location",
        ),
        (
            0,
            "/relationships/0/relatedSpdxElement",
            json!("SPDXRef-nobody"),
            "SPDXRef-nobody",
        ),
        (1, "/unknown", json!(1), "'unknown' was unexpected"),
        (
            1,
            "/metadata/timestamp",
            json!("today"),
            "is not a 'date-time'",
        ),
        (1, "/serialNumber", json!("urn:uuid:1"), "does not match"),
        (1, "/dependencies/0/dependsOn", json!(["nobody"]), "nobody"),
        (
            1,
            "/components/0/purl",
            json!("pkg:nix/@1.0"),
            "missing the required name",
        ),
    ] {
        let refused = broken(at, pointer, value);
        assert!(refused.contains(said), "{pointer}: {refused}");
    }
}
