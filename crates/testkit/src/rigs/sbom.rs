//! The validators of those who wrote the forms of a bill of materials, in the folder that `make setup` makes.

use super::program::{self, Outcome, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// SPDX's own command line: what it parses has to hold by the specification too.
pub fn spdx(document: &Path) -> Outcome {
    run(python()
        .arg(folder().join("bin/pyspdxtools"))
        .arg("--infile")
        .arg(document))
}

/// CycloneDX's library: its strict schema, that refuses what it does not know, and its model. Prints one line for
/// each component, with its name, version and package URL, as the library has understood them.
pub fn cyclonedx(document: &Path) -> Outcome {
    run(python()
        .arg(program::workspace().join("crates/testkit/src/rigs/judge_cyclonedx.py"))
        .arg(document))
}

fn folder() -> PathBuf {
    program::cache_dir().join("python")
}

/// The interpreter by its path here: the folder may have been made under another name.
fn python() -> Command {
    let folder = folder();
    assert!(
        folder.join(".complete").is_file(),
        "the validators of bills of materials are not installed: run `make setup`"
    );
    program::limited(&folder.join("bin/python"))
}
