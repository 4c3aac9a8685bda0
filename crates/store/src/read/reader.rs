//! A blob's representation, block by block.

use super::frames::{check, read_runs};
use super::{Extent, FrameSource, GzipMaker, Layout, Layouts, PlacedFrame};
use crate::files::ReadFile;
use crate::quarantine::is_damage;
use crate::types::{Representation, WouldBlock};
use crate::{StoreError, codec};
use bytes::{Bytes, BytesMut};
use std::ops::Range;
use std::sync::Arc;

/// A block's size, unless a single frame is longer: copied, checked and sent from the processor's cache.
const BLOCK_BYTES: usize = 128 << 10;
/// Blocks whose memory is used again. A server has some of them queued when it asks for the next.
const SPARES_MAX: usize = 5;

/// Reads stored frames, or what they hold, in blocks of bounded size. Blocks are read inline:
/// hot pages cost a copy, and [`BlobReader::try_next_block`] tells when they are not hot.
pub struct BlobReader {
    frames: FrameReader,
    kind: Kind,
    /// Bytes to drop before the first that is wanted.
    skip: u64,
    remaining: u64,
}

enum Kind {
    Zstd,
    Identity,
    /// The maker is gone once the last bytes are out.
    Gzip(Option<Box<GzipMaker>>),
}

enum Step {
    Block(Bytes),
    End,
    Blocked,
}

impl BlobReader {
    /// Opens a representation. `range` is (first byte, length), cut to what is there. A gzip must have been
    /// made once, so that its length is known.
    pub(crate) fn open(
        layouts: &Layouts,
        layout: Arc<Layout>,
        representation: Representation,
        range: Option<(u64, u64)>,
    ) -> Result<Self, StoreError> {
        let (length, kind) = match representation {
            Representation::Zstd => (layout.blob.zstd_length, Kind::Zstd),
            Representation::Identity => (layout.blob.identity_length, Kind::Identity),
            Representation::Gzip => match layout.blob.gzip {
                Some((_, length)) => (length, Kind::Gzip(Some(Box::new(GzipMaker::new())))),
                None => return Err(StoreError::Damaged("the gzip was never made".into())),
            },
        };
        let (start, wanted) = range.unwrap_or((0, length));
        let start = start.min(length);
        let remaining = wanted.min(length - start);
        let (frames, skip) = match kind {
            Kind::Zstd => select(&layout.frames, start..start + remaining, |frame| {
                frame.zstd_start
            }),
            Kind::Identity => select(&layout.frames, start..start + remaining, |frame| {
                frame.identity_start
            }),
            Kind::Gzip(_) => (0..layout.frames.len(), start),
        };
        Ok(Self {
            frames: FrameReader::open(layouts, layout, frames)?,
            kind,
            skip,
            remaining,
        })
    }

    /// Bytes that will come.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The next block, each of its frames checked; `None` at the end.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] instead of any byte that is not what was stored.
    pub fn next_block(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self.advance(true)? {
            Ok(block) => Ok(block),
            Err(WouldBlock) => Err(StoreError::Damaged("a read neither came nor failed".into())),
        }
    }

    /// The next block only if no disk has to be waited for; `Ok(Err(WouldBlock))` if it has, or if it must
    /// be compressed first.
    ///
    /// # Errors
    /// As [`BlobReader::next_block`].
    #[allow(clippy::type_complexity)]
    pub fn try_next_block(&mut self) -> Result<Result<Option<Bytes>, WouldBlock>, StoreError> {
        if self.remaining > 0 && matches!(self.kind, Kind::Gzip(_)) {
            return Ok(Err(WouldBlock));
        }
        self.advance(false)
    }

    fn advance(&mut self, wait: bool) -> Result<Result<Option<Bytes>, WouldBlock>, StoreError> {
        while self.remaining > 0 {
            match self.step(wait)? {
                Step::Blocked => return Ok(Err(WouldBlock)),
                Step::End => {
                    return Err(StoreError::Damaged(format!(
                        "{} bytes of a blob are missing",
                        self.remaining
                    )));
                }
                Step::Block(block) => {
                    let block = self.clip(block);
                    if !block.is_empty() {
                        return Ok(Ok(Some(block)));
                    }
                }
            }
        }
        Ok(Ok(None))
    }

