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
//! rule <mode> <uid> <gid> <path> <regex>        for each rule that could match in them
//! /nix/store/<hash>-<name> sha256:<base32>      for each path, sorted bytewise
//! ```
//!
//! For root files it is `firn root layer 1` and a newline, then the layer's tar; for a
//! layer of both, `firn mixed layer 1`, the key of the paths and a newline each, then the tar
//! of the root files alone. Where files are copied to the root, what is hashed instead of the tar is
//! `copied` and a newline, for each store path that is copied its line as above, and the tar without the copied
//! files' contents, which those lines stand for.

use super::{
    layer::{DIRECTORY_MODE, FILE_MODE, MTIME},
    rootfs::RootEntries,
};
use crate::{
    archive::ArchiveError,
    closure::Closure,
    spec::{CopiedPath, Rules},
};
use firn_formats::{Sha256, sha256::Sha256Hasher};

pub(super) fn of_paths(closure: &Closure, paths: &[usize], rules: &Rules) -> String {
    let mut lines: Vec<String> = paths
        .iter()
        .map(|&i| {
            let info = &closure.paths[i];
            format!("{} {}\n", info.path.absolute(), info.nar_hash.nix())
        })
        .collect();
    lines.sort_unstable();
    let (uid, gid) = rules.owner();
    let paths: Vec<_> = paths.iter().map(|&i| &closure.paths[i].path).collect();
    let text = format!(
        "firn layer 1\nowner {uid}:{gid}\nmtime {MTIME}\nmodes {FILE_MODE:04o} {DIRECTORY_MODE:04o}\n{}{}",
        rules.in_store(&paths),
        lines.concat()
    );
    Sha256::of(text.as_bytes()).hex()
}

pub(super) fn of_root_files(
    entries: &RootEntries,
    copied: &[CopiedPath],
) -> Result<String, ArchiveError> {
    Ok(hash(&[b"firn root layer 1\n", &said(entries, copied)?]))
}

pub(super) fn of_both(
    paths_key: &str,
    entries: &RootEntries,
    copied: &[CopiedPath],
) -> Result<String, ArchiveError> {
    let said = said(entries, copied)?;
    Ok(hash(&[
        b"firn mixed layer 1\n",
        paths_key.as_bytes(),
        b"\n",
        &said,
    ]))
}

/// All that decides about the root files, without reading what is copied.
fn said(entries: &RootEntries, copied: &[CopiedPath]) -> Result<Vec<u8>, ArchiveError> {
    let archive = entries.archive()?;
    if !entries.has_copies() {
        let mut tar = Vec::new();
        archive.read_at(0, archive.length() as usize, &mut tar)?;
        return Ok(tar);
    }
    let line =
        |copied: &CopiedPath| format!("{} {}\n", copied.path.absolute(), copied.nar_hash.nix());
    let mut said = b"copied\n".to_vec();
    said.extend(copied.iter().map(line).collect::<String>().into_bytes());
    said.extend_from_slice(archive.literals());
    Ok(said)
}

fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finish().hex()
}
