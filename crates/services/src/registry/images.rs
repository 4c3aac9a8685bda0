//! The images of a cache: what its tags name, and which layers they share.
//!
//! Anybody may ask for those of a public cache, and a pusher says how many and how large they are. So a manifest is
//! parsed once and a summary of it kept, what an answer needs is paid for while it is made, and long lists come in
//! pages.

use super::Registry;
use super::tags::PAGE;
use crate::access::Cache;
use crate::budget::{Client, Full, Lease};
use crate::{ServiceError, document};
use firn_formats::admin::{ImageLayer, ImageView};
use firn_formats::oci::Descriptor;
use firn_formats::oci::manifest::AnyManifest;
use firn_store::{CacheId, Entry, EntryKind};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

/// Images in one answer.
pub const IMAGES_MAX: usize = 10_000;
/// Summaries that are remembered, in bytes.
const SUMMARY_BYTES_MAX: u64 = 16 << 20;
/// Images whose summaries may be remembered, about.
const SUMMARIES_MAX: usize = 10_000;
/// What an entry of a table or a list of this module costs at the most, in bytes.
const ENTRY_COST: u64 = 64;
/// What a tag costs beside its name.
const TAG_COST: u64 = 512;
/// What a manifest costs while it is parsed, for each of its bytes.
const PARSED_COST: u64 = 4;

/// A layer: a hash of its digest, and its size.
type Layer = (u64, u64);

/// What an answer needs of an image.
pub(super) struct Summary {
    media_type: String,
    platforms: u64,
    layers: Vec<Layer>,
}

/// What is remembered of a manifest.
enum Known {
    Image(Arc<Summary>),
    /// Its manifests may go and come.
    Index {
        media_type: String,
        digests: Vec<String>,
    },
}

/// By cache, and by the key of the manifest's entry: manifests never change.
type SummaryKey = (CacheId, String);

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<SummaryKey, Arc<Known>> for Weight {
    fn weight(&self, (_, key): &SummaryKey, known: &Arc<Known>) -> u64 {
        let rest = match &**known {
            Known::Image(summary) => 16 * summary.layers.len() as u64,
            Known::Index { digests, .. } => digests.iter().map(|one| 24 + one.len() as u64).sum(),
        };
        200 + key.len() as u64 + rest
    }
}

/// Summaries of the images that were asked for.
pub(super) struct Summaries {
    known: quick_cache::sync::Cache<SummaryKey, Arc<Known>, Weight>,
    /// Of digests; a pusher cannot make two of them alike.
    hasher: RandomState,
}

impl Summaries {
    pub(super) fn new() -> Self {
        let known =
            quick_cache::sync::Cache::with_weighter(SUMMARIES_MAX, SUMMARY_BYTES_MAX, Weight);
        Self {
            known,
            hasher: RandomState::new(),
        }
    }
}

/// Which images are asked for.
#[derive(Debug, Clone, Default)]
pub struct ImagesAsked {
    /// One of them, `NAME:TAG`, with its layers.
    pub only: Option<String>,
    /// So many at the most; without, all, if they are no more than [`IMAGES_MAX`].
    pub count: Option<usize>,
    /// Those after this one, `NAME:TAG`.
    pub after: Option<String>,
}

/// Images, and what they cost as long as they are held.
pub struct Images {
    /// What was asked for.
    pub views: Vec<ImageView>,
    /// To be dropped with them.
    pub lease: Lease,
}

/// How many images a layer is in: which it was seen in last, and whether there is another.
struct Users {
    last: u32,
    others: u32,
}

fn pay(lease: &mut Lease, cost: u64) -> Result<(), ServiceError> {
    lease.grow(cost).map_err(|Full| ServiceError::Busy)
}

