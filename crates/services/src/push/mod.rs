//! The push protocol of Firn's own client; `firn_formats::push` has its messages.
//!
//! A session's rows and pins are the store's. What this module holds in memory, the blobs that
//! were proposed and how far their hashes are computed, may be lost at any time: then a handle
//! is stale, the client proposes again, and is asked for nothing that arrived before.

mod frames;
mod held;
mod layer;
mod publish;
mod session;

pub use session::PushSession;

use held::Missing;
use layer::StoredLayer;

use crate::access::{Access, Cache};
use crate::budget::Budget;
use crate::{NixCache, Retention, ServiceError, sync::lock};
use firn_chunks::{ChunkId, ChunkList, ChunkRef};
use firn_formats::push::{
    Begin, Begun, BlobKind, LayerDescriptor, PART_CHUNKS_MAX, PATHS_PER_REQUEST_MAX, PartTaken,
    Proposal, ProposalAnswer, decode_proposals, encode_answers, encode_proposals,
};
use firn_store::{EntryKind, Store};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Chunks in one blob: 64 GiB at the average size.
const CHUNKS_PER_BLOB_MAX: usize = 1 << 20;
/// A session without a request for this long loses what is in memory.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// Push sessions of one cache that are open at a time.
const SESSIONS_PER_CACHE_MAX: usize = 1000;
/// Longest layer key, in bytes.
const LAYER_KEY_BYTES_MAX: usize = 200;

/// The push door's work.
pub struct Push {
    store: Store,
    nix_cache: Arc<NixCache>,
    access: Arc<Access>,
    retention: Arc<Retention>,
    budget: Budget,
    sessions: Mutex<HashMap<String, Arc<PushSession>>>,
}

fn too_many(what: &str) -> ServiceError {
    ServiceError::BadRequest(format!("too many {what} in one request; send several"))
}

impl Push {
    pub(crate) fn new(
        store: Store,
        nix_cache: Arc<NixCache>,
        access: Arc<Access>,
        retention: Arc<Retention>,
        budget: Budget,
    ) -> Self {
        Self {
            store,
            nix_cache,
            access,
            retention,
            budget,
            sessions: Mutex::new(HashMap::new()),
        }
    }

    /// Says which paths are missing and what is known of layer keys; opens or joins a session
    /// if there is anything to push.
    ///
    /// # Errors
    /// If the request is unsound, the session to join is another cache's or gone, or the store fails.
    pub fn begin(&self, cache: &Arc<Cache>, begin: &Begin) -> Result<Begun, ServiceError> {
        if begin.paths.len() > PATHS_PER_REQUEST_MAX || begin.layers.len() > PATHS_PER_REQUEST_MAX {
            return Err(too_many("paths or layers"));
        }
        let hashes: Vec<&str> = begin.paths.iter().map(String::as_str).collect();
        if let Some(bad) = hashes
            .iter()
            .find(|h| crate::nix_cache::hash_text(h).is_none())
        {
            return Err(ServiceError::BadRequest(format!(
                "{bad:?} is not the hash part of a store path"
            )));
        }
        let present = self.nix_cache.present_for_pusher(cache, &hashes)?;
        let missing: Vec<u32> = (0u32..)
            .zip(&present)
            .filter(|(_, present)| !**present)
            .map(|(index, _)| index)
            .collect();
        let mut layers = self.known_layers(cache, &begin.layers)?;
        if begin.gzip {
            layers.retain(|_, layer| layer.gzip.is_some());
        }
        let distinct_keys: HashSet<&String> = begin.layers.iter().collect();
        let nothing_to_do = missing.is_empty() && layers.len() == distinct_keys.len();
        let session = match &begin.session {
            Some(id) => Some(self.session(id)?),
            None if nothing_to_do => None,
            None => Some(self.open(cache)?),
        };
        if session
            .as_ref()
            .is_some_and(|open| open.cache.row.id != cache.row.id)
        {
            return Err(ServiceError::SessionGone);
        }
        Ok(Begun {
            missing,
            layers,
            layers_proven: true,
            expires_in: session
                .as_ref()
                .map_or(0, |session| session.session.expires_in.as_secs()),
            session: session.map(|session| session.session.id.clone()),
        })
    }

