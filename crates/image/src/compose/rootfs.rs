//! The files at an image's root: links to what the roots have, users, temporary directories.
//!
//! A top-level name that one root has becomes a link to it; where several have a directory
//! of one name, the directory is made and its entries are linked, and so on downwards. A
//! directory that must be a real one is descended into even if only one root has it: `etc`,
//! since container runtimes put files there, and what holds a generated file. If several
//! have a file of one name, the first root wins, and the others are reported unless they are
//! the same file. Roots win over generated files. `nix`, `nix-support` and what is not a
//! directory are not linked from a root.

use super::layer;
use crate::{
    archive::{Archive, ArchiveError, tree},
    closure::Closure,
    spec::ImageSpec,
};
use firn_formats::nix::{StorePath, store_path::STORE_DIR};
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// A place of the root directory that several roots claim.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RootConflict {
    /// Absolute, in the image.
    pub path: PathBuf,
    /// The root that has it.
    pub kept: StorePath,
    /// The root whose entry is not linked.
    pub dropped: StorePath,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RootNode {
    Directory,
    Symlink(Vec<u8>),
    File(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RootEntry {
    pub(super) node: RootNode,
    pub(super) mode: u32,
}

/// Entries by path, split into components so that they sort as in a walk.
#[derive(Debug, Clone, Default)]
pub(super) struct RootEntries(BTreeMap<Vec<Vec<u8>>, (Vec<u8>, RootEntry)>);

impl RootEntries {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Path and entry of all, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &RootEntry)> {
        self.0
            .values()
            .map(|(path, entry)| (path.as_slice(), entry))
    }

    /// The entries alone as a tar; all literals.
    pub(super) fn tar(&self) -> Result<Vec<u8>, ArchiveError> {
        let archive: Archive = layer::tar(Path::new(STORE_DIR), Vec::new(), self)?;
        let mut bytes = Vec::new();
        archive.read_at(0, archive.length() as usize, &mut bytes)?;
        Ok(bytes)
    }

    fn insert(&mut self, path: &[u8], node: RootNode, mode: u32) {
        let entry = RootEntry { node, mode };
        self.0.insert(components(path), (path.to_vec(), entry));
    }

    fn contains(&self, path: &[u8]) -> bool {
        self.0.contains_key(&components(path))
    }

    /// Adds a generated entry with its parents; nothing that is there is replaced.
    fn generate(&mut self, path: &str, node: RootNode, mode: u32) {
        let bytes = path.as_bytes();
        for (end, _) in bytes.iter().enumerate().filter(|&(_, &b)| b == b'/') {
            if !self.contains(&bytes[..end]) {
                self.insert(&bytes[..end], RootNode::Directory, 0o755);
            }
        }
        if !self.contains(bytes) {
            self.insert(bytes, node, mode);
        }
    }
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .map(<[u8]>::to_vec)
        .collect()
}

/// One generated entry: path, node, mode.
type Generated = (&'static str, RootNode, u32);

fn generated(spec: &ImageSpec) -> Vec<Generated> {
    let file = |text: &str| RootNode::File(text.as_bytes().to_vec());
    let mut entries = Vec::new();
    if spec.users {
        entries.extend([
            (
                "etc/passwd",
                file(concat!(
                    "root:x:0:0:System administrator:/root:/bin/sh\n",
                    "nobody:x:65534:65534:Unprivileged account:/var/empty:/bin/sh\n",
                )),
                0o644,
            ),
            ("etc/group", file("root:x:0:\nnobody:x:65534:\n"), 0o644),
            ("etc/nsswitch.conf", file("hosts: files dns\n"), 0o644),
            ("root", RootNode::Directory, 0o700),
            ("var/empty", RootNode::Directory, 0o555),
        ]);
    }
    if spec.tmp {
        entries.extend([
            ("tmp", RootNode::Directory, 0o1777),
            ("var/tmp", RootNode::Directory, 0o1777),
        ]);
    }
    entries
}

/// All root files that the spec asks for, and what could not be linked.
pub(super) fn collect(
    store_dir: &Path,
    closure: &Closure,
    spec: &ImageSpec,
) -> Result<(RootEntries, Vec<RootConflict>), ArchiveError> {
    let generated = generated(spec);
    let mut farm = Farm {
        store_dir,
        real: real_directories(&generated),
        entries: RootEntries::default(),
        conflicts: Vec::new(),
    };
    if spec.root_links {
        farm.link(closure)?;
    }
    let mut entries = farm.entries;
    for (path, node, mode) in generated {
        entries.generate(path, node, mode);
    }
    Ok((entries, farm.conflicts))
}

/// Directories that may not be links.
fn real_directories(generated: &[Generated]) -> BTreeSet<Vec<u8>> {
    let mut real = BTreeSet::from([b"etc".to_vec()]);
    for (path, node, _) in generated {
        let parents = path.match_indices('/').map(|(end, _)| &path[..end]);
        real.extend(parents.map(|parent| parent.as_bytes().to_vec()));
        if *node == RootNode::Directory {
            real.insert(path.as_bytes().to_vec());
        }
    }
    real
}

/// Deepest directory that is merged, in components; links to directories may go in circles.
const DEPTH_MAX: usize = 32;

/// Whether `local`, at `path` in the image, is a directory whose entries can be linked
/// one by one: a link to one of its own parents is not.
fn can_merge(local: &Path, path: &[u8]) -> bool {
    let leads_up = || {
        let real = local.canonicalize().ok();
        let parent = local.parent().and_then(|parent| parent.canonicalize().ok());
        matches!((real, parent), (Some(real), Some(parent)) if parent.starts_with(&real))
    };
    local.is_dir()
        && path.iter().filter(|&&byte| byte == b'/').count() < DEPTH_MAX
        && !(local.is_symlink() && leads_up())
}

/// The symlink farm under way.
struct Farm<'a> {
    store_dir: &'a Path,
    real: BTreeSet<Vec<u8>>,
    entries: RootEntries,
    conflicts: Vec<RootConflict>,
}

impl Farm<'_> {
    fn link(&mut self, closure: &Closure) -> Result<(), ArchiveError> {
        let local = |root: &&StorePath| self.store_dir.join(root.to_string()).is_dir();
        let roots: Vec<&StorePath> = closure.roots.iter().filter(local).collect();
        let mut open = vec![(Vec::new(), roots)];
        while let Some((directory, roots)) = open.pop() {
            for (path, owners) in self.claims(&directory, &roots)? {
                if let Some(owners) = self.settle(&path, owners) {
                    open.push((path, owners));
                }
            }
        }
        Ok(())
    }

    /// Who has what in a directory of the image, roots in their order.
    fn claims<'r>(
        &self,
        directory: &[u8],
        roots: &[&'r StorePath],
    ) -> Result<BTreeMap<Vec<u8>, Vec<&'r StorePath>>, ArchiveError> {
        let mut claims: BTreeMap<Vec<u8>, Vec<&StorePath>> = BTreeMap::new();
        for root in roots {
            for name in tree::sorted_names(&self.local(root, directory))? {
                let name = name.as_bytes();
                if directory.is_empty() {
                    if !matches!(name, b"nix" | b"nix-support") {
                        claims.entry(name.to_vec()).or_default().push(root);
                    }
                } else {
                    let path = [directory, b"/", name].concat();
                    claims.entry(path).or_default().push(root);
                }
            }
        }
        Ok(claims)
    }

    /// Makes the entry of one path. Returns the roots to descend into, if it is a directory.
    fn settle<'r>(
        &mut self,
        path: &[u8],
        owners: Vec<&'r StorePath>,
    ) -> Option<Vec<&'r StorePath>> {
        let (&first, others) = owners.split_first()?;
        let first_local = self.local(first, path);
        let is_directory = can_merge(&first_local, path);
        let mut merged = vec![first];
        for other in others {
            let local = self.local(other, path);
            let same = || {
                let real = first_local.canonicalize().ok();
                real.is_some() && real == local.canonicalize().ok()
            };
            if same() {
                continue;
            } else if is_directory && can_merge(&local, path) {
                merged.push(other);
            } else {
                self.conflicts.push(RootConflict {
                    path: Path::new("/").join(std::ffi::OsStr::from_bytes(path)),
                    kept: first.clone(),
                    dropped: (*other).clone(),
                });
            }
        }
        if is_directory && (merged.len() > 1 || self.real.contains(path)) {
            self.entries.insert(path, RootNode::Directory, 0o755);
            return Some(merged);
        }
        let target = [first.absolute().as_bytes(), b"/", path].concat();
        self.entries.insert(path, RootNode::Symlink(target), 0o777);
        None
    }

    fn local(&self, root: &StorePath, path: &[u8]) -> PathBuf {
        let root = self.store_dir.join(root.to_string());
        if path.is_empty() {
            root
        } else {
            root.join(std::ffi::OsStr::from_bytes(path))
        }
    }
}
