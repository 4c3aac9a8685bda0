//! Segments: the index of what was written in some time. A store's content is the union of its segments.
//!
//! ```text
//! "FIRNSEGM", version u16 = 1, flags u16, zero u32, at i64, writer text
//! sections: raw length u32, frame length u32, one zstd frame
//! checksum [32]: BLAKE3 of all before
//!
//! section  records, whole: type u16, length u32, payload
//! text     length u32, UTF-8            bytes  length u32, bytes
//!
//! 1 cache  name text, domain text, config bytes, at i64, deleted u8
//! 2 pack   domain text, pack text, sealed length u64, count u32, count × entry [64] of a pack
//! 3 blob   domain text, flags u16, identity SHA-256 [32], zstd SHA-256 [32], zstd length u64,
//!          chunk list bytes
//! 4 entry  cache text, kind u16, key text, value bytes, count u32, count × list id [32],
//!          sequence u64, at i64, deleted u8
//!
//! 0x8001 covers     dropped u8, count u32, count × text
//! 0x8002 signature  key name text, ed25519 signature [64]
//! ```
//! Integers are little-endian; times are seconds since 1970. A record whose type has the
//! highest bit set may be skipped by a reader that does not know it.
//!
//! A signature stands alone in the last section, and is over the text
//! `firn-segment-1;<BLAKE3, in hexadecimal, of all bytes before that section>`.

mod codec;

use crate::{ChunkList, pack::Placed};
use codec::{Item, Reader};
use firn_formats::nix::{PublicKey, SecretKey, Signature};
use zstd::zstd_safe::{self, CCtx, DCtx};

const MAGIC: &[u8; 8] = b"FIRNSEGM";
const VERSION: u16 = 1;
/// Flags this version understands. Reserved: bit 0, the sections are encrypted.
const FLAGS_KNOWN: u16 = 0;
/// Segments are small beside packs and read as a whole: a middling level pays.
const ZSTD_LEVEL: i32 = 6;
/// A section ends with the record that reaches this size, in raw bytes.
const SECTION_BYTES_TARGET: usize = 4 << 20;
/// Largest section that is read, in raw bytes: bounds one record (a blob of 400 GB, say).
const SECTION_BYTES_MAX: usize = 256 << 20;
/// Most raw bytes of all sections that are read.
const SEGMENT_BYTES_MAX: usize = 2 << 30;

/// Why bytes are not a segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed segment: {0}")]
pub struct SegmentError(pub String);

impl SegmentError {
    fn new(what: &str) -> Self {
        Self(what.to_owned())
    }
}

/// A record of a segment. Texts are UTF-8. Unknown record types are an error unless flagged skippable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Record {
    /// A cache as it is now; `config` is opaque here. Newest wins.
    Cache {
        name: String,
        domain: String,
        config: Vec<u8>,
        at: i64,
        deleted: bool,
    },
    /// A pack and its frames. `sealed_length` 0 for one still open.
    Pack {
        domain: String,
        pack: String,
        sealed_length: u64,
        frames: Vec<Placed>,
    },
    /// A blob.
    Blob(BlobRecord),
    /// An entry; blobs by list id. `deleted` is a tombstone. Newest `sequence` wins.
    Entry {
        cache: String,
        kind: u16,
        key: String,
        value: Vec<u8>,
        blobs: Vec<[u8; 32]>,
        sequence: u64,
        at: i64,
        deleted: bool,
    },
}

/// What is known of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BlobRecord {
    pub domain: String,
    pub flags: u16,
    pub list: ChunkList,
    pub identity_sha256: [u8; 32],
    pub zstd_sha256: [u8; 32],
    pub zstd_length: u64,
}

/// Names of the segments that a segment replaces in a store without a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Covers {
    /// Their names, as the store's place gives them.
    pub segments: Vec<String>,
    /// Something they told was left out: who took them in has to forget it.
    pub dropped: bool,
}

/// A signature of a segment, over its bytes before the section that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    signature: Signature,
    fingerprint: String,
}

impl Signed {
    /// The name of the key; anybody may claim any.
    pub fn key_name(&self) -> &str {
        &self.signature.key_name
    }

    /// Whether the key made it.
    pub fn by(&self, key: &PublicKey) -> bool {
        key.verify(&self.fingerprint, &self.signature)
    }
}

/// What a segment says of itself, beside its records.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Preamble<'a> {
    pub writer: &'a str,
    /// Seconds since 1970.
    pub at: i64,
    pub covers: &'a [Covers],
    /// Signs it.
    pub key: Option<&'a SecretKey>,
}

/// Writes a whole segment: header with version, flags, writer and time; zstd-compressed records; checksum.
/// What takes more than 2 GiB uncompressed is not read back: write several (100,000 frames are 6.4 MB).
pub fn encode(writer: &str, at: i64, records: &[Record]) -> Vec<u8> {
    let preamble = Preamble {
        writer,
        at,
        covers: &[],
        key: None,
    };
    encode_with(&preamble, records)
}

