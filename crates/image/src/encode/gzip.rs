//! Deterministic gzip (RFC 1952): mtime 0, OS 255 (unknown), no name, level 6.

use super::Digested;
use crate::archive::{Archive, ArchiveError};
use firn_formats::sha256::Sha256Hasher;
use flate2::{Compression, GzBuilder};
use std::io::Write;

const LEVEL: u32 = 6;
const OS_UNKNOWN: u8 = 255;

pub(super) fn encode(
    archive: &Archive,
    tar: &mut Sha256Hasher,
    out: &mut Digested<'_, '_>,
) -> Result<(), ArchiveError> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .operating_system(OS_UNKNOWN)
        .write(out, Compression::new(LEVEL));
    archive.stream(&mut |bytes| {
        tar.update(bytes);
        encoder.write_all(bytes)
    })?;
    encoder.finish().map_err(ArchiveError::Sink)?;
    Ok(())
}
