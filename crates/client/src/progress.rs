//! What is told of work under way.

/// Hears of progress. Called from many threads.
pub trait Progress: Sync {
    /// A phase begins; `total` bytes are expected.
    fn begin(&self, _what: &str, _total: u64) {}
    /// More bytes are expected than was said.
    fn expect(&self, _bytes: u64) {}
    /// Bytes are done.
    fn advance(&self, _bytes: u64) {}
    /// The phase is over.
    fn end(&self) {}
    /// Something the user should read.
    fn note(&self, _text: &str) {}
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
