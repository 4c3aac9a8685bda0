//! Asks which chunks are missing, and forms groups of those to be sent.

use super::{
    pipeline::{Event, Proposed, Stage},
    send::{Group, Piece},
    work::{Chunked, Job},
};
use crate::error::Result;
use crossbeam_channel::{Receiver, Sender};
use firn_chunks::ChunkId;
use firn_formats::push::{Proposal, ProposalAnswer};
use std::{collections::HashSet, sync::Arc};

/// Chunk ids of one request, in bytes: enough to make round trips rare, little enough to be repeated.
const BATCH_BYTES_TARGET: usize = 1 << 20;
const CHUNK_BYTES_ON_WIRE: usize = 36;
/// Raw bytes of a group, which is one body of frames or two.
const GROUP_RAW_BYTES_TARGET: u64 = 8 << 20;
const GROUP_PIECES_MAX: usize = 8192;

/// Proposes what comes in. Requests fill up by themselves: while one is under way, more blobs are
/// chunked, and all of them go into the next.
pub(super) fn run(
    stage: &Stage<'_>,
    units: &Receiver<Vec<Chunked>>,
    groups: &Sender<Group>,
    events: &Sender<Event>,
) -> Result<()> {
    let mut proposer = Proposer {
        stage,
        groups,
        claimed: HashSet::new(),
        open: Vec::new(),
        open_bytes: 0,
        groups_formed: 0,
    };
    while let Ok(mut batch) = units.recv() {
        if stage.failure.is_set() {
            break;
        }
        let mut bytes = bytes_on_wire(&batch);
        while bytes < BATCH_BYTES_TARGET {
            let Ok(next) = units.try_recv() else { break };
            bytes += bytes_on_wire(&next);
            batch.extend(next);
        }
        if !proposer.batch(batch, events)? {
            break;
        }
    }
    Ok(())
}

fn bytes_on_wire(blobs: &[Chunked]) -> usize {
    let chunks: usize = blobs.iter().map(|blob| blob.list.chunks.len()).sum();
    chunks * CHUNK_BYTES_ON_WIRE
}

struct Proposer<'a, 'b> {
    stage: &'a Stage<'b>,
    groups: &'a Sender<Group>,
    /// Chunks on their way with an earlier blob of this run.
    claimed: HashSet<ChunkId>,
    open: Vec<Piece>,
    open_bytes: u64,
    groups_formed: usize,
}

impl Proposer<'_, '_> {
    /// One request. False when nobody takes what comes of it any more.
    fn batch(&mut self, mut batch: Vec<Chunked>, events: &Sender<Event>) -> Result<bool> {
        // The server marks a chunk with the first blob that has it. So layers come last, and lack only
        // what no NAR has; but that little is sent first: then the server can hash a layer along with
        // the NARs of its paths.
        batch.sort_by_key(is_layer);
        let proposals: Vec<Proposal> = batch.iter().map(proposal).collect();
        let answers = self.stage.session.propose(&proposals)?;
        drop(proposals);
        let mut proposed = Vec::with_capacity(batch.len());
        let mut answered: Vec<_> = batch.into_iter().zip(answers).collect();
        answered.sort_by_key(|(blob, _)| !is_layer(blob));
        for (blob, answer) in answered {
            match self.take(Arc::new(blob), &answer) {
                Some(blob) => proposed.push(blob),
                None => return Ok(false),
            }
        }
        if !self.close_group() {
            return Ok(false);
        }
        for blob in &mut proposed {
            if matches!(blob.job, Job::Layer(_)) {
                blob.groups_needed = self.groups_formed;
            }
        }
        Ok(proposed
            .into_iter()
            .all(|blob| events.send(Event::Proposed(blob)).is_ok()))
    }

    fn take(&mut self, blob: Arc<Chunked>, answer: &ProposalAnswer) -> Option<Proposed> {
        let mut offset = 0;
        let mut missing = 0;
        let mut present_bytes = 0;
        for (chunk, lacking) in blob.list.chunks.iter().zip(&answer.missing) {
            if *lacking && self.claimed.insert(chunk.id) {
                missing += 1;
                self.open.push(Piece {
                    blob: Arc::clone(&blob),
                    id: chunk.id,
                    offset,
                    length: chunk.raw_length,
                });
                self.open_bytes += u64::from(chunk.raw_length);
                let full = self.open_bytes >= GROUP_RAW_BYTES_TARGET
                    || self.open.len() >= GROUP_PIECES_MAX;
                if full && !self.close_group() {
                    return None;
                }
            } else {
                present_bytes += u64::from(chunk.raw_length);
            }
            offset += u64::from(chunk.raw_length);
        }
        self.stage.progress.advance(present_bytes);
        Some(Proposed {
            job: blob.job,
            handle: answer.handle,
            groups_needed: self.groups_formed + usize::from(!self.open.is_empty()),
            chunks: blob.list.chunks.len() as u64,
            chunks_missing: missing,
        })
    }

    /// Hands the open group on, if there is anything in it.
    fn close_group(&mut self) -> bool {
        if self.open.is_empty() {
            return true;
        }
        let group = Group {
            number: self.groups_formed,
            pieces: std::mem::take(&mut self.open),
        };
        self.groups_formed += 1;
        self.open_bytes = 0;
        self.groups.send(group).is_ok()
    }
}

fn is_layer(blob: &Chunked) -> bool {
    matches!(blob.job, Job::Layer(_))
}

fn proposal(blob: &Chunked) -> Proposal {
    Proposal {
        kind: blob.job.kind(),
        chunks: blob
            .list
            .chunks
            .iter()
            .map(|chunk| (chunk.id.0, chunk.raw_length))
            .collect(),
    }
}
