//! Making and sending the layers that are missing: a thread a core makes them, others send, so that neither
//! waits for the other. At most a few lie in temporary files, which have no names and go with the process.

use super::{CONNECTIONS, RegistryPush, known::Known, nar_bytes};
use crate::{
    error::{ClientError, Result},
    progress::{Progress, Watched, item_name},
    push::{
        cores,
        work::{Job, Work, lock},
    },
};
use crossbeam_channel::{Receiver, Sender, bounded};
use firn_chunks::pack::Placed;
use firn_formats::nix::Signature;
use firn_image::{
    compose::LayerBlob,
    encode::{Representation, encode_layer, encode_packed_layer},
};
use std::{
    fs::File,
    io::{self, BufWriter, Read, Seek as _, Write as _},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Layers that are sent at once.
const UPLOADS: usize = 4;
const _: () = assert!(UPLOADS <= CONNECTIONS);

/// A layer that the repository has now.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) blob: LayerBlob,
    /// Of who made it: a writer signs no layer that it knows by hearsay.
    pub(super) signature: Option<Signature>,
    pub(super) was_sent: bool,
    /// The store knows the layer already.
    pub(super) is_stored: bool,
    /// Where its frames lie, if it was made now.
    pub(super) frames: Vec<Placed>,
}

pub(super) struct Layers<'a> {
    pub(super) push: &'a RegistryPush<'a>,
    pub(super) work: &'a Work<'a>,
    pub(super) representation: Representation,
    /// For each layer what is known of it, if the repository has it.
    pub(super) present: Vec<Option<Known>>,
    pub(super) progress: &'a dyn Progress,
}

/// A layer to be sent.
struct Made {
    index: usize,
    blob: LayerBlob,
    frames: Vec<Placed>,
    file: File,
}

struct Run<'a> {
    layers: &'a Layers<'a>,
    /// Indices of those to be made.
    missing: Vec<usize>,
    next: AtomicUsize,
    done: Mutex<Vec<Option<Layer>>>,
    failure: Mutex<Option<ClientError>>,
}

impl Layers<'_> {
    /// Sends what is missing; gives all layers, in order.
    pub(super) fn send(&self) -> Result<Vec<Layer>> {
        let mut done = Vec::with_capacity(self.present.len());
        let mut missing = Vec::new();
        for (index, known) in self.present.iter().enumerate() {
            match known {
                Some(known) => {
                    self.progress.advance(nar_bytes(self.push.image, index));
                    done.push(Some(self.reused(index, known)?));
                }
                None => {
                    missing.push(index);
                    done.push(None);
                }
            }
        }
        let run = Run {
            layers: self,
            missing,
            next: AtomicUsize::new(0),
            done: Mutex::new(done),
            failure: Mutex::default(),
        };
        run.all();
        if let Some(error) = lock(&run.failure).take() {
            return Err(error);
        }
        let done = std::mem::take(&mut *lock(&run.done));
        done.into_iter()
            .map(|layer| layer.ok_or(ClientError::WorkerLost))
            .collect()
    }

    /// A layer that is there. If an image without a store brought it, and its paths are missing in the store,
    /// its frames are found out by making it once more: that sends nothing.
    fn reused(&self, index: usize, known: &Known) -> Result<Layer> {
        let mut layer = Layer {
            blob: known.blob.clone(),
            signature: known.signature.clone(),
            was_sent: false,
            is_stored: known.is_stored,
            frames: Vec::new(),
        };
        let wanted = self.representation == Representation::Zstd && !known.is_stored;
        if let Some(beside) = self.push.beside.filter(|_| wanted)
            && !beside.has_paths(self.push.image, index)?
        {
            let (blob, frames) = self.make(index, &mut |_| Ok(()))?;
            if blob.digest == known.blob.digest {
                layer.blob = blob;
                layer.frames = frames;
            }
        }
        Ok(layer)
    }

    fn sign(&self, index: usize, blob: &LayerBlob) -> Option<Signature> {
        let layer = self.push.image.layers.get(index)?;
        self.push.trust.sign(&layer.key, blob)
    }

    fn make(
        &self,
        index: usize,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(LayerBlob, Vec<Placed>)> {
        let paths = self.push.image.layers.get(index).map(|layer| &layer.paths);
        match self.representation {
            Representation::Zstd => {
                if self.push.beside.is_some() {
                    // Then the NARs' chunks are known too, and no file is read for them again.
                    for path in paths.into_iter().flatten() {
                        self.work.chunk(Job::Path(*path))?;
                    }
                }
                let layer = self.work.chunk(Job::Layer(index))?;
                let archive = layer.archive(self.work)?;
                let packed = encode_packed_layer(&archive, &layer.list, sink)?;
                Ok((packed.blob, packed.frames))
            }
            other => {
                let archive = self.push.image.layer_archive(index)?;
                Ok((encode_layer(&archive, None, other, sink)?, Vec::new()))
            }
        }
    }
}

