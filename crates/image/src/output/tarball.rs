//! Tars of a layout: written in order, and found one's way in.

use super::OutputError;
use firn_formats::tar::{self, Entry, EntryKind, Event, Parser};
use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    path::Path,
};

/// Writes a deterministic tar to a stream.
pub(super) struct TarWriter<'a> {
    out: &'a mut dyn Write,
}

impl<'a> TarWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out }
    }

    pub(super) fn directory(&mut self, path: &str) -> Result<(), OutputError> {
        self.header(path, EntryKind::Directory, 0o755)
    }

    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), OutputError> {
        self.file_of(path, bytes.len() as u64, &mut |out| {
            out.write_all(bytes).map_err(OutputError::Write)
        })
    }

    /// A file of `size` bytes, which `content` writes.
    pub(super) fn file_of(
        &mut self,
        path: &str,
        size: u64,
        content: &mut dyn FnMut(&mut dyn Write) -> Result<(), OutputError>,
    ) -> Result<(), OutputError> {
        self.header(path, EntryKind::Regular { size }, 0o644)?;
        content(self.out)?;
        self.zeros(tar::padding(size))
    }

    pub(super) fn finish(mut self) -> Result<(), OutputError> {
        self.zeros(tar::TRAILER_BYTES)?;
        self.out.flush().map_err(OutputError::Write)
    }

    fn header(&mut self, path: &str, kind: EntryKind, mode: u32) -> Result<(), OutputError> {
        let entry = Entry {
            path: path.as_bytes().to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 1,
        };
        let mut header = Vec::with_capacity(512);
        tar::header(&entry, &mut header)?;
        self.out.write_all(&header).map_err(OutputError::Write)
    }

    fn zeros(&mut self, count: usize) -> Result<(), OutputError> {
        let zeros = [0; tar::TRAILER_BYTES];
        self.out
            .write_all(&zeros[..count])
            .map_err(OutputError::Write)
    }
}

/// Where things lie in a tar.
#[derive(Debug, Default)]
pub(super) struct TarIndex {
    nodes: HashMap<String, TarNode>,
}

#[derive(Debug)]
enum TarNode {
    File { offset: u64, size: u64 },
    Link { target: String },
}

/// Most links followed for one name.
const LINKS_MAX: usize = 8;

impl TarIndex {
    /// Reads a tar from its beginning to its end.
    pub(super) fn read(file: &mut File, path: &Path) -> Result<Self, OutputError> {
        let mut index = Self::default();
        let mut parser = Parser::new();
        let mut block = vec![0; 1 << 20];
        let mut offset = 0_u64;
        loop {
            let count = file.read(&mut block).map_err(OutputError::io(path))?;
            if count == 0 {
                break;
            }
            parser.push(&block[..count], &mut |event| match event {
                Event::Structure(bytes) | Event::Content(bytes) => offset += bytes.len() as u64,
                Event::Entry(entry) => index.add(&entry, offset),
                Event::ContentEnd => {}
            })?;
        }
        parser.finish()?;
        Ok(index)
    }

    fn add(&mut self, entry: &Entry, offset: u64) {
        let path = normal(&String::from_utf8_lossy(&entry.path));
        let node = match &entry.kind {
            EntryKind::Directory => return,
            EntryKind::Regular { size } => TarNode::File {
                offset,
                size: *size,
            },
            EntryKind::Hardlink { target } => TarNode::Link {
                target: normal(&String::from_utf8_lossy(target)),
            },
            EntryKind::Symlink { target } => {
                let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                let target = String::from_utf8_lossy(target);
                TarNode::Link {
                    target: normal(&format!("{parent}/{target}")),
                }
            }
        };
        self.nodes.insert(path, node);
    }

    /// Offset and size of a file's content, links followed.
    pub(super) fn find(&self, path: &str) -> Option<(u64, u64)> {
        let mut path = normal(path);
        for _ in 0..LINKS_MAX {
            match self.nodes.get(&path)? {
                TarNode::File { offset, size } => return Some((*offset, *size)),
                TarNode::Link { target } => path = target.clone(),
            }
        }
        None
    }
}

/// The path without `.`, `..` and empty components.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
