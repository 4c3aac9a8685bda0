//! Which chunks the store paths of this machine hold, and where.
//!
//! Told by the memory of chunk lists, by what was served since the start, and, for a path that is being
//! fetched, by cutting an older version of it. All of it is a guess: a path must still have its size when it
//! is opened, and a chunk its hash when it is read.

use super::names;
use crate::{local_store::LocalStore, push::work::lock};
use firn_chunks::{ChunkId, ChunkList, ChunkRef, boundaries::V1};
use firn_formats::nix::StorePath;
use firn_image::archive::Archive;
use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

/// Most chunks that are known, which is some 128 GB of store paths and 100 MB of memory.
const PLACES_MAX: usize = 2 << 20;
/// Older versions of one path that are cut for it.
const VERSIONS_MAX: usize = 2;
/// Less than so many missing bytes are not worth reading an older version.
const MISSING_BYTES_MIN: u64 = 64 << 10;
/// An older version may be so many times larger than what is missing.
const VERSION_SIZE_RATIO_MAX: u64 = 16;
/// The store's folder is listed again after this time.
const LISTING_AGE_MAX: Duration = Duration::from_secs(30);

/// An index of chunks in the local Nix store.
pub(super) struct LocalChunks {
    store: LocalStore,
    index: RwLock<Index>,
    memory_read: Mutex<bool>,
    /// Older versions that were cut, or are being cut.
    cut: Mutex<HashSet<String>>,
    listing: Mutex<Option<Listing>>,
}

#[derive(Default)]
struct Index {
    paths: Vec<LocalPath>,
    places: HashMap<u64, Place>,
}

/// A path by its base name.
#[derive(Clone)]
struct LocalPath {
    name: String,
    nar_size: u64,
}

/// A chunk in the NAR of a path.
#[derive(Clone, Copy)]
struct Place {
    path: u32,
    length: u32,
    offset: u64,
}

/// Base names by what of their name stays between versions.
struct Listing {
    names: HashMap<String, Vec<String>>,
    read_at: Instant,
}

/// A chunk that can be read from a path of this machine.
#[derive(Clone)]
pub(super) struct LocalChunk {
    pub(super) archive: Arc<Archive>,
    offset: u64,
}

impl LocalChunk {
    /// Whether `out` now holds the chunk.
    pub(super) fn read(&self, chunk: &ChunkRef, out: &mut Vec<u8>) -> bool {
        let read = self
            .archive
            .read_at(self.offset, chunk.raw_length as usize, out);
        read.is_ok() && ChunkId::of(out) == chunk.id
    }
}

/// Archives that were opened for one NAR.
#[derive(Default)]
pub(super) struct Opened(HashMap<u32, Option<Arc<Archive>>>);

fn prefix(id: &ChunkId) -> u64 {
    let (first, _) = id.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first)
}

impl LocalChunks {
    pub(super) fn new(store: LocalStore) -> Self {
        Self {
            store,
            index: RwLock::default(),
            memory_read: Mutex::default(),
            cut: Mutex::default(),
            listing: Mutex::default(),
        }
    }

    /// Whether the path lies here.
    pub(super) fn has(&self, path: &StorePath) -> bool {
        self.lies_here(&path.to_string())
    }

    fn lies_here(&self, base_name: &str) -> bool {
        std::fs::symlink_metadata(self.store.store_dir().join(base_name)).is_ok()
    }

    /// Takes in what is remembered, once.
    pub(super) fn read_memory(&self) {
        let mut read = lock(&self.memory_read);
        if std::mem::replace(&mut *read, true) {
            return;
        }
        self.store.memory().for_each(&mut |path, chunks| {
            if self.has(path) {
                self.learn(path, &chunks.list);
            }
        });
    }

