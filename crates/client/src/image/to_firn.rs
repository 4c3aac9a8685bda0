//! An image into a Firn server's cache: unknown layers go as chunk lists, the server says their digests.

use super::{ImageReport, below};
use crate::{
    api::Server,
    error::{ClientError, Result},
    local_store::LocalStore,
    progress::{Progress, Watched, item_name},
    push::Target,
    registry::Repository,
};
use firn_formats::{oci::Digest, push::LayerDescriptor};
use firn_image::{
    compose::{AssembledImage, PlannedImage},
    spec::LayerCompression,
};
use std::{io::Read, time::Instant};

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
    let below = below::send(&repository, image, progress)?;
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
    if image.spec.compression == LayerCompression::None {
        send_plain(&repository, image, &descriptors, progress)?;
    }
    let assembled = image.assemble(&descriptors)?;
    put_documents(&repository, tag, &assembled)?;
    let size = |layer: &LayerDescriptor| match (image.spec.compression, &layer.gzip) {
        (LayerCompression::Gzip, Some(found)) => found.size,
        (LayerCompression::None, _) => layer.tar_size,
        _ => layer.size,
    };
    Ok(ImageReport {
        image: format!("{}/{cache}/{name}:{tag}", server.url().authority()),
        digest: format!("sha256:{}", assembled.manifest_digest.hex()),
        layers_total: descriptors.len() as u64 + below.layers,
        layers_sent: pushed.layers_pushed + below.sent,
        layers_not_believed: 0,
        layers_reused: (descriptors.len() as u64).saturating_sub(pushed.layers_pushed)
            + below.layers.saturating_sub(below.sent),
        bytes_total: descriptors.iter().map(size).sum::<u64>() + below.bytes,
        bytes_sent: server.http().bytes_sent() - sent_before,
        paths_pushed: pushed.paths,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Plain tars: the server knows the layers by their frames, and takes a tar under its own digest as any registry
/// does.
fn send_plain(
    repository: &Repository,
    image: &PlannedImage,
    layers: &[LayerDescriptor],
    progress: &dyn Progress,
) -> Result<()> {
    for (index, layer) in layers.iter().enumerate() {
        let digest = Digest::parse(&layer.diff_id)?;
        if repository.has_blob(&digest)? {
            continue;
        }
        let archive = image.layer_archive(index)?;
        let name = item_name(&layer.diff_id);
        progress.item_begin(&name, archive.length());
        let sent = repository.put_blob_stream(&digest, archive.length(), &|| {
            let tar = archive.reader();
            Ok(Box::new(Watched::new(tar, progress, &name)) as Box<dyn Read>)
        });
        progress.item_end(&name);
        sent?;
    }
    Ok(())
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
