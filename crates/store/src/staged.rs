//! Bytes on their way in as parts that come in any order, and again.
//!
//! ```text
//! begin(key) ─▶ part, part, part … ─▶ reader over parts in the order that counts ─▶ (a blob, an entry) ─▶ end
//!               └ file synced, then its row: what a sender was told of survives a restart
//! ```
//! What is staged holds a key, which nobody else can stage meanwhile. One that no byte came for in its `idle` time
//! ends by itself, and its key is free; one that moves, however slowly, does not. Its files go before its rows.

use crate::db::{Durability, staged as rows};
use crate::failpoint::{Point, reach};
use crate::files::{AppendFile, ReadFile};
use crate::store::Inner;
use crate::{CacheId, CacheRow, Staged, StagedPart, Store, StoreError, layout};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes read of a part at once.
const READ_BYTES: usize = 256 << 10;
/// How many times in its idle time what moves says so.
const TOUCHES: u32 = 8;

/// # Errors
/// As of all operations; `SessionGone` if what they name has ended.
#[allow(clippy::missing_errors_doc)]
impl Store {
    /// Begins to stage bytes for `key` of a cache. `note` is kept with them. `Conflict` if somebody else does,
    /// `TooManyUploads` if `owner` has `open_max` under way in this cache.
    pub fn stage(
        &self,
        cache: &CacheRow,
        owner: &str,
        key: &str,
        note: &[u8],
        idle: Duration,
        open_max: usize,
    ) -> Result<Staged, StoreError> {
        let (cache, note) = (cache.clone(), note.to_vec());
        let (owner, key) = (owner.to_owned(), key.to_owned());
        // Told to the caller, who relies on it after a restart.
        self.inner.db.write(Durability::Synced, move |connection| {
            rows::begin(connection, &cache, &owner, &key, &note, idle, open_max)
        })
    }

    /// What is staged, by its id.
    pub fn staged(&self, id: &str) -> Result<Option<Staged>, StoreError> {
        self.inner.db.read(|connection| rows::by_id(connection, id))
    }

    /// What is staged, by its number.
    pub fn staged_by_number(&self, number: u64) -> Result<Option<Staged>, StoreError> {
        self.inner
            .db
            .read(|connection| rows::by_number(connection, number))
    }

    /// What is staged for a key.
    pub fn staged_for(&self, cache: CacheId, key: &str) -> Result<Option<Staged>, StoreError> {
        self.inner
            .db
            .read(|connection| rows::by_key(connection, cache, key))
    }

    /// Bytes of all that an owner has staged in a cache.
    pub fn staged_bytes(&self, cache: CacheId, owner: &str) -> Result<u64, StoreError> {
        self.inner
            .db
            .read(|connection| rows::bytes(connection, cache, owner))
    }