    /// The layers that are known by these keys: those whose key was computed from their tar.
    fn known_layers(
        &self,
        cache: &Cache,
        keys: &[String],
    ) -> Result<BTreeMap<String, LayerDescriptor>, ServiceError> {
        let mut known = BTreeMap::new();
        if keys.is_empty() {
            return Ok(known);
        }
        let key_texts: Vec<&str> = keys.iter().map(String::as_str).collect();
        let present = self
            .store
            .renew(cache.row.id, EntryKind::Layer, &key_texts)?;
        for (key, present) in keys.iter().zip(present) {
            if key.len() > LAYER_KEY_BYTES_MAX {
                return Err(ServiceError::BadRequest(
                    "a layer key is too long".to_owned(),
                ));
            }
            if !present {
                continue;
            }
            let Some(entry) = self.store.entry(cache.row.id, EntryKind::Layer, key)? else {
                continue;
            };
            let layer: StoredLayer = serde_json::from_slice(&entry.value)?;
            if layer.proven && self.readable(cache, &layer.descriptor)? {
                known.insert(key.clone(), layer.descriptor);
            }
        }
        Ok(known)
    }

    /// Whether a layer can be had by its digests, which a manifest will name: their leases are others than its
    /// key's, and are renewed too (rule 5).
    fn readable(&self, cache: &Cache, descriptor: &LayerDescriptor) -> Result<bool, ServiceError> {
        let mut digests = vec![descriptor.digest.as_str()];
        digests.extend(descriptor.gzip.iter().map(|gzip| gzip.digest.as_str()));
        let present = self
            .store
            .renew(cache.row.id, EntryKind::RegistryBlob, &digests)?;
        Ok(!present.contains(&false))
    }

    fn open(&self, cache: &Arc<Cache>) -> Result<Arc<PushSession>, ServiceError> {
        let of_cache = |session: &&Arc<PushSession>| session.cache.row.id == cache.row.id;
        if lock(&self.sessions).values().filter(of_cache).count() >= SESSIONS_PER_CACHE_MAX {
            return Err(ServiceError::TooMany {
                what: "pushes into this cache",
                limit: SESSIONS_PER_CACHE_MAX,
            });
        }
        let session = self.store.session_open(&cache.row)?;
        self.remember(PushSession::new(session, cache.clone(), &self.budget)?)
    }

    fn remember(&self, session: PushSession) -> Result<Arc<PushSession>, ServiceError> {
        let id = session.session.id.clone();
        let mut sessions = lock(&self.sessions);
        Ok(sessions
            .entry(id)
            .or_insert_with(|| Arc::new(session))
            .clone())
    }

    /// A live session, renewed. The caller checks the right to push into its cache.
    ///
    /// # Errors
    /// If there is none of that id.
    pub fn session(&self, id: &str) -> Result<Arc<PushSession>, ServiceError> {
        let known = lock(&self.sessions).get(id).cloned();
        if let Some(known) = known {
            if known.renewal_due()
                && let Err(error) = self.store.session_touch(id)
            {
                lock(&self.sessions).remove(id);
                return Err(error.into());
            }
            return Ok(known);
        }
        // After a restart the store still knows it, and whose it is.
        let session = self.store.session_touch(id)?;
        let cache = self
            .access
            .cache_by_id(session.cache)
            .ok_or(ServiceError::SessionGone)?;
        self.remember(PushSession::new(session, cache, &self.budget)?)
    }

    /// Takes the beginning or the middle of a list that is too long for one request.
    ///
    /// # Errors
    /// If the body is not one proposal, or too long.
    pub fn take_part(&self, session: &PushSession, body: &[u8]) -> Result<PartTaken, ServiceError> {
        let mut proposals = decode_proposals(body)?;
        let (Some(proposal), true) = (proposals.pop(), proposals.is_empty()) else {
            return Err(ServiceError::BadRequest(
                "a part is one proposal".to_owned(),
            ));
        };
        if proposal.chunks.is_empty() || proposal.chunks.len() > PART_CHUNKS_MAX {
            return Err(ServiceError::BadRequest(format!(
                "a part has between 1 and {PART_CHUNKS_MAX} chunks"
            )));
        }
        let _room = self.make_room(session, session.cost_of_part(&proposal.chunks))?;
        let part = session.add_part(proposal.chunks);
        Ok(PartTaken { part })
    }

