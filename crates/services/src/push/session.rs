//! What a push session holds in memory.

use super::CHUNKS_PER_BLOB_MAX;
use super::frames::Slices;
use super::held::{CHUNK_COST, Missing, PART_CHUNK_COST, PROPOSAL_COST, Waiting};
use super::layer::Heard;
use crate::budget::{Budget, Client, Full, Lease};
use crate::nix_cache::NarParser;
use crate::sessions::renewal;
use crate::{ServiceError, access::Cache, sync::lock};
use firn_chunks::{ChunkId, ChunkList, ListId};
use firn_formats::push::BlobKind;
use firn_store::{BlobInfo, BlobVerifier, Session, Store};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often a session in use is renewed in the store, at the least.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// Layers of a session that are read while they are hashed. It costs some kilobytes each.
const HEARD_AT_ONCE_MAX: usize = 256;

/// How far a proposed blob is.
pub(super) enum Progress {
    /// Its hashes are being computed.
    Verifying(Box<BlobVerifier>),
    /// It is a blob.
    Done(Box<BlobInfo>),
    /// Finishing failed, which used the verifier up: to be proposed again.
    Stale,
}

/// A blob that was proposed.
pub(super) struct Proposed {
    pub(super) handle: u32,
    /// Bytes of its identity representation.
    pub(super) raw_length: u64,
    chunks: usize,
    pub(super) progress: Mutex<Progress>,
    /// Parses what is said to be a NAR as it is hashed.
    pub(super) nar: Option<Arc<Mutex<NarParser>>>,
    /// What its bytes say, if it is a layer.
    pub(super) heard: Option<Heard>,
}

#[derive(Default)]
struct Proposals {
    by_handle: HashMap<u32, Arc<Proposed>>,
    by_list: HashMap<ListId, u32>,
    waiting: Waiting,
    chunks: usize,
    next_handle: u32,
    /// Held by each layer that is read while it is hashed.
    hearing: Arc<()>,
}

/// Chunks as a proposal has them.
pub(super) type WireChunks = Vec<([u8; 32], u32)>;

/// Parts of a list that is still coming: those of one list, since the oldest make room.
#[derive(Default)]
struct Parts {
    held: VecDeque<(u32, WireChunks)>,
    chunks: usize,
    next: u32,
}

/// What a session has paid for: what it holds, and what it is about to hold.
struct Paid {
    lease: Lease,
    reserved: u64,
}

/// Room for what is about to be held. When it is dropped, what is held counts.
pub(super) struct Reserved<'a> {
    session: &'a PushSession,
    cost: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        lock(&self.session.paid).reserved -= self.cost;
        self.session.settle_costs();
    }
}

/// A push under way.
pub struct PushSession {
    pub(super) session: Session,
    pub(super) cache: Arc<Cache>,
    /// Held by the body of frames that is being decoded: one after the other, so that what a blob
    /// waits for comes in the order in which it was sent.
    pub(super) decoding: Mutex<Slices>,
    proposals: Mutex<Proposals>,
    parts: Mutex<Parts>,
    /// What it holds in memory is paid for.
    paid: Mutex<Paid>,
    /// Stored bytes of all that it has published.
    published_bytes: AtomicU64,
    seen: Mutex<(Instant, Instant)>,
}

impl PushSession {
    pub(super) fn new(
        session: Session,
        cache: Arc<Cache>,
        budget: &Budget,
    ) -> Result<Self, ServiceError> {
        // A client that still holds handles from before a restart must not meet new blobs under
        // them, so they begin anywhere.
        let next_handle = getrandom::u32().map_err(ServiceError::Random)?;
        let now = Instant::now();
        let lease = budget.take_nothing(&Client::held(cache.name()));
        Ok(Self {
            paid: Mutex::new(Paid { lease, reserved: 0 }),
            session,
            cache,
            decoding: Mutex::default(),
            proposals: Mutex::new(Proposals {
                next_handle,
                ..Proposals::default()
            }),
            parts: Mutex::default(),
            published_bytes: AtomicU64::new(0),
            seen: Mutex::new((now, now)),
        })
    }

