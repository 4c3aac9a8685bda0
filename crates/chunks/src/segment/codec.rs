//! Records to bytes and back.

use super::{BlobRecord, Covers, Record, SegmentError};
use crate::{
    ChunkList,
    pack::{ENTRY_BYTES, Placed},
};
use firn_formats::nix::{Signature, signature::is_valid_key_name};

/// Set in a record's type where readers that do not know it may go on.
pub(super) const SKIPPABLE: u16 = 1 << 15;

const CACHE: u16 = 1;
const PACK: u16 = 2;
const BLOB: u16 = 3;
const ENTRY: u16 = 4;
const COVERS: u16 = SKIPPABLE | 1;
const SIGNATURE: u16 = SKIPPABLE | 2;

/// What a section holds one after the other.
pub(super) enum Item {
    Record(Record),
    Covers(Covers),
    Signature(Signature),
    /// Of a type that is not known and may be skipped.
    Unknown,
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a record, with its type and length.
pub(super) fn put_record(out: &mut Vec<u8>, record: &Record) {
    let start = out.len();
    out.extend_from_slice(&[0; 6]);
    let kind = match record {
        Record::Cache {
            name,
            domain,
            config,
            at,
            deleted,
        } => {
            put_bytes(out, name.as_bytes());
            put_bytes(out, domain.as_bytes());
            put_bytes(out, config);
            out.extend_from_slice(&at.to_le_bytes());
            out.push(u8::from(*deleted));
            CACHE
        }
        Record::Pack {
            domain,
            pack,
            sealed_length,
            frames,
        } => {
            put_bytes(out, domain.as_bytes());
            put_bytes(out, pack.as_bytes());
            out.extend_from_slice(&sealed_length.to_le_bytes());
            out.extend_from_slice(&(frames.len() as u32).to_le_bytes());
            frames.iter().for_each(|frame| frame.encode(out));
            PACK
        }
        Record::Blob(blob) => {
            put_blob(out, blob);
            BLOB
        }
        Record::Entry {
            cache,
            kind,
            key,
            value,
            blobs,
            sequence,
            at,
            deleted,
        } => {
            put_bytes(out, cache.as_bytes());
            out.extend_from_slice(&kind.to_le_bytes());
            put_bytes(out, key.as_bytes());
            put_bytes(out, value);
            out.extend_from_slice(&(blobs.len() as u32).to_le_bytes());
            blobs.iter().for_each(|blob| out.extend_from_slice(blob));
            out.extend_from_slice(&sequence.to_le_bytes());
            out.extend_from_slice(&at.to_le_bytes());
            out.push(u8::from(*deleted));
            ENTRY
        }
    };
    close(out, start, kind);
}

/// Fills in the type and length of the record that begins at `start`.
fn close(out: &mut [u8], start: usize, kind: u16) {
    let length = (out.len() - start - 6) as u32;
    out[start..start + 2].copy_from_slice(&kind.to_le_bytes());
    out[start + 2..start + 6].copy_from_slice(&length.to_le_bytes());
}

pub(super) fn put_covers(out: &mut Vec<u8>, covers: &Covers) {
    let start = out.len();
    out.extend_from_slice(&[0; 6]);
    out.push(u8::from(covers.dropped));
    out.extend_from_slice(&(covers.segments.len() as u32).to_le_bytes());
    for segment in &covers.segments {
        put_bytes(out, segment.as_bytes());
    }
    close(out, start, COVERS);
}

pub(super) fn put_signature(out: &mut Vec<u8>, signature: &Signature) {
    let start = out.len();
    out.extend_from_slice(&[0; 6]);
    put_bytes(out, signature.key_name.as_bytes());
    out.extend_from_slice(&signature.bytes);
    close(out, start, SIGNATURE);
}

fn put_blob(out: &mut Vec<u8>, blob: &BlobRecord) {
    put_bytes(out, blob.domain.as_bytes());
    out.extend_from_slice(&blob.flags.to_le_bytes());
    out.extend_from_slice(&blob.identity_sha256);
    out.extend_from_slice(&blob.zstd_sha256);
    out.extend_from_slice(&blob.zstd_length.to_le_bytes());
    put_bytes(out, &blob.list.encode());
}

/// Takes fields off the front of foreign bytes.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that are left.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], SegmentError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| SegmentError::new("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], SegmentError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u16(&mut self) -> Result<u16, SegmentError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, SegmentError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, SegmentError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, SegmentError> {
        self.array().map(i64::from_le_bytes)
    }

    fn bool(&mut self) -> Result<bool, SegmentError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(SegmentError::new("a truth value is neither 0 nor 1")),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], SegmentError> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    pub(super) fn text(&mut self) -> Result<String, SegmentError> {
        match std::str::from_utf8(self.bytes()?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(SegmentError::new("a text is not UTF-8")),
        }
    }

    /// `count u32` arrays of `N` bytes.
    fn arrays<const N: usize>(&mut self) -> Result<&'a [[u8; N]], SegmentError> {
        let count = self.u32()? as usize;
        let length = count
            .checked_mul(N)
            .ok_or_else(|| SegmentError::new("a count is too large"))?;
        Ok(self.take(length)?.as_chunks().0)
    }

    /// The next record.
    pub(super) fn item(&mut self) -> Result<Item, SegmentError> {
        let kind = self.u16()?;
        let mut payload = Reader::new(self.bytes()?);
        let item = match kind {
            CACHE => Item::Record(payload.cache()?),
            PACK => Item::Record(payload.pack()?),
            BLOB => Item::Record(payload.blob()?),
            ENTRY => Item::Record(payload.entry()?),
            COVERS => Item::Covers(payload.covers()?),
            SIGNATURE => Item::Signature(payload.signature()?),
            _ if kind & SKIPPABLE != 0 => return Ok(Item::Unknown),
            _ => return Err(SegmentError(format!("record type {kind} is not known"))),
        };
        match payload.at_end() {
            true => Ok(item),
            false => Err(SegmentError::new("a record is longer than its fields")),
        }
    }

    fn cache(&mut self) -> Result<Record, SegmentError> {
        Ok(Record::Cache {
            name: self.text()?,
            domain: self.text()?,
            config: self.bytes()?.to_vec(),
            at: self.i64()?,
            deleted: self.bool()?,
        })
    }

    fn pack(&mut self) -> Result<Record, SegmentError> {
        let (domain, pack) = (self.text()?, self.text()?);
        let sealed_length = self.u64()?;
        let frames = self
            .arrays::<ENTRY_BYTES>()?
            .iter()
            .map(Placed::decode)
            .collect::<Result<_, _>>()
            .map_err(|error| SegmentError(error.to_string()))?;
        Ok(Record::Pack {
            domain,
            pack,
            sealed_length,
            frames,
        })
    }

    fn blob(&mut self) -> Result<Record, SegmentError> {
        Ok(Record::Blob(BlobRecord {
            domain: self.text()?,
            flags: self.u16()?,
            identity_sha256: self.array()?,
            zstd_sha256: self.array()?,
            zstd_length: self.u64()?,
            list: ChunkList::decode(self.bytes()?)
                .map_err(|error| SegmentError(error.to_string()))?,
        }))
    }

    fn entry(&mut self) -> Result<Record, SegmentError> {
        Ok(Record::Entry {
            cache: self.text()?,
            kind: self.u16()?,
            key: self.text()?,
            value: self.bytes()?.to_vec(),
            blobs: self.arrays::<32>()?.to_vec(),
            sequence: self.u64()?,
            at: self.i64()?,
            deleted: self.bool()?,
        })
    }

    fn covers(&mut self) -> Result<Covers, SegmentError> {
        let dropped = self.bool()?;
        let count = self.u32()?;
        let segments = (0..count).map(|_| self.text()).collect::<Result<_, _>>()?;
        Ok(Covers { segments, dropped })
    }

    fn signature(&mut self) -> Result<Signature, SegmentError> {
        let key_name = self.text()?;
        if !is_valid_key_name(&key_name) {
            return Err(SegmentError::new("a key's name is not one"));
        }
        Ok(Signature {
            key_name,
            bytes: self.array()?,
        })
    }
}
