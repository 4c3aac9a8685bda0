//! The folder as a backend of immutable files: the only module that touches the file system.
//!
//! A file is named by a key (`packs/main/ab/abc….pack`), made once, appended to by its
//! one writer, synced, and never changed again. What is needed of a backend stands here
//! and nowhere else, so that an object store can take its place.

mod copy;
mod steps;

pub(crate) use copy::Copied;
#[cfg(not(feature = "failpoints"))]
use steps::Step;
#[cfg(feature = "failpoints")]
pub use steps::{Step, Watch, watch};

use crate::db::lock;
use crate::failpoint::{Point, reach};
use crate::{StoreError, layout};
use std::collections::HashSet;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use steps::step;

/// Most slices one `pwritev` takes (`IOV_MAX`).
const SLICES_MAX: usize = 1024;
/// Folders in folders that are listed: more of them is a link that leads back to itself.
const DEPTH_MAX: usize = 16;
/// Bytes of a file that are written again at once.
const REWRITE_BYTES: usize = 256 << 10;
/// How often the folder's lock is asked for …
const LOCK_TRIES: u32 = 40;
/// … and how long is waited in between.
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// A folder of immutable files.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    /// Folders below it that this process made durable in those above them.
    durable: Mutex<HashSet<PathBuf>>,
}

/// Holds the folder's lock until dropped.
#[derive(Debug)]
pub(crate) struct LockFile {
    _file: File,
}

