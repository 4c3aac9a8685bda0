//! NARs in the formats their pushers chose: the identity bytes, put into the format without
//! compressing (bzip2 has no stored blocks, so it alone is compressed).

use crate::ServiceError;
use bytes::Bytes;
use firn_formats::nix::Compression;
use firn_formats::nix::rewrap::{self, Encoder, Format};
use firn_store::BlobReader;
use std::io::Write as _;

enum Wrapper {
    Stored(Encoder),
    Bzip2(bzip2::write::BzEncoder<Vec<u8>>),
}

/// A NAR made into another format as it is read. Fails rather than end early.
pub struct WrappedNar {
    reader: BlobReader,
    /// Absent once the end was made.
    wrapper: Option<Wrapper>,
}

fn stored_format(compression: Compression) -> Option<Format> {
    match compression {
        Compression::Xz => Some(Format::Xz),
        Compression::Gzip => Some(Format::Gzip),
        Compression::Brotli => Some(Format::Brotli),
        _ => None,
    }
}

/// The length of the wrapped form, where it can be known beforehand.
pub(super) fn wrapped_length(compression: Compression, identity_length: u64) -> Option<u64> {
    stored_format(compression).map(|format| rewrap::wrapped_length(format, identity_length))
}

impl WrappedNar {
    pub(super) fn new(reader: BlobReader, compression: Compression) -> Result<Self, ServiceError> {
        let wrapper = match (stored_format(compression), compression) {
            (Some(format), _) => Wrapper::Stored(Encoder::new(format, reader.remaining())),
            (None, Compression::Bzip2) => Wrapper::Bzip2(bzip2::write::BzEncoder::new(
                Vec::new(),
                bzip2::Compression::fast(),
            )),
            _ => {
                return Err(ServiceError::NotFound(format!(
                    "NARs are not served as {}",
                    compression.name()
                )));
            }
        };
        Ok(Self {
            reader,
            wrapper: Some(wrapper),
        })
    }

    /// The next block; `None` at the end.
    ///
    /// # Errors
    /// If stored bytes are damaged or cannot be read.
    pub fn next_block(&mut self) -> Result<Option<Bytes>, ServiceError> {
        let damaged = |what: String| ServiceError::StoredEntry(format!("a NAR: {what}"));
        loop {
            let Some(wrapper) = &mut self.wrapper else {
                return Ok(None);
            };
            let Some(block) = self.reader.next_block()? else {
                let mut out = Vec::new();
                match self.wrapper.take() {
                    Some(Wrapper::Stored(encoder)) => encoder
                        .finish(&mut out)
                        .map_err(|error| damaged(error.to_string()))?,
                    Some(Wrapper::Bzip2(encoder)) => {
                        out = encoder
                            .finish()
                            .map_err(|error| damaged(error.to_string()))?;
                    }
                    None => {}
                }
                return Ok((!out.is_empty()).then(|| out.into()));
            };
            let out = match wrapper {
                Wrapper::Stored(encoder) => {
                    let mut out = Vec::with_capacity(block.len() + 64);
                    encoder
                        .push(&block, &mut out)
                        .map_err(|error| damaged(error.to_string()))?;
                    out
                }
                Wrapper::Bzip2(encoder) => {
                    encoder
                        .write_all(&block)
                        .map_err(|error| damaged(error.to_string()))?;
                    std::mem::take(encoder.get_mut())
                }
            };
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
    }
}
