//! One zstd context a thread, for whoever runs there.

use crate::StoreError;
use firn_chunks::boundaries::V1;
use firn_chunks::{Decoder, Encoder};
use std::cell::RefCell;

thread_local! {
    static DECODER: RefCell<(Decoder, Vec<u8>)> = RefCell::new((Decoder::new(), Vec::new()));
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new(V1.zstd_level));
}

/// Decodes one stored frame and gives its `raw_length` bytes to `take`.
pub(crate) fn decode<T>(
    frame: &[u8],
    raw_length: u32,
    take: impl FnOnce(&[u8]) -> T,
) -> Result<T, StoreError> {
    DECODER.with_borrow_mut(|(decoder, raw)| {
        decoder
            .decode(frame, raw)
            .map_err(|error| StoreError::Damaged(error.to_string()))?;
        if raw.len() != raw_length as usize {
            return Err(StoreError::Damaged(format!(
                "a frame of {} bytes was recorded as {raw_length}",
                raw.len()
            )));
        }
        Ok(take(raw))
    })
}

/// Decodes one stored frame, of whatever length, and gives its bytes to `take`.
pub(crate) fn decode_any<T>(frame: &[u8], take: impl FnOnce(&[u8]) -> T) -> Result<T, StoreError> {
    DECODER.with_borrow_mut(|(decoder, raw)| {
        decoder
            .decode(frame, raw)
            .map_err(|error| StoreError::Damaged(error.to_string()))?;
        Ok(take(raw))
    })
}

/// Runs with this thread's encoder.
pub(crate) fn with_encoder<T>(run: impl FnOnce(&mut Encoder) -> T) -> T {
    ENCODER.with_borrow_mut(run)
}
