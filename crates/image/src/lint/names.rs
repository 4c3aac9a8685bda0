//! What a store path's name says of it.

use super::{Check, Found};
use crate::{closure::Closure, plan::name_key};
use std::collections::BTreeMap;

/// Outputs that are for building against a package or for looking into it.
const DEV_OUTPUTS: [&str; 4] = ["-dev", "-debug", "-dbg", "-devman"];
const DOC_OUTPUTS: [&str; 4] = ["-doc", "-man", "-info", "-devdoc"];

/// Names without version of what builds things.
const BUILD_TOOLS: [&str; 45] = [
    "apache-maven",
    "autoconf",
    "automake",
    "bazel",
    "binutils",
    "binutils-wrapper",
    "bison",
    "build-essential",
    "cargo",
    "clang",
    "clang-wrapper",
    "cmake",
    "cpp",
    "flex",
    "g++",
    "gcc",
    "gcc-wrapper",
    "gfortran",
    "gfortran-wrapper",
    "ghc",
    "gnumake",
    "go",
    "gradle",
    "intltool",
    "libtool",
    "linux-headers",
    "m4",
    "make",
    "maven",
    "meson",
    "ninja",
    "patchelf",
    "pkg-config",
    "pkg-config-wrapper",
    "pkgconf",
    "python-pip",
    "python-setuptools",
    "python-wheel",
    "rustc",
    "rustc-wrapper",
    "scons",
    "stdenv-linux",
    "swig",
    "vala",
    "yasm",
];

/// Ends of names of archives that are unpacked to build.
const SOURCES: [&str; 7] = [
    ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst", ".tgz", ".zip", ".patch",
];

pub(super) fn dev_outputs(closure: &Closure) -> Vec<Found> {
    let found = closure.paths.iter().enumerate().filter_map(|(path, info)| {
        let key = name_key(info.path.name());
        let ends = |list: &[&str]| {
            list.iter()
                .find(|end| key.ends_with(**end))
                .map(|end| end.trim_start_matches('-').to_owned())
        };
        if let Some(output) = ends(&DEV_OUTPUTS) {
            return Some((
                path,
                Check::DevOutput,
                format!("the {output} output, which is for building and not for running"),
            ));
        }
        ends(&DOC_OUTPUTS).map(|output| (path, Check::Docs, format!("the {output} output")))
    });
    found.collect()
}

/// What builds things and is not one of the contents: who wants a compiler in an image says so.
pub(super) fn build_time(closure: &Closure, contents: &[usize]) -> Vec<Found> {
    let paths = closure.paths.iter().enumerate();
    paths
        .filter(|(path, _)| !contents.contains(path))
        .filter_map(|(path, info)| {
            let name = info.path.name();
            let key = name_key(name);
            let what = if info.path.is_derivation() {
                "a derivation: instructions to build"
            } else if SOURCES.iter().any(|end| name.ends_with(end))
                || matches!(key.as_str(), "source" | "src")
            {
                "sources"
            } else if key.ends_with("-hook") || is_build_tool(name, &key) {
                "builds things, and is referred to by what runs"
            } else {
                return None;
            };
            Some((path, Check::BuildTime, what.to_owned()))
        })
        .collect()
}

/// After a tool's name nothing stands but its version: `gcc-13.2.0`, and neither `gcc-13.2.0-lib` nor `gcc-12-base-12.2.0`.
fn is_build_tool(name: &str, key: &str) -> bool {
    let version = name.strip_prefix(key).unwrap_or_default();
    let mut parts = version.split('-').skip(1);
    BUILD_TOOLS.contains(&key) && parts.all(|part| part.starts_with(|c: char| c.is_ascii_digit()))
}

/// All but the newest of each package of which there are several; of equals all but the first.
pub(super) fn two_versions(closure: &Closure) -> Vec<Found> {
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (path, info) in closure.paths.iter().enumerate() {
        if version(info.path.name()).is_some() {
            by_key
                .entry(name_key(info.path.name()))
                .or_default()
                .push(path);
        }
    }
    let mut found = Vec::new();
    for mut paths in by_key.into_values().filter(|paths| paths.len() > 1) {
        let name = |path: usize| closure.paths[path].path.name();
        paths.sort_by(|&a, &b| {
            let by_version = numbers(name(b)).cmp(&numbers(name(a)));
            by_version.then_with(|| closure.paths[a].path.cmp(&closure.paths[b].path))
        });
        let newest = paths[0];
        for &path in &paths[1..] {
            let detail = match name(path) == name(newest) {
                true => format!("{} is there in two builds", name(path)),
                false => format!("{} is there too", name(newest)),
            };
            found.push((path, Check::TwoVersions, detail));
        }
    }
    found
}

/// The first part of a name's version: digits, then a dot or nothing more.
fn version(name: &str) -> Option<&str> {
    let parts = name.split('-').skip(1);
    let mut begun = parts.skip_while(|part| !part.starts_with(|c: char| c.is_ascii_digit()));
    let first = begun.next()?;
    let rest = first.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.is_empty() || rest.starts_with('.')).then_some(first)
}

/// The numbers in a name, in their order.
fn numbers(name: &str) -> Vec<u64> {
    let parts = name.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_with_dots() {
        for (name, wanted) in [
            ("openssl-3.0.13", Some("3.0.13")),
            ("python3-3.11.6-env", Some("3.11.6")),
            ("systemd-255", Some("255")),
            ("font-75dpi", None),
            ("app", None),
        ] {
            assert_eq!(version(name), wanted, "{name}");
        }
        assert!(numbers("openssl-3.0.13") > numbers("openssl-3.0.9"));
    }

    #[test]
    fn compilers_are_told_from_their_libraries() {
        for (name, wanted) in [
            ("gcc-13.2.0", true),
            ("gcc-wrapper-13.2.0", true),
            ("g++-12-12.2.0-14", true),
            ("gcc-13.2.0-lib", false),
            ("gcc-12-base-12.2.0-14+deb12u1", false),
            ("cmake-init", false),
        ] {
            assert_eq!(is_build_tool(name, &name_key(name)), wanted, "{name}");
        }
    }

    #[test]
    fn the_list_of_tools_is_sorted() {
        assert!(BUILD_TOOLS.is_sorted());
    }
}