impl Folder {
    /// The folder at `root`, made with mode 0700 if it is not there.
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        let made = match root.is_dir() {
            // Who made it may have ended before its name was durable.
            true if !root.join(layout::VERSION_FILE).exists() => sync_parent(root),
            true => Ok(()),
            false => make_folders(root),
        };
        made.map_err(|error| StoreError::io(root, error))?;
        Ok(Self::at(root))
    }

    /// The folder at `root`, which must be there.
    pub(crate) fn open_existing(root: &Path) -> Result<Self, StoreError> {
        fs::metadata(root).map_err(|error| StoreError::io(root, error))?;
        Ok(Self::at(root))
    }

    fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            durable: Mutex::default(),
        }
    }

    /// Where a key lies.
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn error(&self, key: &str, source: io::Error) -> StoreError {
        StoreError::io(self.path(key), source)
    }

    /// Takes the folder for this process. One that just ends, or a child of this one between its fork and
    /// its exec, may hold the lock for a moment more: that is waited for, a second at most.
    pub(crate) fn lock(&self) -> Result<LockFile, StoreError> {
        let path = self.path("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| StoreError::io(&path, error))?;
        for _ in 0..LOCK_TRIES {
            match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(LockFile { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                Err(error) => return Err(StoreError::io(path, error.into())),
            }
        }
        Err(StoreError::Locked(self.root.clone()))
    }

    /// Makes an empty file with mode 0600 if there is none, for a database that would choose a wider one.
    pub(crate) fn touch(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key);
        open_or_make(&path, false)
            .map(drop)
            .map_err(|error| self.error(key, error))
    }

    /// A whole small file, `None` if it is not there.
    pub(crate) fn read(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(self.path(key)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error(key, error)),
        }
    }

    /// Makes a file that appears whole and durable or not at all.
    pub(crate) fn put_atomic(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.make_parents(key)?;
        let path = self.path(key);
        let temporary = path.with_extension("tmp");
        let write = || -> io::Result<()> {
            let file = open_or_make(&temporary, true)?;
            let write = Step::Write {
                path: &temporary,
                offset: 0,
                parts: &[IoSlice::new(bytes)],
            };
            step(write, || file.write_all_at(bytes, 0))?;
            step(Step::Sync(&temporary), || file.sync_all())?;
            reach(Point::FileWritten).map_err(io::Error::other)?;
            step(Step::Rename(&temporary, &path), || {
                fs::rename(&temporary, &path)
            })?;
            reach(Point::FileRenamed).map_err(io::Error::other)?;
            sync_parent(&path)
        };
        write().map_err(|error| {
            // Best effort: the name ends in .tmp, which no reader looks at.
            let _ = step(Step::Delete(&temporary), || fs::remove_file(&temporary));
            self.error(key, error)
        })
    }

    /// Makes a new file for appending; its name is durable when this returns.
    pub(crate) fn create_new(&self, key: &str) -> Result<AppendFile, StoreError> {
        self.make_parents(key)?;
        let path = self.path(key);
        let make = Step::Create {
            path: &path,
            truncate: false,
        };
        let open = || {
            let mut options = OpenOptions::new();
            options.create_new(true).write(true).read(true).mode(0o600);
            options.open(&path)
        };
        let file = step(make, open)
            .and_then(|file| sync_parent(&path).map(|()| file))
            .map_err(|error| self.error(key, error))?;
        Ok(AppendFile {
            file,
            path,
            length: 0,
        })
    }

    /// Opens a file that a crashed run left, cut to its durable length.
    pub(crate) fn reopen(&self, key: &str, length: u64) -> Result<AppendFile, StoreError> {
        let path = self.path(key);
        let file = OpenOptions::new()
            .write(true)
            .read(true)
            .open(&path)
            .and_then(|file| {
                step(Step::Length(&path, length), || file.set_len(length)).map(|()| file)
            })
            .map_err(|error| self.error(key, error))?;
        Ok(AppendFile { file, path, length })
    }

    /// Opens a file for reading, `None` if it is not there.
    pub(crate) fn open_read(&self, key: &str) -> Result<Option<ReadFile>, StoreError> {
        let path = self.path(key);
        match File::open(&path) {
            Ok(file) => Ok(Some(ReadFile {
                file,
                path,
                nowait: AtomicBool::new(true),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(path, error)),
        }
    }

    /// Length of a file, `None` if it is not there.
    pub(crate) fn length(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match fs::metadata(self.path(key)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error(key, error)),
        }
    }

    /// Keys of all files below `prefix`, in byte order.
    pub(crate) fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        let mut folders = vec![prefix.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(self.path(&folder)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.error(&folder, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| self.error(&folder, error))?;
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                let key = format!("{folder}/{name}");
                let kind = self.kind(&entry, &key)?;
                if kind.is_dir() {
                    if key.matches('/').count() > DEPTH_MAX {
                        return Err(self.error(&key, rustix::io::Errno::LOOP.into()));
                    }
                    folders.push(key);
                } else if kind.is_file() {
                    keys.push(key);
                }
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// What an entry of a folder is, or what it leads to. A link that leads nowhere is an error: what it led to may
    /// be on a disk that is not mounted, and is not to be taken for gone.
    pub(crate) fn kind(&self, entry: &fs::DirEntry, key: &str) -> Result<FileType, StoreError> {
        let kind = entry.file_type().map_err(|error| self.error(key, error))?;
        if !kind.is_symlink() {
            return Ok(kind);
        }
        fs::metadata(self.path(key))
            .map(|led_to| led_to.file_type())
            .map_err(|error| self.error(key, error))
    }

    /// Names in a folder, in no order; none if it is not there.
    pub(crate) fn names(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let entries = match fs::read_dir(self.path(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.error(folder, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.error(folder, error))?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    /// Whether a key, or a folder above it, is a link to something that is not there.
    pub(crate) fn leads_nowhere(&self, key: &str) -> Result<bool, StoreError> {
        let mut path = self.root.clone();
        for part in key.split('/') {
            path.push(part);
            let link = match fs::symlink_metadata(&path) {
                Ok(found) => found.file_type().is_symlink(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(StoreError::io(path, error)),
            };
            match fs::metadata(&path) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(link),
                Err(error) => return Err(StoreError::io(path, error)),
            }
        }
        Ok(false)
    }

    /// Deletes a file; one that is not there counts as deleted (rule 7).
    pub(crate) fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key);
        match step(Step::Delete(&path), || fs::remove_file(&path)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.error(key, error)),
        }
    }

    /// As [`Folder::delete`]; after a power cut it is still gone.
    pub(crate) fn delete_durably(&self, key: &str) -> Result<(), StoreError> {
        self.delete(key)?;
        match sync_parent(&self.path(key)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.error(key, error)),
        }
    }

    /// Gives a file another name, durably; false if it is not there.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        let (source, target) = (self.path(from), self.path(to));
        match step(Step::Rename(&source, &target), || {
            fs::rename(&source, &target)
        }) {
            Ok(()) => sync_parent(&target)
                .map(|()| true)
                .map_err(|error| self.error(to, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.error(from, error)),
        }
    }

    /// Makes a file that something else wrote durable.
    pub(crate) fn sync(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key);
        File::open(&path)
            .and_then(|file| step(Step::Sync(&path), || file.sync_all()))
            .map_err(|error| self.error(key, error))
    }

    /// Writes a file once more, as it reads, and syncs it and its name: after a failed sync only that is sure to bring
    /// it to the disk. One that is not there is left so.
    pub(crate) fn write_again(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io(path, error)),
        };
        let write = || -> io::Result<()> {
            let mut buffer = vec![0; REWRITE_BYTES];
            let mut offset = 0;
            loop {
                let count = match file.read_at(&mut buffer, offset) {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                if count == 0 {
                    break;
                }
                let bytes = &buffer[..count];
                let write = Step::Write {
                    path: &path,
                    offset,
                    parts: &[IoSlice::new(bytes)],
                };
                step(write, || file.write_all_at(bytes, offset))?;
                offset += count as u64;
            }
            step(Step::Sync(&path), || file.sync_all())?;
            sync_parent(&path)
        };
        write().map_err(|error| self.error(key, error))
    }

    /// Makes the folders above a key, each durable in the one above it. One that is there may have been made by a
    /// process that ended before it could sync it, so each is synced once by each process.
    fn make_parents(&self, key: &str) -> Result<(), StoreError> {
        let Some((parents, _)) = key.rsplit_once('/') else {
            return Ok(());
        };
        let mut path = self.root.clone();
        for part in parents.split('/') {
            path.push(part);
            let made = make_folder(&path).map_err(|error| StoreError::io(&path, error))?;
            if made || !lock(&self.durable).contains(&path) {
                sync_parent(&path).map_err(|error| StoreError::io(&path, error))?;
                lock(&self.durable).insert(path.clone());
            }
        }
        Ok(())
    }
}

