//! The tar of a layer.
//!
//! Parents first, names sorted bytewise within each directory, mtime 1, owner 0:0 unless a
//! rule says otherwise. Store files have the store's modes: 0444, 0555 if executable,
//! directories 0555, symlinks 0777. `nix` and `nix/store` are in every layer with store
//! paths, 0755. Hard links are copies.

use super::rootfs::{RootEntries, RootEntry, RootNode};
use crate::{
    archive::{
        Archive, ArchiveError, Builder,
        tree::{self, Node, Step},
    },
    spec::{Attributes, Rules},
};
use firn_formats::layer::{
    DIRECTORY_MODE, EXECUTABLE_MODE, FILE_MODE, MTIME, PARENT_MODE, STORE_PARENTS, SYMLINK_MODE,
};
use firn_formats::tar::{self, Entry, EntryKind};
use std::path::Path;

/// A layer of store paths (base names) and root files.
pub(super) fn tar(
    store_dir: &Path,
    mut paths: Vec<String>,
    root: &RootEntries,
    rules: &Rules,
) -> Result<Archive, ArchiveError> {
    paths.sort_unstable();
    let mut builder = Builder::default();
    let before = |path: &[u8]| path.split(|&byte| byte == b'/').next() < Some(b"nix");
    for (path, entry) in root.iter().filter(|(path, _)| before(path)) {
        put_root_entry(&mut builder, path, entry)?;
    }
    let mut store = StoreFiles {
        builder: &mut builder,
        rules,
    };
    if !paths.is_empty() {
        for directory in STORE_PARENTS {
            store.put(directory, EntryKind::Directory, PARENT_MODE)?;
        }
    }
    for path in &paths {
        store.put_path(store_dir, path)?;
    }
    let is_put = |path: &[u8]| !paths.is_empty() && STORE_PARENTS.contains(&path);
    for (path, entry) in root.iter().filter(|(path, _)| !before(path)) {
        if !is_put(path) {
            put_root_entry(&mut builder, path, entry)?;
        }
    }
    builder.literals().extend([0; tar::TRAILER_BYTES]);
    Ok(builder.finish())
}

fn put_root_entry(
    builder: &mut Builder,
    path: &[u8],
    entry: &RootEntry,
) -> Result<(), ArchiveError> {
    let attributes = entry.attributes;
    match &entry.node {
        RootNode::Directory => put(builder, path, EntryKind::Directory, attributes),
        RootNode::Symlink(target) => {
            let target = target.clone();
            put(builder, path, EntryKind::Symlink { target }, attributes)
        }
        RootNode::File(content) => {
            let size = content.len() as u64;
            put(builder, path, EntryKind::Regular { size }, attributes)?;
            builder.literals().extend_from_slice(content);
            pad(builder, size);
            Ok(())
        }
        RootNode::Local { file, size } => {
            put(
                builder,
                path,
                EntryKind::Regular { size: *size },
                attributes,
            )?;
            builder.file(file.clone(), *size);
            pad(builder, *size);
            Ok(())
        }
    }
}

/// Store paths on their way into a layer.
struct StoreFiles<'a> {
    builder: &'a mut Builder,
    rules: &'a Rules,
}

impl StoreFiles<'_> {
    fn put_path(&mut self, store_dir: &Path, base_name: &str) -> Result<(), ArchiveError> {
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
            self.put_node(&path, local, node)?;
            match node {
                Node::Directory => parents.push(parent),
                _ => path.truncate(parent),
            }
            Ok(())
        })
    }

    fn put_node(&mut self, path: &[u8], local: &Path, node: &Node) -> Result<(), ArchiveError> {
        match node {
            Node::Directory => self.put(path, EntryKind::Directory, DIRECTORY_MODE),
            Node::Symlink { target } => {
                let target = target.clone();
                self.put(path, EntryKind::Symlink { target }, SYMLINK_MODE)
            }
            Node::Regular { size, executable } => {
                let mode = if *executable {
                    EXECUTABLE_MODE
                } else {
                    FILE_MODE
                };
                self.put(path, EntryKind::Regular { size: *size }, mode)?;
                self.builder.file(local.to_owned(), *size);
                pad(self.builder, *size);
                Ok(())
            }
        }
    }

    fn put(&mut self, path: &[u8], kind: EntryKind, mode: u32) -> Result<(), ArchiveError> {
        let (uid, gid) = self.rules.owner();
        let mut attributes = Attributes { mode, uid, gid };
        if !self.rules.is_empty() {
            let absolute = [b"/", path].concat();
            self.rules.apply(&absolute, None, &mut attributes);
        }
        put(self.builder, path, kind, attributes)
    }
}

fn put(
    builder: &mut Builder,
    path: &[u8],
    kind: EntryKind,
    attributes: Attributes,
) -> Result<(), ArchiveError> {
    let entry = Entry {
        path: path.to_vec(),
        kind,
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: MTIME,
    };
    Ok(tar::header(&entry, builder.literals())?)
}

fn pad(builder: &mut Builder, size: u64) {
    let zeros = std::iter::repeat_n(0, tar::padding(size));
    builder.literals().extend(zeros);
}
