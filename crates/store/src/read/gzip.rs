//! The deterministic gzip: the same bytes for the same input, wherever and whenever it is made.

use crate::StoreError;
use bytes::Bytes;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use std::io::Write as _;

/// Part of the format: digests of gzip layers depend on it.
const LEVEL: u32 = 6;
/// "Unknown" operating system, so that the header says nothing of where it was made.
const OPERATING_SYSTEM: u8 = 255;

/// Compresses in bounded memory.
pub(crate) struct GzipMaker {
    encoder: GzEncoder<Vec<u8>>,
}

impl GzipMaker {
    pub(crate) fn new() -> Self {
        let encoder = GzBuilder::new()
            .mtime(0)
            .operating_system(OPERATING_SYSTEM)
            .write(Vec::new(), Compression::new(LEVEL));
        Self { encoder }
    }

    /// Takes bytes in; gives what came out so far.
    pub(crate) fn push(&mut self, raw: &[u8]) -> Result<Bytes, StoreError> {
        self.encoder.write_all(raw).map_err(fault)?;
        Ok(std::mem::take(self.encoder.get_mut()).into())
    }

    /// The last bytes.
    pub(crate) fn finish(self) -> Result<Bytes, StoreError> {
        self.encoder.finish().map(Bytes::from).map_err(fault)
    }
}

fn fault(error: std::io::Error) -> StoreError {
    StoreError::io("gzip", error)
}