impl Run<'_> {
    fn all(&self) {
        std::thread::scope(|scope| {
            // Nothing waits between the two: a layer is made when somebody is free to send it.
            let (made_in, made_out) = bounded::<Made>(0);
            for _ in 0..cores().min(self.missing.len()) {
                let made = made_in.clone();
                scope.spawn(move || self.note(self.make_all(&made)));
            }
            for _ in 0..UPLOADS.min(self.missing.len()) {
                let made = made_out.clone();
                scope.spawn(move || self.note(self.send_all(&made)));
            }
        });
    }

    fn note(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            lock(&self.failure).get_or_insert(error);
        }
    }

    fn failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    fn make_all(&self, made: &Sender<Made>) -> Result<()> {
        while !self.failed() {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(index) = self.missing.get(next) else {
                break;
            };
            if made.send(self.make(*index)?).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn make(&self, index: usize) -> Result<Made> {
        let file = tempfile::tempfile().map_err(temporary)?;
        let mut writer = BufWriter::with_capacity(256 << 10, file);
        let (blob, frames) = self
            .layers
            .make(index, &mut |bytes| writer.write_all(bytes))?;
        let file = writer
            .into_inner()
            .map_err(|error| temporary(error.into_error()))?;
        Ok(Made {
            index,
            blob,
            frames,
            file,
        })
    }

    fn send_all(&self, made: &Receiver<Made>) -> Result<()> {
        for made in made {
            if self.failed() {
                break;
            }
            self.send(made)?;
        }
        Ok(())
    }

    fn send(&self, made: Made) -> Result<()> {
        let repository = self.layers.push.repository;
        let was_sent = !repository.has_blob(&made.blob.digest)?;
        if was_sent {
            self.upload(&made)?;
        }
        let layers = self.layers;
        layers
            .progress
            .advance(nar_bytes(layers.push.image, made.index));
        if let Some(slot) = lock(&self.done).get_mut(made.index) {
            *slot = Some(Layer {
                signature: self.layers.sign(made.index, &made.blob),
                blob: made.blob,
                was_sent,
                is_stored: false,
                frames: made.frames,
            });
        }
        Ok(())
    }
}

impl Run<'_> {
    fn upload(&self, made: &Made) -> Result<()> {
        let progress = self.layers.progress;
        let name = item_name(&made.blob.digest.to_string());
        progress.item_begin(&name, made.blob.size);
        let repository = self.layers.push.repository;
        let sent = repository.put_blob_stream(&made.blob.digest, made.blob.size, &|| {
            let mut file = made.file.try_clone().map_err(temporary)?;
            file.rewind().map_err(temporary)?;
            Ok(Box::new(Watched::new(file, progress, &name)) as Box<dyn Read>)
        });
        progress.item_end(&name);
        sent
    }
}

fn temporary(source: io::Error) -> ClientError {
    ClientError::io(std::env::temp_dir(), source)
}
