//! An image into a Firn server's cache: unknown layers go as chunk lists, the server says their digests.

use super::ImageReport;
use crate::{
    api::Server,
    error::{ClientError, Result},
    local_store::LocalStore,
    progress::Progress,
    push::Target,
    registry::Repository,
};
use firn_formats::{oci::Digest, push::LayerDescriptor};
use firn_image::{
    compose::{AssembledImage, PlannedImage},
    spec::LayerCompression,
};
use std::time::Instant;

/// Pushes a planned image to `<cache>/<name>:<tag>`, and its closure's paths if `publish_paths`.
#[allow(clippy::too_many_arguments)]
pub fn push_to_firn(
    server: &Server,
    cache: &str,
    store: &LocalStore,
    image: &PlannedImage,
    name: &str,
    tag: &str,
    publish_paths: bool,
    progress: &dyn Progress,
) -> Result<ImageReport> {
    let started = Instant::now();
    let sent_before = server.http().bytes_sent();
    let repository = Repository::of_server(server, cache, name)?;
    let gzip = image.spec.compression == LayerCompression::Gzip;
    let paths: Vec<usize> = if publish_paths {
        (0..image.closure.paths.len()).collect()
    } else {
        Vec::new()
    };
    let target = Target {
        server,
        cache,
        gzip,
    };
    let pushed = target.push(store, &image.closure, &paths, Some(image), progress)?;
    let descriptors: Vec<LayerDescriptor> = image
        .layers
        .iter()
        .map(|layer| {
            let found = pushed.layers.get(&layer.key).cloned();
            found.ok_or_else(|| ClientError::BadAnswer {
                url: server.url().to_string(),
                what: format!("no descriptor of layer {}", layer.key),
            })
        })
        .collect::<Result<_>>()?;
    let assembled = image.assemble(&descriptors)?;
    put_documents(&repository, tag, &assembled)?;
    let size = |layer: &LayerDescriptor| match &layer.gzip {
        Some(found) if gzip => found.size,
        _ => layer.size,
    };
    Ok(ImageReport {
        image: format!("{}/{cache}/{name}:{tag}", server.url().authority()),
        digest: format!("sha256:{}", assembled.manifest_digest.hex()),
        layers_total: descriptors.len() as u64,
        layers_sent: pushed.layers_pushed,
        layers_not_believed: 0,
        layers_reused: (descriptors.len() as u64).saturating_sub(pushed.layers_pushed),
        bytes_total: descriptors.iter().map(size).sum(),
        bytes_sent: server.http().bytes_sent() - sent_before,
        paths_pushed: pushed.paths,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Puts config and manifest, unless the tag points at this very manifest already.
pub(super) fn put_documents(
    repository: &Repository,
    tag: &str,
    image: &AssembledImage,
) -> Result<()> {
    let digest = format!("sha256:{}", image.manifest_digest.hex());
    if repository.manifest_digest(tag)? == Some(digest) {
        return Ok(());
    }
    repository.put_blob(&Digest::from(image.config_digest), &image.config)?;
    repository.put_manifest(tag, image.manifest_media_type, &image.manifest)
}
