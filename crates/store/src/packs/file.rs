//! A pack under construction: its row, then its file, frames appended and synced, a trailer.

use crate::db::chunks;
use crate::db::{Database, Durability};
use crate::failpoint::{Point, reach};
use crate::files::{AppendFile, Folder};
use crate::types::DomainId;
use crate::{StoreError, layout};
use firn_chunks::FrameRecord;
use firn_chunks::pack::{self, Placed};

/// A pack without a trailer yet, in the hands of its one writer.
pub(crate) struct OpenPack {
    pub(crate) row: i64,
    pub(crate) file: AppendFile,
    pub(crate) frames: usize,
    /// What rows may rely on.
    pub(crate) durable_length: u64,
}

impl OpenPack {
    /// The row first, durably; then the file: a file that no row knows cannot be (only a row without a file).
    pub(crate) fn create(
        db: &Database,
        folder: &Folder,
        domain: DomainId,
        domain_name: &str,
    ) -> Result<Self, StoreError> {
        let name = layout::random_hex(16)?;
        let key = layout::pack_key(domain_name, &name);
        let row = db.write(Durability::Synced, move |connection| {
            chunks::pack_create(connection, domain, &name)
        })?;
        let made = reach(Point::PackRowMade)
            .and_then(|()| folder.create_new(&key))
            .and_then(|file| reach(Point::PackFileMade).map(|()| file));
        match made {
            Ok(file) => Ok(Self {
                row,
                file,
                frames: 0,
                durable_length: 0,
            }),
            Err(error) => {
                // Best effort; the next start does the same.
                let _ = folder.delete(&key);
                let _ = db.write(Durability::Ordered, move |connection| {
                    chunks::pack_forget(connection, row)
                });
                Err(error)
            }
        }
    }

    /// Appends frames, not synced yet. Says where they lie.
    pub(crate) fn append<'a>(
        &mut self,
        frames: impl Iterator<Item = (&'a FrameRecord, &'a [u8])>,
    ) -> Result<Vec<Placed>, StoreError> {
        let header = if self.file.length() == 0 {
            pack::header()
        } else {
            Vec::new()
        };
        let mut offset = self.file.length() + header.len() as u64;
        let mut parts: Vec<&[u8]> = vec![&header];
        let mut placed = Vec::new();
        for (record, frame) in frames {
            parts.push(frame);
            placed.push(Placed {
                offset,
                record: *record,
            });
            offset += frame.len() as u64;
        }
        self.file.append(&parts)?;
        reach(Point::FramesAppended)?;
        Ok(placed)
    }

    /// Rows name all that was appended.
    pub(crate) fn committed(&mut self, frames: usize) {
        self.durable_length = self.file.length();
        self.frames += frames;
    }

    /// Whether it has come to its size.
    pub(crate) fn is_full(&self, bytes_target: u64) -> bool {
        self.durable_length >= bytes_target || self.frames >= super::PACK_FRAMES_TARGET
    }

    /// Takes it back: no row ever said that anything lies in it. Its file goes first (rule 7).
    pub(crate) fn forget(self, db: &Database, folder: &Folder) -> Result<(), StoreError> {
        let row = self.row;
        if let Some(pack) = db.read(|connection| chunks::pack(connection, row))? {
            folder.delete_durably(&pack.key())?;
        }
        db.write(Durability::Ordered, move |connection| {
            chunks::pack_forget(connection, row)
        })
    }

    /// Ends it.
    pub(crate) fn seal(mut self, db: &Database) -> Result<(), StoreError> {
        seal_file(db, self.row, &mut self.file)
    }
}

/// Appends the trailer of a pack whose file holds exactly its durable frames.
pub(super) fn seal_file(db: &Database, row: i64, file: &mut AppendFile) -> Result<(), StoreError> {
    let frames = db.read(|connection| chunks::of_pack(connection, row, 0, i64::MAX))?;
    let durable = file.length();
    let trailer = pack::trailer(&frames);
    let written = file
        .append(&[&trailer])
        .and_then(|()| reach(Point::TrailerAppended))
        .and_then(|()| file.sync())
        .and_then(|()| reach(Point::TrailerSynced));
    if let Err(error) = written {
        // It stays without a trailer until the store is opened again; its frames are served all the same.
        file.truncate(durable)?;
        return Err(error);
    }
    let sealed_length = file.length();
    db.write(Durability::Ordered, move |connection| {
        chunks::pack_seal(connection, row, sealed_length)
    })?;
    reach(Point::PackSealed)
}