    /// Cuts a block to the range that was asked for.
    fn clip(&mut self, mut block: Bytes) -> Bytes {
        let dropped = self.skip.min(block.len() as u64);
        self.skip -= dropped;
        let mut block = block.split_off(dropped as usize);
        block.truncate(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        self.remaining -= block.len() as u64;
        block
    }

    fn step(&mut self, wait: bool) -> Result<Step, StoreError> {
        let stored = match self.frames.next(wait, !matches!(self.kind, Kind::Zstd))? {
            Step::Block(stored) => stored,
            Step::Blocked => return Ok(Step::Blocked),
            Step::End => {
                return match &mut self.kind {
                    Kind::Gzip(maker) => match maker.take() {
                        Some(maker) => Ok(Step::Block(maker.finish()?)),
                        None => Ok(Step::End),
                    },
                    Kind::Zstd | Kind::Identity => Ok(Step::End),
                };
            }
        };
        match &mut self.kind {
            Kind::Zstd => Ok(Step::Block(stored)),
            Kind::Identity => Ok(Step::Block(self.frames.unpack(&stored)?)),
            Kind::Gzip(maker) => {
                let raw = self.frames.unpack(&stored)?;
                match maker {
                    Some(maker) => Ok(Step::Block(maker.push(&raw)?)),
                    None => Ok(Step::End),
                }
            }
        }
    }
}

/// The frames that a range of a representation touches, and how far into the first it begins.
fn select(
    frames: &[PlacedFrame],
    range: Range<u64>,
    start_of: impl Fn(&PlacedFrame) -> u64,
) -> (Range<usize>, u64) {
    let first = frames
        .partition_point(|frame| start_of(frame) <= range.start)
        .saturating_sub(1);
    let end = frames.partition_point(|frame| start_of(frame) < range.end);
    let skip = frames
        .get(first)
        .map_or(0, |frame| range.start - start_of(frame));
    (first..end.max(first), skip)
}

/// Reads whole frames, as many as make a block.
struct FrameReader {
    layout: Arc<Layout>,
    files: Vec<(i64, Arc<ReadFile>)>,
    frames: Range<usize>,
    /// The frames of the block read last.
    block: Range<usize>,
    extents: Vec<Extent>,
    source: Arc<FrameSource>,
    /// The last blocks: when a reader has let go of one, the next is read into the same memory.
    spares: Vec<Bytes>,
}

impl FrameReader {
    /// Opens every pack that will be read (rule 9).
    fn open(
        layouts: &Layouts,
        layout: Arc<Layout>,
        frames: Range<usize>,
    ) -> Result<Self, StoreError> {
        let mut files: Vec<(i64, Arc<ReadFile>)> = Vec::new();
        for frame in layout.frames.get(frames.clone()).unwrap_or_default() {
            if let Err(at) = files.binary_search_by_key(&frame.pack, |(pack, _)| *pack) {
                let file = layouts.source.pack(frame.pack).inspect_err(|error| {
                    if is_damage(error) {
                        layouts.source.suspects.tell(frame.pack, frame.offset);
                    }
                })?;
                files.insert(at, (frame.pack, file));
            }
        }
        Ok(Self {
            layout,
            files,
            block: 0..0,
            frames,
            extents: Vec::new(),
            source: layouts.source.clone(),
            spares: Vec::new(),
        })
    }

    /// The next block of stored frames. With `unpacking`, what they hold is bounded too.
    fn next(&mut self, wait: bool, unpacking: bool) -> Result<Step, StoreError> {
        let step = self.try_next(wait, unpacking);
        if let Err(error) = &step {
            let packs = self.extents.iter().map(|extent| extent.pack);
            self.source.reopen(packs);
            if is_damage(error) {
                self.source.suspects.tell_all(&self.extents);
            }
        }
        step
    }

    fn try_next(&mut self, wait: bool, unpacking: bool) -> Result<Step, StoreError> {
        let block = self.plan(unpacking);
        if block.is_empty() {
            return Ok(Step::End);
        }
        let length = self
            .extents
            .iter()
            .map(|extent| extent.length as usize)
            .sum();
        let mut buffer = self.spare(length);
        // Fills with zeros only what is longer than the block before.
        buffer.resize(length, 0);
        let files = &self.files;
        let complete = read_runs(&self.extents, &mut buffer, |pack, piece, offset| {
            let at = files
                .binary_search_by_key(&pack, |(pack, _)| *pack)
                .map_err(|_| StoreError::Damaged(format!("pack {pack} is not open")))?;
            let file = &files[at].1;
            if wait {
                file.read_exact_at(piece, offset).map(|()| true)
            } else {
                file.try_read_exact_at(piece, offset)
            }
        })?;
        if !complete {
            self.keep_spare(buffer.freeze());
            return Ok(Step::Blocked);
        }
        check(&self.extents, &buffer)?;
        self.frames.start = block.end;
        self.block = block;
        let bytes = buffer.freeze();
        self.keep_spare(bytes.clone());
        Ok(Step::Block(bytes))
    }

    /// Memory of a block that nobody reads any more, or new.
    fn spare(&mut self, length: usize) -> BytesMut {
        let free = self.spares.iter().position(Bytes::is_unique);
        let spare = free.map(|at| self.spares.swap_remove(at).try_into_mut());
        match spare {
            Some(Ok(buffer)) => buffer,
            _ => BytesMut::with_capacity(length.max(BLOCK_BYTES)),
        }
    }

    fn keep_spare(&mut self, block: Bytes) {
        if self.spares.len() < SPARES_MAX {
            self.spares.push(block);
        }
    }

    /// Chooses the frames of the next block; `extents` are theirs.
    fn plan(&mut self, unpacking: bool) -> Range<usize> {
        self.extents.clear();
        let (mut stored, mut raw) = (0, 0);
        let frames = self.layout.frames.get(self.frames.clone());
        for frame in frames.unwrap_or_default() {
            stored += frame.frame_length as usize;
            raw += frame.raw_length as usize;
            let full = stored > BLOCK_BYTES || (unpacking && raw > BLOCK_BYTES);
            if full && !self.extents.is_empty() {
                break;
            }
            self.extents.push(Extent {
                pack: frame.pack,
                offset: frame.offset,
                length: frame.frame_length,
                checksum: frame.checksum,
            });
        }
        self.frames.start..self.frames.start + self.extents.len()
    }

    /// What the frames of the block read last hold.
    fn unpack(&self, stored: &[u8]) -> Result<Bytes, StoreError> {
        let frames = self.layout.frames.get(self.block.clone());
        let frames = frames.unwrap_or_default();
        let length = frames.iter().map(|frame| frame.raw_length as usize).sum();
        let mut raw = Vec::with_capacity(length);
        let mut rest = stored;
        for frame in frames {
            let Some((bytes, after)) = rest.split_at_checked(frame.frame_length as usize) else {
                return Err(StoreError::Damaged("a block is too short".into()));
            };
            codec::decode(bytes, frame.raw_length, |decoded| {
                raw.extend_from_slice(decoded);
            })?;
            rest = after;
        }
        Ok(raw.into())
    }
}
