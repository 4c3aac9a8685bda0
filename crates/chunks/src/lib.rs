//! Chunk boundaries, frames, blobs with their representations, packs and segments.
//!
//! Pure CPU: no I/O, no async. A byte is stored once, compressed once, and sent as it lies.

pub mod blob;
pub mod boundaries;
pub mod chunker;
pub mod frame;
pub mod gzip;
pub mod id;
pub mod pack;
mod references;
mod region;
pub mod segment;

pub use blob::{ChunkList, ChunkListView, ChunkRef, ListId};
pub use chunker::{Chunker, Format, FormatChunker};
pub use frame::{Decoder, Encoder, EncoderId, FrameRecord, VerifiedFrame};
pub use gzip::GzipEncoder;
pub use id::ChunkId;