    /// The cache it pushes into.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.session.id
    }

    /// When its last request was.
    pub(super) fn last_seen(&self) -> Instant {
        lock(&self.seen).0
    }

    /// Pays for what is about to be held, if there is room.
    pub(super) fn reserve(&self, cost: u64) -> Result<Reserved<'_>, Full> {
        let mut paid = lock(&self.paid);
        paid.lease.grow(cost)?;
        paid.reserved += cost;
        Ok(Reserved {
            session: self,
            cost,
        })
    }

    /// What it has paid for.
    pub(super) fn paid(&self) -> u64 {
        lock(&self.paid).lease.amount()
    }

    /// Gives back what was paid for more than there is.
    fn settle_costs(&self) {
        let parts = lock(&self.parts).chunks as u64 * PART_CHUNK_COST;
        let proposals = lock(&self.proposals).cost();
        let mut paid = lock(&self.paid);
        let needed = parts + proposals + paid.reserved;
        let over = paid.lease.amount().saturating_sub(needed);
        paid.lease.shrink(over);
    }

    /// Forgets all that was proposed: its client proposes again.
    pub(super) fn forget(&self) {
        let mut parts = lock(&self.parts);
        *parts = Parts {
            next: parts.next,
            ..Parts::default()
        };
        drop(parts);
        let mut proposals = lock(&self.proposals);
        *proposals = Proposals {
            next_handle: proposals.next_handle,
            ..Proposals::default()
        };
        drop(proposals);
        self.settle_costs();
    }

    pub(super) fn published_bytes(&self) -> u64 {
        self.published_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_published_bytes(&self, bytes: u64) {
        self.published_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes a request; whether the store should hear of it.
    pub(super) fn renewal_due(&self) -> bool {
        let mut seen = lock(&self.seen);
        let now = Instant::now();
        seen.0 = now;
        let due = now.duration_since(seen.1) >= renewal(&self.session, RENEW_EVERY);
        if due {
            seen.1 = now;
        }
        due
    }

    pub(super) fn idle_longer_than(&self, limit: Duration) -> bool {
        lock(&self.seen).0.elapsed() > limit
    }

    /// Keeps a part of a list; others give way to it if there are too many.
    pub(super) fn add_part(&self, chunks: WireChunks) -> u32 {
        let mut parts = lock(&self.parts);
        parts.chunks += chunks.len();
        let part = parts.next;
        parts.next = part.wrapping_add(1);
        parts.held.push_back((part, chunks));
        while parts.chunks > CHUNKS_PER_BLOB_MAX {
            let Some((_, oldest)) = parts.held.pop_front() else {
                break;
            };
            parts.chunks -= oldest.len();
        }
        drop(parts);
        self.settle_costs();
        part
    }

    /// The chunks of these parts, one after the other. They stay, since the request may be repeated.
    pub(super) fn joined_parts(&self, wanted: &[u32]) -> Result<WireChunks, ServiceError> {
        let parts = lock(&self.parts);
        let mut joined = Vec::new();
        for part in wanted {
            let held = parts.held.iter().find(|(known, _)| known == part);
            let (_, chunks) = held.ok_or(ServiceError::StaleBlob(*part))?;
            if joined.len() + chunks.len() > CHUNKS_PER_BLOB_MAX {
                return Err(ServiceError::TooLarge {
                    what: "the number of chunks of a blob",
                    limit: CHUNKS_PER_BLOB_MAX as u64,
                });
            }
            joined.extend_from_slice(chunks);
        }
        Ok(joined)
    }

    /// Adds a blob, or finds it if it was proposed before.
    pub(super) fn add(
        &self,
        store: &Store,
        kind: BlobKind,
        list: ChunkList,
        missing: &Missing,
    ) -> Result<u32, ServiceError> {
        let id = list.id();
        let count = list.chunks.len();
        let mut proposals = lock(&self.proposals);
        if let Some(handle) = proposals.by_list.get(&id) {
            let handle = *handle;
            // One that is locked is being worked on, so it is not stale.
            let usable = proposals.by_handle.get(&handle).is_some_and(|known| {
                let progress = known.progress.try_lock();
                !progress.is_ok_and(|progress| matches!(*progress, Progress::Stale))
            });
            if usable {
                proposals.wait_for(handle, &list, missing);
                return Ok(handle);
            }
            proposals.remove(handle);
        }
        let handle = proposals.next_handle;
        proposals.next_handle = handle.wrapping_add(1);
        proposals.wait_for(handle, &list, missing);
        proposals.chunks += count;
        proposals.by_list.insert(id, handle);
        let raw_length = list.raw_length();
        let mut verifier = store.verifier(&self.session, list);
        let nar = (kind == BlobKind::Nar).then(Arc::<Mutex<NarParser>>::default);
        if let Some(nar) = &nar {
            verifier.observe(nar.clone());
        }
        let heard = proposals
            .hears_more(kind)
            .then(|| Heard::new(proposals.hearing.clone()));
        if let Some(heard) = &heard {
            verifier.observe(heard.observer());
        }
        let proposed = Proposed {
            heard,
            handle,
            raw_length,
            chunks: count,
            progress: Mutex::new(Progress::Verifying(Box::new(verifier))),
            nar,
        };
        proposals.by_handle.insert(handle, Arc::new(proposed));
        Ok(handle)
    }

    /// The blob behind a handle.
    pub(super) fn proposed(&self, handle: u32) -> Result<Arc<Proposed>, ServiceError> {
        lock(&self.proposals)
            .by_handle
            .get(&handle)
            .cloned()
            .ok_or(ServiceError::StaleBlob(handle))
    }

    /// The blobs that waited for any of these chunks, the longest first.
    pub(super) fn waiting_for<'a>(
        &self,
        arrived: impl Iterator<Item = &'a ChunkId>,
    ) -> Vec<Arc<Proposed>> {
        let mut proposals = lock(&self.proposals);
        let mut handles: Vec<u32> = arrived.flat_map(|id| proposals.waiting.take(id)).collect();
        handles.sort_unstable();
        handles.dedup();
        let mut waited: Vec<_> = handles
            .iter()
            .filter_map(|handle| proposals.by_handle.get(handle).cloned())
            .collect();
        waited.sort_by_key(|proposed| std::cmp::Reverse(proposed.raw_length));
        waited
    }

    /// Forgets how a published blob is made up.
    pub(super) fn settle(&self, proposed: &Proposed) {
        let mut proposals = lock(&self.proposals);
        proposals.chunks = proposals.chunks.saturating_sub(proposed.chunks);
        drop(proposals);
        self.settle_costs();
    }
}

impl Proposals {
    /// Whether a blob is read as a layer while it is hashed: the others are when they are published.
    fn hears_more(&self, kind: BlobKind) -> bool {
        kind == BlobKind::Layer && Arc::strong_count(&self.hearing) <= HEARD_AT_ONCE_MAX
    }

    fn cost(&self) -> u64 {
        self.by_handle.len() as u64 * PROPOSAL_COST
            + self.chunks as u64 * CHUNK_COST
            + self.waiting.cost()
    }

    fn wait_for(&mut self, handle: u32, list: &ChunkList, missing: &Missing) {
        for chunk in &list.chunks {
            if missing.has(&chunk.id) {
                self.waiting.add(&chunk.id, handle);
            }
        }
    }

    fn remove(&mut self, handle: u32) {
        if let Some(old) = self.by_handle.remove(&handle) {
            self.chunks = self.chunks.saturating_sub(old.chunks);
        }
        self.by_list.retain(|_, known| *known != handle);
    }
}
