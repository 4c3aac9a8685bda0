//! The layers of a base image on their way to a repository: mounted where they lie in the same registry, copied
//! elsewhere, and left where they are there.

use crate::{
    error::{ClientError, Result},
    parallel,
    progress::{Progress, Watched, item_name},
    registry::{Repository, Uploaded},
};
use firn_formats::oci::RepositoryName;
use firn_image::{
    base::{BaseImage, BaseLayer},
    compose::PlannedImage,
};
use std::io::Read;

/// Layers that are asked for and sent at once.
const UPLOADS: usize = 4;

/// What became of the base's layers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Below {
    pub(super) layers: u64,
    pub(super) sent: u64,
    /// Of all, in bytes.
    pub(super) bytes: u64,
}

/// Brings the layers of the image's base.
pub(super) fn send(
    repository: &Repository,
    image: &PlannedImage,
    progress: &dyn Progress,
) -> Result<Below> {
    let Some(base) = &image.spec.base else {
        return Ok(Below::default());
    };
    let sent = parallel::each(base.layers.len(), UPLOADS, |index| {
        let Some(layer) = base.layers.get(index) else {
            return Ok(false);
        };
        send_one(repository, base, layer, progress)
    })?;
    Ok(Below {
        layers: base.layers.len() as u64,
        sent: sent.into_iter().filter(|sent| *sent).count() as u64,
        bytes: base.layers.iter().map(|layer| layer.descriptor.size).sum(),
    })
}

/// The base's repository, if it lies in the same registry as `repository`.
pub fn mount_source(base: &BaseImage, registry: &str) -> Option<RepositoryName> {
    let origin = base.origin.as_ref()?;
    let name = (origin.registry == registry).then_some(&origin.repository)?;
    RepositoryName::parse(name).ok()
}

/// Whether its bytes were sent.
fn send_one(
    repository: &Repository,
    base: &BaseImage,
    layer: &BaseLayer,
    progress: &dyn Progress,
) -> Result<bool> {
    let digest = &layer.descriptor.digest;
    let size = layer.descriptor.size;
    if repository.has_blob(digest)? {
        return Ok(false);
    }
    let name = item_name(&digest.to_string());
    progress.item_begin(&name, size);
    let from = mount_source(base, repository.registry());
    let how = repository.put_blob_from(digest, size, from.as_ref(), &|| {
        let blob = base.source.open_blob(digest);
        let blob = blob.map_err(|source| ClientError::io(digest.to_string(), source))?;
        Ok(Box::new(Watched::new(blob, progress, &name)) as Box<dyn Read>)
    });
    progress.item_end(&name);
    Ok(how? == Uploaded::Sent)
}
