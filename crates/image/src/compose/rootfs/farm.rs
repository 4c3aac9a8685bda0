//! The symlink farm.
//!
//! A top-level name that one root has becomes a link to it; where several have a directory
//! of one name, the directory is made and its entries are linked, and so on downwards. A
//! directory that must be a real one is descended into even if only one root has it: `etc`,
//! since container runtimes put files there, what holds a generated or copied file, and what
//! the base image has as one. If several have a file of one name, the first root wins, and
//! the others are reported unless they are the same file. Roots win over generated files.
//! `nix`, `nix-support` and what is not a directory are not linked from a root.
//!
//! A store path of the closure that is absent from this machine is an error: an image without its links would look
//! like one whose paths have none.

use super::{
    RootConflict,
    entries::{Generated, RootEntries, RootEntry, RootNode},
    must_be_here,
};
use crate::{
    archive::{ArchiveError, tree},
    closure::Closure,
};
use firn_formats::nix::{StorePath, store_path::STORE_DIR};
use rustix::io::Errno;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io::ErrorKind,
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
        closure: closure.paths.iter().map(|info| &info.path).collect(),
        real,
        entries,
        conflicts: Vec::new(),
    };
    farm.link(closure)?;
    Ok(farm.conflicts)
}

/// Whether `local` is a link to one of its own parents.
fn leads_up(local: &Path) -> bool {
    let real = local.canonicalize().ok();
    let parent = local.parent().and_then(|parent| parent.canonicalize().ok());
    let above = matches!((real, parent), (Some(real), Some(parent)) if parent.starts_with(&real));
    local.is_symlink() && above
}

/// The symlink farm under way.
struct Farm<'a> {
    store_dir: &'a Path,
    closure: HashSet<&'a StorePath>,
    real: BTreeSet<Vec<u8>>,
    entries: &'a mut RootEntries,
    conflicts: Vec<RootConflict>,
}

impl Farm<'_> {
    fn link(&mut self, closure: &Closure) -> Result<(), ArchiveError> {
        let mut roots = Vec::new();
        for root in &closure.roots {
            must_be_here(self.store_dir, root)?;
            if self.is_directory(&self.local(root, b""))? {
                roots.push(root);
            }
        }
        let mut open = vec![(Vec::new(), roots)];
        while let Some((directory, roots)) = open.pop() {
            for (path, owners) in self.claims(&directory, &roots)? {
                if let Some(owners) = self.settle(&path, owners)? {
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
    ) -> Result<Option<Vec<&'r StorePath>>, ArchiveError> {
        let Some((&first, others)) = owners.split_first() else {
            return Ok(None);
        };
        let first_local = self.local(first, path);
        let is_directory = self.can_merge(&first_local, path)?;
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
            return Ok(None);
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
            } else if is_directory && self.can_merge(&local, path)? {
                merged.push(other);
            } else {
                self.drop(path, first, other);
            }
        }
        let is_there = self.entries.get(&place).is_some();
        let is_real = is_there || is_below || self.real.contains(path);
        if is_directory && (merged.len() > 1 || is_real) {
            self.entries.make_directory(&place);
            return Ok(Some(merged));
        }
        let target = [first.absolute().as_bytes(), b"/", path].concat();
        let link = RootEntry::new(RootNode::Symlink(target), 0o777).of(first, path);
        self.entries.insert(&place, link);
        Ok(None)
    }

    /// Whether `local`, at `path` in the image, is a directory whose entries can be linked one by one.
    fn can_merge(&self, local: &Path, path: &[u8]) -> Result<bool, ArchiveError> {
        let depth = path.iter().filter(|&&byte| byte == b'/').count();
        Ok(depth < DEPTH_MAX && self.is_directory(local)? && !leads_up(local))
    }

    /// Whether `local` is a directory, or leads to one. A link that leads nowhere is none.
    fn is_directory(&self, local: &Path) -> Result<bool, ArchiveError> {
        match std::fs::metadata(local) {
            Ok(found) => Ok(found.is_dir()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.targets_must_be_here(local)?;
                Ok(false)
            }
            // A link in circles.
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Ok(false),
            Err(error) => Err(ArchiveError::io(local)(error)),
        }
    }

    /// Follows a link that leads nowhere, as far as it leads through store paths.
    fn targets_must_be_here(&self, local: &Path) -> Result<(), ArchiveError> {
        let mut local = local.to_owned();
        for _ in 0..DEPTH_MAX {
            let Ok(target) = std::fs::read_link(&local) else {
                return Ok(());
            };
            let Ok(inside) = target.strip_prefix(STORE_DIR) else {
                return Ok(());
            };
            let name = inside.iter().next().and_then(|name| name.to_str());
            let Some(path) = name.and_then(|name| StorePath::parse_base_name(name).ok()) else {
                return Ok(());
            };
            if self.closure.contains(&path) {
                must_be_here(self.store_dir, &path)?;
            }
            local = self.store_dir.join(inside);
        }
        Ok(())
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
