//! A store path as the streams that carry it: NAR and tar.

use firn_chunks::Chunker;
use firn_formats::{nix::nar, tar};
use std::io;
use std::os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A file, read once for all measurements.
pub(crate) enum Node {
    Directory(Vec<(Vec<u8>, Node)>),
    Regular {
        executable: bool,
        content: PathBuf,
        size: u64,
    },
    Symlink(Vec<u8>),
}

pub(crate) fn read(path: &Path) -> io::Result<Node> {
    let metadata = path.symlink_metadata()?;
    if metadata.is_symlink() {
        return Ok(Node::Symlink(
            path.read_link()?.as_os_str().as_bytes().to_vec(),
        ));
    }
    if metadata.is_file() {
        return Ok(Node::Regular {
            executable: metadata.permissions().mode() & 0o100 != 0,
            content: path.to_path_buf(),
            size: metadata.len(),
        });
    }
    let mut entries = Vec::new();
    for entry in path.read_dir()? {
        let entry = entry?;
        let name = entry.file_name().as_bytes().to_vec();
        entries.push((name, read(&entry.path())?));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Node::Directory(entries))
}

/// Drives a chunker with a path's NAR.
pub(crate) fn nar(
    node: &Node,
    chunker: &mut Chunker,
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    let mut glue = Vec::new();
    let mut writer = nar::Writer::new(&mut glue);
    nar_node(node, &mut writer, &mut glue, chunker, sink)?;
    chunker.glue(&glue, sink);
    Ok(())
}

fn nar_node(
    node: &Node,
    writer: &mut nar::Writer,
    glue: &mut Vec<u8>,
    chunker: &mut Chunker,
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    match node {
        Node::Symlink(target) => writer.symlink(glue, target),
        Node::Regular {
            executable,
            content,
            size,
        } => {
            writer.file_begin(glue, *executable, *size);
            file(content, *size, glue, chunker, sink)?;
            writer.file_end(glue, *size);
        }
        Node::Directory(entries) => {
            writer.directory_begin(glue);
            for (name, child) in entries {
                writer.entry_begin(glue, name);
                nar_node(child, writer, glue, chunker, sink)?;
                writer.entry_end(glue);
            }
            writer.directory_end(glue);
        }
    }
    Ok(())
}

/// Drives a chunker with a layer that holds one path, which stands at `path` in it.
pub(crate) fn layer(
    path: &[u8],
    node: &Node,
    chunker: &mut Chunker,
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    let mut glue = Vec::new();
    tar_node(path, node, &mut glue, chunker, sink)?;
    glue.resize(glue.len() + tar::TRAILER_BYTES, 0);
    chunker.glue(&glue, sink);
    Ok(())
}

fn tar_node(
    path: &[u8],
    node: &Node,
    glue: &mut Vec<u8>,
    chunker: &mut Chunker,
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    let (kind, mode) = match node {
        Node::Symlink(target) => (
            tar::EntryKind::Symlink {
                target: target.clone(),
            },
            0o777,
        ),
        Node::Regular {
            executable: true,
            size,
            ..
        } => (tar::EntryKind::Regular { size: *size }, 0o555),
        Node::Regular { size, .. } => (tar::EntryKind::Regular { size: *size }, 0o444),
        Node::Directory(_) => (tar::EntryKind::Directory, 0o555),
    };
    let entry = tar::Entry {
        path: path.to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: 1,
    };
    tar::header(&entry, glue).map_err(io::Error::other)?;
    match node {
        Node::Symlink(_) => {}
        Node::Regular { content, size, .. } => {
            file(content, *size, glue, chunker, sink)?;
            glue.resize(glue.len() + tar::padding(*size), 0);
        }
        Node::Directory(entries) => {
            for (name, child) in entries {
                tar_node(&[path, b"/", name].concat(), child, glue, chunker, sink)?;
            }
        }
    }
    Ok(())
}

fn file(
    content: &Path,
    size: u64,
    glue: &mut Vec<u8>,
    chunker: &mut Chunker,
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    chunker.glue(glue, sink);
    glue.clear();
    chunker.file_begin(size, sink);
    chunker.file(&std::fs::read(content)?, sink);
    chunker.file_end(sink);
    Ok(())
}
