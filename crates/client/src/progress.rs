//! What is told of work under way.

use std::io::Read;

/// Hears of progress. Called from many threads.
pub trait Progress: Sync {
    /// A phase begins; `total` bytes are expected.
    fn begin(&self, _what: &str, _total: u64) {}
    /// More bytes are expected than was said.
    fn expect(&self, _bytes: u64) {}
    /// Bytes are done.
    fn advance(&self, _bytes: u64) {}
    /// One of the things that are moved, such as a layer, has begun: `total` bytes of it, which are not among the
    /// phase's.
    fn item_begin(&self, _name: &str, _total: u64) {}
    /// So many of its bytes are done in all.
    fn item_at(&self, _name: &str, _done: u64) {}
    /// It is done, or given up.
    fn item_end(&self, _name: &str) {}
    /// The phase is over.
    fn end(&self) {}
    /// Something the user should read.
    fn note(&self, _text: &str) {}
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}

/// What a layer's bar is called: enough of its digest to know it by.
pub(crate) fn item_name(digest: &str) -> String {
    let hex = digest.rsplit(':').next().unwrap_or_default();
    hex.chars().take(12).collect()
}

/// Tells of what is read.
pub(crate) struct Watched<'a, R> {
    reader: R,
    progress: &'a dyn Progress,
    name: &'a str,
    done: u64,
}

impl<'a, R> Watched<'a, R> {
    /// Reading from the beginning of the item.
    pub(crate) fn new(reader: R, progress: &'a dyn Progress, name: &'a str) -> Self {
        progress.item_at(name, 0);
        Self {
            reader,
            progress,
            name,
            done: 0,
        }
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.done += count as u64;
        self.progress.item_at(self.name, self.done);
        Ok(count)
    }
}
