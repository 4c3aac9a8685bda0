//! An image into any registry. Layers that the repository has, by their keys, are neither read nor sent: the
//! previous image says their digests, or the store that lies in the same repository does. The others are made
//! into temporary files, since a registry wants the digest first; and where they go into a store's repository,
//! they are packs of that store.

mod beside;
mod known;
mod layers;
mod trust;

pub use beside::StoreBeside;
pub use trust::LayerTrust;

use super::{ImageReport, below, to_firn::put_documents};
use crate::{
    error::Result, local_store::LocalStore, parallel, progress::Progress, push::work::Work,
    registry::Repository,
};
use firn_formats::oci::Reference;
use firn_image::{compose::PlannedImage, encode::Representation};
use layers::Layers;
use std::time::Instant;

/// Questions that are asked at once, and uploads under way.
pub const CONNECTIONS: usize = 8;

/// An image on its way to a registry.
#[derive(Debug, Clone, Copy)]
pub struct RegistryPush<'a> {
    /// Where it goes. A repository [`Repository::for_pushing`] saves an exchange of tokens.
    pub repository: &'a Repository,
    /// The same as the user wrote it, and the tag.
    pub reference: &'a Reference,
    /// The store paths' files.
    pub local: &'a LocalStore,
    /// The image.
    pub image: &'a PlannedImage,
    /// The store in the same repository, if the closure shall be cached there.
    pub beside: Option<&'a StoreBeside>,
    /// Whose layer keys are believed, and by which key those made here are signed.
    pub trust: &'a LayerTrust,
}

impl RegistryPush<'_> {
    /// Pushes the image, then, into the store, its closure.
    pub fn push(&self, progress: &dyn Progress) -> Result<ImageReport> {
        let started = Instant::now();
        let sent_before = self.repository.http().bytes_sent();
        let tag = self
            .reference
            .tag
            .as_ref()
            .map_or("latest", |tag| tag.as_str());
        let representation = Representation::from(self.image.spec.compression);
        if let Some(beside) = &self.beside {
            beside.refresh()?;
        }
        let found = known::candidates(self, tag, representation)?;
        let candidates = &found.layers;
        // All are asked for before the first file is read.
        let present = parallel::each(candidates.len(), CONNECTIONS, |index| {
            match candidates.get(index) {
                Some(Some(known)) if self.repository.has_blob(&known.blob.digest)? => {
                    Ok(Some(known.clone()))
                }
                _ => Ok(None),
            }
        })?;
        let work = Work::new(self.local, &self.image.closure, Some(self.image));
        let layers = Layers {
            push: self,
            work: &work,
            representation,
            present,
            progress,
        };
        progress.begin("push", self.image.closure.nar_bytes());
        let sent = below::send(self.repository, self.image, progress)
            .and_then(|below| Ok((below, layers.send()?)));
        progress.end();
        let (below, layers) = sent?;
        let (blobs, signatures): (Vec<_>, Vec<_>) = layers
            .iter()
            .map(|layer| (layer.blob.clone(), layer.signature.clone()))
            .unzip();
        let assembled = self.image.assemble_signed(&blobs, &signatures)?;
        put_documents(self.repository, tag, &assembled)?;
        let paths_pushed = match &self.beside {
            Some(beside) => beside.publish(self.image, &work, &layers, progress)?,
            None => 0,
        };
        let sent = layers.iter().filter(|layer| layer.was_sent).count() as u64;
        Ok(ImageReport {
            image: self.reference.to_string(),
            digest: format!("sha256:{}", assembled.manifest_digest.hex()),
            layers_total: blobs.len() as u64 + below.layers,
            layers_sent: sent + below.sent,
            layers_reused: blobs.len() as u64 - sent + below.layers - below.sent,
            layers_not_believed: found.not_believed,
            bytes_total: blobs.iter().map(|blob| blob.size).sum::<u64>() + below.bytes,
            bytes_sent: self.repository.http().bytes_sent() - sent_before,
            paths_pushed,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// Bytes of a layer's store paths, as NARs.
fn nar_bytes(image: &PlannedImage, layer: usize) -> u64 {
    let paths = image.layers.get(layer).map(|layer| layer.paths.as_slice());
    let sizes = paths.unwrap_or_default().iter().filter_map(|path| {
        let info = image.closure.paths.get(*path)?;
        Some(info.nar_size)
    });
    sizes.sum()
}
