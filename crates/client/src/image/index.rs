//! An index of images for several platforms, wherever they lie: what the repository lacks is mounted or copied.

use super::{archive_source::StoredImage, attach::descriptor};
use crate::{
    error::{ClientError, Result},
    parallel,
    progress::{Progress, Watched, item_name},
    registry::{RegistryBlobs, Repository},
};
use firn_formats::oci::{
    AnyManifest, Descriptor, ImageConfig, Index, Manifest, Platform, RepositoryName, media_type,
};
use firn_image::base::{BlobSource, text_of};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::Arc,
    time::Instant,
};

/// Blobs that are asked for and sent at once.
const UPLOADS: usize = 4;
/// Deepest nesting of indexes.
const INDEX_DEPTH_MAX: usize = 4;
/// Most members of an index.
const MEMBERS_MAX: usize = 1000;
/// Of what is no image, such as a provenance beside one.
const UNKNOWN: &str = "unknown";

/// Where a member comes from.
#[derive(Debug)]
pub enum IndexSource {
    /// A layout or an archive.
    Stored(StoredImage),
    /// A tag or digest of a repository.
    Remote {
        /// The repository.
        repository: Arc<Repository>,
        /// The tag or digest.
        wanted: String,
    },
}

/// What pushing an index did.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct IndexReport {
    pub image: String,
    pub digest: String,
    /// `os/architecture`, in the index's order.
    pub platforms: Vec<String>,
    pub blobs_sent: u64,
    pub bytes_sent: u64,
    pub seconds: f64,
}

/// A manifest for one platform.
struct Member<'a> {
    entry: Descriptor,
    bytes: Vec<u8>,
    manifest: Manifest,
    source: &'a IndexSource,
}

