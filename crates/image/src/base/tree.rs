//! Which directories and links a base image has: what is put at the root must not hide them.
//!
//! A layer that has a link where the one below has a directory takes the directory away, with all that is in
//! it. So links go into the base's directories, and where the base has a link to a directory (`/bin` to
//! `usr/bin`), to where that leads. Only directories and links are kept; of Debian's 3 MB of names 300 kB.

use super::{BaseError, BaseImage, BaseLayer};
use crate::spec::Attributes;
use firn_formats::{
    oci::media_type,
    tar::{Entry, EntryKind, Event, Parser},
};
use flate2::read::MultiGzDecoder;
use std::{
    collections::BTreeMap,
    io::{BufReader, Read},
};

/// Most links followed for one name.
const LINKS_MAX: usize = 40;
/// Most directories and links of an image that are kept.
const NODES_MAX: usize = 2_000_000;
/// What a layer may be unpacked to, in bytes: a bomb ends here.
const TAR_BYTES_MAX: u64 = 256 << 30;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A directory of which a layer says nothing.
const DIRECTORY: Attributes = Attributes {
    mode: 0o755,
    uid: 0,
    gid: 0,
};

/// A directory or link of a base image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BaseNode {
    Directory(Attributes),
    Symlink(Vec<u8>),
}

/// The directories and links that all layers of an image make together.
#[derive(Debug, Default)]
pub struct BaseTree {
    /// By path, split so that what lies below a directory follows it.
    nodes: BTreeMap<Vec<Vec<u8>>, BaseNode>,
}

impl BaseTree {
    /// Reads the layers' headers.
    pub fn read(base: &BaseImage) -> Result<Self, BaseError> {
        let mut tree = Self::default();
        for layer in &base.layers {
            tree.add_layer(base, layer)?;
        }
        Ok(tree)
    }

    fn add_layer(&mut self, base: &BaseImage, layer: &BaseLayer) -> Result<(), BaseError> {
        let digest = &layer.descriptor.digest;
        let unreadable = |source| BaseError::Layer {
            digest: digest.clone(),
            source,
        };
        let blob = base.source.open_blob(digest).map_err(unreadable)?;
        let mut tar = decoded(&layer.descriptor.media_type, blob).map_err(unreadable)?;
        let broken = |source| BaseError::Tar {
            digest: digest.clone(),
            source,
        };
        let mut parser = Parser::new();
        let mut block = vec![0; 1 << 18];
        loop {
            let count = tar.read(&mut block).map_err(unreadable)?;
            if count == 0 {
                break;
            }
            let sink = &mut |event: Event<'_>| {
                if let Event::Entry(entry) = event {
                    self.add(&entry);
                }
            };
            parser.push(&block[..count], sink).map_err(broken)?;
        }
        parser.finish().map_err(broken)
    }

    fn add(&mut self, entry: &Entry) {
        let Some(path) = components(&entry.path) else {
            return;
        };
        let Some((name, parent)) = path.split_last() else {
            return;
        };
        if name == OPAQUE {
            let mut child = parent.to_vec();
            child.push(Vec::new());
            return self.remove_below(&child, parent.len());
        }
        if let Some(gone) = name.strip_prefix(WHITEOUT) {
            let mut path = parent.to_vec();
            path.push(gone.to_vec());
            return self.remove_below(&path, path.len());
        }
        let node = match &entry.kind {
            EntryKind::Directory => Some(BaseNode::Directory(Attributes {
                mode: entry.mode & 0o7777,
                uid: entry.uid,
                gid: entry.gid,
            })),
            EntryKind::Symlink { target } => Some(BaseNode::Symlink(target.clone())),
            EntryKind::Regular { .. } | EntryKind::Hardlink { .. } => None,
        };
        if !matches!(node, Some(BaseNode::Directory(_))) {
            self.remove_below(&path, path.len());
        }
        if self.nodes.len() >= NODES_MAX {
            return;
        }
        // A tar need not have an entry for a directory that something lies in.
        for end in 1..path.len() {
            let parent = self.nodes.entry(path[..end].to_vec());
            parent.or_insert(BaseNode::Directory(DIRECTORY));
        }
        if let Some(node) = node {
            self.nodes.insert(path, node);
        }
    }

    /// Removes everything from `first` on whose first `depth` components are `first`'s.
    fn remove_below(&mut self, first: &[Vec<u8>], depth: usize) {
        let gone: Vec<Vec<Vec<u8>>> = self
            .nodes
            .range(first.to_vec()..)
            .map(|(path, _)| path)
            .take_while(|path| path.get(..depth) == first.get(..depth))
            .cloned()
            .collect();
        for path in gone {
            self.nodes.remove(&path);
        }
    }

    /// The directory that a path without a leading slash leads to, if it leads to one: where it lies, and its
    /// mode and owner.
    pub fn directory(&self, path: &[u8]) -> Option<(Vec<u8>, Attributes)> {
        let mut links = 0;
        let mut rest = components(path)?;
        rest.reverse();
        let mut at: Vec<Vec<u8>> = Vec::new();
        while let Some(name) = rest.pop() {
            if name == b".." {
                at.pop();
                continue;
            }
            at.push(name);
            if let BaseNode::Symlink(target) = self.nodes.get(&at)? {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                at.pop();
                if target.starts_with(b"/") {
                    at.clear();
                }
                rest.extend(names(target).into_iter().rev());
            }
        }
        match self.nodes.get(&at)? {
            BaseNode::Directory(attributes) => Some((at.join(&b'/'), *attributes)),
            BaseNode::Symlink(_) => None,
        }
    }
}

