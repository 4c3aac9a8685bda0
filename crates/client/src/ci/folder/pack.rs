//! Reading a folder into chunks, in one pass and bounded memory.

use super::super::error::{CiError, Result};
use firn_chunks::{
    ChunkId, ChunkList, ChunkRef, Chunker, Encoder, ListId, boundaries::V1, segment::BlobRecord,
};
use firn_formats::{
    sha256::Sha256Hasher,
    tar::{self, Entry, EntryKind},
};
use firn_store::shared::{BLOB_FLAG_NO_ZSTD_DIGEST, Run, SHARED_DOMAIN, SharedStore};
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use std::{
    collections::HashMap,
    fs::{File, Metadata},
    io::Read as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

const BLOCK_BYTES: usize = 128 << 10;
/// Raw bytes that are gathered before chunks are looked up and compressed.
const GATHER_BYTES: usize = 4 << 20;

/// A folder in chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SavedFolder {
    pub list: ListId,
    /// Of the tar.
    pub bytes: u64,
    pub files: u64,
    /// Sockets, devices and the like, which a tar of files does not hold.
    pub skipped: Vec<PathBuf>,
}

/// Adds a folder, or a single file, to a run.
///
/// # Errors
/// If something cannot be read, changes while it is read, or cannot be stored.
pub fn save_folder(store: &SharedStore, run: &Run, path: &Path) -> Result<SavedFolder> {
    let top = path.file_name().map(std::ffi::OsStr::as_bytes);
    let top = top.ok_or_else(|| CiError::Folder {
        path: path.to_path_buf(),
        what: "it has no name to keep it under".to_owned(),
    })?;
    // A cache folder may be a link to a larger disk: what it leads to is kept.
    let real = std::fs::canonicalize(path).map_err(|source| CiError::io(path, source))?;
    let mut packer = Packer {
        sink: Sink::new(store, run),
        chunker: Chunker::new(V1),
        hasher: Sha256Hasher::new(),
        links: HashMap::new(),
        bytes: 0,
        files: 0,
        skipped: Vec::new(),
    };
    packer.tree(&real, top)?;
    packer.finish()
}

struct Packer<'a> {
    sink: Sink<'a>,
    chunker: Chunker,
    hasher: Sha256Hasher,
    /// First names of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    bytes: u64,
    files: u64,
    skipped: Vec<PathBuf>,
}

