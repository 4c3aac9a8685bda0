//! Reading every byte: each frame's checksum, what it decodes to, and the BLAKE3 of that.

use crate::StoreError;
use crate::codec;
use crate::db::damage::{self, ChunkAt, Place};
use crate::db::{Durability, chunks};
use crate::quarantine::{extent, is_damage};
use crate::read::Extent;
use crate::store::Inner;
use crate::types::DomainId;
use firn_chunks::ChunkId;
use rayon::prelude::*;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Frame bytes read at once, and decoded in parallel.
const BATCH_BYTES: usize = 8 << 20;
/// Chunks looked up at once.
const BATCH_CHUNKS: usize = 2048;
/// Longest sleep of a throttled read before somebody is asked whether to go on.
const SLEEP_MAX: Duration = Duration::from_millis(500);

/// What to read, and how fast.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct DataOptions {
    /// Part n of t: all of them together are all packs.
    pub part: (u32, u32),
    pub bytes_per_second_max: Option<u64>,
    /// Goes on where the last reading of this part stopped; else from the beginning.
    pub resume: bool,
    /// Stops after so many bytes, to be resumed.
    pub bytes_max: Option<u64>,
    /// Who reads, as quarantine shows it; positions are kept by it and the part.
    pub reader: &'static str,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            part: (1, 1),
            bytes_per_second_max: None,
            resume: false,
            bytes_max: None,
            reader: "check",
        }
    }
}

/// How far reading has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DataProgress {
    /// Of this part.
    pub bytes_total: u64,
    /// By this reading and those that it resumed.
    pub bytes_done: u64,
    /// By this reading.
    pub bytes_read: u64,
    pub chunks_read: u64,
    pub chunks_damaged: u64,
    /// They could not be read, and nothing is known of them.
    pub chunks_unread: u64,
    /// They were in quarantine and are good.
    pub chunks_restored: u64,
    /// Whether the part was read to its end.
    pub complete: bool,
}

/// What could not be read of a pack, and why the first of it.
pub(super) struct UnreadPack {
    pub(super) error: String,
    pub(super) chunks: Vec<(DomainId, ChunkId)>,
}

/// What could not be read, pack by pack.
#[derive(Default)]
pub(super) struct Unread {
    pub(super) packs: BTreeMap<i64, UnreadPack>,
}

impl Unread {
    fn add(&mut self, chunk: &ChunkAt, error: &StoreError) {
        let pack = chunk.place.pack;
        let unread = self.packs.entry(pack).or_insert_with(|| {
            let error = error.chain();
            tracing::error!(pack, error, "a frame cannot be read");
            UnreadPack {
                error,
                chunks: Vec::new(),
            }
        });
        unread.chunks.push((chunk.domain, chunk.id));
    }

    fn len(&self) -> u64 {
        let packs = self.packs.values();
        packs.map(|pack| pack.chunks.len() as u64).sum()
    }
}

/// Looks at some of what is in quarantine once more, and reads a part.
pub(crate) fn scrub(
    inner: &Inner,
    options: &DataOptions,
    go_on: &mut dyn FnMut(&DataProgress) -> bool,
) -> Result<DataProgress, StoreError> {
    inner.presence.check()?;
    let restored = inner.quarantine.ward.look_again_at_some()?;
    let mut progress = read(inner, options, go_on, &mut Unread::default())?;
    progress.chunks_restored = restored;
    Ok(progress)
}

/// Reads a part. Damaged chunks go into quarantine as they are found.
pub(super) fn read(
    inner: &Inner,
    options: &DataOptions,
    go_on: &mut dyn FnMut(&DataProgress) -> bool,
    unread: &mut Unread,
) -> Result<DataProgress, StoreError> {
    let name = format!("{} {}/{}", options.reader, options.part.0, options.part.1);
    let start = inner.db.read(|connection| position(connection, &name))?;
    let (mut place, done) = match start {
        Some(kept) if options.resume => kept,
        _ => (Place { pack: 0, offset: 0 }, 0),
    };
    let mut progress = DataProgress {
        bytes_total: inner
            .db
            .read(|connection| total(connection, options.part))?,
        bytes_done: done,
        ..DataProgress::default()
    };
    let began = Instant::now();
    loop {
        let stop = options
            .bytes_max
            .is_some_and(|max| progress.bytes_read >= max);
        if stop || !go_on(&progress) {
            return Ok(progress);
        }
        let batch = inner
            .db
            .snapshot(|connection| next(connection, &mut place, options.part))?;
        let Some(last) = batch.last() else {
            progress.complete = true;
            inner.db.write(Durability::Ordered, move |connection| {
                connection.execute("DELETE FROM scrubs WHERE name = ?", [&name])?;
                Ok(())
            })?;
            go_on(&progress);
            return Ok(progress);
        };
        place.offset = last.place.offset + u64::from(last.frame_length);
        let damaged = inner.damaged_of(&batch, unread)?;
        progress.chunks_unread = unread.len();
        let bytes: u64 = batch
            .iter()
            .map(|chunk| u64::from(chunk.frame_length))
            .sum();
        progress.bytes_read += bytes;
        progress.bytes_done += bytes;
        progress.chunks_read += batch.len() as u64;
        progress.chunks_damaged +=
            inner.quarantine.ward.quarantine(&damaged, options.reader)? as u64;
        keep(inner, &name, place, progress.bytes_done)?;
        if !throttle(options, &progress, began, go_on) {
            return Ok(progress);
        }
    }
}