    /// A path has these chunks.
    pub(super) fn learn(&self, path: &StorePath, list: &ChunkList) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let Ok(number) = u32::try_from(index.paths.len()) else {
            return;
        };
        let mut gone: HashMap<u32, bool> = HashMap::new();
        let Index { paths, places } = &mut *index;
        paths.push(LocalPath {
            name: path.to_string(),
            nar_size: list.raw_length(),
        });
        let mut offset = 0;
        for chunk in &list.chunks {
            let place = Place {
                path: number,
                length: chunk.raw_length,
                offset,
            };
            offset += u64::from(chunk.raw_length);
            let full = places.len() >= PLACES_MAX;
            match places.get_mut(&prefix(&chunk.id)) {
                // What lies here already is better than what Nix may still be unpacking.
                Some(known) => {
                    let gone = gone.entry(known.path).or_insert_with(|| {
                        let name = paths.get(known.path as usize).map(|path| &path.name);
                        name.is_none_or(|name| !self.lies_here(name))
                    });
                    if *gone {
                        *known = place;
                    }
                }
                None if full => break,
                None => {
                    places.insert(prefix(&chunk.id), place);
                }
            }
        }
    }

    /// Where chunks can be read here.
    pub(super) fn find(&self, chunks: &[ChunkRef], opened: &mut Opened) -> Vec<Option<LocalChunk>> {
        let places: Vec<Option<(Place, LocalPath)>> = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            let find = |chunk: &ChunkRef| {
                let place = index.places.get(&prefix(&chunk.id))?;
                let path = index.paths.get(place.path as usize)?;
                (place.length == chunk.raw_length).then(|| (*place, path.clone()))
            };
            chunks.iter().map(find).collect()
        };
        let open = |place: Option<(Place, LocalPath)>| {
            let (place, path) = place?;
            let archive = opened
                .0
                .entry(place.path)
                .or_insert_with(|| self.open(&path));
            Some(LocalChunk {
                archive: Arc::clone(archive.as_ref()?),
                offset: place.offset,
            })
        };
        places.into_iter().map(open).collect()
    }

    /// The path's archive, if it lies here whole.
    fn open(&self, path: &LocalPath) -> Option<Arc<Archive>> {
        let archive = Archive::nar(&self.store.store_dir().join(&path.name)).ok()?;
        (archive.length() == path.nar_size).then(|| Arc::new(archive))
    }

    /// Cuts older versions of a path of which so many bytes are missing. Says whether anything was learned.
    pub(super) fn learn_versions(&self, path: &StorePath, missing_bytes: u64) -> bool {
        if missing_bytes < MISSING_BYTES_MIN {
            return false;
        }
        let mut learned = false;
        for name in self.versions(path) {
            if !lock(&self.cut).insert(name.clone()) {
                continue;
            }
            learned |= self.cut(&name, missing_bytes);
        }
        learned
    }

    fn cut(&self, name: &str, missing_bytes: u64) -> bool {
        let Ok(path) = StorePath::parse_base_name(name) else {
            return false;
        };
        let Ok(archive) = Archive::nar(&self.store.physical(&path)) else {
            return false;
        };
        if archive.length() / VERSION_SIZE_RATIO_MAX > missing_bytes {
            // It may pay for another path.
            lock(&self.cut).remove(name);
            return false;
        }
        match archive.chunk(V1, &|_| None) {
            Ok(list) => {
                self.learn(&path, &list);
                true
            }
            Err(error) => {
                tracing::debug!(%error, name, "an older version could not be read");
                false
            }
        }
    }

    /// Base names of other versions of a path, those that are most like it first, then the newest; before them the
    /// path itself, which lies here where it is wanted for somewhere else.
    fn versions(&self, path: &StorePath) -> Vec<String> {
        let mut listing = lock(&self.listing);
        let fresh = |listing: &Listing| listing.read_at.elapsed() < LISTING_AGE_MAX;
        if !listing.as_ref().is_some_and(fresh) {
            *listing = Some(self.list());
        }
        let package = names::without_version(path.name());
        let known = listing
            .as_ref()
            .and_then(|listing| listing.names.get(package));
        let own = path.to_string();
        let mut versions: Vec<(bool, u8, Reverse<i64>, String)> = known
            .into_iter()
            .flatten()
            .filter_map(|name| {
                let full = self.store.store_dir().join(name);
                let made = std::fs::symlink_metadata(full).ok()?.ctime();
                let distance = names::distance(path.name(), name.get(33..)?);
                Some((*name != own, distance, Reverse(made), name.clone()))
            })
            .collect();
        versions.sort();
        versions.truncate(VERSIONS_MAX);
        versions.into_iter().map(|(.., name)| name).collect()
    }

    fn list(&self) -> Listing {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        let entries = std::fs::read_dir(self.store.store_dir());
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(path) = name
                .to_str()
                .and_then(|name| StorePath::parse_base_name(name).ok())
            else {
                continue;
            };
            if !path.is_derivation() {
                let package = names::without_version(path.name()).to_owned();
                names.entry(package).or_default().push(path.to_string());
            }
        }
        Listing {
            names,
            read_at: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "00c89v0sz1j42g5sg6mffiwplzccay6p-app-2.0";
    const OLD: &str = "11c89v0sz1j42g5sg6mffiwplzccay6p-app-1.0";

    struct Fixture {
        _dir: tempfile::TempDir,
        local: LocalChunks,
    }

    fn fixture(paths: &[(&str, &[u8])]) -> Fixture {
        let dir = tempfile::tempdir().expect("a folder");
        let store = LocalStore::new(dir.path().join("state"), dir.path());
        for (name, content) in paths {
            std::fs::create_dir_all(dir.path().join(name)).expect("folder");
            std::fs::write(dir.path().join(name).join("file"), content).expect("file");
        }
        Fixture {
            local: LocalChunks::new(store),
            _dir: dir,
        }
    }

    fn path(name: &str) -> StorePath {
        StorePath::parse_base_name(name).expect("a store path")
    }

    impl Fixture {
        fn list(&self, name: &str) -> ChunkList {
            let archive = Archive::nar(&self.local.store.physical(&path(name))).expect("a tree");
            archive.chunk(V1, &|_| None).expect("chunks")
        }

        fn readable(&self, list: &ChunkList) -> usize {
            let found = self.local.find(&list.chunks, &mut Opened::default());
            let mut out = Vec::new();
            std::iter::zip(found, &list.chunks)
                .filter(|(found, chunk)| {
                    found
                        .as_ref()
                        .is_some_and(|found| found.read(chunk, &mut out))
                })
                .count()
        }
    }

    #[test]
    fn an_older_version_is_cut_when_it_pays() {
        let content: Vec<u8> = (0..200_000u32)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        let fixture = fixture(&[(OLD, &content)]);
        let list = fixture.list(OLD);
        assert_eq!(fixture.readable(&list), 0, "nothing is known yet");
        assert!(!fixture.local.learn_versions(&path(NEW), 100));
        assert!(fixture.local.learn_versions(&path(NEW), 200_000));
        assert_eq!(fixture.readable(&list), list.chunks.len());
        assert!(!fixture.local.learn_versions(&path(NEW), 200_000), "twice");
        let other = path("22c89v0sz1j42g5sg6mffiwplzccay6p-other-1.0");
        assert!(!fixture.local.learn_versions(&other, 200_000));
    }

    #[test]
    fn a_path_that_changed_gives_nothing_and_one_that_came_back_does() {
        let fixture = fixture(&[(OLD, &[7; 100_000])]);
        let list = fixture.list(OLD);
        fixture.local.learn(&path(OLD), &list);
        assert_eq!(fixture.readable(&list), list.chunks.len());
        let file = fixture.local.store.physical(&path(OLD)).join("file");
        std::fs::write(&file, [8; 100_000]).expect("write");
        assert!(fixture.readable(&list) < list.chunks.len(), "other bytes");
        std::fs::write(&file, [7; 90_000]).expect("write");
        assert_eq!(fixture.readable(&list), 0, "another length");
        std::fs::write(&file, [7; 100_000]).expect("write");
        assert_eq!(fixture.readable(&list), list.chunks.len());
    }

    #[test]
    fn a_place_that_is_gone_gives_way_and_another_does_not() {
        let fixture = fixture(&[(OLD, &[7; 100_000]), (NEW, &[7; 100_000])]);
        let list = fixture.list(OLD);
        fixture.local.learn(&path(OLD), &list);
        fixture.local.learn(&path(NEW), &list);
        std::fs::remove_dir_all(fixture.local.store.physical(&path(OLD))).expect("remove");
        assert_eq!(fixture.readable(&list), 0);
        fixture.local.learn(&path(NEW), &list);
        assert_eq!(fixture.readable(&list), list.chunks.len());
    }
}
