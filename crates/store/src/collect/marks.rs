//! What is live, in little memory.

use super::{CollectionStep, Collector, Outcome};
use crate::StoreError;
use crate::db::collection::mark::{self, Seen};
use crate::types::DomainId;
use firn_chunks::ChunkId;
use rusqlite::Connection;
use std::collections::HashSet;
use std::time::Instant;

/// Chunks marked in one snapshot: short ones let the database's log be checkpointed.
const MARK_MAX: usize = 50_000;
/// Chunks that may be marked inside the writer.
const CATCH_UP_MAX: i64 = 10_000;

/// The live chunks: eight bytes of each. Two chunks that share them keep each other, which costs some bytes now
/// and then and takes nothing away.
pub(super) struct Marks {
    live: HashSet<u64>,
    pub(super) seen: Seen,
}

/// What counts as live.
pub(super) enum Scope<'a> {
    /// All that is there.
    All,
    /// All but these blobs, and but the pins of sessions that have ended: as if they had been taken away.
    Without(&'a HashSet<i64>),
}

impl Scope<'_> {
    fn skips(&self, blob: i64) -> bool {
        matches!(self, Self::Without(blobs) if blobs.contains(&blob))
    }

    fn with_ended(&self) -> bool {
        matches!(self, Self::All)
    }
}

impl Marks {
    pub(super) fn with_capacity(chunks: u64) -> Self {
        Self {
            live: HashSet::with_capacity(usize::try_from(chunks).unwrap_or(0)),
            seen: Seen::default(),
        }
    }

    pub(super) fn contains(&self, domain: DomainId, id: ChunkId) -> bool {
        self.live.contains(&short(domain, id))
    }

    /// Reads on in the log of blobs and in that of pins, in the caller's snapshot. True if there may be more.
    fn read_on(&mut self, connection: &Connection, scope: &Scope<'_>) -> Result<bool, StoreError> {
        let live = &mut self.live;
        let mut take = |domain, id| {
            live.insert(short(domain, id));
        };
        let (blob, more_blobs) = mark::blobs(
            connection,
            self.seen.blob,
            MARK_MAX,
            &|id| scope.skips(id),
            &mut take,
        )?;
        let (pin, more_pins) = mark::pins(
            connection,
            self.seen.pin,
            MARK_MAX,
            scope.with_ended(),
            &mut take,
        )?;
        self.seen = Seen { blob, pin };
        Ok(more_blobs || more_pins)
    }

    /// Rule 6: inside the writer's transaction, takes in the last that was published and pinned. Gives how far it
    /// has read, `None` if that is too much to be read there. Only a commit makes it true: until the caller
    /// knows of that, `seen` stays as it is, since the ids of a transaction that is lost are used again.
    pub(super) fn catch_up(&mut self, connection: &Connection) -> Result<Option<Seen>, StoreError> {
        if mark::behind(connection, self.seen)? > CATCH_UP_MAX {
            return Ok(None);
        }
        let before = self.seen;
        while self.read_on(connection, &Scope::All)? {}
        Ok(Some(std::mem::replace(&mut self.seen, before)))
    }
}

fn short(domain: DomainId, id: ChunkId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    let spread = (domain.0 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ spread
}

impl Collector<'_> {
    /// Marks what is published and pinned now.
    pub(super) fn mark(&self, scope: &Scope<'_>) -> Outcome<Marks> {
        let chunks = self.inner.db.snapshot(crate::db::stats)?.chunks;
        let mut marks = Marks::with_capacity(chunks);
        while self.mark_on(&mut marks, scope)? {}
        Ok(marks)
    }

    /// Marks some more of what was published since; false if that was all.
    pub(super) fn mark_on(&self, marks: &mut Marks, scope: &Scope<'_>) -> Outcome<bool> {
        self.step(CollectionStep::Mark)?;
        let began = Instant::now();
        let more = self
            .inner
            .db
            .snapshot(|connection| marks.read_on(connection, scope))?;
        self.rest(began);
        Ok(more)
    }
}
