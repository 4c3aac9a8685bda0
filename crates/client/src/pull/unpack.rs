//! Unpacking closures into a folder, without Nix. A path appears under its name only when its NAR
//! hash has been checked; signatures have been checked before.

use super::{BinaryCache, PullReport};
use crate::{
    error::{ClientError, Result},
    progress::Progress,
    push::work::lock,
    substituter::{ServerSource, Substituter},
};
use firn_formats::{
    Sha256,
    nix::{
        Compression, NarInfo, PublicKey, StorePath,
        nar::{EntryKind, Event, Parser},
    },
    sha256::Sha256Hasher,
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const BLOCK_BYTES: usize = 128 << 10;

/// A server whose NARs are put together from what this machine has and what it lacks.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Chunks {
    pub substituter: Arc<Substituter>,
    pub server: Arc<ServerSource>,
}

/// Fetches the closures of `paths` into `folder/nix/store`, leaving alone what is there. With `chunks`, which are the
/// cache's own, NARs are not fetched whole.
pub fn pull_to_folder(
    cache: &BinaryCache,
    chunks: Option<&Chunks>,
    paths: &[StorePath],
    keys: &[PublicKey],
    folder: &Path,
    progress: &dyn Progress,
) -> Result<PullReport> {
    let started = Instant::now();
    if keys.is_empty() {
        return Err(ClientError::NoTrustedKey {
            url: cache.url().to_owned(),
        });
    }
    let store = folder.join("nix/store");
    std::fs::create_dir_all(&store).map_err(|source| ClientError::io(&store, source))?;
    let infos = cache.closure(paths, keys, &|_| false)?;
    let total = infos.len() as u64;
    let wanted: Vec<NarInfo> = infos
        .into_iter()
        .filter(|info| {
            let place = store.join(info.store_path.to_string());
            std::fs::symlink_metadata(place).is_err()
        })
        .collect();
    progress.begin("pull", wanted.iter().map(|info| info.nar_size).sum());
    let received = fetch_all(cache, chunks, &wanted, &store, progress)?;
    progress.end();
    Ok(PullReport {
        paths_total: Some(total),
        paths_fetched: Some(wanted.len() as u64),
        bytes_received: Some(received),
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn fetch_all(
    cache: &BinaryCache,
    chunks: Option<&Chunks>,
    wanted: &[NarInfo],
    store: &Path,
    progress: &dyn Progress,
) -> Result<u64> {
    let next = AtomicUsize::new(0);
    let received = Arc::new(AtomicU64::new(0));
    let failure: Mutex<Option<ClientError>> = Mutex::default();
    let work = || {
        while lock(&failure).is_none() {
            let Some(info) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            let nar = match chunks {
                Some(chunks) => assembled(chunks, info),
                None => fetched(cache, info, &received),
            };
            if let Err(error) = nar.and_then(|nar| keep(nar, info, store, progress)) {
                lock(&failure).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..wanted.len().min(crate::push::cores().max(4)) {
            scope.spawn(work);
        }
    });
    let failed = lock(&failure).take();
    let ahead = |chunks: &Chunks| chunks.server.bytes_fetched();
    let received = received.load(Ordering::Relaxed) + chunks.map_or(0, ahead);
    failed.map_or(Ok(received), Err)
}

type Nar<'r> = Box<dyn Read + Send + 'r>;

fn assembled(chunks: &Chunks, info: &NarInfo) -> Result<Nar<'static>> {
    let Chunks {
        substituter,
        server,
    } = chunks;
    match substituter.server_nar_of(server, info.clone())? {
        Some(nar) => Ok(nar.reader),
        None => Err(ClientError::NotCached {
            path: info.store_path.absolute(),
            url: server.url().to_owned(),
        }),
    }
}

fn fetched(cache: &BinaryCache, info: &NarInfo, received: &Arc<AtomicU64>) -> Result<Nar<'static>> {
    let answer = cache.get(&info.url)?.accept()?;
    let body = CountingReader {
        inner: answer.into_reader(),
        count: Arc::clone(received),
    };
    decompress(info, body)
}

/// Unpacks a NAR into the folder.
fn keep(mut nar: Nar<'_>, info: &NarInfo, store: &Path, progress: &dyn Progress) -> Result<()> {
    let temporary = tempfile::Builder::new()
        .prefix(".firn-")
        .tempdir_in(store)
        .map_err(|source| ClientError::io(store, source))?;
    let unpacked = temporary.path().join("x");
    unpack(&mut nar, &unpacked, info, progress)?;
    let place = store.join(info.store_path.to_string());
    match std::fs::rename(&unpacked, &place) {
        Ok(()) => Ok(()),
        Err(_) if std::fs::symlink_metadata(&place).is_ok() => Ok(()),
        Err(source) => Err(ClientError::io(&place, source)),
    }
}

struct CountingReader<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Memory an xz stream may ask for: its highest preset needs 65 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 128 << 20;

/// A NAR out of what its cache keeps.
pub(crate) fn decompress<'r>(
    info: &NarInfo,
    body: impl Read + Send + 'r,
) -> Result<Box<dyn Read + Send + 'r>> {
    match info.compression {
        Compression::None => Ok(Box::new(body)),
        Compression::Zstd => match zstd::stream::Decoder::new(body) {
            Ok(decoder) => Ok(Box::new(decoder)),
            Err(source) => Err(ClientError::io(&info.url, source)),
        },
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY_BYTES_MAX,
                liblzma::stream::CONCATENATED,
            )
            .map_err(|error| ClientError::io(&info.url, error.into()))?;
            Ok(Box::new(liblzma::read::XzDecoder::new_stream(body, stream)))
        }
        other => Err(ClientError::Compression {
            path: info.store_path.absolute(),
            compression: other.name().to_owned(),
        }),
    }
}

