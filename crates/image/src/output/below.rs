//! The layers of a base image, copied as they are.

use super::OutputError;
use crate::{
    base::{BaseError, BaseLayer},
    compose::PlannedImage,
};
use std::io::{Read, Write};

const BLOCK_BYTES: usize = 1 << 20;

/// Copies a layer's blob. What does not have the layer's size and digest is an error, told when it was copied.
pub(super) fn copy(
    image: &PlannedImage,
    layer: &BaseLayer,
    out: &mut dyn Write,
) -> Result<(), OutputError> {
    let digest = &layer.descriptor.digest;
    let unreadable = |source| {
        OutputError::Base(BaseError::Layer {
            digest: digest.clone(),
            source,
        })
    };
    let Some(base) = &image.spec.base else {
        return Err(OutputError::Missing(digest.to_string()));
    };
    let blob = base.source.open_blob(digest).map_err(unreadable)?;
    let size = layer.descriptor.size;
    let mut blob = blob.take(size.saturating_add(1));
    let mut hasher = digest.hasher();
    let mut block = vec![0; BLOCK_BYTES];
    let mut copied = 0;
    loop {
        let count = blob.read(&mut block).map_err(unreadable)?;
        copied += count as u64;
        if count == 0 || copied > size {
            break;
        }
        hasher.update(&block[..count]);
        out.write_all(&block[..count]).map_err(OutputError::Write)?;
    }
    match copied == size && hasher.finish() == *digest {
        true => Ok(()),
        false => Err(OutputError::WrongDigest(digest.clone())),
    }
}
