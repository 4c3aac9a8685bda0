//! What is in quarantine, read once more: a disk that was away comes back, somebody puts a lost pack where it was,
//! and releases before took what they could not read for damaged. A frame that has its checksum, and holds its
//! chunk, is valid again.

use super::{BATCH_MAX, Ward, extent};
use crate::db::Durability;
use crate::db::damage::{self, ChunkAt};
use crate::db::lock;
use crate::{StoreError, codec};
use firn_chunks::ChunkId;

impl Ward {
    /// Looks at all of it; says how many chunks are valid again.
    pub(crate) fn look_again(&self) -> Result<u64, StoreError> {
        let (mut after, mut restored) = (None, 0);
        loop {
            let some = self
                .db
                .read(|connection| damage::in_quarantine(connection, after.as_ref(), BATCH_MAX))?;
            let Some(last) = some.last() else { break };
            after = Some((last.domain, last.id));
            restored += self.restore(some)?;
        }
        self.after_restoring(restored)
    }

    /// Looks at the next of it, round and round, and goes on as long as it finds what is good.
    pub(crate) fn look_again_at_some(&self) -> Result<u64, StoreError> {
        let mut looked = lock(&self.looked);
        let mut restored = 0;
        loop {
            let some = self
                .db
                .read(|connection| damage::in_quarantine(connection, looked.as_ref(), BATCH_MAX))?;
            *looked = some.last().map(|last| (last.domain, last.id));
            let good = self.restore(some)?;
            restored += good;
            if good == 0 || looked.is_none() {
                break;
            }
        }
        drop(looked);
        self.after_restoring(restored)
    }

    /// Looks at what lies in one pack.
    pub(crate) fn look_again_in(&self, pack: i64) -> Result<u64, StoreError> {
        let (mut from, mut restored) = (0, 0);
        loop {
            let some = self
                .db
                .read(|connection| damage::in_quarantine_of(connection, pack, from, BATCH_MAX))?;
            let Some(last) = some.last() else { break };
            from = last.place.offset + 1;
            restored += self.restore(some)?;
        }
        self.after_restoring(restored)
    }

    fn after_restoring(&self, restored: u64) -> Result<u64, StoreError> {
        if restored > 0 {
            tracing::info!(chunks = restored, "chunks in quarantine are good again");
            // What has other frames than were hashed waits for nothing else now.
            self.remake_all()?;
        }
        Ok(restored)
    }

    fn restore(&self, chunks: Vec<ChunkAt>) -> Result<u64, StoreError> {
        let good = self.good(chunks)?;
        if good.is_empty() {
            return Ok(0);
        }
        let restored = self.db.write(Durability::Synced, move |connection| {
            good.iter().try_fold(0, |sum, chunk| {
                Ok::<_, StoreError>(sum + u64::from(damage::restore(connection, chunk)?))
            })
        })?;
        self.changed();
        Ok(restored)
    }

    /// Those whose frames are what they were.
    fn good(&self, mut chunks: Vec<ChunkAt>) -> Result<Vec<ChunkAt>, StoreError> {
        chunks.sort_unstable_by_key(|chunk| (chunk.place.pack, chunk.place.offset));
        let mut good = Vec::new();
        let mut bytes = Vec::new();
        for of_pack in chunks.chunk_by(|a, b| a.place.pack == b.place.pack) {
            let Some(first) = of_pack.first() else {
                continue;
            };
            // What is open may be what was there before.
            self.source.reopen(std::iter::once(first.place.pack));
            match self.source.pack(first.place.pack) {
                Ok(_) => {}
                Err(error) if may_pass(&error) => continue,
                Err(error) => return Err(error),
            }
            for chunk in of_pack {
                match self.source.read_quietly(&[extent(chunk)], &mut bytes) {
                    Ok(()) => {
                        let holds = codec::decode_any(&bytes, ChunkId::of);
                        good.extend(holds.is_ok_and(|id| id == chunk.id).then_some(*chunk));
                    }
                    Err(error) if may_pass(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(good)
    }
}

/// Whether an error is of the frames, and no reason to stop.
pub(super) fn may_pass(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Damaged(_)
            | StoreError::Collected(_)
            | StoreError::Away(_)
            | StoreError::Io { .. }
    )
}
