//! Reading: where a blob's frames lie, and the frames themselves.

mod frames;
mod gzip;
mod layouts;
mod reader;

pub(crate) use frames::{Extent, FrameSource};
pub(crate) use gzip::GzipMaker;
pub(crate) use layouts::{Layout, Layouts, PlacedFrame};
pub use reader::BlobReader;