/// A path's names; `None` for the root and for what would lead out of it.
fn components(path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let names = names(path);
    let leaves = names.iter().any(|name| name == b"..");
    (!names.is_empty() && !leaves).then_some(names)
}

fn names(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && name != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

fn decoded(media_type: &str, blob: Box<dyn Read + Send>) -> std::io::Result<Box<dyn Read + Send>> {
    let blob = BufReader::with_capacity(1 << 18, blob);
    Ok(match media_type {
        media_type::OCI_LAYER_GZIP => Box::new(MultiGzDecoder::new(blob).take(TAR_BYTES_MAX)),
        media_type::OCI_LAYER_ZSTD => {
            Box::new(zstd::stream::read::Decoder::with_buffer(blob)?.take(TAR_BYTES_MAX))
        }
        _ => Box::new(blob),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, &str)]) -> BaseTree {
        let mut tree = BaseTree::default();
        for (path, kind) in entries {
            let kind = match *kind {
                "dir" => EntryKind::Directory,
                "file" => EntryKind::Regular { size: 0 },
                target => EntryKind::Symlink {
                    target: target.as_bytes().to_vec(),
                },
            };
            tree.add(&Entry {
                path: path.as_bytes().to_vec(),
                kind,
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: 0,
            });
        }
        tree
    }

    fn leads(tree: &BaseTree, path: &str) -> Option<String> {
        let (place, _) = tree.directory(path.as_bytes())?;
        Some(String::from_utf8(place).unwrap())
    }

    #[test]
    fn links_lead_to_directories() {
        let tree = tree(&[
            ("usr", "dir"),
            ("usr/bin", "dir"),
            ("bin", "usr/bin"),
            ("var", "dir"),
            ("var/run", "/run"),
            ("run", "dir"),
            ("usr/tmp", "../var/../var"),
            ("a", "b"),
            ("b", "a"),
            ("file", "file"),
            ("srv/www/index", "file"),
        ]);
        assert_eq!(leads(&tree, "srv/www").as_deref(), Some("srv/www"));
        assert_eq!(leads(&tree, "bin").as_deref(), Some("usr/bin"));
        assert_eq!(leads(&tree, "var/run").as_deref(), Some("run"));
        assert_eq!(leads(&tree, "usr/tmp").as_deref(), Some("var"));
        for none in ["a", "file", "opt", "bin/x", "", "../usr"] {
            assert_eq!(leads(&tree, none), None, "{none}");
        }
    }

    #[test]
    fn later_layers_take_away_and_replace() {
        let tree = tree(&[
            ("a", "dir"),
            ("a/b", "dir"),
            ("a/b/c", "dir"),
            ("d", "dir"),
            ("d/e", "dir"),
            ("da", "dir"),
            ("f", "dir"),
            ("f/g", "dir"),
            ("a/.wh.b", "file"),
            ("d/.wh..wh..opq", "file"),
            ("f", "file"),
        ]);
        assert_eq!(leads(&tree, "a").as_deref(), Some("a"));
        assert_eq!(leads(&tree, "d").as_deref(), Some("d"));
        assert_eq!(leads(&tree, "da").as_deref(), Some("da"));
        for none in ["a/b", "a/b/c", "d/e", "f", "f/g"] {
            assert_eq!(leads(&tree, none), None, "{none}");
        }
    }
}
