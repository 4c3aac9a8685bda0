//! From proposed blobs to visible paths and layers.

use super::session::{Progress, Proposed};
use super::{Push, PushSession, too_many};
use crate::nix_cache::{VerifiedPath, check_verified, parse_signatures};
use crate::{ServiceError, sync::lock};
use firn_formats::Sha256;
use firn_formats::nix::{StorePath, base32};
use firn_formats::push::{PATHS_PER_REQUEST_MAX, Publish, PublishPath, Published};
use firn_store::BlobInfo;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

impl Push {
    /// Makes paths and layers visible, all or none.
    ///
    /// # Errors
    /// If a blob is not what its path declares, chunks or references are missing, or the store fails.
    pub fn publish(
        &self,
        session: &PushSession,
        request: &Publish,
    ) -> Result<Published, ServiceError> {
        if request.paths.len() > PATHS_PER_REQUEST_MAX
            || request.layers.len() > PATHS_PER_REQUEST_MAX
        {
            return Err(too_many("paths or layers"));
        }
        let blobs = self.finish_blobs(session, request)?;
        let blob = |handle: u32| blobs.get(&handle).ok_or(ServiceError::StaleBlob(handle));
        let mut paths = Vec::with_capacity(request.paths.len());
        for path in &request.paths {
            paths.push(verified_path(path, blob(path.blob)?)?);
        }
        self.note_nars(session, request, &mut paths)?;
        let mut descriptors = BTreeMap::new();
        let mut entries = Vec::new();
        let proven = self.proven_layers(session, &request.layers, &blobs)?;
        for (layer, proven) in request.layers.iter().zip(proven) {
            let blob = blob(layer.blob)?;
            let descriptor = self.descriptor(layer, blob)?;
            let cache = &session.cache;
            self.layer_entries(cache, layer, blob, &descriptor, proven, &mut entries)?;
            descriptors.insert(layer.key.clone(), descriptor);
        }
        let bytes = blobs.values().map(|blob| blob.zstd_length).sum();
        let whole = session.published_bytes().saturating_add(bytes);
        self.retention.admit(&session.cache, bytes, whole)?;
        let new = self
            .nix_cache
            .publish(&session.session, &session.cache, paths, entries)?;
        session.add_published_bytes(bytes);
        Ok(Published {
            paths: new,
            layers: descriptors,
        })
    }

    /// Takes over what was found while the NARs were hashed.
    fn note_nars(
        &self,
        session: &PushSession,
        request: &Publish,
        paths: &mut [VerifiedPath],
    ) -> Result<(), ServiceError> {
        let mut parsed = Vec::new();
        for (asked, path) in request.paths.iter().zip(paths) {
            let Some(nar) = session.proposed(asked.blob)?.nar.clone() else {
                continue;
            };
            match lock(&nar).verdict(path.blob.identity_length) {
                Some(Err(source)) => {
                    return Err(ServiceError::Nar {
                        path: path.path.to_string(),
                        source,
                    });
                }
                Some(Ok(())) if !path.blob.nar => {
                    path.blob.nar = true;
                    parsed.push(path.blob.id);
                }
                _ => {}
            }
        }
        Ok(self.store.mark_nars(parsed)?)
    }

    fn finish_blobs(
        &self,
        session: &PushSession,
        request: &Publish,
    ) -> Result<HashMap<u32, BlobInfo>, ServiceError> {
        let mut handles: Vec<u32> = request
            .paths
            .iter()
            .map(|path| path.blob)
            .chain(request.layers.iter().map(|layer| layer.blob))
            .collect();
        handles.sort_unstable();
        handles.dedup();
        let proposed: Vec<Arc<Proposed>> = handles
            .into_iter()
            .map(|handle| session.proposed(handle))
            .collect::<Result<_, _>>()?;
        let mut blobs = HashMap::with_capacity(proposed.len());
        // Held until their blobs are made: a second publication of the same ones waits.
        let mut progress: Vec<_> = proposed.iter().map(|one| lock(&one.progress)).collect();
        let mut verifiers = Vec::new();
        let mut verifying = Vec::new();
        for (index, (one, progress)) in proposed.iter().zip(&mut progress).enumerate() {
            match std::mem::replace(&mut **progress, Progress::Stale) {
                Progress::Verifying(verifier) => {
                    verifiers.push(*verifier);
                    verifying.push(index);
                }
                Progress::Done(blob) => {
                    blobs.insert(one.handle, (*blob).clone());
                    **progress = Progress::Done(blob);
                }
                Progress::Stale => return Err(ServiceError::StaleBlob(one.handle)),
            }
        }
        let made = self.store.put_blobs(&session.session, verifiers)?;
        for (index, blob) in verifying.into_iter().zip(made) {
            session.settle(&proposed[index]);
            *progress[index] = Progress::Done(Box::new(blob.clone()));
            blobs.insert(proposed[index].handle, blob);
        }
        drop(progress);
        Ok(blobs)
    }
}

fn verified_path(path: &PublishPath, blob: &BlobInfo) -> Result<VerifiedPath, ServiceError> {
    let store_path = |name: &String| {
        StorePath::parse_base_name(name)
            .map_err(|error| ServiceError::BadRequest(error.to_string()))
    };
    let store_paths =
        |names: &[String]| names.iter().map(store_path).collect::<Result<Vec<_>, _>>();
    let name = store_path(&path.path)?;
    let hash = base32::decode(&path.nar_hash)
        .map_err(|error| ServiceError::BadRequest(format!("the NAR hash of {name}: {error}")))?;
    check_verified(&name, blob, &Sha256(hash), path.nar_size)?;
    let unsound = |text: &String| text.is_empty() || text.chars().any(char::is_control);
    if path.ca.as_ref().is_some_and(unsound) {
        return Err(ServiceError::BadRequest(format!(
            "the content address of {name} is malformed"
        )));
    }
    Ok(VerifiedPath {
        references: store_paths(&path.references)?,
        deriver: path.deriver.as_ref().map(store_path).transpose()?,
        signatures: parse_signatures(&path.signatures)?,
        ca: path.ca.clone(),
        path: name,
        blob: blob.clone(),
    })
}
