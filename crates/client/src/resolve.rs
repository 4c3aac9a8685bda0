//! What a PATH argument means: a store path, something below one, a link to one, or a flake's output.

use crate::{
    command::run_showing_progress,
    error::{ClientError, Result},
};
use firn_formats::nix::{StorePath, store_path::STORE_DIR};
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    process::Command,
};

/// Links followed before it is called a loop.
const LINKS_MAX: usize = 40;

/// Resolves all arguments, each once, in the order given. Flake installables are built by one `nix build`.
pub fn resolve_all(arguments: &[String]) -> Result<Vec<StorePath>> {
    let mut found: Vec<StorePath> = Vec::new();
    for argument in arguments {
        let paths = match resolve_local(argument)? {
            Some(path) => vec![path],
            None => build(argument)?,
        };
        for path in paths {
            if !found.contains(&path) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The store path of an argument that must not be built, such as one that is only cached elsewhere.
pub fn store_path(argument: &str) -> Result<StorePath> {
    resolve_local(argument)?.ok_or_else(|| ClientError::Unresolvable {
        argument: argument.to_owned(),
    })
}

/// The store path that a text or a file name leads to, if it leads to one.
fn resolve_local(argument: &str) -> Result<Option<StorePath>> {
    if let Some(path) = below_store(Path::new(argument)) {
        return Ok(Some(path));
    }
    if let Ok(path) = StorePath::parse_base_name(argument) {
        return Ok(Some(path));
    }
    let file = Path::new(argument);
    if !looks_like_file(argument) && !file.is_symlink() {
        return Ok(None);
    }
    match follow(file)? {
        Some(path) => Ok(Some(path)),
        // `.` and `./dir` with a flake in it are installables.
        None if file.join("flake.nix").exists() => Ok(None),
        None => Err(ClientError::Unresolvable {
            argument: argument.to_owned(),
        }),
    }
}

fn looks_like_file(argument: &str) -> bool {
    !argument.contains('#') && (argument.starts_with('/') || argument.starts_with('.'))
}

/// Follows links one at a time: the first target in the store counts, since what lies in the store
/// may itself be a link.
fn follow(file: &Path) -> Result<Option<StorePath>> {
    let mut current = absolute(file)?;
    for _ in 0..LINKS_MAX {
        if let Some(path) = below_store(&current) {
            return Ok(Some(path));
        }
        match std::fs::read_link(&current) {
            Ok(target) => {
                let parent = current.parent().unwrap_or(Path::new("/")).to_path_buf();
                current = normalise(&parent.join(target));
            }
            // A directory on the way may be the link: /run/current-system/sw/bin/x.
            Err(_) => {
                let resolved = std::fs::canonicalize(&current).ok();
                return Ok(resolved.and_then(|resolved| below_store(&resolved)));
            }
        }
    }
    Ok(None)
}

fn absolute(file: &Path) -> Result<PathBuf> {
    std::path::absolute(file)
        .map(|path| normalise(&path))
        .map_err(|source| ClientError::io(file, source))
}

/// Takes `.` and `..` out of a path by its text.
fn normalise(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// The store path that a path is or lies below, by its text.
fn below_store(path: &Path) -> Option<StorePath> {
    let mut rest = path.strip_prefix(STORE_DIR).ok()?.components();
    match rest.next()? {
        Component::Normal(name) => StorePath::parse_base_name(name.to_str()?).ok(),
        _ => None,
    }
}

/// What `nix build --json` says of an installable.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Built {
    Derivation { outputs: BTreeMap<String, String> },
    Source { path: String },
    Path(String),
}

impl Built {
    fn paths(&self) -> Vec<&str> {
        match self {
            Self::Derivation { outputs } => outputs.values().map(String::as_str).collect(),
            Self::Source { path } | Self::Path(path) => vec![path],
        }
    }
}

/// Builds a flake installable and gives its outputs.
fn build(installable: &str) -> Result<Vec<StorePath>> {
    let unresolvable = || ClientError::Unresolvable {
        argument: installable.to_owned(),
    };
    let plausible = !installable.is_empty() && !installable.starts_with('-');
    if !plausible || !crate::command::is_in_path("nix") {
        return Err(unresolvable());
    }
    let output = run_showing_progress(
        Command::new("nix")
            .args(["--extra-experimental-features", "nix-command flakes"])
            .args(["build", "--no-link", "--json", "--", installable]),
    )?;
    // Not --print-out-paths, which Nix 2.8 does not know.
    let built: Vec<Built> = serde_json::from_slice(&output)
        .map_err(|source| ClientError::json("answer of `nix build --json`", source))?;
    let paths: Vec<StorePath> = built
        .iter()
        .flat_map(Built::paths)
        .filter_map(|path| StorePath::parse(path).ok())
        .collect();
    if paths.is_empty() {
        return Err(unresolvable());
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const NAME: &str = "00c89v0sz1j42g5sg6mffiwplzccay6p-hello-1.0";

    fn resolve(argument: &str) -> Result<Option<String>> {
        Ok(resolve_local(argument)?.map(|path| path.to_string()))
    }

    #[test]
    fn store_paths_and_what_lies_below() {
        for text in [
            format!("/nix/store/{NAME}"),
            format!("/nix/store/{NAME}/"),
            format!("/nix/store/{NAME}/bin/hello"),
            NAME.to_owned(),
        ] {
            assert_eq!(resolve(&text).expect(&text).as_deref(), Some(NAME));
        }
        assert!(resolve("/nix/store/.links/x").is_err());
        assert!(resolve("/nonexistent/thing").is_err());
    }

    #[test]
    fn chains_of_links_are_followed_into_the_store_and_no_further() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = format!("/nix/store/{NAME}");
        symlink(&target, dir.path().join("result")).expect("link");
        symlink("result", dir.path().join("second")).expect("link");
        symlink("../x/../loop", dir.path().join("loop")).expect("link");
        symlink(format!("{target}/bin/x"), dir.path().join("program")).expect("link");
        for name in ["result", "second", "program"] {
            let text = dir.path().join(name).display().to_string();
            assert_eq!(resolve(&text).expect(name).as_deref(), Some(NAME));
        }
        assert!(resolve(&dir.path().join("loop").display().to_string()).is_err());
    }

    #[test]
    fn n10_all_that_nix_says_of_what_it_built_is_read() {
        let json = r#"[{"drvPath":"/nix/store/x.drv","outputs":{"out":"/o","bin":"/b"},"startTime":1},
            {"path":"/p"}, "/q"]"#;
        let built: Vec<Built> = serde_json::from_str(json).expect("json");
        let paths: Vec<&str> = built.iter().flat_map(Built::paths).collect();
        assert_eq!(paths, ["/b", "/o", "/p", "/q"]);
    }

    #[test]
    fn installables_are_left_to_nix() {
        for text in ["nixpkgs#hello", ".#hello", "github:a/b", "./dir#x"] {
            assert_eq!(resolve(text).expect(text), None);
        }
    }
}
