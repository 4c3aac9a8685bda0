//! What becomes of packs, and deleting them (rule 7).

use super::{CollectionOptions, CollectionStep, Collector, Outcome};
use crate::db::Durability;
use crate::db::collection::packs::{self, PackUse};
use crate::db::damage;
use crate::failpoint::{Point, reach};
use std::collections::HashSet;
use std::time::Instant;

/// Packs that one synced transaction says are about to be deleted.
const DELETE_MAX: usize = 32;
/// Rows of chunks deleted in one transaction.
const ROWS_MAX: usize = 1000;
/// Bytes of a pack before its first frame.
const HEADER_BYTES: u64 = 24;

/// What is to become of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    Rewrite,
    /// It holds nothing, but may have readers.
    Wait,
    Delete,
}

pub(super) fn fate(pack: &PackUse, options: &CollectionOptions) -> Fate {
    if pack.deleting {
        return Fate::Delete;
    }
    if pack.durable_length == 0 {
        // Its first frames are under way.
        return Fate::Keep;
    }
    if pack.chunks == 0 {
        let grace = i64::try_from(options.grace.as_millis()).unwrap_or(i64::MAX);
        return match pack.condemned_for.unwrap_or(0) >= grace {
            true => Fate::Delete,
            false => Fate::Wait,
        };
    }
    let frames = pack.durable_length.saturating_sub(HEADER_BYTES);
    let dead = frames.saturating_sub(pack.frame_bytes);
    let share = u128::from(dead) * 100 > u128::from(frames) * u128::from(options.dead_percent);
    match share && dead >= options.dead_bytes_min {
        true => Fate::Rewrite,
        false => Fate::Keep,
    }
}

impl Collector<'_> {
    /// All packs, but those that are written to. Open ones with little in them that is valid are sealed first.
    pub(super) fn settled_packs(&self) -> Outcome<Vec<PackUse>> {
        let db = &self.inner.db;
        let open = db.snapshot(packs::all)?;
        for pack in &open {
            if pack.sealed_length == 0 && fate(pack, self.options) != Fate::Keep {
                self.inner.packs.seal_one(pack.domain, pack.id)?;
            }
        }
        let mut packs = db.snapshot(packs::all)?;
        packs.retain(|pack| pack.sealed_length > 0);
        Ok(packs)
    }

    /// Deletes the packs whose grace is over. Where the packs' place is not there, a file that is not found says
    /// nothing.
    pub(super) fn delete_packs(&mut self) -> Outcome<()> {
        self.inner.presence.check()?;
        let mut due = Vec::new();
        (self.report.packs_waiting, self.report.bytes_waiting) = (0, 0);
        for pack in self.settled_packs()? {
            let id = pack.id;
            if pack.chunks == 0 && !pack.deleting && pack.condemned_for.is_none() {
                self.inner
                    .db
                    .write(Durability::Ordered, move |connection| {
                        packs::note_empty(connection, id)
                    })?;
            }
            match fate(&pack, self.options) {
                Fate::Delete => due.push(pack),
                Fate::Wait => {
                    self.report.packs_waiting += 1;
                    self.report.bytes_waiting += pack.length();
                }
                Fate::Keep | Fate::Rewrite => {}
            }
        }
        for some in due.chunks(DELETE_MAX) {
            self.delete_some(some)?;
        }
        Ok(())
    }

    /// Whether nothing in a pack is needed: not what is valid, by the rows, which know better than the sums; and not
    /// what is damaged, which may turn out to be good, now or when its disk can be read again.
    fn is_needless(&mut self, pack: &PackUse) -> Outcome<bool> {
        self.inner.quarantine.ward.look_again_in(pack.id)?;
        let (valid, damaged) = self.inner.db.snapshot(|connection| {
            Ok((
                packs::holds_valid(connection, pack.id)?,
                damage::is_needed_of(connection, pack.id)?,
            ))
        })?;
        if damaged {
            tracing::warn!(pack = %pack.key(), "kept: it has damaged frames that nobody has sent again");
            self.report.packs_damaged += 1;
        }
        Ok(!valid && !damaged)
    }

    fn delete_some(&mut self, due: &[PackUse]) -> Outcome<()> {
        let mut sure = Vec::with_capacity(due.len());
        for pack in due {
            if pack.deleting || self.is_needless(pack)? {
                sure.push(pack);
            }
        }
        self.step(CollectionStep::Delete)?;
        let ids: Vec<i64> = sure.iter().map(|pack| pack.id).collect();
        // Synced: a power cut must not bring back rows that rely on a file that is gone.
        let marked = self.inner.db.write(Durability::Synced, move |connection| {
            let mut marked = HashSet::new();
            for id in ids {
                if packs::mark_deleting(connection, id)? {
                    marked.insert(id);
                }
            }
            Ok(marked)
        })?;
        reach(Point::PacksCondemned)?;
        self.inner.layouts.forget_packs(&marked);
        // A chunk in it may have turned out to be good meanwhile.
        sure.retain(|pack| marked.contains(&pack.id));
        for pack in sure {
            self.step(CollectionStep::DeleteFile)?;
            let began = Instant::now();
            self.inner.folder.delete_durably(&pack.key())?;
            reach(Point::PackFileDeleted)?;
            self.inner.source.forget(pack.id);
            self.report.packs_deleted += 1;
            self.report.bytes_deleted += pack.length();
            self.rest(began);
            self.delete_rows(pack.id)?;
        }
        Ok(())
    }

    fn delete_rows(&self, pack: i64) -> Outcome<()> {
        loop {
            self.step(CollectionStep::DeleteRows)?;
            let began = Instant::now();
            let done = self
                .inner
                .db
                .write(Durability::Ordered, move |connection| {
                    packs::delete_rows(connection, pack, ROWS_MAX)
                })?;
            self.rest(began);
            if done {
                return Ok(reach(Point::PackRowsDeleted)?);
            }
        }
    }
}
