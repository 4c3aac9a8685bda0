//! What a collection would do, found out without changing anything.

use super::marks::Scope;
use super::packs::{Fate, fate};
use super::{CollectionStep, Collector, LOOK_MAX, Outcome};
use crate::db::collection::{expire, packs};
use crate::types::BlobId;
use std::collections::{HashMap, HashSet};

impl Collector<'_> {
    /// Fills the report with what is there to be done.
    pub(super) fn plan(&mut self) -> Outcome<()> {
        let entries = self.expired_entries()?;
        let blobs = self.unnamed_blobs(&entries)?;
        self.report.entries_expired = entries.len() as u64;
        self.report.blobs_dropped = blobs.len() as u64;
        let marks = self.mark(&Scope::Without(&blobs))?;
        let mut gone: HashMap<i64, (u64, u64)> = HashMap::new();
        let mut after = None;
        loop {
            let (dead, last) = self.scan(&marks, after)?;
            for chunk in dead {
                let (chunks, bytes) = gone.entry(chunk.pack).or_default();
                *chunks += 1;
                *bytes += u64::from(chunk.frame_length);
                self.report.chunks_condemned += 1;
                self.report.bytes_condemned += u64::from(chunk.frame_length);
            }
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        drop(marks);
        self.plan_packs(&gone)
    }

    fn expired_entries(&self) -> Outcome<HashSet<i64>> {
        let (mut all, mut after) = (HashSet::new(), (0, 0));
        loop {
            self.step(CollectionStep::Entries)?;
            let (found, last) = self
                .inner
                .db
                .snapshot(|connection| expire::entries(connection, after, LOOK_MAX))?;
            all.extend(found);
            match last {
                Some(last) => after = last,
                None => return Ok(all),
            }
        }
    }

    fn unnamed_blobs(&self, removed: &HashSet<i64>) -> Outcome<HashSet<i64>> {
        let (mut all, mut after) = (HashSet::new(), BlobId(0));
        loop {
            self.step(CollectionStep::Blobs)?;
            let (found, last) = self
                .inner
                .db
                .snapshot(|connection| expire::blobs(connection, after, LOOK_MAX, removed))?;
            all.extend(found.into_iter().map(|id| id.0));
            match last {
                Some(last) => after = last,
                None => return Ok(all),
            }
        }
    }

    fn plan_packs(&mut self, gone: &HashMap<i64, (u64, u64)>) -> Outcome<()> {
        for mut pack in self.inner.db.snapshot(packs::all)? {
            if let Some((chunks, bytes)) = gone.get(&pack.id) {
                pack.chunks = pack.chunks.saturating_sub(*chunks);
                pack.frame_bytes = pack.frame_bytes.saturating_sub(*bytes);
                pack.condemned_for = Some(0);
            }
            let length = pack.length();
            match fate(&pack, self.options) {
                Fate::Keep => {}
                Fate::Rewrite => {
                    self.report.packs_rewritten += 1;
                    self.report.bytes_rewritten += pack.frame_bytes;
                    // What is emptied waits for its readers, too.
                    if self.options.grace.is_zero() {
                        self.report.packs_deleted += 1;
                        self.report.bytes_deleted += length;
                    } else {
                        self.report.packs_waiting += 1;
                        self.report.bytes_waiting += length;
                    }
                }
                Fate::Wait => {
                    self.report.packs_waiting += 1;
                    self.report.bytes_waiting += length;
                }
                Fate::Delete => {
                    self.report.packs_deleted += 1;
                    self.report.bytes_deleted += length;
                }
            }
        }
        Ok(())
    }
}
