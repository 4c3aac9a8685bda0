//! Packs under construction, in temporary files, and the threads that upload them.

use super::super::{Backend, StoredPack};
use crate::StoreError;
use crossbeam_channel::{Receiver, Sender, bounded};
use firn_chunks::{FrameRecord, VerifiedFrame, pack, pack::Placed};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Packs that are uploaded at once.
const UPLOADS_MAX: usize = 3;

/// A pack that frames are appended to.
#[derive(Debug)]
pub(in crate::shared) struct PackBuilder {
    file: File,
    folder: PathBuf,
    length: u64,
    frames: Vec<Placed>,
}

impl PackBuilder {
    /// A new one, in a file without a name in `folder`.
    pub(in crate::shared) fn new(folder: &Path) -> Result<Self, StoreError> {
        let error = |error| StoreError::io(folder, error);
        let mut file = tempfile::tempfile_in(folder).map_err(error)?;
        let header = pack::header();
        file.write_all(&header).map_err(error)?;
        Ok(Self {
            file,
            folder: folder.to_owned(),
            length: header.len() as u64,
            frames: Vec::new(),
        })
    }

    /// Appends a frame.
    pub(super) fn append(&mut self, frame: &VerifiedFrame) -> Result<(), StoreError> {
        self.append_stored(frame.record(), frame.frame())
    }

    /// Appends a frame that another pack has, whose caller has checked it.
    pub(in crate::shared) fn append_stored(
        &mut self,
        record: &FrameRecord,
        frame: &[u8],
    ) -> Result<(), StoreError> {
        self.file
            .write_all(frame)
            .map_err(|error| StoreError::io(&self.folder, error))?;
        self.frames.push(Placed {
            offset: self.length,
            record: *record,
        });
        self.length += frame.len() as u64;
        Ok(())
    }

    /// Whether it is to be sealed before more is appended.
    pub(in crate::shared) fn is_full(&self, target: u64) -> bool {
        self.length >= target || self.frames.len() >= pack::FRAMES_MAX
    }

    /// Appends the trailer.
    pub(in crate::shared) fn seal(mut self) -> Result<SealedPack, StoreError> {
        let trailer = pack::trailer(&self.frames);
        self.file
            .write_all(&trailer)
            .map_err(|error| StoreError::io(&self.folder, error))?;
        Ok(SealedPack {
            file: self.file,
            length: self.length + trailer.len() as u64,
            frames: self.frames,
        })
    }
}

/// A whole pack, not uploaded yet.
#[derive(Debug)]
pub(in crate::shared) struct SealedPack {
    file: File,
    length: u64,
    frames: Vec<Placed>,
}

impl SealedPack {
    /// Stores it; durable on return (rule 1).
    pub(in crate::shared) fn store(self, backend: &dyn Backend) -> Result<ReadyPack, StoreError> {
        let pack = backend.put_pack(&self.file, self.length)?;
        Ok(ReadyPack {
            pack,
            frames: self.frames,
        })
    }
}

/// A pack that is durable where the store lies.
#[derive(Debug, Clone)]
pub(in crate::shared) struct ReadyPack {
    pub(in crate::shared) pack: StoredPack,
    pub(in crate::shared) frames: Vec<Placed>,
}

/// Threads that upload packs; started with the first one, ended on drop.
#[derive(Debug)]
pub(super) struct Uploads {
    backend: Arc<dyn Backend>,
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

/// Where packs are handed over, and who takes them.
type Threads = (Sender<Job>, Vec<JoinHandle<()>>);

type Job = (u64, SealedPack);

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    tickets: u64,
    pending: BTreeSet<u64>,
    ready: Vec<ReadyPack>,
    failed: Option<StoreError>,
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Uploads {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            shared: Arc::default(),
            threads: Mutex::default(),
        }
    }

    /// Announces a pack that will be sent, so that whoever waits from now on waits for it too.
    pub(super) fn ticket(&self) -> u64 {
        let mut progress = self.shared.progress();
        progress.tickets += 1;
        let ticket = progress.tickets;
        progress.pending.insert(ticket);
        ticket
    }

    /// Hands a pack over; waits while enough are under way. With an error the ticket is spent.
    pub(super) fn send(
        &self,
        ticket: u64,
        sealed: Result<SealedPack, StoreError>,
    ) -> Result<(), StoreError> {
        let sent = self.check().and(sealed).and_then(|sealed| {
            let jobs = self.start()?;
            // The receivers live as long as the sender.
            jobs.send((ticket, sealed))
                .map_err(|_| StoreError::Damaged("the threads that upload packs ended".into()))
        });
        if let Err(error) = &sent {
            finish(&self.shared, ticket, Err(error.duplicate()));
        }
        sent
    }

    /// Fails as the first upload that failed.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &self.shared.progress().failed {
            Some(error) => Err(error.duplicate()),
            None => Ok(()),
        }
    }

    /// Waits for all packs announced so far and takes what is ready.
    pub(super) fn wait(&self) -> Result<Vec<ReadyPack>, StoreError> {
        let mut progress = self.shared.progress();
        let last = progress.tickets;
        while progress.pending.first().is_some_and(|first| *first <= last) {
            progress = self
                .shared
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = &progress.failed {
            return Err(error.duplicate());
        }
        Ok(std::mem::take(&mut progress.ready))
    }

    fn start(&self) -> Result<Sender<Job>, StoreError> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((jobs, _)) = &*threads {
            return Ok(jobs.clone());
        }
        let (sender, receiver) = bounded(1);
        let handles = (0..UPLOADS_MAX)
            .map(|_| {
                let (jobs, backend) = (receiver.clone(), self.backend.clone());
                let shared = self.shared.clone();
                std::thread::Builder::new()
                    .name("firn-upload".into())
                    .spawn(move || upload_all(&jobs, &*backend, &shared))
                    .map_err(|error| StoreError::io("thread firn-upload", error))
            })
            .collect::<Result<_, _>>()?;
        *threads = Some((sender.clone(), handles));
        Ok(sender)
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        let threads = self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((jobs, handles)) = threads {
            drop(jobs);
            for handle in handles {
                // A thread that panicked has said so already.
                let _ = handle.join();
            }
        }
    }
}

fn upload_all(jobs: &Receiver<Job>, backend: &dyn Backend, shared: &Shared) {
    for (ticket, sealed) in jobs {
        let pending = Pending { shared, ticket };
        // After a failure the run cannot be published: what is queued need not be sent.
        let failed = shared.progress().failed.as_ref().map(StoreError::duplicate);
        let ready = match failed {
            Some(error) => Err(error),
            None => sealed.store(backend),
        };
        finish(shared, ticket, ready);
        drop(pending);
    }
}

/// A pack that is being uploaded: if the thread panics, nobody waits for it for ever.
struct Pending<'a> {
    shared: &'a Shared,
    ticket: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.shared.progress().pending.contains(&self.ticket) {
            let ended = StoreError::Damaged("a thread that uploads packs panicked".into());
            finish(self.shared, self.ticket, Err(ended));
        }
    }
}

fn finish(shared: &Shared, ticket: u64, stored: Result<ReadyPack, StoreError>) {
    let mut progress = shared.progress();
    progress.pending.remove(&ticket);
    match stored {
        Ok(ready) => progress.ready.push(ready),
        Err(error) => {
            progress.failed.get_or_insert(error);
        }
    }
    shared.changed.notify_all();
}