impl Registry {
    /// The tags of a cache with what they name, by name; of one image, if asked, with its layers. Images of one digest
    /// count as one when it comes to what is shared. `client` pays.
    ///
    /// # Errors
    /// If there are more than one answer holds, there is no memory for it now, or the store fails.
    pub fn images(
        &self,
        cache: &Arc<Cache>,
        asked: &ImagesAsked,
        client: &Client,
    ) -> Result<Images, ServiceError> {
        let mut lease = self.budget.take_nothing(client);
        let (mut users, mut wanted) = (HashMap::new(), Vec::new());
        // By manifest, so that many tags of one cost what one costs.
        let mut found: HashMap<String, Option<Arc<Summary>>> = HashMap::new();
        let most = asked.count.unwrap_or(IMAGES_MAX).min(IMAGES_MAX);
        let mut after: Option<String> = None;
        loop {
            let id = cache.row.id;
            let tags = self
                .store
                .entries(id, EntryKind::Tag, "", after.as_deref(), PAGE)?;
            let Some(last) = tags.last() else { break };
            after = Some(last.key.clone());
            for tag in tags {
                let key = manifest_key(&tag)?;
                if !found.contains_key(&key) {
                    let summary = self.summary(cache, &key, &mut lease)?;
                    let layers = summary.iter().flat_map(|summary| &summary.layers);
                    let new = count_layers(&mut users, found.len() as u32, layers);
                    pay(&mut lease, new * ENTRY_COST + TAG_COST)?;
                    found.insert(key.clone(), summary);
                }
                if !is_wanted(asked, &tag) {
                    continue;
                }
                if wanted.len() < most {
                    pay(&mut lease, TAG_COST + 2 * tag.key.len() as u64)?;
                    wanted.push((tag, key));
                } else if asked.count.is_none() {
                    return Err(ServiceError::BadRequest(format!(
                        "the cache has more than {IMAGES_MAX} images: ask for pages of them, with `n` and `last`; \
                         clients since this version do"
                    )));
                }
            }
        }
        let mut views = Vec::with_capacity(wanted.len());
        for (tag, key) in wanted {
            // One that is not there was deleted between two look-ups.
            if let Some(Some(summary)) = found.get(&key) {
                let mut view = view(&tag, summary, &users)?;
                if asked.only.is_some() {
                    view.contents = self.contents(cache, &key, &users, &mut lease)?;
                }
                views.push(view);
            }
        }
        Ok(Images { views, lease })
    }

    /// The layers of one image, by their digests.
    fn contents(
        &self,
        cache: &Cache,
        key: &str,
        users: &HashMap<u64, Users>,
        lease: &mut Lease,
    ) -> Result<Vec<ImageLayer>, ServiceError> {
        let mut contents = Vec::new();
        let mut seen = HashSet::new();
        self.each_layer(cache, key, lease, &mut |layer, paid| {
            let digest = layer.digest.to_string();
            let hash = self.summaries.hasher.hash_one(&digest);
            if seen.insert(hash) {
                paid.grow(TAG_COST).map_err(|Full| ServiceError::Busy)?;
                contents.push(ImageLayer {
                    digest,
                    size: layer.size,
                    other_images: users.get(&hash).map_or(0, |users| u64::from(users.others)),
                });
            }
            Ok(())
        })?;
        Ok(contents)
    }

    /// What a manifest is; `None` if it is not there.
    fn summary(
        &self,
        cache: &Cache,
        key: &str,
        lease: &mut Lease,
    ) -> Result<Option<Arc<Summary>>, ServiceError> {
        let Some(known) = self.known(cache, key, lease)? else {
            return Ok(None);
        };
        let (media_type, digests) = match &*known {
            Known::Image(summary) => return Ok(Some(summary.clone())),
            Known::Index {
                media_type,
                digests,
            } => (media_type, digests),
        };
        let name = key.split_once('@').map_or(key, |(name, _)| name);
        let (mut layers, mut seen) = (Vec::new(), HashSet::new());
        for digest in digests {
            let known = self.known(cache, &format!("{name}@{digest}"), lease)?;
            let Some(Known::Image(summary)) = known.as_deref() else {
                continue;
            };
            pay(lease, summary.layers.len() as u64 * ENTRY_COST)?;
            let new = summary
                .layers
                .iter()
                .filter(|(layer, _)| seen.insert(*layer));
            layers.extend(new);
        }
        Ok(Some(Arc::new(Summary {
            media_type: media_type.clone(),
            platforms: digests.len() as u64,
            layers,
        })))
    }

    /// What is known of a manifest that is there.
    fn known(
        &self,
        cache: &Cache,
        key: &str,
        lease: &mut Lease,
    ) -> Result<Option<Arc<Known>>, ServiceError> {
        let Some(entry) = self.store.entry(cache.row.id, EntryKind::Manifest, key)? else {
            return Ok(None);
        };
        let summary_key = (cache.row.id, key.to_owned());
        if let Some(known) = self.summaries.known.get(&summary_key) {
            return Ok(Some(known));
        }
        let (media_type, manifest) = self.parsed(key, &entry, lease)?;
        let known = Arc::new(match manifest {
            AnyManifest::Manifest(manifest) => {
                let mut seen = HashSet::new();
                let layer = |layer: &Descriptor| {
                    let digest = layer.digest.to_string();
                    (self.summaries.hasher.hash_one(digest), layer.size)
                };
                let layers = manifest.layers.iter().map(layer);
                Known::Image(Arc::new(Summary {
                    media_type,
                    platforms: 1,
                    layers: layers.filter(|(layer, _)| seen.insert(*layer)).collect(),
                }))
            }
            AnyManifest::Index(index) => Known::Index {
                media_type,
                digests: index
                    .manifests
                    .iter()
                    .map(|listed| listed.digest.to_string())
                    .collect(),
            },
        });
        self.summaries.known.insert(summary_key, known.clone());
        Ok(Some(known))
    }

