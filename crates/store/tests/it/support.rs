//! Stores in temporary folders, and content to put into them.

use bytes::Bytes;
use firn_chunks::{ChunkList, ChunkRef, Encoder, Format, VerifiedFrame};
use firn_store::{
    BlobId, BlobInfo, CacheRow, EntryKind, IfExists, NewEntry, Options, Publication,
    Representation, Session, Store, StoreError,
};
pub(crate) use firn_testkit::noise;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_owned(),
        pack_bytes_target: 64 << 20,
        session_ttl: Duration::from_secs(600),
        lease: Duration::from_secs(7200),
        segment_interval: Duration::from_secs(3600),
        layout_cache_bytes: 8 << 20,
    }
}

/// An open store with a cache and a session.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) cache: CacheRow,
    pub(crate) session: Session,
    pub(crate) dir: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        change(&mut options);
        let store = Store::open(options).unwrap();
        let cache = store.cache_create("main", "public", b"{}").unwrap();
        let session = store.session_open(&cache).unwrap();
        Self {
            store,
            cache,
            session,
            dir,
        }
    }

    pub(crate) fn ingest(&self, bytes: &[u8]) -> Result<BlobInfo, StoreError> {
        ingest(&self.store, &self.session, bytes)
    }

    pub(crate) fn publish(&self, key: &str, blobs: &[BlobId]) {
        let published = self.store.publish(
            Some(&self.session),
            self.cache.id,
            publication(vec![entry(key, blobs)]),
        );
        assert_eq!(published.unwrap().len(), 1);
    }
}

pub(crate) fn ingest(
    store: &Store,
    session: &Session,
    bytes: &[u8],
) -> Result<BlobInfo, StoreError> {
    let mut ingest = store.ingest(session, Format::Opaque);
    for piece in bytes.chunks(100_000) {
        ingest.write(piece)?;
    }
    ingest.finish()
}

pub(crate) fn entry(key: &str, blobs: &[BlobId]) -> NewEntry {
    NewEntry {
        kind: EntryKind::Narinfo,
        key: key.to_owned(),
        value: Bytes::from(format!("value of {key}")),
        blobs: blobs.to_vec(),
        requires: Vec::new(),
        if_exists: IfExists::Replace,
        lease: None,
    }
}

pub(crate) fn publication(entries: Vec<NewEntry>) -> Publication {
    Publication {
        entries,
        deletions: Vec::new(),
    }
}

pub(crate) fn read_all(
    store: &Store,
    blob: BlobId,
    representation: Representation,
    range: Option<(u64, u64)>,
) -> Result<Vec<u8>, StoreError> {
    let mut reader = store.read(blob, representation, range)?;
    let expected = reader.remaining();
    let mut out = Vec::new();
    while let Some(block) = reader.next_block()? {
        assert!(!block.is_empty());
        out.extend_from_slice(&block);
        assert_eq!(reader.remaining(), expected - out.len() as u64);
    }
    assert_eq!(out.len() as u64, expected);
    Ok(out)
}

/// Bytes of which half are noise.
pub(crate) fn mixed(seed: u64, length: usize) -> Vec<u8> {
    let mut out = noise(seed, length);
    for (index, piece) in out.chunks_mut(512).enumerate() {
        if index % 2 == 1 {
            piece.fill(b'a' + (index % 16) as u8);
        }
    }
    out
}

/// A frame for each piece, and the list of them all.
pub(crate) fn frames(pieces: &[Vec<u8>], level: i32) -> (Vec<VerifiedFrame>, ChunkList) {
    let mut encoder = Encoder::new(level);
    let frames: Vec<_> = pieces.iter().map(|piece| encoder.encode(piece)).collect();
    let chunks = frames
        .iter()
        .map(|frame| ChunkRef {
            id: frame.record().id,
            raw_length: frame.record().raw_length,
        })
        .collect();
    (frames, ChunkList { chunks })
}

/// All pack files of a store.
pub(crate) fn packs(dir: &Path) -> Vec<PathBuf> {
    let mut found = files(&dir.join("packs"));
    found.retain(|path| path.extension().is_some_and(|end| end == "pack"));
    found
}

pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
