//! Writing a folder back. The tar may come from a stranger: no name leads out of the folder, and no link on
//! the way is followed, since every step is taken from a folder that is held open.

use super::super::error::{CiError, Result};
use firn_chunks::{ChunkId, ListId};
use firn_formats::tar::{Entry, EntryKind, Event, Parser};
use firn_store::{StoreError, shared::SharedStore};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps},
    io::Errno,
};
use std::{
    ffi::OsStr,
    fs::File,
    io::Write as _,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

/// Deepest folder.
const DEPTH_MAX: usize = 512;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RestoredFolder {
    pub bytes: u64,
    pub files: u64,
}

/// Writes a folder, or a single file, to `target`. Files that are there and not in the blob stay.
///
/// # Errors
/// If a chunk cannot be had, the tar is unsound, or something cannot be written.
pub fn restore_folder(store: &SharedStore, list: ListId, target: &Path) -> Result<RestoredFolder> {
    let unsound = |what: &str| CiError::Folder {
        path: target.to_path_buf(),
        what: what.to_owned(),
    };
    let blob = store
        .blob(&list)?
        .filter(|blob| blob.list.id() == list)
        .ok_or_else(|| unsound("the store does not have it any more"))?;
    let ids: Vec<ChunkId> = blob.list.chunks.iter().map(|chunk| chunk.id).collect();
    let mut unpacker = Unpacker::new(target)?;
    let mut failure: Option<CiError> = None;
    let read = store.read_chunks(&ids, &mut |_, bytes| {
        unpacker.push(bytes).map_err(|error| {
            failure = Some(error);
            // Ends the reading; the failure itself is told below.
            StoreError::Conflict("the folder cannot be written".to_owned())
        })
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    read?;
    unpacker.finish()
}

/// Writes a tar into a folder as it comes.
pub struct Unpacker {
    parser: Parser,
    writer: Writer,
}

impl Unpacker {
    /// Into `target`, which is made; only its parents exist after this.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn new(target: &Path) -> Result<Self> {
        Ok(Self {
            parser: Parser::new(),
            writer: Writer::at(target)?,
        })
    }

    /// Takes the next bytes. After an error nothing more is to be given.
    ///
    /// # Errors
    /// If the tar is unsound, or something cannot be written.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let mut failure: Option<CiError> = None;
        let Self { parser, writer } = self;
        let parsed = parser.push(bytes, &mut |event| {
            if failure.is_none()
                && let Err(error) = writer.event(event)
            {
                failure = Some(error);
            }
        });
        match failure {
            Some(failure) => Err(failure),
            None => Ok(parsed?),
        }
    }

    /// Ends it, and gives folders their permissions and times.
    ///
    /// # Errors
    /// If the tar is cut short, or that cannot be done.
    pub fn finish(self) -> Result<RestoredFolder> {
        self.parser.finish()?;
        self.writer.finish()
    }
}

/// A folder that is open, and what it will be given when all is in it.
struct OpenFolder {
    name: Vec<u8>,
    fd: OwnedFd,
    /// Permissions and time, where the tar told of them.
    last: Option<(u32, u64)>,
}

struct Writer {
    target: PathBuf,
    /// The folder that holds the target.
    parent: OwnedFd,
    top: Vec<u8>,
    open: Vec<OpenFolder>,
    file: Option<(File, u32, u64)>,
    done: RestoredFolder,
}

impl Writer {
    fn at(target: &Path) -> Result<Self> {
        // A cache folder may be a link to a larger disk.
        let real = std::fs::canonicalize(target).unwrap_or_else(|_| target.to_path_buf());
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(CiError::Folder {
                path: target.to_path_buf(),
                what: "it has no name".to_owned(),
            });
        };
        std::fs::create_dir_all(parent).map_err(|source| CiError::io(parent, source))?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, parent, flags, Mode::empty())
            .map_err(|error| CiError::io(parent, error.into()))?;
        Ok(Self {
            top: name.as_bytes().to_vec(),
            target: target.to_path_buf(),
            parent: fd,
            open: Vec::new(),
            file: None,
            done: RestoredFolder::default(),
        })
    }

    fn event(&mut self, event: Event<'_>) -> Result<()> {
        match event {
            Event::Structure(_) => Ok(()),
            Event::Entry(entry) => self.entry(*entry),
            Event::Content(bytes) => match &mut self.file {
                Some((file, ..)) => {
                    self.done.bytes += bytes.len() as u64;
                    file.write_all(bytes)
                        .map_err(|source| CiError::io(&self.target, source))
                }
                None => Ok(()),
            },
            Event::ContentEnd => match self.file.take() {
                Some((file, mode, mtime)) => self.settle(&file, mode, mtime),
                None => Ok(()),
            },
        }
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        let names = self.names(&entry.path)?;
        let Some((name, folders)) = names.split_last() else {
            return Ok(());
        };
        self.enter(folders)?;
        match entry.kind {
            EntryKind::Directory => self.folder(name, entry.mode, entry.mtime),
            EntryKind::Regular { .. } => self.regular(name, entry.mode, entry.mtime),
            EntryKind::Symlink { target } => self.symlink(name, &target, entry.mtime),
            EntryKind::Hardlink { target } => {
                let target = self.names(&target)?;
                self.hard_link(name, &target)
            }
        }
    }

    /// The names of a path, of which the first is the target's own.
    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut names: Vec<Vec<u8>> = path
            .split(|byte| *byte == b'/')
            .map(<[u8]>::to_vec)
            .collect();
        let unsound = |name: &Vec<u8>| matches!(name.as_slice(), b"" | b"." | b"..");
        if names.iter().any(|name| unsound(name) || name.contains(&0)) || names.len() > DEPTH_MAX {
            return Err(self.fault("its tar has a name that leads elsewhere"));
        }
        if let Some(first) = names.first_mut() {
            first.clone_from(&self.top);
        }
        Ok(names)
    }

    /// Makes `folders` the open ones, leaving those that are done.
    fn enter(&mut self, folders: &[Vec<u8>]) -> Result<()> {
        let same = |(open, name): &(&OpenFolder, &Vec<u8>)| open.name == **name;
        let common = self.open.iter().zip(folders).take_while(same).count();
        while self.open.len() > common {
            self.leave()?;
        }
        for name in &folders[common..] {
            let fd = self
                .open_folder(name)
                .map_err(|error| self.io(name, error))?;
            self.open.push(OpenFolder {
                name: name.clone(),
                fd,
                last: None,
            });
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        match self.open.pop() {
            Some(OpenFolder {
                fd,
                last: Some((mode, mtime)),
                ..
            }) => self.settle(&File::from(fd), mode, mtime),
            _ => Ok(()),
        }
    }

    fn here(&self) -> &OwnedFd {
        self.open.last().map_or(&self.parent, |open| &open.fd)
    }

    fn open_folder(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.here(), OsStr::from_bytes(name), flags, Mode::empty())
    }

    fn folder(&mut self, name: &[u8], mode: u32, mtime: u64) -> Result<()> {
        let opened = match self.open_folder(name) {
            Err(Errno::NOENT) => self.make_folder(name),
            // A file or a link is in the way.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.remove(name).and_then(|()| self.make_folder(name))
            }
            other => other,
        };
        let fd = opened.map_err(|error| self.io(name, error))?;
        self.open.push(OpenFolder {
            name: name.to_vec(),
            fd,
            last: Some((mode, mtime)),
        });
        Ok(())
    }

    fn make_folder(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        rustix::fs::mkdirat(self.here(), OsStr::from_bytes(name), Mode::from(0o700))?;
        self.open_folder(name)
    }

    /// Removes a file or a link; nothing there is as good.
    fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        match rustix::fs::unlinkat(self.here(), OsStr::from_bytes(name), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    fn regular(&mut self, name: &[u8], mode: u32, mtime: u64) -> Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self
            .remove(name)
            .and_then(|()| {
                rustix::fs::openat(
                    self.here(),
                    OsStr::from_bytes(name),
                    flags,
                    Mode::from(0o600),
                )
            })
            .map_err(|error| self.io(name, error))?;
        self.done.files += 1;
        self.file = Some((File::from(file), mode, mtime));
        Ok(())
    }

    fn symlink(&self, name: &[u8], target: &[u8], mtime: u64) -> Result<()> {
        let name_os = OsStr::from_bytes(name);
        self.remove(name)
            .and_then(|()| rustix::fs::symlinkat(OsStr::from_bytes(target), self.here(), name_os))
            .and_then(|()| {
                rustix::fs::utimensat(
                    self.here(),
                    name_os,
                    &times(mtime),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
            })
            .map_err(|error| self.io(name, error))
    }

    fn hard_link(&self, name: &[u8], target: &[Vec<u8>]) -> Result<()> {
        let Some((file, folders)) = target.split_last() else {
            return Ok(());
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut held: Option<OwnedFd> = None;
        for folder in folders {
            let above = held.as_ref().unwrap_or(&self.parent);
            let next = rustix::fs::openat(above, OsStr::from_bytes(folder), flags, Mode::empty());
            held = Some(next.map_err(|error| self.io(folder, error))?);
        }
        let above = held.as_ref().unwrap_or(&self.parent);
        self.remove(name)
            .and_then(|()| {
                rustix::fs::linkat(
                    above,
                    OsStr::from_bytes(file),
                    self.here(),
                    OsStr::from_bytes(name),
                    AtFlags::empty(),
                )
            })
            .map_err(|error| self.io(name, error))
    }

    /// Permissions without set-user-id and the like, and the time.
    fn settle(&self, file: &File, mode: u32, mtime: u64) -> Result<()> {
        rustix::fs::fchmod(file, Mode::from(mode & 0o777))
            .and_then(|()| rustix::fs::futimens(file, &times(mtime)))
            .map_err(|error| CiError::io(&self.target, error.into()))
    }

    fn finish(mut self) -> Result<RestoredFolder> {
        while !self.open.is_empty() {
            self.leave()?;
        }
        Ok(self.done)
    }

    fn io(&self, name: &[u8], error: Errno) -> CiError {
        let mut path = self.target.clone();
        path.extend(
            self.open
                .iter()
                .skip(1)
                .map(|open| OsStr::from_bytes(&open.name)),
        );
        path.push(OsStr::from_bytes(name));
        CiError::io(path, error.into())
    }

    fn fault(&self, what: &str) -> CiError {
        CiError::Folder {
            path: self.target.clone(),
            what: what.to_owned(),
        }
    }
}

fn times(mtime: u64) -> Timestamps {
    let at = Timespec {
        tv_sec: i64::try_from(mtime).unwrap_or(0),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}
