//! Layer keys: what a layer is, said without reading it.
//!
//! A key is the SHA-256, in hexadecimal, of a text. Its first lines say the version of the
//! layer format and all options that change the tar's bytes; compression is not among them,
//! since a key names a tar, whatever its representations:
//!
//! ```text
//! firn layer 1
//! owner 0:0
//! mtime 1
//! modes 0444 0555
//! /nix/store/<hash>-<name> sha256:<base32>      for each path, sorted bytewise
//! ```
//!
//! For root files it is `firn root layer 1` and a newline, then the layer's tar; for a
//! layer of both, `firn mixed layer 1`, the key of the paths and a newline each, then the tar
//! of the root files alone.

use super::layer::{DIRECTORY_MODE, FILE_MODE, MTIME};
use crate::closure::Closure;
use firn_formats::{Sha256, sha256::Sha256Hasher};

pub(super) fn of_paths(closure: &Closure, paths: &[usize]) -> String {
    let mut lines: Vec<String> = paths
        .iter()
        .map(|&i| {
            let info = &closure.paths[i];
            format!("{} {}\n", info.path.absolute(), info.nar_hash.nix())
        })
        .collect();
    lines.sort_unstable();
    let text = format!(
        "firn layer 1\nowner 0:0\nmtime {MTIME}\nmodes {FILE_MODE:04o} {DIRECTORY_MODE:04o}\n{}",
        lines.concat()
    );
    Sha256::of(text.as_bytes()).hex()
}

pub(super) fn of_root_files(tar: &[u8]) -> String {
    hash(&[b"firn root layer 1\n", tar])
}

pub(super) fn of_both(paths_key: &str, tar: &[u8]) -> String {
    hash(&[b"firn mixed layer 1\n", paths_key.as_bytes(), b"\n", tar])
}

fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finish().hex()
}
