//! Keys of planned layers; [`firn_formats::layer`] says what they are.

use super::rootfs::RootEntries;
use crate::{
    archive::ArchiveError,
    closure::Closure,
    spec::{CopiedPath, Rules},
};
use firn_formats::layer::{COPIED, PathsKey, mixed_key, path_line, root_key};

pub(super) fn of_paths(closure: &Closure, paths: &[usize], rules: &Rules) -> String {
    let mut paths: Vec<_> = paths.iter().map(|&i| &closure.paths[i]).collect();
    paths.sort_unstable_by_key(|info| info.path.to_string());
    let names: Vec<_> = paths.iter().map(|info| &info.path).collect();
    let mut key = PathsKey::new(rules.owner(), &rules.in_store(&names).lines());
    for info in paths {
        key.add(&info.path, &info.nar_hash);
    }
    key.finish()
}

pub(super) fn of_root_files(
    entries: &RootEntries,
    copied: &[CopiedPath],
) -> Result<String, ArchiveError> {
    let mut key = root_key();
    key.update(&said(entries, copied)?);
    Ok(key.finish().hex())
}

pub(super) fn of_both(
    paths_key: &str,
    entries: &RootEntries,
    copied: &[CopiedPath],
) -> Result<String, ArchiveError> {
    let mut key = mixed_key(paths_key);
    key.update(&said(entries, copied)?);
    Ok(key.finish().hex())
}

/// All that decides about the root files, without reading what is copied.
fn said(entries: &RootEntries, copied: &[CopiedPath]) -> Result<Vec<u8>, ArchiveError> {
    let archive = entries.archive()?;
    if !entries.has_copies() {
        let mut tar = Vec::new();
        archive.read_at(0, archive.length() as usize, &mut tar)?;
        return Ok(tar);
    }
    let mut said = COPIED.to_vec();
    for copied in copied {
        said.extend_from_slice(path_line(&copied.path, &copied.nar_hash).as_bytes());
    }
    said.extend_from_slice(archive.literals());
    Ok(said)
}
