//! The entries of the root's layer.

use crate::{
    archive::{Archive, ArchiveError},
    base::BaseTree,
    compose::layer,
    spec::{Attributes, Rules},
};
use firn_formats::nix::StorePath;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::compose) enum RootNode {
    Directory,
    Symlink(Vec<u8>),
    File(Vec<u8>),
    /// The content of a local file, which lies in a store path.
    Local {
        file: PathBuf,
        size: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::compose) struct RootEntry {
    pub(in crate::compose) node: RootNode,
    pub(in crate::compose) attributes: Attributes,
    /// Where in the store it came from, for rules; and whose it is.
    pub(super) source: Option<Vec<u8>>,
    pub(super) owner: Option<StorePath>,
    /// The base has the directory: it belongs to whom it belongs there, unless a rule says otherwise.
    from_base: bool,
}

impl RootEntry {
    pub(super) fn new(node: RootNode, mode: u32) -> Self {
        Self {
            node,
            attributes: Attributes {
                mode,
                uid: 0,
                gid: 0,
            },
            source: None,
            owner: None,
            from_base: false,
        }
    }

    pub(super) fn of(mut self, owner: &StorePath, path: &[u8]) -> Self {
        self.source = Some([owner.absolute().as_bytes(), b"/", path].concat());
        self.owner = Some(owner.clone());
        self
    }
}

/// Something to be made: a path without a leading slash, and what.
pub(super) type Generated = (String, RootEntry);

/// Entries by path, split into components so that they sort as in a walk.
#[derive(Debug, Clone, Default)]
pub(in crate::compose) struct RootEntries {
    entries: BTreeMap<Vec<Vec<u8>>, (Vec<u8>, RootEntry)>,
    /// What lies below.
    tree: Option<Arc<BaseTree>>,
}

impl RootEntries {
    pub(super) fn over(tree: Option<Arc<BaseTree>>) -> Self {
        Self {
            entries: BTreeMap::new(),
            tree,
        }
    }

    pub(in crate::compose) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Path and entry of all, in order.
    pub(in crate::compose) fn iter(&self) -> impl Iterator<Item = (&[u8], &RootEntry)> {
        self.entries
            .values()
            .map(|(path, entry)| (path.as_slice(), entry))
    }

    /// Contents of local files, which are copied.
    pub(in crate::compose) fn has_copies(&self) -> bool {
        self.iter()
            .any(|(_, entry)| matches!(entry.node, RootNode::Local { .. }))
    }

    /// The entries alone as a tar.
    pub(in crate::compose) fn archive(&self) -> Result<Archive, ArchiveError> {
        layer::tar(
            Path::new(firn_formats::nix::store_path::STORE_DIR),
            Vec::new(),
            self,
            &Rules::default(),
        )
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<&RootEntry> {
        let (_, entry) = self.entries.get(&components(path))?;
        Some(entry)
    }

    /// The directory of the base image that a path leads to.
    pub(super) fn base_directory(&self, path: &[u8]) -> Option<Vec<u8>> {
        let (place, _) = self.tree.as_ref()?.directory(path)?;
        Some(place)
    }

    /// Where something with this path has to lie: in the directory that the base's links lead to.
    pub(super) fn place(&self, path: &[u8]) -> Vec<u8> {
        let Some(slash) = path.iter().rposition(|&byte| byte == b'/') else {
            return path.to_vec();
        };
        let parent = match self.base_directory(&path[..slash]) {
            Some(place) => place,
            None => self.place(&path[..slash]),
        };
        [&parent, &path[slash..]].concat()
    }

    /// Puts an entry where it is said, its parents before it.
    pub(super) fn insert(&mut self, path: &[u8], entry: RootEntry) {
        let slashes = path.iter().enumerate().filter(|&(_, &b)| b == b'/');
        for (end, _) in slashes {
            self.make_directory(&path[..end]);
        }
        self.entries
            .insert(components(path), (path.to_vec(), entry));
    }

    /// Makes a directory, if nothing is there: as the base has it, or 0755.
    pub(super) fn make_directory(&mut self, path: &[u8]) {
        if self.get(path).is_some() {
            return;
        }
        let mut entry = RootEntry::new(RootNode::Directory, 0o755);
        let found = self.tree.as_ref().and_then(|tree| tree.directory(path));
        if let Some((place, attributes)) = found
            && place == path
        {
            entry.attributes = attributes;
            entry.from_base = true;
        }
        self.entries
            .insert(components(path), (path.to_vec(), entry));
    }

    /// Adds a generated entry with its parents; nothing that is there is replaced.
    pub(super) fn generate(&mut self, (path, entry): Generated) {
        let path = self.place(path.as_bytes());
        if self.get(&path).is_none() {
            self.insert(&path, entry);
        }
    }

    /// Owners and modes as the rules say.
    pub(super) fn rule(&mut self, rules: &Rules) {
        let (uid, gid) = rules.owner();
        for (path, entry) in self.entries.values_mut() {
            let attributes = &mut entry.attributes;
            if !entry.from_base && (attributes.uid, attributes.gid) == (0, 0) {
                (attributes.uid, attributes.gid) = (uid, gid);
            }
            let path = [b"/", path.as_slice()].concat();
            rules.apply(&path, entry.source.as_deref(), attributes);
        }
    }
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .map(<[u8]>::to_vec)
        .collect()
}
