//! Finds store hashes in file contents, as the bytes come in.

use memchr::memmem;
use std::collections::VecDeque;
use std::sync::LazyLock;

/// What stands before a store hash.
const PREFIX: &[u8] = b"/nix/store/";
/// Characters of a store hash.
pub(crate) const HASH_BYTES: usize = 32;
/// Prefix and hash together.
const REFERENCE_BYTES: usize = PREFIX.len() + HASH_BYTES;

static FINDER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(PREFIX));

/// The hashes found in a region and not yet passed. Positions count from the region's start.
#[derive(Debug, Default)]
pub(crate) struct References {
    /// Where hashes begin, ascending.
    found: VecDeque<u64>,
    /// A reference that begins before this was found or is none.
    scanned: u64,
}

impl References {
    /// Forgets all, for a new region.
    pub(crate) fn reset(&mut self) {
        self.found.clear();
        self.scanned = 0;
    }

    /// Looks through `bytes`, which begin at `base` of the region, as far as they were not
    /// looked through before.
    pub(crate) fn scan(&mut self, base: u64, bytes: &[u8]) {
        let end = base + bytes.len() as u64;
        let mut from = (self.scanned.max(base) - base) as usize;
        while let Some(window) = bytes.get(from..) {
            let Some(at) = FINDER.find(window).map(|at| from + at) else {
                break;
            };
            let Some(reference) = bytes.get(at..at + REFERENCE_BYTES) else {
                break;
            };
            let hash = &reference[PREFIX.len()..];
            if hash.iter().all(|byte| is_nix_base32(*byte)) {
                self.found.push_back(base + (at + PREFIX.len()) as u64);
                from = at + REFERENCE_BYTES;
            } else {
                from = at + PREFIX.len();
            }
        }
        // What begins later may be cut off by the end of the bytes.
        let whole = (end + 1).saturating_sub(REFERENCE_BYTES as u64);
        self.scanned = self.scanned.max(whole).max(base + from as u64);
    }

    /// The first hash at or after `position`; forgets those before.
    pub(crate) fn next(&mut self, position: u64) -> Option<u64> {
        while self.found.front().is_some_and(|at| *at < position) {
            self.found.pop_front();
        }
        self.found.front().copied()
    }
}

/// Nix's base 32 has no `e`, `o`, `t`, `u`.
fn is_nix_base32(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'd' | b'f'..=b'n' | b'p'..=b's' | b'v'..=b'z')
}
