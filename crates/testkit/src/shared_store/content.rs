//! Clients of a place, and content to put there.

use super::Place;
use crate::noise;
use firn_chunks::{ChunkId, ChunkList, ChunkRef, Encoder, VerifiedFrame, segment::BlobRecord};
use firn_store::shared::{
    BLOB_FLAG_NO_ZSTD_DIGEST, Backend, Run, SHARED_DOMAIN, SharedOptions, SharedStore,
};
use firn_store::{EntryKind, StoreError};
use std::ops::Deref;
use std::sync::Arc;

/// A machine with its own index and cache.
pub struct Client {
    store: SharedStore,
    dir: tempfile::TempDir,
}

impl Client {
    /// On a machine that has never seen the place.
    pub fn new(place: &Place) -> Self {
        Self::on(place())
    }

    /// With a backend that is given.
    pub fn on(backend: Arc<dyn Backend>) -> Self {
        Self::with(backend, |_| {})
    }

    /// With other options.
    pub fn with(backend: Arc<dyn Backend>, change: impl FnOnce(&mut SharedOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = SharedOptions {
            cache_dir: dir.path().to_owned(),
            cache_bytes_max: 64 << 20,
            trusted_keys: Vec::new(),
            signing_key: None,
            pack_bytes_target: 64 << 10,
        };
        change(&mut options);
        let store = SharedStore::open(backend, options).unwrap();
        Self { store, dir }
    }

    /// Where its index and its cache lie.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl Deref for Client {
    type Target = SharedStore;
    fn deref(&self) -> &SharedStore {
        &self.store
    }
}

/// The pieces of what is kept under a key: some shared with other keys, some of its own.
pub fn content(key: &str) -> Vec<Vec<u8>> {
    let seed = u64::from_le_bytes(ChunkId::of(key.as_bytes()).0[..8].try_into().unwrap());
    let own = (0..4).map(|piece| noise(seed ^ piece, 3000 + 700 * piece as usize));
    let shared = (0..3).map(|piece| noise(piece, 5000));
    own.chain(shared).chain([noise(seed, 3000)]).collect()
}

/// A frame for each piece, and the list of them all.
pub fn frames(pieces: &[Vec<u8>]) -> (Vec<VerifiedFrame>, ChunkList) {
    let mut encoder = Encoder::new(2);
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

/// What the entry of a key says.
pub fn value_of(key: &str) -> Vec<u8> {
    format!("value of {key}").into_bytes()
}

/// Adds the content of a key to a run.
pub fn put(run: &Run, kind: EntryKind, key: &str) -> Result<(), StoreError> {
    let (frames, list) = frames(&content(key));
    for frame in &frames {
        run.add_frame(frame)?;
    }
    let id = list.id();
    run.add_blob(BlobRecord {
        domain: SHARED_DOMAIN.into(),
        flags: BLOB_FLAG_NO_ZSTD_DIGEST,
        list,
        identity_sha256: [7; 32],
        zstd_sha256: [0; 32],
        zstd_length: 0,
    })?;
    run.add_entry("main", kind, key, &value_of(key), &[id])
}

/// What a store has under a key; `None` if it has no such key. Fails the test if it has anything else than what
/// [`put`] put there.
pub fn read(store: &SharedStore, kind: EntryKind, key: &str) -> Result<Option<()>, StoreError> {
    let Some(entry) = store.entry("main", kind, key)? else {
        return Ok(None);
    };
    assert_eq!(entry.value, value_of(key));
    let list = entry.blobs.first().copied().unwrap();
    let blob = store.blob(&list)?;
    let blob = blob.ok_or_else(|| StoreError::MissingEntry(format!("the blob of {key}")))?;
    let ids: Vec<ChunkId> = blob.list.chunks.iter().map(|chunk| chunk.id).collect();
    let mut bytes = Vec::new();
    store.read_chunks(&ids, &mut |_, raw| {
        bytes.extend_from_slice(raw);
        Ok(())
    })?;
    assert!(bytes == content(key).concat(), "wrong bytes under {key}");
    Ok(Some(()))
}