    /// Puts its end off to `idle` from now.
    pub fn staged_touch(&self, id: &str, idle: Duration) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.inner.db.write(Durability::Ordered, move |connection| {
            rows::touch(connection, &id, idle)
        })
    }

    /// Replaces its note, durably.
    pub fn staged_note(&self, id: &str, note: &[u8]) -> Result<(), StoreError> {
        let (id, note) = (id.to_owned(), note.to_vec());
        self.inner.db.write(Durability::Synced, move |connection| {
            rows::set_note(connection, &id, &note)
        })
    }

    /// Begins a part. Nothing of it is there before [`PartWriter::finish`].
    pub fn staged_part(&self, id: &str, idle: Duration) -> Result<PartWriter, StoreError> {
        self.staged_touch(id, idle)?;
        let name = layout::staged_key(id, &layout::random_hex(8)?);
        Ok(PartWriter {
            file: Some(self.inner.folder.create_new(&name)?),
            inner: self.inner.clone(),
            id: id.to_owned(),
            idle,
            touched: Instant::now(),
            name,
        })
    }

    /// Its parts, in the order in which their names first came.
    pub fn staged_parts(&self, id: &str) -> Result<Vec<StagedPart>, StoreError> {
        self.inner
            .db
            .snapshot(|connection| rows::parts(connection, id))
    }

    /// Reads parts, one after the other. All files are open when this returns; what ends meanwhile stays readable.
    pub fn staged_reader(&self, parts: &[StagedPart]) -> Result<StagedReader, StoreError> {
        let files = parts
            .iter()
            .map(|part| {
                let gone = || StoreError::Damaged(format!("{} is not here", part.file));
                let file = self.inner.folder.open_read(&part.file)?.ok_or_else(gone)?;
                Ok((file, part.length))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        Ok(StagedReader {
            files,
            file: 0,
            offset: 0,
        })
    }

    /// Ends it: its key is free, its bytes go.
    pub fn staged_end(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.inner
            .db
            .write(Durability::Ordered, move |connection| {
                rows::end(connection, &id)
            })?;
        self.inner.reap_staged().map(|_| ())
    }

    /// Clears away what has ended; gives the number of those whose time was over. To be called now and then.
    pub fn staged_reap(&self) -> Result<usize, StoreError> {
        self.inner.reap_staged()
    }
}

impl Inner {
    /// See [`Store::staged_reap`].
    pub(crate) fn reap_staged(&self) -> Result<usize, StoreError> {
        let expired = self.db.write(Durability::Ordered, rows::end_expired)?;
        let files = self.db.read(rows::ended_files)?;
        for file in &files {
            self.folder.delete(file)?;
        }
        reach(Point::StagedFilesDeleted)?;
        self.db.write(Durability::Ordered, move |connection| {
            rows::forget(connection, &files)
        })?;
        Ok(expired)
    }

    /// After a start: files without rows go, and rows whose files are not whole, as in a copy of a folder.
    pub(crate) fn recover_staged(&self) -> Result<(), StoreError> {
        let mut known = HashSet::new();
        let mut lost = Vec::new();
        for (file, length) in self.db.read(rows::all_parts)? {
            match self.folder.length(&file)? == Some(length) {
                true => drop(known.insert(file)),
                false => lost.push(file),
            }
        }
        for file in self.folder.list(layout::STAGED)? {
            if !known.contains(&file) {
                self.folder.delete(&file)?;
            }
        }
        self.db.write(Durability::Ordered, move |connection| {
            rows::forget(connection, &lost)
        })?;
        self.reap_staged().map(|_| ())
    }
}

/// A part on its way in. Dropping it leaves nothing.
pub struct PartWriter {
    inner: Arc<Inner>,
    id: String,
    idle: Duration,
    touched: Instant,
    /// Absent once it is finished.
    file: Option<AppendFile>,
    name: String,
}

impl PartWriter {
    /// Bytes taken in.
    pub fn length(&self) -> u64 {
        self.file.as_ref().map_or(0, AppendFile::length)
    }

    /// Takes the next bytes, which puts the end of the whole off.
    ///
    /// # Errors
    /// `SessionGone` if it has ended, or if the file cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let gone = || StoreError::SessionGone(self.id.clone());
        self.file.as_mut().ok_or_else(gone)?.append(&[bytes])?;
        if self.touched.elapsed() >= self.idle / TOUCHES {
            self.touched = Instant::now();
            let (id, idle) = (self.id.clone(), self.idle);
            self.inner
                .db
                .write(Durability::Ordered, move |connection| {
                    rows::touch(connection, &id, idle)
                })?;
        }
        Ok(())
    }

    /// Makes it durable under `name`, in the place of one that had the name.
    ///
    /// # Errors
    /// As [`PartWriter::write`].
    pub fn finish(mut self, name: &str) -> Result<StagedPart, StoreError> {
        let gone = || StoreError::SessionGone(self.id.clone());
        let file = self.file.as_ref().ok_or_else(gone)?;
        file.sync()?;
        reach(Point::PartSynced)?;
        let part = StagedPart {
            name: name.to_owned(),
            file: self.name.clone(),
            length: file.length(),
        };
        let (id, new, idle) = (self.id.clone(), part.clone(), self.idle);
        let old = self.inner.db.write(Durability::Synced, move |connection| {
            rows::put_part(connection, &id, &new, idle)
        })?;
        // From here on it is the rows' to say when the file goes.
        self.file = None;
        if let Some(old) = old {
            self.inner.folder.delete(&old)?;
        }
        Ok(part)
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Err(error) = self.inner.folder.delete(&self.name)
        {
            tracing::warn!(%error, "deleting an unfinished part");
        }
    }
}

/// Reads parts in order.
pub struct StagedReader {
    files: Vec<(ReadFile, u64)>,
    file: usize,
    offset: u64,
}

impl io::Read for StagedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((file, length)) = self.files.get(self.file) {
            let rest = length - self.offset;
            if rest == 0 {
                self.file += 1;
                self.offset = 0;
                continue;
            }
            let take = buffer
                .len()
                .min(READ_BYTES)
                .min(usize::try_from(rest).unwrap_or(READ_BYTES));
            file.read_exact_at(&mut buffer[..take], self.offset)
                .map_err(io::Error::other)?;
            self.offset += take as u64;
            return Ok(take);
        }
        Ok(0)
    }
}
