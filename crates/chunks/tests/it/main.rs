//! Chunking as its users see it: the same chunks for the same files, wherever they lie.

mod bounds;
mod formats;
mod input;
mod references;