/// Puts all members, then the index under the tag. `display` is what it is called in the report.
pub fn push_index(
    repository: &Repository,
    display: &str,
    tag: &str,
    sources: &[IndexSource],
    annotations: BTreeMap<String, String>,
    progress: &dyn Progress,
) -> Result<IndexReport> {
    let started = Instant::now();
    let sent_before = repository.http().bytes_sent();
    let mut members = Vec::new();
    for source in sources {
        source.members(&mut members)?;
    }
    members.sort_by_key(|member| (platform_of(&member.entry), member.entry.digest.to_string()));
    members.dedup_by_key(|member| member.entry.digest.to_string());
    check(&members)?;
    let mut blobs_sent = 0;
    for member in &members {
        blobs_sent += send(repository, member, progress)?;
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: members.iter().map(|member| member.entry.clone()).collect(),
        subject: None,
        annotations,
    };
    let bytes = serde_json::to_vec(&index).map_err(|source| ClientError::json("index", source))?;
    repository.put_manifest(tag, media_type::OCI_INDEX, &bytes)?;
    Ok(IndexReport {
        image: display.to_owned(),
        digest: descriptor(media_type::OCI_INDEX, &bytes).digest.to_string(),
        platforms: members
            .iter()
            .map(|member| platform_of(&member.entry))
            .collect(),
        blobs_sent,
        bytes_sent: repository.http().bytes_sent() - sent_before,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn platform_of(entry: &Descriptor) -> String {
    entry.platform.as_ref().map_or_else(String::new, text_of)
}

fn check(members: &[Member<'_>]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for member in members {
        let platform = platform_of(&member.entry);
        if !platform.starts_with(UNKNOWN) && !seen.insert(platform.clone()) {
            return Err(ClientError::Setting(format!(
                "two images are for {platform}; an index has one for each platform"
            )));
        }
    }
    match seen.is_empty() {
        true => Err(ClientError::Setting(
            "an index without images is of no use".to_owned(),
        )),
        false => Ok(()),
    }
}

impl IndexSource {
    /// All manifests that the source leads to.
    fn members<'a>(&'a self, members: &mut Vec<Member<'a>>) -> Result<()> {
        let mut open = vec![(self.top()?, 0)];
        while let Some(((entry, bytes), depth)) = open.pop() {
            if depth > INDEX_DEPTH_MAX || members.len() >= MEMBERS_MAX {
                return Err(ClientError::Setting(
                    "the index has too much in it".to_owned(),
                ));
            }
            let unsound =
                |source: firn_formats::oci::manifest::ManifestError| ClientError::BadAnswer {
                    url: entry.digest.to_string(),
                    what: source.to_string(),
                };
            match AnyManifest::parse(&entry.media_type, &bytes).map_err(unsound)? {
                AnyManifest::Manifest(manifest) => {
                    let entry = self.with_platform(entry, &manifest)?;
                    members.push(Member {
                        entry,
                        bytes,
                        manifest: *manifest,
                        source: self,
                    });
                }
                AnyManifest::Index(index) => {
                    for child in index.manifests {
                        let bytes = self.document(&child)?;
                        open.push(((child, bytes), depth + 1));
                    }
                }
            }
        }
        Ok(())
    }

    fn top(&self) -> Result<(Descriptor, Vec<u8>)> {
        let absent = |name: &str| ClientError::Setting(format!("there is no image {name}"));
        match self {
            Self::Stored(stored) => {
                let top = stored.top().ok_or_else(|| absent("in the archive"))?;
                Ok((descriptor(&top.media_type, &top.bytes), top.bytes.clone()))
            }
            Self::Remote { repository, wanted } => {
                let raw = repository.manifest(wanted)?;
                let raw = raw.ok_or_else(|| absent(&format!("{}:{wanted}", repository.name())))?;
                Ok((descriptor(&raw.media_type, &raw.bytes), raw.bytes))
            }
        }
    }

    fn document(&self, entry: &Descriptor) -> Result<Vec<u8>> {
        let bytes = match self {
            Self::Stored(stored) => stored.document(&entry.digest),
            Self::Remote { repository, .. } => repository
                .manifest(&entry.digest.to_string())?
                .map(|raw| raw.bytes),
        };
        match bytes {
            Some(bytes) if entry.digest.matches(&bytes) => Ok(bytes),
            _ => Err(ClientError::HashMismatch {
                what: format!("manifest {}", entry.digest),
            }),
        }
    }

    /// The platform as the index says it, or else the config.
    fn with_platform(&self, entry: Descriptor, manifest: &Manifest) -> Result<Descriptor> {
        if entry.platform.is_some() {
            return Ok(entry);
        }
        let mut config = Vec::new();
        let digest = &manifest.config.digest;
        let blob = self.blobs().open_blob(digest);
        blob.and_then(|blob| {
            blob.take(firn_formats::oci::manifest::MANIFEST_BYTES_MAX as u64)
                .read_to_end(&mut config)
        })
        .map_err(|source| ClientError::io(digest.to_string(), source))?;
        if !digest.matches(&config) {
            return Err(ClientError::HashMismatch {
                what: format!("config {digest}"),
            });
        }
        let config: ImageConfig = serde_json::from_slice(&config)
            .map_err(|source| ClientError::json("image config", source))?;
        Ok(Descriptor {
            platform: Some(Platform {
                architecture: config.architecture,
                os: config.os,
                variant: config.variant,
                os_version: config.os_version,
                os_features: config.os_features,
            }),
            ..entry
        })
    }

    fn blobs(&self) -> Box<dyn BlobSource + '_> {
        match self {
            Self::Stored(stored) => Box::new(stored),
            Self::Remote { repository, .. } => Box::new(RegistryBlobs(Arc::clone(repository))),
        }
    }

    /// The repository, if its blobs can be mounted into another.
    fn mountable(&self, into: &Repository) -> Option<&RepositoryName> {
        match self {
            Self::Remote { repository, .. } if repository.is_beside(into) => {
                Some(repository.name())
            }
            _ => None,
        }
    }
}

/// Brings a member's blobs and its manifest; gives the number of blobs whose bytes were sent.
fn send(repository: &Repository, member: &Member<'_>, progress: &dyn Progress) -> Result<u64> {
    let from = member.source.mountable(repository);
    let is_there = from == Some(repository.name());
    let config = std::iter::once(&member.manifest.config);
    let blobs: Vec<&Descriptor> = config.chain(&member.manifest.layers).collect();
    let sent = parallel::each(blobs.len(), UPLOADS, |index| {
        let Some(blob) = blobs.get(index).filter(|blob| blob.urls.is_empty()) else {
            return Ok(false);
        };
        if is_there || repository.has_blob(&blob.digest)? {
            return Ok(false);
        }
        let name = item_name(&blob.digest.to_string());
        progress.item_begin(&name, blob.size);
        let source = member.source.blobs();
        let how = repository.put_blob_from(&blob.digest, blob.size, from, &|| {
            let content = source.open_blob(&blob.digest);
            let content =
                content.map_err(|error| ClientError::io(blob.digest.to_string(), error))?;
            Ok(Box::new(Watched::new(content, progress, &name)) as Box<dyn Read>)
        });
        progress.item_end(&name);
        Ok(how? == crate::registry::Uploaded::Sent)
    })?;
    if !is_there {
        let media_type = super::archive_source::known_type(&member.entry.media_type);
        repository.put_manifest(&member.entry.digest.to_string(), media_type, &member.bytes)?;
    }
    Ok(sent.into_iter().filter(|sent| *sent).count() as u64)
}
