//! The push protocol of Firn's own client: the messages, JSON and binary.
//!
//! `docs/push-protocol.md` explains the exchange. All integers are little-endian.
//!
//! ```text
//! POST /api/v1/push/begin?cache=NAME            Begin -> Begun              (JSON)
//! POST /api/v1/push/SESSION/blobs               proposals -> answers        (binary)
//! POST /api/v1/push/SESSION/parts               one proposal -> PartTaken     (binary -> JSON)
//! POST /api/v1/push/SESSION/blobs?parts=N,…     the first proposal continues these parts
//! POST /api/v1/push/SESSION/frames              frames -> FramesAccepted    (binary -> JSON)
//! POST /api/v1/push/SESSION/publish             Publish -> Published        (JSON)
//! POST /api/v1/push/SESSION/heartbeat           204
//! DELETE /api/v1/push/SESSION                   204
//! GET  /api/v1/chunks/HASH?cache=NAME           chunk list of a store path's NAR (proposal form)
//! ```

use crate::layer::Recipe;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest body of a frames request, in bytes; proxies cap bodies, and a retry costs this much.
pub const FRAMES_BODY_BYTES_MAX: usize = 8 << 20;
/// Largest body of a proposals request, in bytes.
pub const PROPOSALS_BODY_BYTES_MAX: usize = 8 << 20;
/// Most store paths, and most layer keys, in one `begin` or `publish`.
pub const PATHS_PER_REQUEST_MAX: usize = 20_000;

/// Asks what is missing; opens a session if anything is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Store path hashes, 32 characters each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Layer keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// A session to join, from an earlier batch or a broken run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// A layer whose gzip representation is not there yet counts as unknown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gzip: bool,
}

/// The answer to [`Begin`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Indices into `paths` of those the cache lacks.
    #[serde(default)]
    pub missing: Vec<u32>,
    /// What is known of the layer keys.
    #[serde(default)]
    pub layers: BTreeMap<String, LayerDescriptor>,
    /// The server has computed the keys of these layers from their tars. One that does not say so believed whoever
    /// published a layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub layers_proven: bool,
    /// The session; absent when nothing is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Seconds until the session ends without a sign of life; every request is one.
    #[serde(default)]
    pub expires_in: u64,
}

/// A layer's digests, computed by the server from the frames it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDescriptor {
    /// Digest of the zstd representation, `sha256:<hex>`.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Digest of the tar, `sha256:<hex>`.
    pub diff_id: String,
    /// Size of the tar in bytes.
    pub tar_size: u64,
    /// Deterministic gzip of the tar, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gzip: Option<GzipDescriptor>,
}

/// A gzip representation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GzipDescriptor {
    /// `sha256:<hex>`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// Asks to make paths and layers visible.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Store paths; their references must be here already or in this request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PublishPath>,
    /// Image layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<PublishLayer>,
}

/// One store path. Names are base names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PublishPath {
    pub path: String,
    /// 52 characters of Nix base32.
    pub nar_hash: String,
    pub nar_size: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deriver: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The proposal that is its NAR.
    pub blob: u32,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PublishLayer {
    pub key: String,
    pub blob: u32,
    /// Also make (and remember) the gzip representation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gzip: bool,
    /// How the layer was made, where rules are a part of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
}

/// The answer to [`Publish`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// How many paths became visible now (others were there).
    pub paths: u32,
    /// The layers' descriptors by key.
    #[serde(default)]
    pub layers: BTreeMap<String, LayerDescriptor>,
}

/// Chunks of one part of a list that is too long for one proposals request.
pub const PART_CHUNKS_MAX: usize = 200_000;

/// The answer to a part of a proposal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartTaken {
    /// Names it in the request that continues it, which may have to come soon: parts are kept in memory.
    pub part: u32,
}

/// The answer to a frames request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct FramesAccepted {
    pub new: u32,
    pub known: u32,
}

/// Every failure of `/api/v1`: `{"error": {...}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ApiError {
    pub code: ApiErrorCode,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Codes on which a client branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ApiErrorCode {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Denied,
    /// 404: no such cache, path, session.
    NotFound,
    /// 404: the session ended; begin again.
    SessionGone,
    /// 409: a blob handle is not known (any more): propose again.
    StaleBlob,
    /// 409: chunks of a proposal are not here: propose again and send them.
    MissingChunks,
    /// 422: bytes do not have the hash or size that was declared.
    HashMismatch,
    /// 422: a reference is neither here nor in the request.
    MissingReference,
    /// 409: already exists.
    Conflict,
    /// 408: the body came too slowly, or stopped coming.
    TooSlow,
    /// 413
    TooLarge,
    /// 429: the client has as many of these as it may have.
    TooMany,
    /// 503: there is no place for this now; come again.
    Busy,
    /// 403: the cache may not hold that much; evicting others made no room.
    QuotaExceeded,
    /// 507
    StorageFull,
    /// 500
    Internal,
}

impl ApiErrorCode {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Denied | Self::QuotaExceeded => 403,
            Self::NotFound | Self::SessionGone => 404,
            Self::StaleBlob | Self::MissingChunks | Self::Conflict => 409,
            Self::TooSlow => 408,
            Self::TooLarge => 413,
            Self::TooMany => 429,
            Self::HashMismatch | Self::MissingReference => 422,
            Self::Internal => 500,
            Self::Busy => 503,
            Self::StorageFull => 507,
        }
    }
}

