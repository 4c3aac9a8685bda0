//! Base images: of a layout or an archive, or of a registry.

use crate::{
    error::{ClientError, Result},
    registry::{RegistryBlobs, Repository},
};
use firn_formats::oci::{Manifest, Platform, manifest::MANIFEST_BYTES_MAX};
use firn_image::{
    base::{BaseImage, Chosen, Origin, choose},
    output::{Source, SourceImage},
};
use std::{io::Read, path::Path, sync::Arc};

/// Deepest nesting of indexes.
const INDEX_DEPTH_MAX: usize = 4;

/// The image for the platform in a layout folder, an oci-archive or a docker-archive.
pub fn base_of_file(path: &Path, platform: &Platform) -> Result<BaseImage> {
    let name = path.display().to_string();
    let source = Arc::new(firn_image::output::read(path)?);
    let mut found = Vec::new();
    let mut refusal = None;
    for image in &source.images {
        match of_source(&name, &source, image, platform) {
            Ok(base) => found.push(base),
            Err(error) => refusal = Some(error),
        }
    }
    match (found.pop(), refusal) {
        (Some(base), _) if found.is_empty() => Ok(base),
        (Some(_), _) => Err(ClientError::Setting(format!(
            "{name} holds several images for the platform; an archive with one of them says which"
        ))),
        (None, Some(error)) => Err(error),
        (None, None) => Err(ClientError::Setting(format!("{name} holds no image"))),
    }
}

fn of_source(
    name: &str,
    source: &Arc<Source>,
    image: &SourceImage,
    platform: &Platform,
) -> Result<BaseImage> {
    let missing = || ClientError::Setting(format!("{name} lacks the manifest for the platform"));
    let mut document = image.top().ok_or_else(missing)?;
    for _ in 0..INDEX_DEPTH_MAX {
        match choose(name, &document.media_type, &document.bytes, platform)? {
            Chosen::Image(manifest) => {
                let blobs = Arc::clone(source);
                let config = blob(source, &manifest)?;
                return Ok(BaseImage::new(name, &manifest, &config, platform, blobs)?);
            }
            Chosen::Other(entry) => {
                let mut documents = image.documents.iter();
                let next = documents.find(|other| other.digest == entry.digest);
                document = next.ok_or_else(missing)?;
            }
        }
    }
    Err(missing())
}

/// The config's bytes, checked.
fn blob(source: &Source, manifest: &Manifest) -> Result<Vec<u8>> {
    let digest = &manifest.config.digest;
    let mut bytes = Vec::new();
    source
        .open_blob(digest)?
        .take(MANIFEST_BYTES_MAX as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| ClientError::io(digest.to_string(), error))?;
    match digest.matches(&bytes) {
        true => Ok(bytes),
        false => Err(ClientError::HashMismatch {
            what: format!("config {digest}"),
        }),
    }
}

/// The image for the platform in a repository. `wanted` is a tag or digest.
pub fn base_of_repository(
    name: &str,
    repository: &Arc<Repository>,
    wanted: &str,
    platform: &Platform,
) -> Result<BaseImage> {
    let mut wanted = wanted.to_owned();
    for _ in 0..INDEX_DEPTH_MAX {
        let raw = repository.manifest(&wanted)?;
        let raw = raw.ok_or_else(|| ClientError::Setting(format!("there is no image {name}")))?;
        let is_wanted = |digest: firn_formats::oci::Digest| digest.matches(&raw.bytes);
        if firn_formats::oci::Digest::parse(&wanted).is_ok_and(|digest| !is_wanted(digest)) {
            return Err(ClientError::HashMismatch {
                what: format!("manifest {wanted}"),
            });
        }
        match choose(name, &raw.media_type, &raw.bytes, platform)? {
            Chosen::Image(manifest) => {
                let config = repository.blob(&manifest.config.digest)?;
                let blobs = Arc::new(RegistryBlobs(Arc::clone(repository)));
                let base = BaseImage::new(name, &manifest, &config, platform, blobs)?;
                return Ok(BaseImage {
                    origin: Some(Origin {
                        registry: repository.registry().to_owned(),
                        repository: repository.name().as_str().to_owned(),
                    }),
                    ..base
                });
            }
            Chosen::Other(entry) => wanted = entry.digest.to_string(),
        }
    }
    Err(ClientError::Setting(format!(
        "the indexes of {name} are nested too deeply"
    )))
}
