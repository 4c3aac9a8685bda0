//! The direction of imports, and the purity of the lowest crates.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Each crate and the crates of this workspace that it may import.
const ALLOWED: &[(&str, &[&str])] = &[
    ("firn-formats", &[]),
    ("firn-chunks", &["firn-formats"]),
    ("firn-store", &["firn-chunks", "firn-formats"]),
    ("firn-image", &["firn-chunks", "firn-formats"]),
    (
        "firn-client",
        &["firn-store", "firn-image", "firn-chunks", "firn-formats"],
    ),
    ("firn-services", &["firn-store", "firn-formats"]),
    (
        "firn-server",
        &["firn-services", "firn-store", "firn-formats"],
    ),
    (
        "firn-cli",
        &["firn-server", "firn-client", "firn-image", "firn-formats"],
    ),
];
/// Imports beyond the layout of the design, each still downwards. The list may
/// only shrink: an entry that is no longer needed fails the test.
const BEYOND: &[(&str, &str)] = &[
    ("firn-services", "firn-chunks"),
    ("firn-cli", "firn-store"),
    ("firn-cli", "firn-services"),
];
/// Crates for tests and checks only, which may import any.
const EXEMPT: &[&str] = &["firn-testkit", "xtask"];

/// What crates without I/O, async and clock do not mention.
const IMPURE: &[&str] = &["std::fs", "std::net", "tokio", "SystemTime"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn crates_import_only_what_stands_below_them() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata failed");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut checked = 0;
    let mut beyond = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if EXEMPT.contains(&name) {
            continue;
        }
        let allowed = ALLOWED.iter().find(|(known, _)| *known == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{name} stands in no layer"));
        checked += 1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let normal = dependency["kind"].is_null() && on.starts_with("firn-");
            if normal && !allowed.contains(&on) {
                beyond.push((name, on));
            }
        }
    }
    beyond.sort_unstable();
    let mut expected = BEYOND.to_vec();
    expected.sort_unstable();
    assert_eq!(beyond, expected, "imports beyond the layout");
    assert_eq!(checked, ALLOWED.len(), "a layer has lost its crate");
}

#[test]
fn formats_and_chunks_are_pure() {
    for folder in ["crates/formats/src", "crates/chunks/src"] {
        let files = sources(&root().join(folder));
        assert!(!files.is_empty(), "{folder} has no sources");
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for word in IMPURE {
                assert!(!text.contains(word), "{} mentions {word}", file.display());
            }
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