/// What a proposed blob is; it decides nothing but the name of faults and statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum BlobKind {
    Nar = 1,
    Layer = 2,
    Opaque = 3,
}

/// A blob as a list of chunks: `kind u8, count u32, count × (id [32], raw length u32)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What it is.
    pub kind: BlobKind,
    /// Chunk ids and raw lengths, in order.
    pub chunks: Vec<([u8; 32], u32)>,
}

/// The answer to one proposal: `handle u32, count u32, bitmap ceil(count/8)`; a set bit
/// (least significant first) is a chunk the server lacks. A chunk that occurs more than
/// once is marked at its first place only, over all proposals of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalAnswer {
    /// Names the blob in [`Publish`].
    pub handle: u32,
    /// One flag a chunk: true is missing.
    pub missing: Vec<bool>,
}

/// Why a binary body is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed body at byte {offset}: {what}")]
#[allow(missing_docs)]
pub struct WireError {
    pub offset: usize,
    pub what: &'static str,
}

/// Writes proposals: version byte 1, then each.
pub fn encode_proposals(proposals: &[Proposal]) -> Vec<u8> {
    let mut out = vec![1];
    for proposal in proposals {
        out.push(proposal.kind as u8);
        out.extend_from_slice(&(proposal.chunks.len() as u32).to_le_bytes());
        for (id, length) in &proposal.chunks {
            out.extend_from_slice(id);
            out.extend_from_slice(&length.to_le_bytes());
        }
    }
    out
}

/// Reads proposals.
pub fn decode_proposals(body: &[u8]) -> Result<Vec<Proposal>, WireError> {
    let mut reader = WireReader { body, offset: 0 };
    reader.version()?;
    let mut proposals = Vec::new();
    while !reader.at_end() {
        let kind = match reader.u8()? {
            1 => BlobKind::Nar,
            2 => BlobKind::Layer,
            3 => BlobKind::Opaque,
            _ => return Err(reader.fault("unknown kind of blob")),
        };
        let count = reader.u32()? as usize;
        if count > reader.rest() / 36 {
            return Err(reader.fault("more chunks announced than bytes present"));
        }
        let mut chunks = Vec::with_capacity(count);
        for _ in 0..count {
            chunks.push((reader.array()?, reader.u32()?));
        }
        proposals.push(Proposal { kind, chunks });
    }
    Ok(proposals)
}

/// Writes answers: version byte 1, then each.
pub fn encode_answers(answers: &[ProposalAnswer]) -> Vec<u8> {
    let mut out = vec![1];
    for answer in answers {
        out.extend_from_slice(&answer.handle.to_le_bytes());
        out.extend_from_slice(&(answer.missing.len() as u32).to_le_bytes());
        for flags in answer.missing.chunks(8) {
            out.push(
                flags
                    .iter()
                    .enumerate()
                    .fold(0, |byte, (bit, set)| byte | (u8::from(*set) << bit)),
            );
        }
    }
    out
}

/// Reads answers.
pub fn decode_answers(body: &[u8]) -> Result<Vec<ProposalAnswer>, WireError> {
    let mut reader = WireReader { body, offset: 0 };
    reader.version()?;
    let mut answers = Vec::new();
    while !reader.at_end() {
        let handle = reader.u32()?;
        let count = reader.u32()? as usize;
        let bitmap = reader.take(count.div_ceil(8))?;
        let missing = (0..count)
            .map(|i| bitmap[i / 8] >> (i % 8) & 1 == 1)
            .collect();
        answers.push(ProposalAnswer { handle, missing });
    }
    Ok(answers)
}

/// Appends one frame of a frames request: `id [32], length u32, frame`.
pub fn encode_frame(id: &[u8; 32], frame: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(id);
    out.extend_from_slice(&(frame.len() as u32).to_le_bytes());
    out.extend_from_slice(frame);
}

/// A frame's chunk id and where its bytes stand in the body.
pub type FrameRange = ([u8; 32], std::ops::Range<usize>);

/// Reads a frames request: each frame's id and its range in `body`.
pub fn decode_frames(body: &[u8]) -> Result<Vec<FrameRange>, WireError> {
    let mut reader = WireReader { body, offset: 0 };
    let mut frames = Vec::new();
    while !reader.at_end() {
        let id = reader.array()?;
        let length = reader.u32()? as usize;
        let start = reader.offset;
        reader.take(length)?;
        frames.push((id, start..start + length));
    }
    Ok(frames)
}

struct WireReader<'a> {
    body: &'a [u8],
    offset: usize,
}

impl<'a> WireReader<'a> {
    fn fault(&self, what: &'static str) -> WireError {
        WireError {
            offset: self.offset,
            what,
        }
    }
    fn rest(&self) -> usize {
        self.body.len() - self.offset
    }
    fn at_end(&self) -> bool {
        self.rest() == 0
    }
    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        if count > self.rest() {
            return Err(self.fault("body ends too early"));
        }
        let taken = &self.body[self.offset..self.offset + count];
        self.offset += count;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }
    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }
    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    fn version(&mut self) -> Result<(), WireError> {
        match self.u8()? {
            1 => Ok(()),
            _ => Err(self.fault("unknown version")),
        }
    }
}

#[cfg(test)]
mod tests;
