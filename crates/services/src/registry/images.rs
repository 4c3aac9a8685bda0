//! The images of a cache: what its tags name, and which layers they share.

use super::{Registry, Repository};
use crate::access::Cache;
use crate::{ServiceError, document};
use firn_formats::admin::{ImageLayer, ImageView};
use firn_formats::oci::Descriptor;
use firn_formats::oci::manifest::AnyManifest;
use firn_store::EntryKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A tag, and the layers of the manifests that it leads to.
struct Image {
    view: ImageView,
    layers: Vec<Descriptor>,
}

impl Registry {
    /// Every tag of a cache with what it names, by name; of one image, if asked, with its layers.
    /// Images of one digest count as one when it comes to what is shared.
    ///
    /// # Errors
    /// If the store fails.
    pub fn images(
        &self,
        cache: &Arc<Cache>,
        only: Option<&str>,
    ) -> Result<Vec<ImageView>, ServiceError> {
        let any = Repository {
            cache: cache.clone(),
            name: String::new(),
        };
        let tags = self.all_entries(&any, EntryKind::Tag, "")?;
        let mut images = Vec::with_capacity(tags.len());
        for tag in tags {
            images.extend(self.image(cache, &tag)?);
        }
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for image in &images {
            for layer in &image.layers {
                let digest = image.view.digest.clone();
                users
                    .entry(layer.digest.to_string())
                    .or_default()
                    .insert(digest);
            }
        }
        let shared = |layer: &Descriptor| {
            let count = users
                .get(&layer.digest.to_string())
                .map_or(1, BTreeSet::len);
            count.saturating_sub(1) as u64
        };
        let mut views = Vec::new();
        for Image { mut view, layers } in images {
            if only.is_some_and(|only| only != format!("{}:{}", view.name, view.tag)) {
                continue;
            }
            let own = layers.iter().filter(|layer| shared(layer) == 0);
            view.own_bytes = own.map(|layer| layer.size).sum();
            if only.is_some() {
                view.contents = layers
                    .iter()
                    .map(|layer| ImageLayer {
                        digest: layer.digest.to_string(),
                        size: layer.size,
                        other_images: shared(layer),
                    })
                    .collect();
            }
            views.push(view);
        }
        Ok(views)
    }

    fn image(&self, cache: &Cache, tag: &firn_store::Entry) -> Result<Option<Image>, ServiceError> {
        let digest = String::from_utf8_lossy(&tag.value).into_owned();
        let Some((name, tag_name)) = tag.key.split_once(':') else {
            return Err(ServiceError::StoredEntry(tag.key.clone()));
        };
        let Some((media_type, manifest)) = self.parsed(cache, name, &digest)? else {
            // Deleted between two look-ups.
            return Ok(None);
        };
        let mut layers = Vec::new();
        let mut platforms = 1;
        match manifest {
            AnyManifest::Manifest(manifest) => layers = manifest.layers,
            AnyManifest::Index(index) => {
                platforms = index.manifests.len();
                for listed in &index.manifests {
                    let digest = listed.digest.to_string();
                    if let Some((_, AnyManifest::Manifest(manifest))) =
                        self.parsed(cache, name, &digest)?
                    {
                        layers.extend(manifest.layers);
                    }
                }
            }
        }
        let mut seen = BTreeSet::new();
        layers.retain(|layer| seen.insert(layer.digest.to_string()));
        Ok(Some(Image {
            view: ImageView {
                name: name.to_owned(),
                tag: tag_name.to_owned(),
                digest,
                media_type,
                platforms: platforms as u64,
                layers: layers.len() as u64,
                size: layers.iter().map(|layer| layer.size).sum(),
                own_bytes: 0,
                pushed_at: tag.created_at,
                contents: Vec::new(),
            },
            layers,
        }))
    }

    fn parsed(
        &self,
        cache: &Cache,
        name: &str,
        digest: &str,
    ) -> Result<Option<(String, AnyManifest)>, ServiceError> {
        let key = format!("{name}@{digest}");
        let Some(entry) = self.store.entry(cache.row.id, EntryKind::Manifest, &key)? else {
            return Ok(None);
        };
        let document = document::open(&self.store, &entry)?;
        let media_type = document.media_type.clone();
        let manifest = AnyManifest::parse(&media_type, &document.into_bytes()?)
            .map_err(|error| ServiceError::StoredEntry(format!("{key}: {error}")))?;
        Ok(Some((media_type, manifest)))
    }
}
