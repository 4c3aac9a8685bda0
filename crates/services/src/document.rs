//! Documents kept verbatim as an entry's value: manifests, listings, logs.
//!
//! ```text
//! value = place u8 (0 inline, 1 in the entry's first blob), media type length u16 LE,
//!         media type, and if inline the bytes
//! ```
//! Small ones lie in the metadata, where one look-up finds them; large ones are blobs.

use crate::{ServiceError, sessions::SharedSession};
use bytes::Bytes;
use firn_chunks::Format;
use firn_store::{BlobId, BlobReader, Entry, Ingest, Representation, Store};

/// Largest document that lies in the metadata, in bytes.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

const INLINE: u8 = 0;
const IN_BLOB: u8 = 1;

/// A document found.
pub struct Document {
    /// Its media type as it was put, or empty.
    pub media_type: String,
    /// Its size in bytes.
    pub length: u64,
    /// Its bytes.
    pub content: Content,
}

/// Where a document's bytes are.
pub enum Content {
    /// Here.
    Inline(Bytes),
    /// In the store.
    Blob(Box<BlobReader>),
}

impl Document {
    /// All of it in memory; for those that have a limit.
    ///
    /// # Errors
    /// If the stored bytes are damaged.
    pub fn into_bytes(self) -> Result<Bytes, ServiceError> {
        match self.content {
            Content::Inline(bytes) => Ok(bytes),
            Content::Blob(mut reader) => {
                let mut out = Vec::with_capacity(usize::try_from(self.length).unwrap_or(0));
                while let Some(block) = reader.next_block()? {
                    out.extend_from_slice(&block);
                }
                Ok(out.into())
            }
        }
    }
}

fn header(place: u8, media_type: &str, capacity: usize) -> Vec<u8> {
    let length = u16::try_from(media_type.len()).unwrap_or(0);
    let mut value = Vec::with_capacity(3 + media_type.len() + capacity);
    value.push(place);
    value.extend_from_slice(&length.to_le_bytes());
    value.extend_from_slice(&media_type.as_bytes()[..usize::from(length)]);
    value
}

/// The value and blobs of an entry that holds a document.
pub(crate) type Kept = (Bytes, Vec<BlobId>);

/// A document that comes in pieces.
pub(crate) struct Keeping<'a> {
    store: &'a Store,
    session: &'a SharedSession,
    media_type: &'a str,
    /// All of it while it is small.
    small: Vec<u8>,
    large: Option<Ingest>,
    length: u64,
}

impl<'a> Keeping<'a> {
    pub(crate) fn new(store: &'a Store, session: &'a SharedSession, media_type: &'a str) -> Self {
        Self {
            store,
            session,
            media_type,
            small: Vec::new(),
            large: None,
            length: 0,
        }
    }

    /// Bytes that came.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ServiceError> {
        self.length += bytes.len() as u64;
        if let Some(large) = &mut self.large {
            return Ok(large.write(bytes)?);
        }
        self.small.extend_from_slice(bytes);
        if self.small.len() > INLINE_BYTES_MAX {
            let mut large = self.store.ingest(self.session.session(), Format::Opaque);
            large.write(&std::mem::take(&mut self.small))?;
            self.large = Some(large);
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Kept, ServiceError> {
        match self.large {
            Some(large) => {
                let blob = large.finish()?;
                Ok((header(IN_BLOB, self.media_type, 0).into(), vec![blob.id]))
            }
            None => {
                let mut value = header(INLINE, self.media_type, self.small.len());
                value.extend_from_slice(&self.small);
                Ok((value.into(), Vec::new()))
            }
        }
    }
}

/// The value and blobs of an entry that holds `bytes`.
pub(crate) fn keep(
    store: &Store,
    session: &SharedSession,
    media_type: &str,
    bytes: &[u8],
) -> Result<Kept, ServiceError> {
    let mut keeping = Keeping::new(store, session, media_type);
    keeping.write(bytes)?;
    keeping.finish()
}

/// Media type and, if it lies in the value, content of an entry written by [`keep`]; `None` if it is malformed.
pub(crate) fn read_value(value: &[u8]) -> Option<(&str, Option<&[u8]>)> {
    let (place, rest) = value.split_first()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (media_type, content) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let media_type = std::str::from_utf8(media_type).ok()?;
    match *place {
        INLINE => Some((media_type, Some(content))),
        IN_BLOB => Some((media_type, None)),
        _ => None,
    }
}

/// The media type and the bytes of a document that lies in its entry's value.
pub(crate) fn inline(value: &[u8]) -> Option<(&str, &[u8])> {
    let [INLINE, low, high, rest @ ..] = value else {
        return None;
    };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let media_type = std::str::from_utf8(rest.get(..length)?).ok()?;
    Some((media_type, &rest[length..]))
}

/// The document of an entry written by [`keep`].
pub(crate) fn open(store: &Store, entry: &Entry) -> Result<Document, ServiceError> {
    let damaged = || ServiceError::StoredEntry(format!("{:?} {}", entry.kind, entry.key));
    let value = &entry.value;
    let (Some(place), Some(length)) = (value.first(), value.get(1..3)) else {
        return Err(damaged());
    };
    let start = 3 + usize::from(u16::from_le_bytes([length[0], length[1]]));
    let media_type = value
        .get(3..start)
        .and_then(|text| std::str::from_utf8(text).ok())
        .ok_or_else(damaged)?
        .to_owned();
    if *place == INLINE {
        return Ok(Document {
            media_type,
            length: (value.len() - start) as u64,
            content: Content::Inline(value.slice(start..)),
        });
    }
    let blob = *entry.blobs.first().ok_or_else(damaged)?;
    let reader = store.read(blob, Representation::Identity, None)?;
    Ok(Document {
        media_type,
        length: reader.remaining(),
        content: Content::Blob(Box::new(reader)),
    })
}
