//! A folder as a store without a server: on a disk that is kept, or one that many machines mount.
//!
//! ```text
//! DIR/VERSION                               text: "firn-shared 1"
//! DIR/packs/<2 hex>/<32 hex>.pack           the name is random
//! DIR/segments/<16 hex>-<16 hex>.seg        the time of publication in microseconds, then random
//! DIR/tmp/<32 hex>                          what is being written
//! ```
//!
//! A file is written in `tmp`, synced, renamed, and its folder synced. Modes follow the umask, since the folder
//! may be meant for several users.

use super::{Backend, PackFile, SegmentTimes, StoredPack};
use crate::{StoreError, layout::random_hex};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const VERSION: u32 = 1;
const VERSION_FILE: &str = "VERSION";
const MAGIC: &str = "firn-shared ";
/// What a server's data folder has and this one never.
const SERVER_FILES: &[&str] = &["firn.db", "lock"];
/// Temporary files not written to for so long belong to a writer that died.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(2 * 86_400);

/// A folder.
#[derive(Debug)]
pub struct FolderBackend {
    root: PathBuf,
    location: String,
}

impl FolderBackend {
    /// The folder at `root`, which need not be there: the first writer makes it.
    ///
    /// # Errors
    /// [`StoreError::ServerFolder`] if it is a server's data folder, [`StoreError::FormatVersion`] if it is of a
    /// later version, [`StoreError::Io`] if it cannot be looked at.
    pub fn new(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(|error| StoreError::io(root, error))?;
        let backend = Self {
            // Absolute, since the local index goes by it.
            location: root.display().to_string(),
            root,
        };
        for name in SERVER_FILES {
            let path = backend.root.join(name);
            if path
                .try_exists()
                .map_err(|error| StoreError::io(path, error))?
            {
                return Err(StoreError::ServerFolder(backend.root));
            }
        }
        backend.check_version()?;
        Ok(backend)
    }

    /// False if nothing was written here yet.
    fn check_version(&self) -> Result<bool, StoreError> {
        let path = self.root.join(VERSION_FILE);
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StoreError::io(path, error)),
        };
        match text.strip_prefix(MAGIC) {
            Some(version) if version.parse() == Ok(VERSION) => Ok(true),
            Some(version) => Err(StoreError::FormatVersion {
                path,
                found: version.to_owned(),
                known: VERSION,
            }),
            None => Err(StoreError::ServerFolder(self.root.clone())),
        }
    }

    fn pack_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let [folder, fan_out, file] = pack_place(name)?;
        Ok(self.root.join(folder).join(fan_out).join(file))
    }

    fn segment_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let [folder, file] = segment_place(name)?;
        Ok(self.root.join(folder).join(file))
    }

    /// Makes a file that appears whole and durable or not at all.
    fn put(
        &self,
        path: &Path,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        if !self.check_version()? {
            self.make_folder(&self.root.join("tmp"))?;
            self.write_file(&self.root.join(VERSION_FILE), |file| {
                writeln!(file, "{MAGIC}{VERSION}")
            })?;
        }
        self.write_file(path, fill)
    }

    fn write_file(
        &self,
        path: &Path,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let temporary_folder = self.root.join("tmp");
        self.make_folder(&temporary_folder)?;
        if let Some(folder) = path.parent() {
            self.make_folder(folder)?;
        }
        let temporary = temporary_folder.join(random_hex(16)?);
        let write = || {
            let mut file = File::create_new(&temporary)?;
            fill(&mut file)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            sync_parent(path)
        };
        write().map_err(|error| {
            // Best effort: nothing looks at it, and a collector removes it one day.
            let _ = fs::remove_file(&temporary);
            StoreError::io(path, error)
        })
    }

    /// Makes a folder below the root and those above it, each durable in the one above.
    fn make_folder(&self, folder: &Path) -> Result<(), StoreError> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make_folder(parent)?;
        }
        match fs::create_dir(folder) {
            Ok(()) => sync_parent(folder).map_err(|error| StoreError::io(folder, error)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(StoreError::io(folder, error)),
        }
    }

    fn remove_old_temporary(&self) -> Result<(), StoreError> {
        let folder = self.root.join("tmp");
        let found = files(&folder)?;
        if found.is_empty() {
            return Ok(());
        }
        // What was just written has the place's time, whatever clock this machine has.
        let probe = random_hex(16)?;
        let path = folder.join(&probe);
        let write = || {
            File::create_new(&path)?.write_all(b"\n")?;
            let now = fs::metadata(&path)?.modified();
            fs::remove_file(&path)?;
            now
        };
        let now = write().map_err(|error| StoreError::io(&path, error))?;
        for file in found {
            let age = now.duration_since(file.modified);
            if age.is_ok_and(|age| age > TEMPORARY_AGE_MAX) {
                delete(&folder.join(&file.name))?;
            }
        }
        Ok(())
    }
}

impl Backend for FolderBackend {
    fn location(&self) -> &str {
        &self.location
    }

