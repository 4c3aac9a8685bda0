//! Frames that were read, kept on the local disk: each file is one range of a pack, as it was fetched.
//!
//! ```text
//! <folder>/<16 hex of BLAKE3 of the pack's name>-<start, 16 hex>-<end, 16 hex>
//! ```
//!
//! Nothing here is believed either: who takes a frame checks it, and drops the file if it is damaged. A file's
//! time of modification is when it was last of use; the oldest go first. Several processes may share a folder:
//! each lists it from time to time, so all of them together keep about the bound. No failure here fails a read.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// A file that was of use is not touched again for so long.
const TOUCH_INTERVAL: Duration = Duration::from_secs(60);
/// Of the bound, in sixteenths: after how much that was written the folder is listed again; how large a file may
/// be; and above what files are deleted, down to what. What one process writes so stays within the bound.
const LISTED_AFTER: u64 = 1;
const FILE_MAX: u64 = 2;
const FULL: u64 = 13;
const KEPT: u64 = 11;

#[derive(Debug)]
pub(super) struct FrameCache {
    folder: PathBuf,
    bytes_max: u64,
    state: Mutex<Option<State>>,
}

/// What the folder held when it was listed, and what this process did since.
#[derive(Debug, Default)]
struct State {
    /// Ranges by the hash of their pack's name, start and end.
    packs: HashMap<u64, BTreeMap<u64, Span>>,
    written: u64,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    end: u64,
    touched: SystemTime,
}

/// A cached range and the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cached {
    path: PathBuf,
    start: u64,
}

impl FrameCache {
    /// `bytes_max` 0 keeps nothing.
    pub(super) fn new(folder: PathBuf, bytes_max: u64) -> Self {
        Self {
            folder,
            bytes_max,
            state: Mutex::default(),
        }
    }

    /// What may be fetched ahead, in bytes, so that none of it is deleted at once.
    pub(super) fn budget(&self) -> u64 {
        self.share(KEPT)
    }

    fn share(&self, sixteenths: u64) -> u64 {
        self.bytes_max / 16 * sixteenths
    }

    /// Runs with what is known of the folder, which is listed the first time.
    fn with<T>(&self, run: impl FnOnce(&mut State) -> T) -> T {
        let mut state: MutexGuard<'_, _> =
            self.state.lock().unwrap_or_else(PoisonError::into_inner);
        run(state.get_or_insert_with(|| self.list()))
    }

    /// The file that holds a range of a pack.
    pub(super) fn find(&self, pack: &str, range: &Range<u64>) -> Option<Cached> {
        if self.bytes_max == 0 {
            return None;
        }
        let hash = hash_of(pack);
        let (start, end) = self.with(|state| {
            let spans = state.packs.get(&hash)?;
            let mut before = spans.range(..=range.start).rev();
            before
                .find(|(_, span)| span.end >= range.end)
                .map(|(start, span)| (*start, span.end))
        })?;
        Some(Cached {
            path: self.path(hash, start, end),
            start,
        })
    }

    /// The bytes of a range that was found; `None` if the file has gone or is too short.
    pub(super) fn read(&self, cached: &Cached, range: &Range<u64>) -> Option<Vec<u8>> {
        let read = || -> std::io::Result<Vec<u8>> {
            let file = File::open(&cached.path)?;
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut bytes, range.start - cached.start)?;
            self.touch(cached, &file);
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Some(bytes),
            Err(_) => {
                self.forget(cached);
                None
            }
        }
    }

    /// Drops a range whose bytes turned out to be wrong.
    pub(super) fn forget(&self, cached: &Cached) {
        // Another process may have deleted it.
        let _ = fs::remove_file(&cached.path);
        let Some((hash, start, _)) = parse(&cached.path) else {
            return;
        };
        self.with(|state| {
            if let Some(spans) = state.packs.get_mut(&hash) {
                spans.remove(&start);
            }
        });
    }

    fn touch(&self, cached: &Cached, file: &File) {
        let now = SystemTime::now();
        let due = parse(&cached.path).is_some_and(|(hash, start, _)| {
            self.with(|state| {
                let spans = state.packs.get_mut(&hash);
                let span = spans.and_then(|spans| spans.get_mut(&start));
                span.is_some_and(|span| {
                    let due = now
                        .duration_since(span.touched)
                        .is_ok_and(|age| age > TOUCH_INTERVAL);
                    if due {
                        span.touched = now;
                    }
                    due
                })
            })
        });
        if due {
            // It only decides what is deleted first.
            let _ = file.set_modified(now);
        }
    }

    /// Keeps a range of a pack that was just read.
    pub(super) fn put(&self, pack: &str, start: u64, bytes: &[u8]) {
        let length = bytes.len() as u64;
        if length == 0 || length > self.share(FILE_MAX) {
            return;
        }
        let (hash, end) = (hash_of(pack), start + length);
        let path = self.path(hash, start, end);
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            std::io::Write::write_all(&mut file, bytes)?;
            file.persist(&path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "a range of a pack is not cached");
            return;
        }
        self.with(|state| {
            let touched = SystemTime::now();
            state
                .packs
                .entry(hash)
                .or_default()
                .insert(start, Span { end, touched });
            state.written += length;
            if state.written >= self.share(LISTED_AFTER) {
                *state = self.list();
            }
        });
    }

    fn path(&self, hash: u64, start: u64, end: u64) -> PathBuf {
        self.folder
            .join(format!("{hash:016x}-{start:016x}-{end:016x}"))
    }

    /// Lists the folder, and deletes the oldest files while there are too many bytes.
    fn list(&self) -> State {
        let mut files: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        for item in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if let Ok(metadata) = item.metadata()
                && let Ok(modified) = metadata.modified()
            {
                files.push((modified, item.path(), metadata.len()));
            }
        }
        let mut total: u64 = files.iter().map(|(_, _, length)| length).sum();
        files.sort();
        let mut state = State::default();
        let too_many = total > self.share(FULL);
        for (touched, path, length) in files {
            let goes = too_many && total > self.share(KEPT);
            match parse(&path) {
                Some((hash, start, end)) if !goes => {
                    let spans = state.packs.entry(hash).or_default();
                    spans.insert(start, Span { end, touched });
                }
                Some(_) if fs::remove_file(&path).is_ok() => total -= length,
                // Being written, or left by a process that died.
                None if goes && fs::remove_file(&path).is_ok() => total -= length,
                _ => {}
            }
        }
        state
    }
}

fn hash_of(pack: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(pack.as_bytes()).as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn parse(path: &std::path::Path) -> Option<(u64, u64, u64)> {
    let mut parts = path.file_name()?.to_str()?.split('-');
    let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
    let found = (number()?, number()?, number()?);
    parts.next().is_none().then_some(found)
}
