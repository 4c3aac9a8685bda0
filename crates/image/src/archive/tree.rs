//! Walking a file tree in archive order: depth first, names sorted bytewise, without recursion.

use super::ArchiveError;
use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What a node of the tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    Regular { size: u64, executable: bool },
    Symlink { target: Vec<u8> },
}

/// One step of a walk.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A node; a directory's children follow, then its [`Step::DirectoryEnd`].
    /// `depth` is 0 for the root, whose `name` is empty.
    Node {
        depth: usize,
        name: &'a [u8],
        local: &'a Path,
        node: &'a Node,
    },
    DirectoryEnd {
        depth: usize,
    },
}

/// Takes the steps of a walk.
pub(crate) type Visitor<'a> = dyn FnMut(Step<'_>) -> Result<(), ArchiveError> + 'a;

struct OpenDirectory {
    path: PathBuf,
    children: std::vec::IntoIter<OsString>,
}

/// Walks `root`, which may itself be a file or a symlink. Symlinks are not followed.
pub(crate) fn walk(root: &Path, visit: &mut Visitor<'_>) -> Result<(), ArchiveError> {
    let mut open = Vec::new();
    enter(root.to_owned(), &[], &mut open, visit)?;
    while let Some(directory) = open.last_mut() {
        match directory.children.next() {
            Some(name) => {
                let path = directory.path.join(&name);
                enter(path, name.as_bytes(), &mut open, visit)?;
            }
            None => {
                open.pop();
                visit(Step::DirectoryEnd { depth: open.len() })?;
            }
        }
    }
    Ok(())
}

fn enter(
    path: PathBuf,
    name: &[u8],
    open: &mut Vec<OpenDirectory>,
    visit: &mut Visitor<'_>,
) -> Result<(), ArchiveError> {
    let node = inspect(&path)?;
    visit(Step::Node {
        depth: open.len(),
        name,
        local: &path,
        node: &node,
    })?;
    if node == Node::Directory {
        let children = sorted_names(&path)?.into_iter();
        open.push(OpenDirectory { path, children });
    }
    Ok(())
}

/// What lies at `path`, by its metadata.
pub(crate) fn inspect(path: &Path) -> Result<Node, ArchiveError> {
    let metadata = path.symlink_metadata().map_err(ArchiveError::io(path))?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        Ok(Node::Directory)
    } else if kind.is_file() {
        Ok(Node::Regular {
            size: metadata.len(),
            executable: metadata.permissions().mode() & 0o100 != 0,
        })
    } else if kind.is_symlink() {
        let target = path.read_link().map_err(ArchiveError::io(path))?;
        Ok(Node::Symlink {
            target: target.into_os_string().into_vec(),
        })
    } else {
        Err(ArchiveError::Unsupported(path.to_owned()))
    }
}

/// A directory's names, sorted bytewise.
pub(crate) fn sorted_names(directory: &Path) -> Result<Vec<OsString>, ArchiveError> {
    let mut names = std::fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(ArchiveError::io(directory))?;
    names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}