    fn segments(&self) -> Result<Vec<String>, StoreError> {
        let files = files(&self.root.join("segments"))?;
        let names = files
            .iter()
            .filter_map(|file| file.name.strip_suffix(".seg"));
        Ok(names
            .filter(|name| is_segment_name(name))
            .map(str::to_owned)
            .collect())
    }

    fn segment_times(&self) -> Result<SegmentTimes, StoreError> {
        let files = files(&self.root.join("segments"))?;
        let times = files.iter().filter_map(|file| {
            let name = file.name.strip_suffix(".seg")?;
            Some((name.to_owned(), seconds(file.modified)))
        });
        Ok(SegmentTimes::Stored(times.collect()))
    }

    fn segment(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.segment_path(name)?;
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(path, error)),
        }
    }

    fn put_pack(&self, file: &File, length: u64) -> Result<StoredPack, StoreError> {
        let name = random_hex(16)?;
        self.put(&self.pack_path(&name)?, |target| {
            let mut source = file;
            source.rewind()?;
            match io::copy(&mut source.take(length), target)? {
                copied if copied == length => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        })?;
        Ok(StoredPack { name, length })
    }

    fn publish(
        &self,
        at: u64,
        segment: &[u8],
        _packs: &[StoredPack],
    ) -> Result<String, StoreError> {
        let name = format!("{at:016x}-{}", random_hex(8)?);
        self.put(&self.segment_path(&name)?, |file| file.write_all(segment))?;
        Ok(name)
    }

    fn read(&self, pack: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let path = self.pack_path(pack)?;
        let read = || {
            let file = File::open(&path)?;
            // A length that was never in the file must not be allocated.
            if range.end > file.metadata()?.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut bytes = vec![0; range.end.saturating_sub(range.start) as usize];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes)
        };
        read().map_err(|error| StoreError::io(&path, error))
    }

    fn packs(&self) -> Result<Option<Vec<PackFile>>, StoreError> {
        // Only a collector asks for this.
        self.remove_old_temporary()?;
        let mut packs = Vec::new();
        for fan_out in folders(&self.root.join("packs"))? {
            for file in files(&fan_out)? {
                let Some(name) = file.name.strip_suffix(".pack") else {
                    continue;
                };
                if is_pack_name(name) {
                    packs.push(PackFile {
                        name: name.to_owned(),
                        length: file.length,
                        modified_at: seconds(file.modified),
                    });
                }
            }
        }
        Ok(Some(packs))
    }

    fn delete_pack(&self, name: &str) -> Result<(), StoreError> {
        delete(&self.pack_path(name)?)
    }

    fn delete_segment(&self, name: &str) -> Result<(), StoreError> {
        delete(&self.segment_path(name)?)
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() as i64
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// 32 hex digits, as folders and buckets name packs.
pub(super) fn is_pack_name(name: &str) -> bool {
    is_hex(name, 32)
}

/// `<16 hex>-<16 hex>`, as folders and buckets name segments.
pub(super) fn is_segment_name(name: &str) -> bool {
    name.split_once('-')
        .is_some_and(|(at, random)| is_hex(at, 16) && is_hex(random, 16))
}

/// Where a pack lies in folders and buckets. Names come out of segments, which anybody may have written.
pub(super) fn pack_place(name: &str) -> Result<[String; 3], StoreError> {
    match name.get(..2) {
        Some(fan_out) if is_pack_name(name) => {
            Ok(["packs".into(), fan_out.into(), format!("{name}.pack")])
        }
        _ => Err(StoreError::Damaged(format!(
            "{name:?} does not name a pack"
        ))),
    }
}

/// Where a segment lies in folders and buckets.
pub(super) fn segment_place(name: &str) -> Result<[String; 2], StoreError> {
    match is_segment_name(name) {
        true => Ok(["segments".into(), format!("{name}.seg")]),
        false => Err(StoreError::Damaged(format!(
            "{name:?} does not name a segment"
        ))),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn delete(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io(path, error)),
    }
}

struct Listed {
    name: String,
    length: u64,
    modified: SystemTime,
}

/// Files in a folder; none if it is not there. What goes meanwhile is left out.
fn files(folder: &Path) -> Result<Vec<Listed>, StoreError> {
    let mut found = Vec::new();
    for item in items(folder)? {
        let (Ok(name), Ok(metadata)) = (item.file_name().into_string(), item.metadata()) else {
            continue;
        };
        if let (true, Ok(modified)) = (metadata.is_file(), metadata.modified()) {
            found.push(Listed {
                name,
                length: metadata.len(),
                modified,
            });
        }
    }
    Ok(found)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let items = items(folder)?;
    let paths = items.iter().map(fs::DirEntry::path);
    Ok(paths.filter(|path| path.is_dir()).collect())
}

fn items(folder: &Path) -> Result<Vec<fs::DirEntry>, StoreError> {
    let list = match fs::read_dir(folder) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io(folder, error)),
    };
    list.collect::<io::Result<_>>()
        .map_err(|error| StoreError::io(folder, error))
}