    /// Takes proposals, answers which chunks are missing, pins the others. The first continues `parts`.
    ///
    /// # Errors
    /// If the body is malformed or too much, a part is not known, or the store fails.
    pub fn propose(
        &self,
        session: &PushSession,
        parts: &[u32],
        body: &[u8],
    ) -> Result<Vec<u8>, ServiceError> {
        let mut proposals = decode_proposals(body)?;
        if let (false, Some(first)) = (parts.is_empty(), proposals.first_mut()) {
            let mut joined = session.joined_parts(parts)?;
            joined.append(&mut first.chunks);
            first.chunks = joined;
        }
        let kinds: Vec<BlobKind> = proposals.iter().map(|proposal| proposal.kind).collect();
        let lists: Vec<ChunkList> = proposals
            .into_iter()
            .map(checked_list)
            .collect::<Result<_, _>>()?;
        let _room = self.make_room(session, session.cost_of(&lists))?;
        // In order, not in a set: a set of as many takes several times the memory.
        let chunks = lists.iter().flat_map(|list| &list.chunks);
        let mut ids: Vec<ChunkId> = chunks.map(|chunk| chunk.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let missing = self.store.pin(&session.session, &ids)?;
        let mut missing = Missing::new(ids, missing);
        let mut answers = Vec::with_capacity(lists.len());
        let mut whole = Vec::new();
        for (list, kind) in lists.into_iter().zip(kinds) {
            let lacks = list.chunks.iter().any(|chunk| missing.has(&chunk.id));
            let id = list.id();
            let asked = list
                .chunks
                .iter()
                .map(|chunk| missing.ask(&chunk.id))
                .collect();
            let handle = session.add(&self.store, kind, list, &missing)?;
            if !lacks {
                whole.push((session.proposed(handle)?, id));
            }
            answers.push(ProposalAnswer {
                handle,
                missing: asked,
            });
        }
        self.hash_ahead(session, whole);
        Ok(encode_answers(&answers))
    }

    /// Renews a session.
    ///
    /// # Errors
    /// If it is gone.
    pub fn heartbeat(&self, session: &PushSession) -> Result<(), ServiceError> {
        self.store.session_touch(&session.session.id)?;
        Ok(())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// If the store fails.
    pub fn close(&self, session: &PushSession) -> Result<(), ServiceError> {
        lock(&self.sessions).remove(&session.session.id);
        Ok(self.store.session_close(&session.session.id)?)
    }

    /// The chunk list of a store path's NAR, in the form of a proposal.
    ///
    /// # Errors
    /// If the path is not here, or the store fails.
    pub fn chunk_list(&self, cache: &Cache, hash: &str) -> Result<Vec<u8>, ServiceError> {
        let not_found = || ServiceError::NotFound(format!("store path {hash}"));
        let entry = self
            .store
            .entry(cache.row.id, EntryKind::Narinfo, hash)?
            .ok_or_else(not_found)?;
        let blob = entry.blobs.first().ok_or_else(not_found)?;
        let list = self.store.chunk_list(*blob)?;
        Ok(encode_proposals(&[Proposal {
            kind: BlobKind::Nar,
            chunks: list
                .chunks
                .iter()
                .map(|chunk| (chunk.id.0, chunk.raw_length))
                .collect(),
        }]))
    }

    pub(crate) fn sweep(&self) {
        lock(&self.sessions).retain(|_, session| !session.idle_longer_than(IDLE_MAX));
    }
}

fn checked_list(proposal: Proposal) -> Result<ChunkList, ServiceError> {
    if proposal.chunks.len() > CHUNKS_PER_BLOB_MAX {
        return Err(ServiceError::TooLarge {
            what: "the number of chunks of a blob",
            limit: CHUNKS_PER_BLOB_MAX as u64,
        });
    }
    let sound = |length: u32| length > 0 && length as usize <= firn_chunks::frame::CHUNK_BYTES_MAX;
    if !proposal.chunks.iter().all(|(_, length)| sound(*length)) {
        return Err(ServiceError::BadRequest(
            "a chunk is empty or larger than any chunk may be".to_owned(),
        ));
    }
    Ok(ChunkList {
        chunks: proposal
            .chunks
            .into_iter()
            .map(|(id, raw_length)| ChunkRef {
                id: ChunkId(id),
                raw_length,
            })
            .collect(),
    })
}
