//! Where a region is cut: FastCDC, and store references inside file contents.

/// Bounds of chunks, in bytes, and the zstd level. Part of the format: every
/// writer must use the same, or nothing deduplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Params {
    /// A file of at least this size is a region of its own.
    pub file_bytes_min: usize,
    pub chunk_bytes_min: usize,
    pub chunk_bytes_avg: usize,
    pub chunk_bytes_max: usize,
    /// A store hash whose neighbours are at least this far away is cut out.
    pub reference_distance_bytes: usize,
    pub zstd_level: i32,
}

/// The parameters of format version 1.
pub const V1: Params = Params {
    file_bytes_min: 4 << 10,
    chunk_bytes_min: 16 << 10,
    chunk_bytes_avg: 64 << 10,
    chunk_bytes_max: 256 << 10,
    reference_distance_bytes: 4 << 10,
    zstd_level: 2,
};