    /// Tells of all layers that a manifest leads to.
    fn each_layer(
        &self,
        cache: &Cache,
        key: &str,
        lease: &mut Lease,
        tell: &mut dyn FnMut(&Descriptor, &mut Lease) -> Result<(), ServiceError>,
    ) -> Result<(), ServiceError> {
        let manifest = |key: &str| self.store.entry(cache.row.id, EntryKind::Manifest, key);
        let Some(entry) = manifest(key)? else {
            return Ok(());
        };
        let listed = match self.parsed(key, &entry, lease)? {
            (_, AnyManifest::Manifest(manifest)) => {
                return manifest
                    .layers
                    .iter()
                    .try_for_each(|layer| tell(layer, lease));
            }
            (_, AnyManifest::Index(index)) => index.manifests,
        };
        let name = key.split_once('@').map_or(key, |(name, _)| name);
        for listed in &listed {
            let key = format!("{name}@{}", listed.digest);
            let Some(entry) = manifest(&key)? else {
                continue;
            };
            if let (_, AnyManifest::Manifest(manifest)) = self.parsed(&key, &entry, lease)? {
                manifest
                    .layers
                    .iter()
                    .try_for_each(|layer| tell(layer, lease))?;
            }
        }
        Ok(())
    }

    /// A manifest, if there is memory for it.
    fn parsed(
        &self,
        key: &str,
        entry: &Entry,
        lease: &mut Lease,
    ) -> Result<(String, AnyManifest), ServiceError> {
        let document = document::open(&self.store, entry)?;
        let media_type = document.media_type.clone();
        let cost = document.length.saturating_mul(PARSED_COST);
        pay(lease, cost)?;
        let bytes = document.into_bytes()?;
        let manifest = AnyManifest::parse(&media_type, &bytes)
            .map_err(|error| ServiceError::StoredEntry(format!("{key}: {error}")));
        // What is made of it is paid for by itself.
        lease.shrink(cost);
        Ok((media_type, manifest?))
    }
}

/// The key of the manifest that a tag names.
fn manifest_key(tag: &Entry) -> Result<String, ServiceError> {
    let Some((name, _)) = tag.key.split_once(':') else {
        return Err(ServiceError::StoredEntry(tag.key.clone()));
    };
    Ok(format!("{name}@{}", String::from_utf8_lossy(&tag.value)))
}

fn view(
    tag: &Entry,
    summary: &Summary,
    users: &HashMap<u64, Users>,
) -> Result<ImageView, ServiceError> {
    let Some((name, tag_name)) = tag.key.split_once(':') else {
        return Err(ServiceError::StoredEntry(tag.key.clone()));
    };
    let own = summary.layers.iter().filter(|(layer, _)| {
        let users = users.get(layer);
        users.is_none_or(|users| users.others == 0)
    });
    let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
    Ok(ImageView {
        name: name.to_owned(),
        tag: tag_name.to_owned(),
        digest: String::from_utf8_lossy(&tag.value).into_owned(),
        media_type: summary.media_type.clone(),
        platforms: summary.platforms,
        layers: summary.layers.len() as u64,
        size: sum(&mut summary.layers.iter().map(|(_, size)| *size)),
        own_bytes: sum(&mut own.map(|(_, size)| *size)),
        pushed_at: tag.created_at,
        contents: Vec::new(),
    })
}

fn is_wanted(asked: &ImagesAsked, tag: &Entry) -> bool {
    let only = asked.only.as_ref().is_none_or(|only| *only == tag.key);
    let after = asked.after.as_ref();
    only && after.is_none_or(|after| tag.key.as_str() > after.as_str())
}

/// Counts an image's layers; says how many of them are new.
fn count_layers<'a>(
    users: &mut HashMap<u64, Users>,
    image: u32,
    layers: impl Iterator<Item = &'a Layer>,
) -> u64 {
    let mut new = 0;
    for (layer, _) in layers {
        match users.get_mut(layer) {
            Some(users) if users.last == image => {}
            Some(users) => {
                users.last = image;
                users.others += 1;
            }
            None => {
                new += 1;
                let first = Users {
                    last: image,
                    others: 0,
                };
                users.insert(*layer, first);
            }
        }
    }
    new
}
