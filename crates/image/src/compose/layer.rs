//! The tar of a layer.
//!
//! Parents first, names sorted bytewise within each directory, mtime 1, owner 0:0. Store
//! files have the store's modes: 0444, 0555 if executable, directories 0555, symlinks 0777.
//! `nix` and `nix/store` are in every layer with store paths, 0755. Hard links are copies.

use super::rootfs::{RootEntries, RootEntry, RootNode};
use crate::archive::{
    Archive, ArchiveError, Builder,
    tree::{self, Node, Step},
};
use firn_formats::tar::{self, Entry, EntryKind};
use std::path::Path;

pub(super) const MTIME: u64 = 1;
pub(super) const FILE_MODE: u32 = 0o444;
pub(super) const DIRECTORY_MODE: u32 = 0o555;
const SYMLINK_MODE: u32 = 0o777;

/// A layer of store paths (base names) and root files.
pub(super) fn tar(
    store_dir: &Path,
    mut paths: Vec<String>,
    root: &RootEntries,
) -> Result<Archive, ArchiveError> {
    paths.sort_unstable();
    let mut builder = Builder::default();
    let before = |path: &[u8]| path.split(|&byte| byte == b'/').next() < Some(b"nix");
    for (path, entry) in root.iter().filter(|(path, _)| before(path)) {
        put_root_entry(&mut builder, path, entry)?;
    }
    if !paths.is_empty() {
        for directory in [&b"nix"[..], b"nix/store"] {
            put(&mut builder, directory, EntryKind::Directory, 0o755)?;
        }
    }
    for path in &paths {
        put_store_path(&mut builder, store_dir, path)?;
    }
    for (path, entry) in root.iter().filter(|(path, _)| !before(path)) {
        put_root_entry(&mut builder, path, entry)?;
    }
    builder.literals().extend([0; tar::TRAILER_BYTES]);
    Ok(builder.finish())
}

fn put_root_entry(
    builder: &mut Builder,
    path: &[u8],
    entry: &RootEntry,
) -> Result<(), ArchiveError> {
    match &entry.node {
        RootNode::Directory => put(builder, path, EntryKind::Directory, entry.mode),
        RootNode::Symlink(target) => {
            let target = target.clone();
            put(builder, path, EntryKind::Symlink { target }, SYMLINK_MODE)
        }
        RootNode::File(content) => {
            let size = content.len() as u64;
            put(builder, path, EntryKind::Regular { size }, entry.mode)?;
            builder.literals().extend_from_slice(content);
            pad(builder, size);
            Ok(())
        }
    }
}

fn put_store_path(
    builder: &mut Builder,
    store_dir: &Path,
    base_name: &str,
) -> Result<(), ArchiveError> {
    let mut path = format!("nix/store/{base_name}").into_bytes();
    let mut parents = Vec::new();
    tree::walk(&store_dir.join(base_name), &mut |step| {
        let (depth, name, local, node) = match step {
            Step::Node {
                depth,
                name,
                local,
                node,
            } => (depth, name, local, node),
            Step::DirectoryEnd { .. } => {
                path.truncate(parents.pop().unwrap_or_default());
                return Ok(());
            }
        };
        let parent = path.len();
        if depth > 0 {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        put_node(builder, &path, local, node)?;
        match node {
            Node::Directory => parents.push(parent),
            _ => path.truncate(parent),
        }
        Ok(())
    })
}

fn put_node(
    builder: &mut Builder,
    path: &[u8],
    local: &Path,
    node: &Node,
) -> Result<(), ArchiveError> {
    match node {
        Node::Directory => put(builder, path, EntryKind::Directory, DIRECTORY_MODE),
        Node::Symlink { target } => {
            let target = target.clone();
            put(builder, path, EntryKind::Symlink { target }, SYMLINK_MODE)
        }
        Node::Regular { size, executable } => {
            let mode = if *executable { 0o555 } else { FILE_MODE };
            put(builder, path, EntryKind::Regular { size: *size }, mode)?;
            builder.file(local.to_owned(), *size);
            pad(builder, *size);
            Ok(())
        }
    }
}

fn put(builder: &mut Builder, path: &[u8], kind: EntryKind, mode: u32) -> Result<(), ArchiveError> {
    let entry = Entry {
        path: path.to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: MTIME,
    };
    Ok(tar::header(&entry, builder.literals())?)
}

fn pad(builder: &mut Builder, size: u64) {
    let zeros = std::iter::repeat_n(0, tar::padding(size));
    builder.literals().extend(zeros);
}