/// Sleeps until no more than the rate was read; false if it is to stop.
fn throttle(
    options: &DataOptions,
    progress: &DataProgress,
    began: Instant,
    go_on: &mut dyn FnMut(&DataProgress) -> bool,
) -> bool {
    let Some(rate) = options.bytes_per_second_max.filter(|rate| *rate > 0) else {
        return true;
    };
    let due = Duration::from_secs_f64(progress.bytes_read as f64 / rate as f64);
    loop {
        let ahead = due.saturating_sub(began.elapsed());
        if ahead.is_zero() {
            return true;
        }
        std::thread::sleep(ahead.min(SLEEP_MAX));
        if !go_on(progress) {
            return false;
        }
    }
}

fn position(connection: &Connection, name: &str) -> Result<Option<(Place, u64)>, StoreError> {
    Ok(connection
        .query_row(
            "SELECT pack, \"offset\", read_bytes FROM scrubs WHERE name = ?",
            [name],
            |row| {
                let place = Place {
                    pack: row.get(0)?,
                    offset: crate::db::unsigned(row, 1)?,
                };
                Ok((place, crate::db::unsigned(row, 2)?))
            },
        )
        .optional()?)
}

fn keep(inner: &Inner, name: &str, place: Place, done: u64) -> Result<(), StoreError> {
    let name = name.to_owned();
    inner.db.write(Durability::Ordered, move |connection| {
        connection
            .prepare_cached(
                "INSERT INTO scrubs (name, pack, \"offset\", read_bytes) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name) DO UPDATE SET pack = ?2, \"offset\" = ?3, read_bytes = ?4",
            )?
            .execute(params![
                name,
                place.pack,
                crate::db::signed(place.offset),
                crate::db::signed(done)
            ])?;
        Ok(())
    })
}

/// Bytes of the frames of a part.
fn total(connection: &Connection, (part, parts): (u32, u32)) -> Result<u64, StoreError> {
    Ok(connection.query_row(
        "SELECT coalesce(sum(frame_bytes), 0) FROM packs WHERE id % ?2 = ?1 % ?2",
        [part, parts],
        |row| crate::db::unsigned(row, 0),
    )?)
}

/// The next valid chunks from a place on, all of one pack; `place` becomes the place where they were looked for.
fn next(
    connection: &Connection,
    place: &mut Place,
    (part, parts): (u32, u32),
) -> Result<Vec<ChunkAt>, StoreError> {
    loop {
        let mut found = damage::chunks_from(connection, *place, BATCH_CHUNKS)?;
        if !found.is_empty() {
            let mut bytes = 0;
            let fits = found
                .iter()
                .take_while(|chunk| {
                    bytes += chunk.frame_length as usize;
                    bytes <= BATCH_BYTES
                })
                .count();
            found.truncate(fits.max(1));
            return Ok(found);
        }
        let pack = connection
            .prepare_cached(
                "SELECT id FROM packs WHERE id > ?1 AND id % ?3 = ?2 % ?3 ORDER BY id LIMIT 1",
            )?
            .query_row(params![place.pack, part, parts], |row| row.get(0))
            .optional()?;
        match pack {
            Some(pack) => *place = Place { pack, offset: 0 },
            None => return Ok(Vec::new()),
        }
    }
}

impl Inner {
    /// Those of some chunks whose bytes are not what they were.
    fn damaged_of(
        &self,
        chunks: &[ChunkAt],
        unread: &mut Unread,
    ) -> Result<Vec<ChunkAt>, StoreError> {
        let extents: Vec<Extent> = chunks.iter().map(extent).collect();
        let mut bytes = Vec::new();
        match self.source.read_quietly(&extents, &mut bytes) {
            Ok(()) => Ok(not_their_content(chunks, &bytes)),
            Err(StoreError::Damaged(_) | StoreError::Io { .. } | StoreError::Away(_)) => {
                self.damaged_one_by_one(chunks, unread)
            }
            Err(error) => match self.gone(chunks)? {
                true => Ok(Vec::new()),
                false => Err(error),
            },
        }
    }

    fn damaged_one_by_one(
        &self,
        chunks: &[ChunkAt],
        unread: &mut Unread,
    ) -> Result<Vec<ChunkAt>, StoreError> {
        // Where nothing is, nothing is to be said of each.
        self.presence.check()?;
        let mut damaged = Vec::new();
        let mut bytes = Vec::new();
        for chunk in chunks {
            match self.source.read_quietly(&[extent(chunk)], &mut bytes) {
                Ok(()) => damaged.extend(not_their_content(std::slice::from_ref(chunk), &bytes)),
                Err(error) if is_damage(&error) => damaged.push(*chunk),
                Err(error @ (StoreError::Io { .. } | StoreError::Away(_))) => {
                    unread.add(chunk, &error);
                }
                // A pack may have been collected while it was read.
                Err(_) if self.gone(chunks)? => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        match self.gone(chunks)? {
            true => Ok(Vec::new()),
            false => Ok(damaged),
        }
    }

    fn gone(&self, chunks: &[ChunkAt]) -> Result<bool, StoreError> {
        let Some(first) = chunks.first() else {
            return Ok(true);
        };
        let row = self
            .db
            .read(|connection| chunks::pack(connection, first.place.pack))?;
        Ok(row.is_none())
    }
}

/// Chunks whose frames have their checksums, but hold something else.
fn not_their_content(chunks: &[ChunkAt], bytes: &[u8]) -> Vec<ChunkAt> {
    let mut rest = bytes;
    let frames: Vec<(&ChunkAt, &[u8])> = chunks
        .iter()
        .map(|chunk| {
            let (frame, after) = rest.split_at(rest.len().min(chunk.frame_length as usize));
            rest = after;
            (chunk, frame)
        })
        .collect();
    frames
        .into_par_iter()
        .filter(|(chunk, frame)| {
            let id = codec::decode_any(frame, ChunkId::of);
            id.is_err() || id.is_ok_and(|id| id != chunk.id)
        })
        .map(|(chunk, _)| *chunk)
        .collect()
}
