//! What push sessions hold between requests: how much it is, and which of them give way.

use super::session::{Reserved, WireChunks};
use super::{Push, PushSession};
use crate::{ServiceError, sync::lock};
use firn_chunks::{ChunkId, ChunkList};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a chunk of a list costs in bytes: itself, and what is known of the frame that was hashed.
pub(super) const CHUNK_COST: u64 = 56;
/// What a chunk that is waited for costs beside, in a table that may be half empty.
pub(super) const WAITING_COST: u64 = 48;
/// What a proposal costs, whatever its length.
pub(super) const PROPOSAL_COST: u64 = 1024;
/// What a chunk of a part costs.
pub(super) const PART_CHUNK_COST: u64 = 36;
/// A session without a request for this long gives way to one that has no room.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(10);

/// Which chunks of a request are missing, and which of them were asked for already.
pub(super) struct Missing {
    ids: Vec<ChunkId>,
    missing: Vec<bool>,
    unasked: Vec<bool>,
}

impl Missing {
    /// Of ids in order.
    pub(super) fn new(ids: Vec<ChunkId>, missing: Vec<bool>) -> Self {
        Self {
            unasked: missing.clone(),
            ids,
            missing,
        }
    }

    /// Whether a chunk is missing.
    pub(super) fn has(&self, id: &ChunkId) -> bool {
        let found = self.ids.binary_search(id).ok();
        found.is_some_and(|index| self.missing.get(index) == Some(&true))
    }

    /// Whether it is to be asked for: it is missing, and this is the first that names it.
    pub(super) fn ask(&mut self, id: &ChunkId) -> bool {
        let found = self.ids.binary_search(id).ok();
        let unasked = found.and_then(|index| self.unasked.get_mut(index));
        unasked.is_some_and(std::mem::take)
    }
}

/// The blobs that wait for one chunk: mostly one.
enum Waiters {
    One(u32),
    #[allow(
        clippy::box_collection,
        reason = "a million of these are held, nearly all of them `One`"
    )]
    Several(Box<Vec<u32>>),
}

/// Whose hashes a chunk that has yet to come holds up, by the beginnings of ids: where two are alike, a blob is looked
/// at for nothing.
#[derive(Default)]
pub(super) struct Waiting {
    by_chunk: HashMap<u64, Waiters>,
    /// What those cost that several wait for, beside.
    several: u64,
}

/// What it costs beside that several wait for a chunk, and each of them.
const SEVERAL_COST: u64 = 40;
const EACH_COST: u64 = 8;

fn beginning(id: &ChunkId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Waiting {
    pub(super) fn add(&mut self, id: &ChunkId, handle: u32) {
        let Some(waiters) = self.by_chunk.get_mut(&beginning(id)) else {
            self.by_chunk.insert(beginning(id), Waiters::One(handle));
            return;
        };
        match waiters {
            Waiters::One(other) if *other == handle => {}
            Waiters::One(other) => {
                *waiters = Waiters::Several(Box::new(vec![*other, handle]));
                self.several += SEVERAL_COST + 2 * EACH_COST;
            }
            Waiters::Several(others) if others.last() == Some(&handle) => {}
            Waiters::Several(others) => {
                others.push(handle);
                self.several += EACH_COST;
            }
        }
    }

    pub(super) fn take(&mut self, id: &ChunkId) -> Vec<u32> {
        let taken = match self.by_chunk.remove(&beginning(id)) {
            None => return Vec::new(),
            Some(Waiters::One(handle)) => vec![handle],
            Some(Waiters::Several(handles)) => {
                let cost = SEVERAL_COST + handles.len() as u64 * EACH_COST;
                self.several = self.several.saturating_sub(cost);
                *handles
            }
        };
        if self.by_chunk.is_empty() {
            self.by_chunk = HashMap::new();
        }
        taken
    }

    pub(super) fn cost(&self) -> u64 {
        self.by_chunk.len() as u64 * WAITING_COST + self.several
    }
}

impl PushSession {
    /// What lists cost at the most.
    pub(super) fn cost_of(&self, lists: &[ChunkList]) -> u64 {
        let chunks = lists.iter().map(|list| list.chunks.len() as u64);
        lists.len() as u64 * PROPOSAL_COST + chunks.sum::<u64>() * (CHUNK_COST + WAITING_COST)
    }

    /// What a part costs.
    pub(super) fn cost_of_part(&self, chunks: &WireChunks) -> u64 {
        chunks.len() as u64 * PART_CHUNK_COST
    }
}

impl Push {
    /// Room for what a session is about to hold. Others that nobody uses give way: their clients propose again.
    pub(super) fn make_room<'a>(
        &self,
        session: &'a PushSession,
        cost: u64,
    ) -> Result<Reserved<'a>, ServiceError> {
        if let Ok(reserved) = session.reserve(cost) {
            return Ok(reserved);
        }
        let mut idle: Vec<Arc<PushSession>> = lock(&self.sessions)
            .values()
            .filter(|other| other.id() != session.id() && other.paid() > 0)
            .filter(|other| other.idle_longer_than(GIVES_WAY_AFTER))
            .cloned()
            .collect();
        idle.sort_by_key(|other| other.last_seen());
        for other in idle {
            tracing::info!(
                session = other.id(),
                "a push that nobody goes on with gave way"
            );
            other.forget();
            if let Ok(reserved) = session.reserve(cost) {
                return Ok(reserved);
            }
        }
        match session.paid() + cost > self.budget.most_held() {
            true => Err(ServiceError::TooLarge {
                what: "the memory for chunks that are proposed and not yet published",
                limit: self.budget.most_held(),
            }),
            false => Err(ServiceError::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(first: u8, last: u8) -> ChunkId {
        let mut id = [first; 32];
        id[31] = last;
        ChunkId(id)
    }

    #[test]
    fn a_missing_chunk_is_asked_for_once() {
        let ids = vec![id(1, 0), id(2, 0), id(3, 0)];
        let mut missing = Missing::new(ids, vec![true, false, true]);
        assert!(missing.ask(&id(1, 0)) && !missing.ask(&id(1, 0)));
        assert!(missing.has(&id(1, 0)) && !missing.has(&id(2, 0)));
        assert!(!missing.ask(&id(2, 0)) && !missing.ask(&id(9, 0)));
        assert!(missing.ask(&id(3, 0)));
    }

    #[test]
    fn all_that_wait_for_a_chunk_are_told() {
        let mut waiting = Waiting::default();
        for handle in [7, 7, 8, 8, 9] {
            waiting.add(&id(1, 0), handle);
        }
        waiting.add(&id(2, 0), 7);
        assert!(waiting.cost() >= 2 * WAITING_COST + 12);
        assert_eq!(waiting.take(&id(1, 0)), [7, 8, 9]);
        assert_eq!(waiting.take(&id(1, 0)), [] as [u32; 0]);
        assert_eq!(waiting.take(&id(2, 5)), [7]);
        assert_eq!(waiting.cost(), 0);
    }
}
