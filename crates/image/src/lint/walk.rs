//! Files of the store: walked, and found by the names that an image gives them.

use firn_formats::nix::{StorePath, store_path::STORE_DIR};
use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

/// Links followed before it is called a loop.
const LINKS_MAX: usize = 40;

/// Every entry below a directory that is no directory itself: its path from there, and what is known of it.
/// Links are not followed. `visit` says whether to go on.
pub(super) fn walk(
    top: &Path,
    visit: &mut dyn FnMut(&Path, &fs::Metadata) -> bool,
) -> io::Result<()> {
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let local = top.join(&folder);
        let mut names: Vec<OsString> = Vec::new();
        for entry in fs::read_dir(&local)? {
            names.push(entry?.file_name());
        }
        names.sort_unstable();
        for name in names {
            let path = folder.join(&name);
            let metadata = fs::symlink_metadata(top.join(&path))?;
            if metadata.is_dir() {
                open.push(path);
            } else if !visit(&path, &metadata) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A file in a store path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) path: StorePath,
    /// From the store path on.
    pub(super) file: PathBuf,
}

impl Place {
    /// `/nix/store/<hash>-<name>/file`.
    pub(super) fn parse(text: &Path) -> Option<Self> {
        let mut components = text.strip_prefix(STORE_DIR).ok()?.components();
        let Component::Normal(base) = components.next()? else {
            return None;
        };
        Some(Self {
            path: StorePath::parse_base_name(base.to_str()?).ok()?,
            file: components.as_path().to_owned(),
        })
    }

    pub(super) fn local(&self, store_dir: &Path) -> PathBuf {
        store_dir.join(self.path.to_string()).join(&self.file)
    }

    /// Where the file really lies, all links followed; None if it is not there or leaves the store.
    pub(super) fn resolve(&self, store_dir: &Path) -> Option<Self> {
        let mut at = Self {
            path: self.path.clone(),
            file: PathBuf::new(),
        };
        let mut rest = parts(&self.file);
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            if part == ".." {
                if !at.file.pop() {
                    return None;
                }
                continue;
            }
            at.file.push(&part);
            let local = at.local(store_dir);
            if !fs::symlink_metadata(&local).ok()?.is_symlink() {
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            let target = fs::read_link(&local).ok()?;
            let mut ahead = match target.is_absolute() {
                true => {
                    let inside = target
                        .strip_prefix(store_dir)
                        .map(|rest| Path::new(STORE_DIR).join(rest));
                    let place = Self::parse(&inside.unwrap_or(target))?;
                    at = Self {
                        path: place.path,
                        file: PathBuf::new(),
                    };
                    parts(&place.file)
                }
                false => {
                    at.file.pop();
                    parts(&target)
                }
            };
            ahead.extend(rest);
            rest = ahead;
        }
        let _there = fs::symlink_metadata(at.local(store_dir)).ok()?;
        Some(at)
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}
