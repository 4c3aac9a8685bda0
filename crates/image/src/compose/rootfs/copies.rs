//! Store paths whose contents lie at the root themselves. Where several have a file of one name the first wins;
//! modes are those of a usual root file system, not the store's, which has no right to write.

use super::{
    RootConflict,
    entries::{RootEntries, RootEntry, RootNode},
    must_be_here,
};
use crate::{
    archive::{
        ArchiveError,
        tree::{self, Node, Step},
    },
    spec::CopiedPath,
};
use firn_formats::nix::StorePath;
use std::{os::unix::ffi::OsStrExt, path::Path};

pub(super) fn copy(
    store_dir: &Path,
    paths: &[CopiedPath],
    entries: &mut RootEntries,
) -> Result<Vec<RootConflict>, ArchiveError> {
    let mut conflicts = Vec::new();
    for copied in paths {
        must_be_here(store_dir, &copied.path)?;
        copy_one(store_dir, &copied.path, entries, &mut conflicts)?;
    }
    Ok(conflicts)
}

fn copy_one(
    store_dir: &Path,
    owner: &StorePath,
    entries: &mut RootEntries,
    conflicts: &mut Vec<RootConflict>,
) -> Result<(), ArchiveError> {
    let mut inside: Vec<u8> = Vec::new();
    let mut parents = Vec::new();
    tree::walk(&store_dir.join(owner.to_string()), &mut |step| {
        let (depth, name, local, node) = match step {
            Step::Node {
                depth,
                name,
                local,
                node,
            } => (depth, name, local, node),
            Step::DirectoryEnd { .. } => {
                inside.truncate(parents.pop().unwrap_or_default());
                return Ok(());
            }
        };
        if depth == 0 {
            parents.push(0);
            return match node {
                Node::Directory => Ok(()),
                _ => Err(ArchiveError::Unsupported(local.to_owned())),
            };
        }
        let parent = inside.len();
        if parent > 0 {
            inside.push(b'/');
        }
        inside.extend_from_slice(name);
        let kept = put(owner, &inside, local, node, entries);
        if let Some(kept) = kept {
            conflicts.push(RootConflict {
                path: Path::new("/").join(std::ffi::OsStr::from_bytes(&inside)),
                kept,
                dropped: owner.clone(),
            });
        }
        match node {
            Node::Directory => parents.push(parent),
            _ => inside.truncate(parent),
        }
        Ok(())
    })
}

/// Puts one entry; gives whose other entry is in its place.
fn put(
    owner: &StorePath,
    inside: &[u8],
    local: &Path,
    node: &Node,
    entries: &mut RootEntries,
) -> Option<StorePath> {
    let is_directory = *node == Node::Directory;
    let place = match entries.base_directory(inside) {
        Some(place) if is_directory => place,
        _ => entries.place(inside),
    };
    if let Some(found) = entries.get(&place) {
        let merged = is_directory && found.node == RootNode::Directory;
        return found.owner.clone().filter(|_| !merged);
    }
    if is_directory && entries.base_directory(&place).is_some() {
        entries.make_directory(&place);
        return None;
    }
    let (node, mode) = match node {
        Node::Directory => (RootNode::Directory, 0o755),
        Node::Symlink { target } => (RootNode::Symlink(target.clone()), 0o777),
        Node::Regular { size, executable } => {
            let local = RootNode::Local {
                file: local.to_owned(),
                size: *size,
            };
            (local, if *executable { 0o755 } else { 0o644 })
        }
    };
    let entry = RootEntry::new(node, mode).of(owner, inside);
    entries.insert(&place, entry);
    None
}
