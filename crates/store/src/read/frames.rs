//! Frames read from packs, each checked before anyone sees it (rule 9).

use crate::StoreError;
use crate::db::collection::packs;
use crate::db::{Database, chunks};
use crate::files::{Folder, ReadFile};
use crate::presence::Presence;
use crate::quarantine::{Suspects, is_damage};
use firn_chunks::frame;
use quick_cache::sync::Cache;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Packs held open for reading.
const FILES_MAX: usize = 256;

/// A frame's place and checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) pack: i64,
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) checksum: u64,
}

/// The packs, open as they are needed.
pub(crate) struct FrameSource {
    db: Arc<Database>,
    folder: Arc<Folder>,
    presence: Arc<Presence>,
    files: Cache<i64, Arc<ReadFile>>,
    pub(crate) suspects: Suspects,
    /// Packs that were deleted, so that one who opened a pack before notices that it must not stay open.
    deleted: AtomicU64,
}

impl FrameSource {
    pub(crate) fn new(
        db: Arc<Database>,
        folder: Arc<Folder>,
        presence: Arc<Presence>,
        suspects: Suspects,
    ) -> Self {
        Self {
            db,
            folder,
            presence,
            files: Cache::new(FILES_MAX),
            suspects,
            deleted: AtomicU64::new(0),
        }
    }

    /// The file of a pack. One that is open stays readable whatever becomes of its name.
    ///
    /// # Errors
    /// [`StoreError::Collected`] if a collector took it, [`StoreError::Damaged`] if it is lost,
    /// [`StoreError::Away`] if its place is not there.
    pub(crate) fn pack(&self, id: i64) -> Result<Arc<ReadFile>, StoreError> {
        if let Some(file) = self.files.get(&id) {
            return Ok(file);
        }
        let before = self.deleted.load(Ordering::SeqCst);
        let row = self
            .db
            .read(|connection| chunks::pack(connection, id))?
            .ok_or(StoreError::Collected(id))?;
        let Some(file) = self.folder.open_read(&row.key())? else {
            // Its file goes before its row (rule 7).
            return match self
                .db
                .read(|connection| packs::is_deleted(connection, id))?
            {
                true => Err(StoreError::Collected(id)),
                false => match self.presence.is_lost(&row)? {
                    true => Err(StoreError::Damaged(format!(
                        "pack {} is not here",
                        row.key()
                    ))),
                    // It came back meanwhile.
                    false => Err(StoreError::Away(self.folder.path(&row.key()))),
                },
            };
        };
        let file = Arc::new(file);
        self.files.insert(id, file.clone());
        if self.deleted.load(Ordering::SeqCst) != before {
            self.files.remove(&id);
        }
        Ok(file)
    }

    /// Lets go of a pack whose file was deleted: as long as it is open the disk has its bytes.
    pub(crate) fn forget(&self, id: i64) {
        self.deleted.fetch_add(1, Ordering::SeqCst);
        self.files.remove(&id);
    }

    /// As [`FrameSource::read_quietly`]; what is damaged goes to quarantine.
    pub(crate) fn read(&self, extents: &[Extent], buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let read = self.read_quietly(extents, buffer);
        if read.as_ref().is_err_and(is_damage) {
            self.suspects.tell_all(extents);
        }
        read
    }

    /// Opens packs anew when they are read the next time: another file may lie there by now, or the same again on a
    /// disk that was away.
    pub(crate) fn reopen(&self, packs: impl Iterator<Item = i64>) {
        for pack in packs {
            self.files.remove(&pack);
        }
    }

    /// Reads frames back to back into `buffer` (its former content goes), neighbours in one piece.
    pub(crate) fn read_quietly(
        &self,
        extents: &[Extent],
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let total = extents.iter().map(|extent| extent.length as usize).sum();
        // Only what is longer than ever before is filled with zeros.
        if buffer.len() < total {
            buffer.resize(total, 0);
        }
        buffer.truncate(total);
        let read = self.read_unforgetting(extents, buffer);
        if read.is_err() {
            self.reopen(extents.iter().map(|extent| extent.pack));
        }
        read
    }

    fn read_unforgetting(&self, extents: &[Extent], buffer: &mut [u8]) -> Result<(), StoreError> {
        let mut file = None;
        read_runs(extents, buffer, |pack, piece, offset| {
            if !matches!(&file, Some((open, _)) if *open == pack) {
                file = Some((pack, self.pack(pack)?));
            }
            match &file {
                Some((_, file)) => file.read_exact_at(piece, offset).map(|()| true),
                None => Ok(false),
            }
        })?;
        check(extents, buffer)
    }
}

/// Calls `read` once for each run of extents that lie side by side; stops at the first `false`.
pub(crate) fn read_runs(
    extents: &[Extent],
    buffer: &mut [u8],
    mut read: impl FnMut(i64, &mut [u8], u64) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let mut rest = buffer;
    for run in
        extents.chunk_by(|a, b| a.pack == b.pack && a.offset + u64::from(a.length) == b.offset)
    {
        let length = run.iter().map(|extent| extent.length as usize).sum();
        let (Some(first), Some((piece, after))) = (run.first(), rest.split_at_mut_checked(length))
        else {
            return Err(StoreError::Damaged("extents exceed their buffer".into()));
        };
        if !read(first.pack, piece, first.offset)? {
            return Ok(false);
        }
        rest = after;
    }
    Ok(true)
}

/// Checks each frame's checksum.
pub(crate) fn check(extents: &[Extent], bytes: &[u8]) -> Result<(), StoreError> {
    let mut rest = bytes;
    for extent in extents {
        let good = rest
            .split_at_checked(extent.length as usize)
            .is_some_and(|(bytes, after)| {
                rest = after;
                frame::checksum(bytes) == extent.checksum
            });
        if !good {
            return Err(StoreError::Damaged(format!(
                "frame at byte {} of pack {}",
                extent.offset, extent.pack
            )));
        }
    }
    Ok(())
}
