//! Reads missing chunks again, compresses and sends them.
//!
//! Reading twice is cheaper than holding a closure in memory until the server has answered: what was
//! just chunked is in the page cache. Each thread does all three steps for its group, so that while one
//! waits for the server's disk the others compress. They begin to send in the order of the groups.

use super::{
    pipeline::{Event, Stage},
    work::{Chunked, lock},
};
use crate::error::Result;
use crossbeam_channel::{Receiver, Sender};
use firn_chunks::{ChunkId, Encoder, boundaries::V1, frame::CHUNK_BYTES_MAX};
use firn_formats::push::{FRAMES_BODY_BYTES_MAX, encode_frame};
use firn_image::archive::Archive;
use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Longest wait for one's turn: order is for speed only.
const TURN_WAIT_MAX: Duration = Duration::from_millis(250);

/// A body is sent when it has reached this size.
const BODY_BYTES_TARGET: usize = 4 << 20;
/// No frame may take a body beyond its limit: zstd adds some bytes to what it cannot compress.
const _: () = assert!(BODY_BYTES_TARGET + CHUNK_BYTES_MAX + (64 << 10) < FRAMES_BODY_BYTES_MAX);

/// A chunk to send, and where to read it.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) blob: Arc<Chunked>,
    pub(super) id: ChunkId,
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// Chunks that are sent together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) number: usize,
    pub(super) pieces: Vec<Piece>,
}

/// Lets groups begin in their order, so that the server can hash what it decodes at once.
#[derive(Default)]
pub(super) struct Turns {
    next: Mutex<usize>,
    begun: Condvar,
}

impl Turns {
    /// Waits until all groups before this one have begun, or it has taken too long.
    fn begin(&self, group: usize) {
        let next = lock(&self.next);
        let waited = self
            .begun
            .wait_timeout_while(next, TURN_WAIT_MAX, |next| *next < group);
        let mut next = waited.unwrap_or_else(PoisonError::into_inner).0;
        *next = (*next).max(group + 1);
        self.begun.notify_all();
    }
}

/// Sends groups until there are no more.
pub(super) fn run(
    stage: &Stage<'_>,
    groups: &Receiver<Group>,
    events: &Sender<Event>,
) -> Result<()> {
    let Ok(mut group) = groups.recv() else {
        return Ok(());
    };
    let mut sender = GroupSender {
        stage,
        encoder: Encoder::new(V1.zstd_level),
        raw: Vec::with_capacity(V1.chunk_bytes_max),
        body: Vec::new(),
    };
    while !stage.failure.is_set() {
        let number = group.number;
        sender.group(group)?;
        if events.send(Event::Delivered { group: number }).is_err() {
            break;
        }
        match groups.recv() {
            Ok(next) => group = next,
            Err(_) => break,
        }
    }
    Ok(())
}

struct GroupSender<'a, 'b> {
    stage: &'a Stage<'b>,
    encoder: Encoder,
    raw: Vec<u8>,
    body: Vec<u8>,
}

impl GroupSender<'_, '_> {
    fn group(&mut self, group: Group) -> Result<()> {
        let mut open: Option<(Arc<Chunked>, Arc<Archive>)> = None;
        let mut raw_bytes = 0;
        let number = group.number;
        for piece in group.pieces {
            let archive = match &open {
                Some((blob, archive)) if Arc::ptr_eq(blob, &piece.blob) => Arc::clone(archive),
                _ => {
                    let archive = piece.blob.archive(self.stage.work)?;
                    open = Some((Arc::clone(&piece.blob), Arc::clone(&archive)));
                    archive
                }
            };
            archive.read_at(piece.offset, piece.length as usize, &mut self.raw)?;
            let frame = self.encoder.encode_with_id(piece.id, &self.raw);
            encode_frame(&piece.id.0, frame.frame(), &mut self.body);
            raw_bytes += u64::from(piece.length);
            if self.body.len() >= BODY_BYTES_TARGET {
                self.flush(number, &mut raw_bytes)?;
            }
        }
        self.flush(number, &mut raw_bytes)
    }

    fn flush(&mut self, group: usize, raw_bytes: &mut u64) -> Result<()> {
        if !self.body.is_empty() {
            self.stage.turns.begin(group);
            self.stage.session.frames(&self.body)?;
            self.stage.progress.advance(std::mem::take(raw_bytes));
            self.body.clear();
        }
        Ok(())
    }
}
