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
    // Pushing is about frames and lists of chunks: see ARCHITECTURE.md, "Differences".
    (
        "firn-services",
        &["firn-store", "firn-chunks", "firn-formats"],
    ),
    (
        "firn-server",
        &["firn-services", "firn-store", "firn-formats"],
    ),
    (
        "firn-cli",
        &["firn-server", "firn-client", "firn-image", "firn-formats"],
    ),
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
            assert!(
                !normal || allowed.contains(&on),
                "{name} may not import {on}"
            );
        }
    }
    assert_eq!(checked, ALLOWED.len(), "a layer has lost its crate");
}

#[test]
fn formats_and_chunks_are_pure() {
    for folder in ["crates/formats/src", "crates/chunks/src"] {
        let files = sources(&root().join(folder));
        assert!(!files.is_empty(), "{folder} has no sources");
        for file in files.iter().filter(|file| !is_test_module(file)) {
            let text = std::fs::read_to_string(file).unwrap();
            for word in IMPURE {
                assert!(
                    !without_tests(&text).contains(word),
                    "{} mentions {word}",
                    file.display()
                );
            }
        }
    }
}

/// Whether a file is a module that its parent has under `#[cfg(test)]`, by its name.
fn is_test_module(file: &Path) -> bool {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    stem == "tests" || stem.ends_with("_tests")
}

/// A source up to its test module, which stands last.
fn without_tests(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod tests {")
        .map_or(text, |(code, _)| code)
}

#[test]
fn only_tests_are_exempt_from_purity() {
    assert!(is_test_module(Path::new("src/nar/tests.rs")));
    assert!(is_test_module(Path::new("src/frame_tests.rs")));
    assert!(!is_test_module(Path::new("src/attests.rs")));
    let text = "use std::fs;\n#[cfg(test)]\nmod tests {\n    use tokio;\n}\n";
    assert_eq!(without_tests(text), "use std::fs;\n");
    assert_eq!(
        without_tests("#[cfg(test)]\nuse tokio;\n"),
        "#[cfg(test)]\nuse tokio;\n"
    );
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