impl Packer<'_> {
    /// Walks without recursion, depth first, names sorted.
    fn tree(&mut self, root: &Path, top: &[u8]) -> Result<()> {
        let mut stack = vec![(root.to_path_buf(), top.to_vec())];
        while let Some((path, name)) = stack.pop() {
            let metadata =
                std::fs::symlink_metadata(&path).map_err(|source| CiError::io(&path, source))?;
            self.node(&path, name.clone(), &metadata)?;
            if metadata.is_dir() {
                let mut children = children(&path).map_err(|source| CiError::io(&path, source))?;
                children.sort_unstable_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
                stack.extend(children.into_iter().map(|child| {
                    let name = [name.as_slice(), b"/", child.as_bytes()].concat();
                    (path.join(child), name)
                }));
            }
        }
        Ok(())
    }

    fn node(&mut self, path: &Path, name: Vec<u8>, metadata: &Metadata) -> Result<()> {
        let kind = metadata.file_type();
        if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
            self.skipped.push(path.to_path_buf());
            return Ok(());
        }
        let size = metadata.len();
        let kind = if kind.is_dir() {
            EntryKind::Directory
        } else if kind.is_symlink() {
            let target = std::fs::read_link(path).map_err(|source| CiError::io(path, source))?;
            EntryKind::Symlink {
                target: target.as_os_str().as_bytes().to_vec(),
            }
        } else {
            self.regular(metadata, &name)
        };
        let regular = matches!(kind, EntryKind::Regular { .. });
        let entry = Entry {
            path: name,
            kind,
            mode: metadata.mode() & 0o777,
            uid: 0,
            gid: 0,
            mtime: u64::try_from(metadata.mtime()).unwrap_or(0),
        };
        let mut header = Vec::new();
        tar::header(&entry, &mut header)?;
        self.glue(&header)?;
        match regular {
            true => self.content(path, size),
            false => Ok(()),
        }
    }

    /// A file, or a link to a file that was seen under another name.
    fn regular(&mut self, metadata: &Metadata, name: &[u8]) -> EntryKind {
        if metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&inode) {
                return EntryKind::Hardlink {
                    target: first.clone(),
                };
            }
            self.links.insert(inode, name.to_vec());
        }
        EntryKind::Regular {
            size: metadata.len(),
        }
    }

    fn content(&mut self, path: &Path, size: u64) -> Result<()> {
        let fault = |source| CiError::io(path, source);
        let mut file = File::open(path).map_err(fault)?.take(size);
        let mut block = vec![0; BLOCK_BYTES];
        let mut rest = size;
        self.files += 1;
        self.chunker
            .file_begin(size, &mut |chunk| self.sink.take(chunk));
        while rest > 0 {
            let read = file.read(&mut block).map_err(fault)?;
            if read == 0 {
                return Err(CiError::Folder {
                    path: path.to_path_buf(),
                    what: "it became shorter while it was read".to_owned(),
                });
            }
            rest -= read as u64;
            self.bytes += read as u64;
            self.hasher.update(&block[..read]);
            self.chunker
                .file(&block[..read], &mut |chunk| self.sink.take(chunk));
            self.sink.check()?;
        }
        self.chunker.file_end(&mut |chunk| self.sink.take(chunk));
        self.glue(&vec![0; tar::padding(size)])
    }

    fn glue(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        self.chunker.glue(bytes, &mut |chunk| self.sink.take(chunk));
        self.sink.check()
    }

    fn finish(mut self) -> Result<SavedFolder> {
        self.glue(&[0; tar::TRAILER_BYTES])?;
        self.chunker.finish(&mut |chunk| self.sink.take(chunk));
        self.sink.flush();
        self.sink.check()?;
        let list = ChunkList {
            chunks: self.sink.chunks,
        };
        let id = list.id();
        self.sink.run.add_blob(BlobRecord {
            domain: SHARED_DOMAIN.to_owned(),
            flags: BLOB_FLAG_NO_ZSTD_DIGEST,
            list,
            identity_sha256: self.hasher.finish().0,
            zstd_sha256: [0; 32],
            zstd_length: self.sink.frame_bytes,
        })?;
        Ok(SavedFolder {
            list: id,
            bytes: self.bytes,
            files: self.files,
            skipped: self.skipped,
        })
    }
}

fn children(folder: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
    std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect()
}

/// Takes chunks, and adds frames of those that the store lacks.
struct Sink<'a> {
    store: &'a SharedStore,
    run: &'a Run,
    chunks: Vec<ChunkRef>,
    frame_bytes: u64,
    gathered: Vec<(ChunkId, Arc<[u8]>)>,
    gathered_bytes: usize,
    failure: Option<CiError>,
}

impl<'a> Sink<'a> {
    fn new(store: &'a SharedStore, run: &'a Run) -> Self {
        Self {
            store,
            run,
            chunks: Vec::new(),
            frame_bytes: 0,
            gathered: Vec::new(),
            gathered_bytes: 0,
            failure: None,
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        let id = ChunkId::of(chunk);
        self.chunks.push(ChunkRef {
            id,
            raw_length: chunk.len() as u32,
        });
        self.gathered.push((id, Arc::from(chunk)));
        self.gathered_bytes += chunk.len();
        if self.gathered_bytes >= GATHER_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        if self.failure.is_none()
            && let Err(error) = self.add(gathered)
        {
            self.failure = Some(error);
        }
    }

    fn add(&mut self, gathered: Vec<(ChunkId, Arc<[u8]>)>) -> Result<()> {
        let ids: Vec<ChunkId> = gathered.iter().map(|(id, _)| *id).collect();
        let located = self.store.locate(&ids)?;
        let mut missing = Vec::new();
        for (chunk, located) in gathered.into_iter().zip(located) {
            match located {
                Some(located) => {
                    self.frame_bytes += u64::from(located.placed.record.frame_length);
                }
                None => missing.push(chunk),
            }
        }
        let frames: Vec<_> = missing
            .into_par_iter()
            .map_init(
                || Encoder::new(V1.zstd_level),
                |encoder, (id, raw)| encoder.encode_with_id(id, &raw),
            )
            .collect();
        for frame in frames {
            self.frame_bytes += frame.frame().len() as u64;
            self.run.add_frame(&frame)?;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }
}
