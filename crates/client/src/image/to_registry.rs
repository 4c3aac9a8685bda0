//! An image into any registry. Layers that the previous image of the repository has, by their keys, are
//! not read; the others are made into temporary files, since a registry wants the digest first.

use super::{ImageReport, to_firn::put_documents};
use crate::{
    error::{ClientError, Result},
    progress::Progress,
    push::work::lock,
    registry::Repository,
};
use firn_formats::oci::{ImageConfig, Manifest, Reference, media_type};
use firn_image::{
    compose::{LAYER_KEY_ANNOTATION, LayerBlob, PlannedImage},
    encode::{Representation, encode_layer},
};
use std::{
    collections::HashMap,
    io::{BufWriter, Read, Seek as _, Write as _},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// Pushes a planned image to another registry.
pub fn push_to_registry(
    repository: &Repository,
    reference: &Reference,
    image: &PlannedImage,
    progress: &dyn Progress,
) -> Result<ImageReport> {
    let started = Instant::now();
    let sent_before = repository.http().bytes_sent();
    let tag = reference.tag.as_ref().map_or("latest", |tag| tag.as_str());
    let representation = Representation::from(image.spec.compression);
    let known = previous_layers(repository, tag, representation);
    let bytes = image.closure.paths.iter().map(|info| info.nar_size).sum();
    progress.begin("push", bytes);
    let run = Run {
        repository,
        image,
        representation,
        known,
        progress,
        next: AtomicUsize::new(0),
        done: Mutex::new((0..image.layers.len()).map(|_| None).collect()),
        failure: Mutex::default(),
    };
    let threads = crate::push::cores().min(image.layers.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| run.work());
        }
    });
    progress.end();
    let (blobs, layers_sent) = run.finish()?;
    let assembled = image.assemble_blobs(&blobs)?;
    put_documents(repository, tag, &assembled)?;
    Ok(ImageReport {
        image: reference.to_string(),
        digest: format!("sha256:{}", assembled.manifest_digest.hex()),
        layers_total: blobs.len() as u64,
        layers_sent,
        bytes_total: blobs.iter().map(|blob| blob.size).sum(),
        bytes_sent: repository.http().bytes_sent() - sent_before,
        paths_pushed: 0,
        seconds: started.elapsed().as_secs_f64(),
    })
}

struct Run<'a> {
    repository: &'a Repository,
    image: &'a PlannedImage,
    representation: Representation,
    known: HashMap<String, LayerBlob>,
    progress: &'a dyn Progress,
    next: AtomicUsize,
    /// For each layer its blob, and whether it was sent.
    done: Mutex<Vec<Option<(LayerBlob, bool)>>>,
    failure: Mutex<Option<ClientError>>,
}

impl Run<'_> {
    fn work(&self) {
        while lock(&self.failure).is_none() {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.image.layers.len() {
                break;
            }
            match self.layer(index) {
                Ok(done) => lock(&self.done)[index] = Some(done),
                Err(error) => {
                    lock(&self.failure).get_or_insert(error);
                }
            }
        }
    }

    fn layer(&self, index: usize) -> Result<(LayerBlob, bool)> {
        let layer = &self.image.layers[index];
        let bytes: u64 = layer
            .paths
            .iter()
            .map(|path| self.image.closure.paths[*path].nar_size)
            .sum();
        if let Some(blob) = self.known.get(&layer.key)
            && self.repository.has_blob(&blob.digest)?
        {
            self.progress.advance(bytes);
            return Ok((blob.clone(), false));
        }
        let archive = self.image.layer_archive(index)?;
        let temporary = |source| ClientError::io(std::env::temp_dir(), source);
        let file = tempfile::tempfile().map_err(temporary)?;
        let mut writer = BufWriter::with_capacity(256 << 10, file);
        let blob = encode_layer(&archive, None, self.representation, &mut |bytes| {
            writer.write_all(bytes)
        })?;
        let file = writer
            .into_inner()
            .map_err(|error| temporary(error.into_error()))?;
        let sent = !self.repository.has_blob(&blob.digest)?;
        if sent {
            self.repository
                .put_blob_stream(&blob.digest, blob.size, &|| {
                    let mut file = file.try_clone().map_err(temporary)?;
                    file.rewind().map_err(temporary)?;
                    Ok(Box::new(file) as Box<dyn Read>)
                })?;
        }
        self.progress.advance(bytes);
        Ok((blob, sent))
    }

    fn finish(self) -> Result<(Vec<LayerBlob>, u64)> {
        if let Some(error) = lock(&self.failure).take() {
            return Err(error);
        }
        let done = std::mem::take(&mut *lock(&self.done));
        let mut sent = 0;
        let blobs = done
            .into_iter()
            .map(|done| {
                let (blob, was_sent) = done.ok_or(ClientError::WorkerLost)?;
                sent += u64::from(was_sent);
                Ok(blob)
            })
            .collect::<Result<_>>()?;
        Ok((blobs, sent))
    }
}

/// The layers of the image that the tag points at now, by key. It saves work and is no more than that:
/// an image that cannot be read, or has no keys, gives none.
fn previous_layers(
    repository: &Repository,
    tag: &str,
    representation: Representation,
) -> HashMap<String, LayerBlob> {
    read_previous(repository, tag, representation).unwrap_or_else(|error| {
        tracing::debug!(%error, "nothing is known of the previous image");
        HashMap::new()
    })
}

fn read_previous(
    repository: &Repository,
    tag: &str,
    representation: Representation,
) -> Result<HashMap<String, LayerBlob>> {
    let Some(raw) = repository.manifest(tag)? else {
        return Ok(HashMap::new());
    };
    let manifest: Manifest = serde_json::from_slice(&raw.bytes)
        .map_err(|source| ClientError::json("previous manifest", source))?;
    if manifest.config.media_type != media_type::OCI_CONFIG {
        return Ok(HashMap::new());
    }
    let config: ImageConfig = serde_json::from_slice(&repository.blob(&manifest.config.digest)?)
        .map_err(|source| ClientError::json("previous image's config", source))?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Ok(HashMap::new());
    }
    let layers = manifest.layers.into_iter().zip(config.rootfs.diff_ids);
    Ok(layers
        .filter(|(layer, _)| layer.media_type == representation.media_type())
        .filter_map(|(layer, diff_id)| {
            let key = layer.annotations.get(LAYER_KEY_ANNOTATION)?.clone();
            let blob = LayerBlob {
                representation,
                digest: layer.digest,
                size: layer.size,
                diff_id,
                tar_size: 0,
            };
            Some((key, blob))
        })
        .collect())
}
