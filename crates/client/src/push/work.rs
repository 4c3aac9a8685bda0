//! What is to be pushed, and how its chunks are found.

use crate::{
    error::{ClientError, Result},
    local_store::LocalStore,
    memory::{Memory, PathChunks},
};
use firn_chunks::{ChunkList, ChunkRef, boundaries::V1};
use firn_formats::push::BlobKind;
use firn_image::{
    archive::{Archive, FileRegion},
    closure::{Closure, PathInfo},
    compose::PlannedImage,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// The first failure of any stage; the others stop when they see it.
#[derive(Default)]
pub(crate) struct Failure {
    failed: AtomicBool,
    first: Mutex<Option<ClientError>>,
}

impl Failure {
    pub(crate) fn set(&self, error: ClientError) {
        lock(&self.first).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
    }

    /// Keeps the failure of an outcome.
    pub(crate) fn note(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.set(error);
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Option<ClientError> {
        lock(&self.first).take()
    }
}

/// One blob to push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Job {
    /// The NAR of a path of the closure, by index.
    Path(usize),
    /// A layer of the image, by index.
    Layer(usize),
}

impl Job {
    pub(crate) fn kind(self) -> BlobKind {
        match self {
            Self::Path(_) => BlobKind::Nar,
            Self::Layer(_) => BlobKind::Layer,
        }
    }
}

/// The closure and the image that a push is about, and what is known of their chunks.
pub(crate) struct Work<'a> {
    pub(crate) store: &'a LocalStore,
    pub(crate) closure: &'a Closure,
    pub(crate) image: Option<&'a PlannedImage>,
    memory: Mutex<Memory>,
    /// Chunk lists by path of the closure: remembered, or made in this run.
    lists: RwLock<HashMap<usize, Arc<PathChunks>>>,
    files: RwLock<HashMap<PathBuf, Arc<[ChunkRef]>>>,
    fresh: Mutex<Vec<usize>>,
}

/// A blob cut into chunks. The archive is walked only if some of them have to be read.
#[derive(Debug)]
pub(crate) struct Chunked {
    pub(crate) job: Job,
    pub(crate) list: ChunkList,
    archive: Mutex<Option<Arc<Archive>>>,
}

impl Chunked {
    /// The archive to read chunks from.
    pub(crate) fn archive(&self, work: &Work<'_>) -> Result<Arc<Archive>> {
        let mut slot = lock(&self.archive);
        if let Some(archive) = &*slot {
            return Ok(Arc::clone(archive));
        }
        let archive = Arc::new(work.archive(self.job)?);
        *slot = Some(Arc::clone(&archive));
        Ok(archive)
    }
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        store: &'a LocalStore,
        closure: &'a Closure,
        image: Option<&'a PlannedImage>,
    ) -> Self {
        Self {
            store,
            closure,
            image,
            memory: Mutex::new(store.memory()),
            lists: RwLock::default(),
            files: RwLock::default(),
            fresh: Mutex::default(),
        }
    }

    pub(crate) fn info(&self, index: usize) -> &'a PathInfo {
        &self.closure.paths[index]
    }

    fn archive(&self, job: Job) -> Result<Archive> {
        match (job, self.image) {
            (Job::Path(index), _) => {
                Ok(Archive::nar(&self.store.physical(&self.info(index).path))?)
            }
            (Job::Layer(index), Some(image)) => Ok(image.layer_archive(index)?),
            (Job::Layer(_), None) => Err(ClientError::WorkerLost),
        }
    }

    /// Cuts a blob into chunks, reading no file whose chunks are known.
    pub(crate) fn chunk(&self, job: Job) -> Result<Chunked> {
        match job {
            Job::Path(index) => self.chunk_path(index),
            Job::Layer(_) => {
                self.recall_layer(job);
                let archive = self.archive(job)?;
                let list = archive.chunk(V1, &|region| self.known(region))?;
                Ok(Chunked {
                    job,
                    list,
                    archive: Mutex::new(Some(Arc::new(archive))),
                })
            }
        }
    }

    fn chunk_path(&self, index: usize) -> Result<Chunked> {
        let job = Job::Path(index);
        if let Some(chunks) = self.recall(index) {
            return Ok(Chunked {
                job,
                list: chunks.list.clone(),
                archive: Mutex::new(None),
            });
        }
        let archive = self.archive(job)?;
        let chunked = archive.chunk_files(V1, &|_| None)?;
        let list = chunked.list.clone();
        let root = self.store.physical(&self.info(index).path);
        let chunks = PathChunks::new(&root, &archive, chunked);
        self.learn(index, Arc::new(chunks));
        lock(&self.fresh).push(index);
        Ok(Chunked {
            job,
            list,
            archive: Mutex::new(Some(Arc::new(archive))),
        })
    }

    /// Loads what is remembered of a layer's paths.
    fn recall_layer(&self, job: Job) {
        if let (Job::Layer(index), Some(image)) = (job, self.image)
            && let Some(layer) = image.layers.get(index)
        {
            for &path in &layer.paths {
                self.recall(path);
            }
        }
    }

    fn recall(&self, index: usize) -> Option<Arc<PathChunks>> {
        let known = read(&self.lists).get(&index).cloned();
        if known.is_some() {
            return known;
        }
        let info = self.info(index);
        let chunks = lock(&self.memory).get(&info.path, &info.nar_hash, info.nar_size)?;
        let chunks = Arc::new(chunks);
        self.learn(index, Arc::clone(&chunks));
        Some(chunks)
    }

    fn learn(&self, index: usize, chunks: Arc<PathChunks>) {
        if self.image.is_some() {
            let root = self.store.physical(&self.info(index).path);
            let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
            files.extend(
                chunks
                    .files()
                    .map(|(path, _, chunks)| (join(&root, path), Arc::from(chunks))),
            );
        }
        self.lists
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(index, chunks);
    }

    fn known(&self, region: &FileRegion) -> Option<Vec<ChunkRef>> {
        let chunks = read(&self.files).get(&region.file).cloned()?;
        let length: u64 = chunks.iter().map(|chunk| u64::from(chunk.raw_length)).sum();
        (length == region.size).then(|| chunks.to_vec())
    }

    /// Writes the lists made in this run into the memory.
    pub(crate) fn remember(&self) {
        let fresh = std::mem::take(&mut *lock(&self.fresh));
        if fresh.is_empty() {
            return;
        }
        let lists = read(&self.lists);
        lock(&self.memory).put(fresh.iter().filter_map(|index| {
            let info = self.info(*index);
            Some((&info.path, info.nar_hash, lists.get(index)?.as_ref()))
        }));
    }
}

/// A store path that is a file has the empty path inside itself.
fn join(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        root.to_path_buf()
    } else {
        root.join(path)
    }
}

/// Locks; what a panicking thread left is still sound here, and the panic itself is reported by its join.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
