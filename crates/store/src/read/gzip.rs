//! The gzip representation, as bytes come and go.

use crate::StoreError;
use bytes::Bytes;
use firn_chunks::gzip::GzipEncoder;
use std::io::Write as _;

/// Compresses in bounded memory, to the same bytes for the same input.
pub(crate) struct GzipMaker {
    encoder: GzipEncoder<Vec<u8>>,
}

impl GzipMaker {
    pub(crate) fn new() -> Self {
        Self {
            encoder: GzipEncoder::new(Vec::new()),
        }
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
