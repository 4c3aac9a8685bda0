//! The symlink farm.
//!
//! A top-level name that one root has becomes a link to it; where several have a directory
//! of one name, the directory is made and its entries are linked, and so on downwards. A
//! directory that must be a real one is descended into even if only one root has it: `etc`,
//! since container runtimes put files there, what holds a generated or copied file, and what
//! the base image has as one. If several have a file of one name, the first root wins, and
//! the others are reported unless they are the same file. Roots win over generated files.
//! `nix`, `nix-support` and what is not a directory are not linked from a root.

use super::{
    RootConflict,
    entries::{Generated, RootEntries, RootEntry, RootNode},
};
use crate::{
    archive::{ArchiveError, tree},
    closure::Closure,
};
use firn_formats::nix::StorePath;
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Deepest directory that is merged, in components; links to directories may go in circles.
const DEPTH_MAX: usize = 32;

/// Directories that may not be links.
pub(super) fn real_directories(generated: &[Generated]) -> BTreeSet<Vec<u8>> {
    let mut real = BTreeSet::from([b"etc".to_vec()]);
    for (path, entry) in generated {
        let parents = path.match_indices('/').map(|(end, _)| &path[..end]);
        real.extend(parents.map(|parent| parent.as_bytes().to_vec()));
        if entry.node == RootNode::Directory {
            real.insert(path.as_bytes().to_vec());
        }
    }
    real
}

/// Links what the closure's roots have; gives what could not be linked.
pub(super) fn link(
    store_dir: &Path,
    closure: &Closure,
    real: BTreeSet<Vec<u8>>,
    entries: &mut RootEntries,
) -> Result<Vec<RootConflict>, ArchiveError> {
    let mut farm = Farm {
        store_dir,
        real,
        entries,
        conflicts: Vec::new(),
    };
    farm.link(closure)?;
    Ok(farm.conflicts)
}

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
    entries: &'a mut RootEntries,
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

    /// Who has what in a directory, roots in their order.
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

    /// Makes the entry of one path, as the roots have it. Returns the roots to descend into, if it is a
    /// directory.
    fn settle<'r>(
        &mut self,
        path: &[u8],
        owners: Vec<&'r StorePath>,
    ) -> Option<Vec<&'r StorePath>> {
        let (&first, others) = owners.split_first()?;
        let first_local = self.local(first, path);
        let is_directory = can_merge(&first_local, path);
        let below = self.entries.base_directory(path).filter(|_| is_directory);
        let is_below = below.is_some();
        let place = below.unwrap_or_else(|| self.entries.place(path));
        if let Some(found) = self.entries.get(&place)
            && !(is_directory && found.node == RootNode::Directory)
        {
            let kept = found.owner.clone();
            for owner in owners {
                self.drop(path, kept.as_ref().unwrap_or(owner), owner);
            }
            return None;
        }
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
                self.drop(path, first, other);
            }
        }
        let is_there = self.entries.get(&place).is_some();
        let is_real = is_there || is_below || self.real.contains(path);
        if is_directory && (merged.len() > 1 || is_real) {
            self.entries.make_directory(&place);
            return Some(merged);
        }
        let target = [first.absolute().as_bytes(), b"/", path].concat();
        let link = RootEntry::new(RootNode::Symlink(target), 0o777).of(first, path);
        self.entries.insert(&place, link);
        None
    }

    fn drop(&mut self, path: &[u8], kept: &StorePath, dropped: &StorePath) {
        if kept != dropped {
            self.conflicts.push(RootConflict {
                path: Path::new("/").join(std::ffi::OsStr::from_bytes(path)),
                kept: kept.clone(),
                dropped: dropped.clone(),
            });
        }
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