/// Unpacks a NAR at `root` and checks its hash and size.
fn unpack(nar: &mut dyn Read, root: &Path, info: &NarInfo, progress: &dyn Progress) -> Result<()> {
    let mut parser = Parser::of_stored();
    let mut hasher = Sha256Hasher::new();
    let mut tree = TreeWriter::new(root);
    let mut block = vec![0; BLOCK_BYTES];
    let mut size = 0_u64;
    loop {
        let read = match nar.read(&mut block) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(ClientError::io(&info.url, source)),
        };
        size += read as u64;
        if size > info.nar_size {
            return Err(mismatch(info));
        }
        hasher.update(&block[..read]);
        parser.push(&block[..read], &mut |event| tree.event(&event))?;
        tree.check()?;
        progress.advance(read as u64);
    }
    parser.finish()?;
    let found: Sha256 = hasher.finish();
    if size != info.nar_size || found != info.nar_hash {
        return Err(mismatch(info));
    }
    tree.finish()
}

fn mismatch(info: &NarInfo) -> ClientError {
    ClientError::HashMismatch {
        what: format!("the NAR of {}", info.store_path.absolute()),
    }
}

/// Writes the events of a NAR as files. The parser lets no entry stand below anything but a directory
/// of the same NAR, and no name hold a slash, so nothing can be written outside the root.
struct TreeWriter<'a> {
    root: &'a Path,
    file: Option<(PathBuf, File, bool)>,
    directories: Vec<PathBuf>,
    fault: Option<ClientError>,
}

impl<'a> TreeWriter<'a> {
    fn new(root: &'a Path) -> Self {
        Self {
            root,
            file: None,
            directories: Vec::new(),
            fault: None,
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        if self.fault.is_some() {
            return;
        }
        if let Err(fault) = self.write(event) {
            self.fault = Some(fault);
        }
    }

    fn check(&mut self) -> Result<()> {
        self.fault.take().map_or(Ok(()), Err)
    }

    fn write(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Entry { path, kind } => {
                let place = if path.is_empty() {
                    self.root.to_path_buf()
                } else {
                    self.root.join(OsStr::from_bytes(path))
                };
                self.entry(place, kind)
            }
            Event::Content(bytes) => match &mut self.file {
                Some((path, file, _)) => file
                    .write_all(bytes)
                    .map_err(|source| ClientError::io(path, source)),
                None => Ok(()),
            },
            Event::ContentEnd => self.end_file(),
            Event::Structure(_) | Event::DirectoryEnd => Ok(()),
        }
    }

