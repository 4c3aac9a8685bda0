//! From marks to condemned chunks (rules 5 and 6).

use super::marks::{Marks, Scope};
use super::{CollectionStep, Collector, Outcome};
use crate::db::collection::condemn;
use crate::db::collection::mark::{self, ValidChunk};
use crate::db::{Durability, lock};
use crate::failpoint::{Point, reach};
use crate::types::DomainId;
use firn_chunks::ChunkId;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Rows of chunks looked at in one snapshot.
pub(super) const SCAN_MAX: usize = 10_000;
/// Chunks condemned in one transaction: some ten milliseconds of the writer.
const CONDEMN_MAX: usize = 1000;

impl Collector<'_> {
    /// Condemns every chunk that nothing needs.
    pub(super) fn condemn_unmarked(&mut self) -> Outcome<()> {
        let marks = Arc::new(Mutex::new(self.mark(&Scope::All)?));
        reach(Point::ChunksMarked)?;
        let mut after = None;
        loop {
            let (dead, last) = self.scan(&lock(&marks), after)?;
            for some in dead.chunks(CONDEMN_MAX) {
                self.condemn(&marks, some)?;
            }
            match last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// The unmarked among the next chunks, and where to go on.
    #[allow(clippy::type_complexity)]
    pub(super) fn scan(
        &mut self,
        marks: &Marks,
        after: Option<(DomainId, ChunkId)>,
    ) -> Outcome<(Vec<ValidChunk>, Option<(DomainId, ChunkId)>)> {
        self.step(CollectionStep::Scan)?;
        let began = Instant::now();
        let (mut dead, mut total) = (Vec::new(), 0);
        let last = self.inner.db.snapshot(|connection| {
            mark::chunks(connection, after, SCAN_MAX, &mut |chunk| {
                total += 1;
                if !marks.contains(chunk.domain, chunk.id) {
                    dead.push(chunk);
                }
            })
        })?;
        self.report.chunks_total += total;
        self.rest(began);
        Ok((dead, last))
    }

    /// Condemns those of `dead` that are so still, in the transaction that looks again (rule 6).
    fn condemn(&mut self, marks: &Arc<Mutex<Marks>>, dead: &[ValidChunk]) -> Outcome<()> {
        loop {
            // Most of what is new is read outside the writer.
            while self.mark_on(&mut lock(marks), &Scope::All)? {}
            self.step(CollectionStep::Condemn)?;
            let began = Instant::now();
            let (shared, dead) = (marks.clone(), dead.to_vec());
            let condemned = self
                .inner
                .db
                .write(Durability::Ordered, move |connection| {
                    let mut marks = lock(&shared);
                    let Some(seen) = marks.catch_up(connection)? else {
                        return Ok(None);
                    };
                    let dead: Vec<ValidChunk> = dead
                        .into_iter()
                        .filter(|chunk| !marks.contains(chunk.domain, chunk.id))
                        .collect();
                    Ok(Some((seen, condemn::condemn(connection, &dead)?)))
                })?;
            self.rest(began);
            if let Some((seen, (chunks, bytes))) = condemned {
                lock(marks).seen = seen;
                self.report.chunks_condemned += chunks;
                self.report.bytes_condemned += bytes;
                return Ok(reach(Point::ChunksCondemned)?);
            }
        }
    }
}
