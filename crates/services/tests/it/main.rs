//! Services over a store in a temporary folder, without HTTP.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub
)]

mod caches;
mod images;
mod layer_keys;
mod retention;
mod support;
mod time;
mod zstd_tar;
