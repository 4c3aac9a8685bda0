//! Layers that are published, and which keys they prove.
//!
//! A client takes the layer that a key is answered with unread, so a key is answered only with a layer from whose
//! tar it was computed. That is done while the layer is hashed; where its bytes were here before, where rules are
//! part of its key, and where it has both store paths and root files, it is read once more.

use super::{LAYER_KEY_BYTES_MAX, Push, PushSession};
use crate::registry::blob_entry;
use crate::{ServiceError, access::Cache, sync::lock};
use firn_formats::Sha256;
use firn_formats::layer::{Found, Scan, Terms};
use firn_formats::push::{GzipDescriptor, LayerDescriptor, PublishLayer};
use firn_store::{BlobInfo, EntryKind, IfExists, NewEntry, Observer, Representation};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a layer without a manifest stays.
const LAYER_WITHOUT_MANIFEST: Duration = Duration::from_secs(24 * 3600);

/// The value of a layer's entry. Servers that believed whoever published a layer wrote the descriptor alone.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredLayer {
    #[serde(flatten)]
    pub(super) descriptor: LayerDescriptor,
    /// The key was computed from the layer's tar.
    #[serde(default)]
    pub(super) proven: bool,
}

/// A layer that is read while it is hashed.
#[derive(Clone)]
pub(super) struct Heard(Arc<Mutex<Hearing>>);

struct Hearing {
    /// Held until it has been read.
    place: Option<Arc<()>>,
    state: State,
}

enum State {
    Waiting,
    Reading(Box<Scan>),
    /// The bytes that came by, and what they are.
    Read(u64, Found),
}

impl Observer for Hearing {
    fn read(&mut self, raw: &[u8]) {
        if matches!(self.state, State::Waiting) {
            self.state = State::Reading(Box::new(Scan::new(None)));
        }
        if let State::Reading(scan) = &mut self.state {
            scan.push(raw);
        }
    }
}

impl Heard {
    pub(super) fn new(place: Arc<()>) -> Self {
        Self(Arc::new(Mutex::new(Hearing {
            place: Some(place),
            state: State::Waiting,
        })))
    }

    /// Who reads the layer.
    pub(super) fn observer(&self) -> Arc<Mutex<dyn Observer>> {
        self.0.clone()
    }

    /// What the layer is, if all of its bytes came by.
    fn found(&self, length: u64) -> Option<Found> {
        let mut hearing = lock(&self.0);
        if let State::Reading(scan) = std::mem::replace(&mut hearing.state, State::Waiting) {
            hearing.state = State::Read(scan.length(), scan.finish());
        }
        hearing.place = None;
        match &hearing.state {
            State::Read(read, found) if *read == length => Some(found.clone()),
            _ => None,
        }
    }
}

impl Push {
    /// Which of these layers have the keys that they are published under.
    pub(super) fn proven_layers(
        &self,
        session: &PushSession,
        layers: &[PublishLayer],
        blobs: &HashMap<u32, BlobInfo>,
    ) -> Result<Vec<bool>, ServiceError> {
        let mut seen = HashSet::new();
        let mut work = Vec::with_capacity(layers.len());
        for layer in layers {
            let blob = blobs.get(&layer.blob);
            let blob = blob.ok_or(ServiceError::StaleBlob(layer.blob))?;
            // So that one request has no blob read again and again.
            let first = seen.insert(layer.blob);
            let heard = session.proposed(layer.blob)?.heard.clone();
            work.push((layer, blob, heard, first));
        }
        work.into_par_iter()
            .with_max_len(1)
            .map(|(layer, blob, heard, first)| {
                Ok(first && self.key_of(layer, blob, heard)?.as_ref() == Some(&layer.key))
            })
            .collect()
    }

    /// The key that a layer's tar has.
    fn key_of(
        &self,
        layer: &PublishLayer,
        blob: &BlobInfo,
        heard: Option<Heard>,
    ) -> Result<Option<String>, ServiceError> {
        let terms = match layer
            .recipe
            .as_ref()
            .map(|recipe| recipe.terms())
            .transpose()
        {
            Ok(terms) => terms.map(Arc::new),
            Err(error) => {
                tracing::debug!(key = layer.key, %error, "a layer is not shared");
                return Ok(None);
            }
        };
        let heard = heard.filter(|_| terms.is_none());
        let found = match heard.and_then(|heard| heard.found(blob.identity_length)) {
            Some(found) => found,
            None => self.scan(blob, Scan::new(terms.clone()))?,
        };
        self.resolve(layer, blob, terms, found)
    }

