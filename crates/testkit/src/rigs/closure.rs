//! Small real closures to push, pull and run.

use super::program::{self, run};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An application of two megabytes on top of the package `hello` and what that needs: five store
/// paths, 15 MB, with a dynamically linked program that runs straight from the store.
#[derive(Debug, Clone)]
pub struct Closure {
    /// The root's store path.
    pub root: String,
    /// Every path, references first, the root last.
    pub paths: Vec<String>,
}

impl Closure {
    /// The closure of the application's first version.
    pub fn first() -> Self {
        Self::make("0.1.0")
    }

    /// The next version: only the root differs, and only half of its bytes.
    pub fn second() -> Self {
        Self::make("0.2.0")
    }

    fn make(version: &str) -> Self {
        program::need_root();
        let link = program::cache_dir().join(format!("closures/hello-{version}"));
        let tool = program::workspace().join("tools/mkclosure");
        if !is_newer(&link, &tool) {
            std::fs::create_dir_all(link.with_file_name("")).expect("cannot make .cache/closures");
            program::find("nix-build");
            program::find("patchelf");
            run(program::command("python3")
                .arg(&tool)
                .args(["--app", "2000000", "--app-version", version])
                .arg(&link)
                .arg("hello"))
            .ok();
        }
        let root = run(program::command("readlink").arg("-f").arg(&link)).ok();
        let paths = run(program::command("nix-store").arg("-qR").arg(&root)).ok();
        Self {
            paths: paths.lines().map(str::to_owned).collect(),
            root,
        }
    }

    /// The program that prints `Hello, world!`.
    pub fn hello(&self) -> String {
        format!("{}/usr/bin/hello", self.path_of("hello-2"))
    }

    /// The path whose name begins with `name`.
    pub fn path_of(&self, name: &str) -> String {
        self.paths
            .iter()
            .find(|path| {
                base_name(path)
                    .get(33..)
                    .is_some_and(|n| n.starts_with(name))
            })
            .unwrap_or_else(|| panic!("the closure has no {name}: {:?}", self.paths))
            .clone()
    }
}

/// `<hash>-<name>` of a store path.
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The 32 characters that name a store path's narinfo.
pub fn hash_part(path: &str) -> &str {
    base_name(path).get(..32).unwrap_or_default()
}

/// Whether the link's target is there and the link is younger than the tool that makes it.
fn is_newer(link: &Path, tool: &PathBuf) -> bool {
    let made = std::fs::symlink_metadata(link).map(|link| link.mtime());
    let tool = std::fs::metadata(tool).map(|tool| tool.mtime());
    link.exists() && matches!((made, tool), (Ok(made), Ok(tool)) if made >= tool)
}
