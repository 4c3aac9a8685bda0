//! Images made elsewhere: an OCI layout or an archive, pushed byte for byte to a registry.

use super::ImageReport;
use crate::{
    error::{ClientError, Result},
    parallel,
    progress::{Progress, Watched, item_name},
    registry::Repository,
};
use firn_formats::oci::{Descriptor, Digest, Manifest, manifest::MANIFEST_BYTES_MAX, media_type};
use firn_image::{
    base::BlobSource,
    output::{Document, Source, SourceImage},
};
use std::{
    collections::HashSet,
    io::{self, Read},
    path::Path,
    time::Instant,
};

/// Blobs that are asked for and sent at once.
const UPLOADS: usize = 4;

/// An image in a folder or file.
#[derive(Debug)]
pub struct StoredImage {
    source: Source,
    chosen: usize,
}

impl StoredImage {
    /// Opens the only image at `path`, or the one that has this name there.
    pub fn open(path: &Path, name: Option<&str>) -> Result<Self> {
        let source = firn_image::output::read(path)?;
        let chosen = match (source.images.as_slice(), name) {
            ([_], _) => Some(0),
            (images, Some(name)) => images
                .iter()
                .position(|image| image.names.iter().any(|found| found == name)),
            _ => None,
        };
        let Some(chosen) = chosen else {
            let names: Vec<&str> = source
                .images
                .iter()
                .flat_map(|image| image.names.iter().map(String::as_str))
                .collect();
            return Err(ClientError::Setting(format!(
                "{} holds {} images ({}); say which one",
                path.display(),
                source.images.len(),
                names.join(", ")
            )));
        };
        Ok(Self { source, chosen })
    }

    fn image(&self) -> &SourceImage {
        &self.source.images[self.chosen]
    }

    /// The bytes of its (first) manifest and of its config.
    pub fn documents(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let found = self.image().documents.iter().find_map(|document| {
            let manifest: Manifest = serde_json::from_slice(&document.bytes).ok()?;
            Some((document.bytes.clone(), manifest.config.digest))
        });
        let (bytes, digest) =
            found.ok_or_else(|| ClientError::Setting("the image has no manifest".to_owned()))?;
        let mut config = Vec::new();
        self.source
            .open_blob(&digest)?
            .take(MANIFEST_BYTES_MAX as u64)
            .read_to_end(&mut config)
            .map_err(|source| ClientError::io(digest.to_string(), source))?;
        Ok((bytes, config))
    }

    /// The document that is the image.
    pub(super) fn top(&self) -> Option<&Document> {
        self.image().top()
    }

    /// A document of the image.
    pub(super) fn document(&self, digest: &Digest) -> Option<Vec<u8>> {
        let mut documents = self.image().documents.iter();
        let found = documents.find(|document| document.digest == *digest)?;
        Some(found.bytes.clone())
    }

    /// The names the image has where it lies.
    pub fn names(&self) -> &[String] {
        &self.image().names
    }
}

impl BlobSource for &StoredImage {
    fn open_blob(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        BlobSource::open_blob(&self.source, digest)
    }
}

/// Pushes an image as it is. `display` is what the image is called in the report.
pub fn push_stored(
    repository: &Repository,
    display: &str,
    tag: &str,
    stored: &StoredImage,
    progress: &dyn Progress,
) -> Result<ImageReport> {
    let started = Instant::now();
    let sent_before = repository.http().bytes_sent();
    let image = stored.image();
    let top = image
        .top()
        .ok_or_else(|| ClientError::Setting("the image has no manifest".to_owned()))?;
    let layers = layers_of(image);
    progress.begin("push", image.blobs.iter().map(|blob| blob.size).sum());
    let sent = send_blobs(repository, stored, progress);
    progress.end();
    let sent: HashSet<_> = sent?.into_iter().collect();
    let layers_sent = layers.intersection(&sent).count() as u64;
    for document in &image.documents {
        let reference = if std::ptr::eq(document, top) {
            tag.to_owned()
        } else {
            document.digest.to_string()
        };
        repository.put_manifest(
            &reference,
            known_type(&document.media_type),
            &document.bytes,
        )?;
    }
    Ok(ImageReport {
        image: display.to_owned(),
        digest: top.digest.to_string(),
        layers_total: layers.len() as u64,
        layers_sent,
        layers_not_believed: 0,
        layers_reused: layers.len() as u64 - layers_sent,
        bytes_total: image.blobs.iter().map(|blob| blob.size).sum(),
        bytes_sent: repository.http().bytes_sent() - sent_before,
        paths_pushed: 0,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn layers_of(image: &SourceImage) -> HashSet<Digest> {
    image
        .documents
        .iter()
        .filter_map(|document| serde_json::from_slice::<Manifest>(&document.bytes).ok())
        .flat_map(|manifest| manifest.layers.into_iter().map(|layer| layer.digest))
        .collect()
}

/// The media types that manifests may have; what is none of them is taken for OCI's.
pub(super) fn known_type(media_type: &str) -> &'static str {
    [
        media_type::OCI_MANIFEST,
        media_type::OCI_INDEX,
        media_type::DOCKER_MANIFEST,
        media_type::DOCKER_MANIFEST_LIST,
    ]
    .into_iter()
    .find(|known| *known == media_type)
    .unwrap_or(media_type::OCI_MANIFEST)
}

/// Gives the digests of those that were not there.
fn send_blobs(
    repository: &Repository,
    stored: &StoredImage,
    progress: &dyn Progress,
) -> Result<Vec<Digest>> {
    let blobs = &stored.image().blobs;
    let sent = parallel::each(blobs.len(), UPLOADS, |index| {
        let Some(blob) = blobs.get(index) else {
            return Ok(None);
        };
        let sent = send_blob(repository, stored, blob, progress)?;
        progress.advance(blob.size);
        Ok(sent.then(|| blob.digest.clone()))
    })?;
    Ok(sent.into_iter().flatten().collect())
}

fn send_blob(
    repository: &Repository,
    stored: &StoredImage,
    blob: &Descriptor,
    progress: &dyn Progress,
) -> Result<bool> {
    if repository.has_blob(&blob.digest)? {
        return Ok(false);
    }
    let name = item_name(&blob.digest.to_string());
    progress.item_begin(&name, blob.size);
    let sent = repository.put_blob_stream(&blob.digest, blob.size, &|| {
        let content = stored.source.open_blob(&blob.digest)?;
        Ok(Box::new(Watched::new(content, progress, &name)) as Box<dyn Read>)
    });
    progress.item_end(&name);
    sent.map(|()| true)
}
