//! Chunking as its users see it: the same chunks for the same files, wherever they lie.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod bounds;
mod corpus;
mod formats;
mod input;
mod references;
