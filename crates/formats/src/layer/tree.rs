//! A store path's NAR, rebuilt from the entries of a tar, to be hashed.

use super::scan::Unlike;
use crate::nix::nar::{DEPTH_MAX, NAME_BYTES_MAX, Writer};
use crate::sha256::{Sha256, Sha256Hasher};

/// An entry of a store path.
pub(super) enum Node<'a> {
    Directory,
    File { executable: bool, size: u64 },
    Symlink(&'a [u8]),
}

/// A directory that may get more entries.
struct Open {
    /// Length of its path.
    path: usize,
    /// The name of its last entry; empty before the first.
    last: Vec<u8>,
}

/// A NAR under way. Holds the path of the current directory, and the last name in each above it.
pub(super) struct Tree {
    writer: Writer,
    structure: Vec<u8>,
    hasher: Sha256Hasher,
    directory: Vec<u8>,
    open: Vec<Open>,
    /// Size of the file whose content comes.
    file: Option<u64>,
}

impl Tree {
    /// Begins with the path itself.
    pub(super) fn new(root: &Node<'_>) -> Self {
        let mut structure = Vec::new();
        let mut tree = Self {
            writer: Writer::new(&mut structure),
            structure,
            hasher: Sha256Hasher::new(),
            directory: Vec::new(),
            open: Vec::new(),
            file: None,
        };
        tree.node(root, 0);
        tree
    }

    /// The next entry, `path` being its path inside the store path.
    pub(super) fn entry(&mut self, path: &[u8], node: &Node<'_>) -> Result<(), Unlike> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        while self.open.len() > 1 && self.directory != parent {
            self.close();
        }
        let Some(open) = self.open.last_mut().filter(|_| self.directory == parent) else {
            return Err("an entry does not lie in a directory before it");
        };
        if name.len() > NAME_BYTES_MAX || name <= open.last.as_slice() {
            return Err("the names in a directory are not sorted");
        }
        open.last.clear();
        open.last.extend_from_slice(name);
        self.writer.entry_begin(&mut self.structure, name);
        if matches!(node, Node::Directory) {
            if self.open.len() >= DEPTH_MAX {
                return Err("directories are too deep");
            }
            self.directory.clear();
            self.directory.extend_from_slice(path);
        }
        self.node(node, path.len());
        Ok(())
    }

    fn node(&mut self, node: &Node<'_>, path: usize) {
        match node {
            Node::Directory => {
                self.writer.directory_begin(&mut self.structure);
                let last = Vec::new();
                self.open.push(Open { path, last });
            }
            Node::Symlink(target) => {
                self.writer.symlink(&mut self.structure, target);
                self.entry_end();
            }
            Node::File { executable, size } => {
                self.writer
                    .file_begin(&mut self.structure, *executable, *size);
                self.file = Some(*size);
            }
        }
        self.flush();
    }

    /// A path that is itself a file or symlink is in no directory's entry.
    fn entry_end(&mut self) {
        if !self.open.is_empty() {
            self.writer.entry_end(&mut self.structure);
        }
    }

    /// Bytes of the current file.
    pub(super) fn content(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The current file has ended.
    pub(super) fn content_end(&mut self) {
        if let Some(size) = self.file.take() {
            self.writer.file_end(&mut self.structure, size);
            self.entry_end();
            self.flush();
        }
    }

    fn close(&mut self) {
        self.open.pop();
        self.writer.directory_end(&mut self.structure);
        self.entry_end();
        let above = self.open.last().map_or(0, |open| open.path);
        self.directory.truncate(above);
    }

    fn flush(&mut self) {
        self.hasher.update(&self.structure);
        self.structure.clear();
    }

    /// The NAR's hash.
    pub(super) fn finish(mut self) -> Sha256 {
        while !self.open.is_empty() {
            self.close();
        }
        self.flush();
        self.hasher.finish()
    }
}
