//! Copying what is valid out of packs that are mostly dead. Frames are copied as they are, never compressed again.

use super::packs::{Fate, fate};
use super::{CollectionStep, Collector, Outcome};
use crate::StoreError;
use crate::db::Durability;
use crate::db::collection::condemn::{self, Moved};
use crate::db::collection::packs::{self, PackUse};
use crate::failpoint::{Point, reach};
use crate::packs::OpenPack;
use crate::read::Extent;
use crate::types::DomainId;
use firn_chunks::pack::Placed;
use std::collections::HashSet;
use std::time::Instant;

/// Frames moved in one transaction, and copied with one sync: at most so many …
const COPY_FRAMES_MAX: usize = 1000;
/// … and so many bytes, or one.
const COPY_BYTES_MAX: usize = 4 << 20;

/// The pack that copies go to.
#[derive(Default)]
struct Target {
    open: Option<(DomainId, OpenPack)>,
}

impl Collector<'_> {
    /// Empties packs of which too much is dead.
    pub(super) fn rewrite_packs(&mut self) -> Outcome<()> {
        self.inner.presence.check()?;
        let mut poor = self.settled_packs()?;
        poor.retain(|pack| fate(pack, self.options) == Fate::Rewrite);
        for pack in &poor {
            // What is good after all is copied with the rest.
            self.inner.quarantine.ward.look_again_in(pack.id)?;
        }
        // One after the other of a domain, so that their copies lie together.
        poor.sort_by_key(|pack| (pack.domain.0, pack.id));
        let mut target = Target::default();
        let outcome = poor
            .iter()
            .try_for_each(|pack| self.empty(pack, &mut target));
        let sealed = self.seal(&mut target);
        outcome.and(sealed)
    }

    /// Ends the pack that copies go to, cut to what rows name.
    fn seal(&self, target: &mut Target) -> Outcome<()> {
        let Some((_, mut pack)) = target.open.take() else {
            return Ok(());
        };
        match pack.durable_length {
            0 => pack.forget(&self.inner.db, &self.inner.folder)?,
            durable => {
                pack.file.truncate(durable)?;
                pack.seal(&self.inner.db)?;
            }
        }
        Ok(())
    }

    /// Moves what is valid in a pack elsewhere.
    fn empty(&mut self, pack: &PackUse, target: &mut Target) -> Outcome<()> {
        let mut first = 0;
        loop {
            self.step(CollectionStep::Copy)?;
            let began = Instant::now();
            let mut frames = self.inner.db.snapshot(|connection| {
                packs::valid_frames(connection, pack.id, first, COPY_FRAMES_MAX)
            })?;
            let mut bytes = 0;
            let fitting = frames.iter().take_while(|placed| {
                bytes += placed.record.frame_length as usize;
                bytes <= COPY_BYTES_MAX
            });
            let fitting = fitting.count().max(1);
            frames.truncate(fitting);
            let Some(last) = frames.last() else { break };
            first = last.offset + 1;
            let mut buffer = Vec::new();
            if let Err(error) = self
                .inner
                .source
                .read(&extents(pack.id, &frames), &mut buffer)
            {
                let (StoreError::Damaged(_) | StoreError::Io { .. } | StoreError::Away(_)) = error
                else {
                    return Err(error.into());
                };
                // What is damaged, or cannot be read, is not for the collector to decide on: all of it stays where
                // it is.
                tracing::error!(pack = %pack.key(), error = error.chain(), "a pack cannot be rewritten");
                self.report.packs_damaged += 1;
                return Ok(());
            }
            let moved = self.copy(pack, &frames, &buffer, target)?;
            self.relocate(moved, target)?;
            self.report.bytes_rewritten += buffer.len() as u64;
            self.rest(began);
        }
        // From here on readers are sent to the new places; those who know the old ones have the grace.
        self.inner.layouts.forget_packs(&HashSet::from([pack.id]));
        self.report.packs_rewritten += 1;
        Ok(())
    }

    /// Appends the frames to the target and syncs it (rule 1).
    fn copy(
        &self,
        pack: &PackUse,
        frames: &[Placed],
        bytes: &[u8],
        target: &mut Target,
    ) -> Outcome<Moved> {
        if matches!(&target.open, Some((domain, _)) if *domain != pack.domain) {
            self.seal(target)?;
        }
        let (db, folder) = (&self.inner.db, &self.inner.folder);
        let (_, open) = match &mut target.open {
            Some(open) => open,
            none => {
                let made = OpenPack::create(db, folder, pack.domain, &pack.domain_name)?;
                none.insert((pack.domain, made))
            }
        };
        let mut rest = bytes;
        let parts = frames.iter().map(|placed| {
            let (frame, after) = rest.split_at(placed.record.frame_length as usize);
            rest = after;
            (&placed.record, frame)
        });
        let copied = open
            .append(parts)
            .and_then(|placed| open.file.sync().map(|()| placed))
            .and_then(|placed| reach(Point::FramesCopied).map(|()| placed));
        match copied {
            Ok(placed) => Ok(Moved {
                domain: pack.domain,
                from: pack.id,
                to: open.row,
                frames: frames
                    .iter()
                    .map(|frame| frame.offset)
                    .zip(placed)
                    .collect(),
                durable_length: open.file.length(),
            }),
            Err(error) => {
                // The error says why; what this one meets is of the same kind.
                let _ = self.seal(target);
                Err(error.into())
            }
        }
    }

    fn relocate(&self, moved: Moved, target: &mut Target) -> Outcome<()> {
        let count = moved.frames.len();
        self.step(CollectionStep::Move)?;
        let committed = self.inner.db.write(Durability::Ordered, move |connection| {
            condemn::relocate(connection, &moved)
        });
        let committed = committed.and_then(|_| reach(Point::FramesMoved));
        if let Err(error) = committed {
            // It may have reached the database all the same: nothing is cut off, and nothing more is appended.
            target.open = None;
            return Err(error.into());
        }
        if let Some((_, pack)) = &mut target.open {
            pack.committed(count);
            if pack.is_full(self.inner.options.pack_bytes_target) {
                self.seal(target)?;
            }
        }
        Ok(())
    }
}

fn extents(pack: i64, frames: &[Placed]) -> Vec<Extent> {
    frames
        .iter()
        .map(|placed| Extent {
            pack,
            offset: placed.offset,
            length: placed.record.frame_length,
            checksum: placed.record.checksum,
        })
        .collect()
}