    fn entry(&mut self, place: PathBuf, kind: &EntryKind<'_>) -> Result<()> {
        let made = match kind {
            EntryKind::Directory => {
                let made = std::fs::create_dir(&place);
                self.directories.push(place.clone());
                made
            }
            EntryKind::Symlink { target } => symlink(OsStr::from_bytes(target), &place),
            EntryKind::Regular { executable, .. } => std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&place)
                .map(|file| self.file = Some((place.clone(), file, *executable))),
        };
        made.map_err(|source| ClientError::io(&place, source))
    }

    fn end_file(&mut self) -> Result<()> {
        let Some((path, file, executable)) = self.file.take() else {
            return Ok(());
        };
        let mode = if executable { 0o555 } else { 0o444 };
        file.set_modified(store_time())
            .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(mode)))
            .map_err(|source| ClientError::io(&path, source))
    }

    /// Directories get their times and modes last, the innermost first.
    fn finish(mut self) -> Result<()> {
        self.end_file()?;
        self.check()?;
        for path in self.directories.iter().rev() {
            let finished = File::open(path).and_then(|directory| {
                directory.set_modified(store_time())?;
                // The topmost is still to be renamed, which its owner may only while it is writable.
                let mode = if path == self.root { 0o755 } else { 0o555 };
                directory.set_permissions(std::fs::Permissions::from_mode(mode))
            });
            finished.map_err(|source| ClientError::io(path, source))?;
        }
        Ok(())
    }
}

/// What Nix sets on everything in its store.
fn store_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An xz stream whose header asks for a dictionary of 4 GiB.
    fn greedy(plain: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::read::XzEncoder::new(plain, 1);
        let mut packed = Vec::new();
        encoder.read_to_end(&mut packed).expect("packed");
        // Behind the stream's 12 bytes: size, flags, filter, length of its properties, the dictionary's size.
        let length = (usize::from(packed[12]) + 1) * 4;
        assert_eq!(packed[14..16], [0x21, 1]);
        packed[16] = 40;
        let sum = crc32(&packed[12..12 + length - 4]);
        packed[12 + length - 4..12 + length].copy_from_slice(&sum.to_le_bytes());
        packed
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let step = |sum: u32, _| (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg());
        let add = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), step);
        !bytes.iter().fold(u32::MAX, add)
    }

    fn info() -> NarInfo {
        let text = format!(
            "StorePath: /nix/store/00c89v0sz1j42g5sg6mffiwplzccay6p-x\nURL: nar/x.nar.xz\nCompression: xz\n\
             NarHash: sha256:{}\nNarSize: 1\nReferences: \n",
            "0".repeat(52)
        );
        NarInfo::parse(&text).expect("a narinfo")
    }

    #[test]
    fn s24_an_xz_that_asks_for_gigabytes_is_refused() {
        let (info, mut out) = (info(), Vec::new());
        let packed = greedy(b"text");
        let mut body = decompress(&info, &packed[..]).expect("a decoder");
        let refused = body.read_to_end(&mut out).expect_err("4 GiB are too much");
        assert!(refused.to_string().contains("memory"), "{refused}");
        for preset in [1, 9] {
            let mut packed = Vec::new();
            liblzma::read::XzEncoder::new(&b"text"[..], preset)
                .read_to_end(&mut packed)
                .expect("packed");
            let twice = [&packed[..], &packed[..]].concat();
            let mut body = decompress(&info, &twice[..]).expect("a decoder");
            let mut text = String::new();
            body.read_to_string(&mut text).expect("text");
            assert_eq!(text, "texttext");
        }
    }
}
