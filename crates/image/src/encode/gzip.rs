//! The gzip representation, as everyone who speaks Firn makes it.

use super::Digested;
use crate::archive::{Archive, ArchiveError};
use firn_chunks::GzipEncoder;
use firn_formats::sha256::Sha256Hasher;
use std::io::Write;

pub(super) fn encode(
    archive: &Archive,
    tar: &mut Sha256Hasher,
    out: &mut Digested<'_, '_>,
) -> Result<(), ArchiveError> {
    let mut encoder = GzipEncoder::new(out);
    archive.stream(&mut |bytes| {
        tar.update(bytes);
        encoder.write_all(bytes)
    })?;
    encoder.finish().map_err(ArchiveError::Sink)?;
    Ok(())
}
