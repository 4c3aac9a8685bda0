//! Cuts one region after another: a file's content, or what lies between files.
//!
//! A region's chunks follow from its bytes alone:
//! 1. Where references are looked for, hashes less than `reference_distance_bytes` apart (from
//!    the end of one to the start of the next) form a run; a hash without such neighbours is a
//!    run of its own. Each run, from its first hash's start to its last hash's end, is a
//!    stretch, and so is what lies between runs.
//! 2. Each stretch is cut by FastCDC on its own.
//!
//! So a renamed dependency changes the runs that name it and nothing around them.

use crate::boundaries::{Params, content_cut};
use crate::references::{HASH_BYTES, References};

/// Cuts a region's bytes, which come in any pieces. Copies only what lies in chunks that span
/// pieces, and the end of each piece until the cut there is certain.
#[derive(Debug)]
pub(crate) struct RegionCutter {
    params: Params,
    /// Whether references are cut out in this region.
    cut_references: bool,
    references: References,
    /// End of the run that the next chunk lies in, as far as it is known; 0 outside of runs.
    run_end: u64,
    /// Where the next chunk begins in the region.
    position: u64,
    /// Bytes from the next chunk on that earlier pieces left, from `held_start`.
    held: Vec<u8>,
    held_start: usize,
}

impl RegionCutter {
    pub(crate) fn new(params: Params) -> Self {
        Self {
            params,
            cut_references: false,
            references: References::default(),
            run_end: 0,
            position: 0,
            held: Vec::new(),
            held_start: 0,
        }
    }

    /// Begins a region; the one before must have been ended.
    pub(crate) fn begin(&mut self, cut_references: bool) {
        debug_assert!(self.held.is_empty(), "the last region was ended");
        self.cut_references = cut_references && self.params.reference_distance_bytes > 0;
        self.references.reset();
        self.run_end = 0;
        self.position = 0;
    }

    /// Bytes that lie in no chunk yet.
    pub(crate) fn held(&self) -> &[u8] {
        &self.held[self.held_start..]
    }

    /// With this many bytes after a chunk's start its end is certain: the longest chunk, then
    /// a gap in a run and one more hash.
    fn lookahead(&self) -> usize {
        let beyond = match self.cut_references {
            true => self.params.reference_distance_bytes + HASH_BYTES,
            false => 0,
        };
        self.params.chunk_bytes_max + beyond
    }

    /// Takes the next bytes; with `last`, the region ends with them.
    pub(crate) fn push(&mut self, bytes: &[u8], last: bool, sink: &mut dyn FnMut(&[u8])) {
        let bytes = match self.held.is_empty() {
            true => bytes,
            false => self.finish_held(bytes, last, sink),
        };
        let rest = self.cut_all(bytes, usize::MAX, last, sink);
        self.held.extend_from_slice(rest);
    }

    /// Cuts what is held, taking from `bytes` as much as that needs; returns those after the
    /// last chunk that begins in the held bytes. Empty if all went into what is held.
    fn finish_held<'a>(
        &mut self,
        bytes: &'a [u8],
        last: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> &'a [u8] {
        let taken = bytes.len().min(self.lookahead());
        let held_length = self.held.len();
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(&bytes[..taken]);
        let window = &held[self.held_start..];
        let last_here = last && taken == bytes.len();
        let rest = self.cut_all(window, held_length - self.held_start, last_here, sink);
        let cut_to = held.len() - rest.len();
        if cut_to >= held_length {
            held.clear();
            (self.held, self.held_start) = (held, 0);
            return &bytes[cut_to - held_length..];
        }
        self.held_start = cut_to;
        if self.held_start > held.len() / 2 {
            held.drain(..self.held_start);
            self.held_start = 0;
        }
        self.held = held;
        &[]
    }

    /// Cuts chunks that begin before `limit` off the front, as long as their ends are certain.
    fn cut_all<'a>(
        &mut self,
        bytes: &'a [u8],
        limit: usize,
        last: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> &'a [u8] {
        let lookahead = self.lookahead();
        let mut rest = bytes;
        while !rest.is_empty()
            && bytes.len() - rest.len() < limit
            && (last || rest.len() >= lookahead)
        {
            let window = &rest[..rest.len().min(lookahead)];
            let (chunk, after) = rest.split_at(self.cut(window));
            sink(chunk);
            self.position += chunk.len() as u64;
            rest = after;
        }
        rest
    }

    /// Length of the chunk at the current position, whose lookahead is `window`.
    fn cut(&mut self, window: &[u8]) -> usize {
        if !self.cut_references {
            return content_cut(&self.params, window);
        }
        self.references.scan(self.position, window);
        let longest = window.len().min(self.params.chunk_bytes_max);
        let farthest = self.position + longest as u64;
        let end = self.stretch_end(farthest).min(farthest);
        content_cut(&self.params, &window[..(end - self.position) as usize])
    }

    /// Where the stretch at the current position ends, if that is not after `farthest`.
    fn stretch_end(&mut self, farthest: u64) -> u64 {
        if self.run_end <= self.position {
            match self.references.next(self.position) {
                Some(hash) if hash == self.position => self.run_end = hash + HASH_BYTES as u64,
                Some(hash) => return hash,
                None => return farthest,
            }
        }
        let distance = self.params.reference_distance_bytes as u64;
        while self.run_end <= farthest
            && let Some(hash) = self.references.next(self.run_end)
            && hash - self.run_end < distance
        {
            self.run_end = hash + HASH_BYTES as u64;
        }
        self.run_end
    }
}