/// As [`encode`], for a store without a server.
pub fn encode_with(preamble: &Preamble<'_>, records: &[Record]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&0u16.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&preamble.at.to_le_bytes());
    codec::put_bytes(&mut out, preamble.writer.as_bytes());
    let mut context = CCtx::create();
    let (mut section, mut frame) = (Vec::new(), Vec::new());
    for covers in preamble.covers {
        codec::put_covers(&mut section, covers);
    }
    for record in records {
        codec::put_record(&mut section, record);
        if section.len() >= SECTION_BYTES_TARGET {
            put_section(&mut context, &mut frame, &section, &mut out);
            section.clear();
        }
    }
    if !section.is_empty() {
        put_section(&mut context, &mut frame, &section, &mut out);
    }
    if let Some(key) = preamble.key {
        section.clear();
        codec::put_signature(&mut section, &key.sign(&fingerprint(&out)));
        put_section(&mut context, &mut frame, &section, &mut out);
    }
    let checksum = blake3::hash(&out);
    out.extend_from_slice(checksum.as_bytes());
    out
}

/// What is signed. The prefix keeps it apart from whatever else the key may sign.
fn fingerprint(before: &[u8]) -> String {
    format!("firn-segment-1;{}", blake3::hash(before).to_hex())
}

fn put_section(context: &mut CCtx<'_>, frame: &mut Vec<u8>, section: &[u8], out: &mut Vec<u8>) {
    frame.clear();
    frame.reserve(zstd_safe::compress_bound(section.len()));
    if context.compress(frame, section, ZSTD_LEVEL).is_err() {
        // Out of memory: as with chunks, raw blocks need none.
        crate::frame::store_raw(section, frame);
    }
    out.extend_from_slice(&(section.len() as u32).to_le_bytes());
    out.extend_from_slice(&(frame.len() as u32).to_le_bytes());
    out.extend_from_slice(frame);
}

/// A segment read back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Segment {
    pub writer: String,
    pub at: i64,
    pub records: Vec<Record>,
    pub covers: Vec<Covers>,
    /// Not verified: [`Signed::by`] does that.
    pub signed: Option<Signed>,
}

/// The version of a segment that a later program wrote: one that is whole, and that [`decode`] does not know.
pub fn later_version(bytes: &[u8]) -> Option<u16> {
    let (covered, checksum) = bytes.split_last_chunk::<32>()?;
    let (version, _) = covered.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
    let version = u16::from_le_bytes(*version);
    let whole = blake3::hash(covered) == blake3::Hash::from_bytes(*checksum);
    (version > VERSION && whole).then_some(version)
}

/// Reads a segment.
///
/// # Errors
/// If its checksum is wrong, its version or flags or a record that may not be skipped is not
/// known, or its sections do not hold what they say.
pub fn decode(bytes: &[u8]) -> Result<Segment, SegmentError> {
    let (covered, checksum) = bytes
        .split_last_chunk::<32>()
        .ok_or_else(|| SegmentError::new("too short"))?;
    let mut reader = Reader::new(covered);
    if reader.array()? != *MAGIC {
        return Err(SegmentError::new("no magic"));
    }
    let version = u16::from_le_bytes(reader.array()?);
    if version != VERSION {
        return Err(SegmentError(format!("version {version} is not known")));
    }
    if blake3::hash(covered) != blake3::Hash::from_bytes(*checksum) {
        return Err(SegmentError::new("it does not have its checksum"));
    }
    if u16::from_le_bytes(reader.array()?) & !FLAGS_KNOWN != 0 || reader.u32()? != 0 {
        return Err(SegmentError::new("it has flags that are not known"));
    }
    let mut segment = Segment {
        at: reader.i64()?,
        writer: reader.text()?,
        records: Vec::new(),
        covers: Vec::new(),
        signed: None,
    };
    read_sections(covered, &mut reader, &mut segment)?;
    Ok(segment)
}

fn read_sections(
    covered: &[u8],
    reader: &mut Reader<'_>,
    segment: &mut Segment,
) -> Result<(), SegmentError> {
    let mut context = DCtx::create();
    let mut section = Vec::new();
    let mut budget = SEGMENT_BYTES_MAX;
    while !reader.at_end() {
        if segment.signed.is_some() {
            return Err(SegmentError::new("something follows its signature"));
        }
        let before = covered.len() - reader.remaining();
        let raw_length = reader.u32()? as usize;
        let frame = reader.bytes()?;
        if raw_length > SECTION_BYTES_MAX || raw_length > budget {
            return Err(SegmentError::new("a section is too large"));
        }
        budget -= raw_length;
        let declared = zstd_safe::get_frame_content_size(frame).ok().flatten();
        if declared != Some(raw_length as u64) {
            return Err(SegmentError::new("a section is not as long as it says"));
        }
        section.clear();
        section.reserve(raw_length);
        if context.decompress(&mut section, frame) != Ok(raw_length) {
            return Err(SegmentError::new("a section does not decompress"));
        }
        read_section(&section, covered.get(..before).unwrap_or_default(), segment)?;
    }
    Ok(())
}

/// `before` is all that stands before the section in the segment.
fn read_section(section: &[u8], before: &[u8], segment: &mut Segment) -> Result<(), SegmentError> {
    let mut reader = Reader::new(section);
    let mut items = 0usize;
    while !reader.at_end() {
        match reader.item()? {
            Item::Record(record) => segment.records.push(record),
            Item::Covers(covers) => segment.covers.push(covers),
            Item::Signature(signature) => {
                if items > 0 || !reader.at_end() {
                    return Err(SegmentError::new("its signature does not stand alone"));
                }
                segment.signed = Some(Signed {
                    signature,
                    fingerprint: fingerprint(before),
                });
            }
            Item::Unknown => {}
        }
        items += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