    fn resolve(
        &self,
        layer: &PublishLayer,
        blob: &BlobInfo,
        terms: Option<Arc<Terms>>,
        found: Found,
    ) -> Result<Option<String>, ServiceError> {
        let found = match found {
            Found::Mixed { paths_key } => self.scan(blob, Scan::mixed(terms, &paths_key))?,
            found => found,
        };
        match found {
            Found::Key(key) => Ok(Some(key)),
            Found::Mixed { .. } => Ok(None),
            Found::Unlike(why) => {
                tracing::debug!(key = layer.key, why, "a layer is not shared");
                Ok(None)
            }
        }
    }

    fn scan(&self, blob: &BlobInfo, mut scan: Scan) -> Result<Found, ServiceError> {
        let mut reader = self.store.read(blob.id, Representation::Identity, None)?;
        while let Some(block) = reader.next_block()? {
            scan.push(&block);
        }
        Ok(scan.finish())
    }

    /// What a blob is as a layer, whatever its key.
    pub(super) fn descriptor(
        &self,
        layer: &PublishLayer,
        blob: &BlobInfo,
    ) -> Result<LayerDescriptor, ServiceError> {
        if layer.key.is_empty() || layer.key.len() > LAYER_KEY_BYTES_MAX {
            return Err(ServiceError::BadRequest(
                "a layer key is empty or too long".to_owned(),
            ));
        }
        let gzip = match (layer.gzip, blob.gzip) {
            (true, None) => Some(self.store.make_gzip(blob.id)?),
            (_, known) => known,
        };
        Ok(LayerDescriptor {
            digest: oci_digest(&blob.zstd_sha256),
            size: blob.zstd_length,
            diff_id: oci_digest(&blob.identity_sha256),
            tar_size: blob.identity_length,
            gzip: gzip.map(|(digest, size)| GzipDescriptor {
                digest: oci_digest(&digest),
                size,
            }),
        })
    }

    /// What makes a layer readable by its digests, and by its key if that is proven.
    pub(super) fn layer_entries(
        &self,
        cache: &Cache,
        layer: &PublishLayer,
        blob: &BlobInfo,
        descriptor: &LayerDescriptor,
        proven: bool,
        entries: &mut Vec<NewEntry>,
    ) -> Result<(), ServiceError> {
        let lease = Some(LAYER_WITHOUT_MANIFEST);
        if proven && !self.is_taken(cache, layer, descriptor)? {
            let stored = StoredLayer {
                descriptor: descriptor.clone(),
                proven,
            };
            entries.push(NewEntry {
                kind: EntryKind::Layer,
                key: layer.key.clone(),
                value: serde_json::to_vec(&stored)?.into(),
                blobs: vec![blob.id],
                requires: Vec::new(),
                if_exists: IfExists::Replace,
                lease,
            });
        }
        let zstd = (&descriptor.digest, Representation::Zstd);
        let gzip = descriptor.gzip.as_ref();
        let gzip = gzip.map(|gzip| (&gzip.digest, Representation::Gzip));
        for (digest, representation) in std::iter::once(zstd).chain(gzip) {
            entries.push(blob_entry(digest, representation, blob.id, lease));
        }
        Ok(())
    }

    /// A key that has a servable layer keeps it: the same tar may have been compressed otherwise. The same layer
    /// may learn of its gzip.
    fn is_taken(
        &self,
        cache: &Cache,
        layer: &PublishLayer,
        descriptor: &LayerDescriptor,
    ) -> Result<bool, ServiceError> {
        let known = self.known_layers(cache, std::slice::from_ref(&layer.key))?;
        let known = known.get(&layer.key);
        Ok(known.is_some_and(|known| known.digest != descriptor.digest))
    }
}

fn oci_digest(digest: &Sha256) -> String {
    format!("sha256:{}", digest.hex())
}
