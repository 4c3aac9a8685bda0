//! The NAR of a tree.

use super::{
    Archive, ArchiveError, Builder,
    tree::{self, Node, Step},
};
use firn_formats::nix::nar::{DEPTH_MAX, Writer};
use std::path::Path;

pub(super) fn build(root: &Path) -> Result<Archive, ArchiveError> {
    let mut builder = Builder::default();
    let mut writer = Writer::new(builder.literals());
    tree::walk(root, &mut |step| {
        match step {
            Step::Node {
                depth,
                name,
                local,
                node,
            } => {
                if depth >= DEPTH_MAX && *node == Node::Directory {
                    return Err(ArchiveError::TooDeep {
                        path: local.to_owned(),
                        limit: DEPTH_MAX,
                    });
                }
                if depth > 0 {
                    writer.entry_begin(builder.literals(), name);
                }
                put(&mut builder, &mut writer, local, node);
                if depth > 0 && *node != Node::Directory {
                    writer.entry_end(builder.literals());
                }
            }
            Step::DirectoryEnd { depth } => {
                writer.directory_end(builder.literals());
                if depth > 0 {
                    writer.entry_end(builder.literals());
                }
            }
        }
        Ok(())
    })?;
    Ok(builder.finish())
}

fn put(builder: &mut Builder, writer: &mut Writer, local: &Path, node: &Node) {
    match node {
        Node::Directory => writer.directory_begin(builder.literals()),
        Node::Symlink { target } => writer.symlink(builder.literals(), target),
        Node::Regular { size, executable } => {
            writer.file_begin(builder.literals(), *executable, *size);
            builder.file(local.to_owned(), *size);
            writer.file_end(builder.literals(), *size);
        }
    }
}