/// Makes a folder in one that is there; false if it is there already.
fn make_folder(path: &Path) -> io::Result<bool> {
    let make = || fs::DirBuilder::new().mode(0o700).create(path);
    match step(Step::MakeFolder(path), make) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a folder and those above it, each durable in the one above it.
fn make_folders(path: &Path) -> io::Result<()> {
    let made = match (make_folder(path), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            make_folders(parent)?;
            make_folder(path)?
        }
        (made, _) => made?,
    };
    match made {
        true => sync_parent(path),
        false => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => {
            // The folder above `data` is the one in which the process works.
            let here = parent.as_os_str().is_empty();
            let folder = File::open(if here { Path::new(".") } else { parent })?;
            step(Step::SyncFolder(parent), || folder.sync_all())
        }
        None => Ok(()),
    }
}

/// A file of mode 0600 for writing, made if it is not there.
fn open_or_make(path: &Path, truncate: bool) -> io::Result<File> {
    step(Step::Create { path, truncate }, || {
        OpenOptions::new()
            .create(true)
            .truncate(truncate)
            .write(true)
            .mode(0o600)
            .open(path)
    })
}

/// A file under construction, known to its one writer.
#[derive(Debug)]
pub(crate) struct AppendFile {
    file: File,
    path: PathBuf,
    length: u64,
}

impl AppendFile {
    /// Bytes written so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends all of `parts`, in as few system calls as can be.
    pub(crate) fn append(&mut self, parts: &[&[u8]]) -> Result<(), StoreError> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let count = rest.len().min(SLICES_MAX);
            let write = Step::Write {
                path: &self.path,
                offset: self.length,
                parts: &rest[..count],
            };
            let written = match step(write, || {
                Ok(rustix::io::pwritev(
                    &self.file,
                    &rest[..count],
                    self.length,
                )?)
            }) {
                Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(written) => Ok(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            }
            .map_err(|error| StoreError::io(&self.path, error))?;
            self.length += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    /// Makes everything appended durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        step(Step::Sync(&self.path), || self.file.sync_data())
            .map_err(|error| StoreError::io(&self.path, error))
    }

    /// Takes back what was appended after `length`.
    pub(crate) fn truncate(&mut self, length: u64) -> Result<(), StoreError> {
        step(Step::Length(&self.path, length), || {
            self.file.set_len(length)
        })
        .map_err(|error| StoreError::io(&self.path, error))?;
        self.length = length;
        Ok(())
    }
}

/// A file open for reading at any place, by any thread.
#[derive(Debug)]
pub(crate) struct ReadFile {
    file: File,
    path: PathBuf,
    /// False once the file system said that it cannot tell whether it would block.
    nowait: AtomicBool,
}

impl ReadFile {
    /// Fills `buffer` from `offset`.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(StoreError::Damaged(
                format!("{} ends too early", self.path.display()),
            )),
            Err(error) => Err(StoreError::io(&self.path, error)),
        }
    }

    /// Fills `buffer` if that needs no disk; false if it does. A file system that
    /// cannot tell is read as if it were in memory.
    pub(crate) fn try_read_exact_at(
        &self,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<bool, StoreError> {
        if self.nowait.load(Ordering::Relaxed) {
            let flags = rustix::io::ReadWriteFlags::NOWAIT;
            let mut slices = [IoSliceMut::new(buffer)];
            match rustix::io::preadv2(&self.file, &mut slices, offset, flags) {
                Ok(count) => return Ok(count == buffer.len()),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(false),
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    self.nowait.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(StoreError::io(&self.path, error.into())),
            }
        }
        self.read_exact_at(buffer, offset).map(|()| true)
    }

    /// Bytes in the file now.
    pub(crate) fn length(&self) -> Result<u64, StoreError> {
        self.file
            .metadata()
            .map(|metadata| metadata.len())
            .map_err(|error| StoreError::io(&self.path, error))
    }
}
