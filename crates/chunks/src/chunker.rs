//! From a stream of bytes to chunks.

use crate::boundaries::Params;
use crate::region::RegionCutter;
use firn_formats::{nix::nar, tar};

/// What a stream is, which decides its regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Format {
    /// A NAR: files are regions of their own, the rest is gathered.
    Nar,
    /// A tar, likewise.
    Tar,
    /// Anything: one region, no reference cuts.
    Opaque,
}

/// Cuts a stream whose regions the caller knows. Emits each chunk's bytes, in
/// order; concatenated they are the input. Copies only what spans two calls.
///
/// A file of at least `file_bytes_min` is a region of its own; what lies between two such
/// files, smaller files included, is another. Chunks never reach across, and are the same
/// however the bytes are split into calls.
#[derive(Debug)]
pub struct Chunker {
    cutter: RegionCutter,
    file_bytes_min: u64,
    /// Bytes still to come of a file that is a region; `None` in glue.
    file_rest: Option<u64>,
}

impl Chunker {
    /// An empty chunker.
    pub fn new(params: Params) -> Self {
        Self {
            cutter: RegionCutter::new(params),
            file_bytes_min: params.file_bytes_min as u64,
            file_rest: None,
        }
    }

    /// Bytes between files, and files below the threshold.
    pub fn glue(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) {
        self.cutter.push(bytes, false, sink);
    }

    /// A regular file's content of `size` bytes follows, by [`Chunker::file`] in pieces.
    /// Below the threshold it is treated as glue.
    pub fn file_begin(&mut self, size: u64, sink: &mut dyn FnMut(&[u8])) {
        if size >= self.file_bytes_min {
            self.next_region(true, sink);
            self.file_rest = Some(size);
        }
    }

    /// Bytes of the current file.
    pub fn file(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) {
        // Knowing that these are the last bytes lets them be cut where they lie.
        let last = self.file_rest == Some(bytes.len() as u64);
        self.file_rest = self
            .file_rest
            .map(|rest| rest.saturating_sub(bytes.len() as u64));
        self.cutter.push(bytes, last, sink);
    }

    /// The current file ended.
    pub fn file_end(&mut self, sink: &mut dyn FnMut(&[u8])) {
        if self.file_rest.take().is_some() {
            self.next_region(false, sink);
        }
    }

    /// Bytes that lie in no chunk yet.
    pub fn held(&self) -> &[u8] {
        self.cutter.held()
    }

    /// Ends the stream, emitting what is held back.
    pub fn finish(mut self, sink: &mut dyn FnMut(&[u8])) {
        self.cutter.push(&[], true, sink);
    }

    fn next_region(&mut self, cut_references: bool, sink: &mut dyn FnMut(&[u8])) {
        self.cutter.push(&[], true, sink);
        self.cutter.begin(cut_references);
    }
}

/// Why a stream is not of its format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FormatError {
    #[error(transparent)]
    Nar(#[from] nar::NarError),
    #[error(transparent)]
    Tar(#[from] tar::TarError),
}

/// Cuts a stream of a known format, finding its regions by parsing it.
pub struct FormatChunker {
    inner: Regions,
    parser: Parser,
}

enum Parser {
    Nar(nar::Parser),
    Tar(Box<tar::Parser>),
    Opaque,
}

impl FormatChunker {
    /// At the start of a stream.
    pub fn new(format: Format, params: Params) -> Self {
        let parser = match format {
            Format::Nar => Parser::Nar(nar::Parser::new()),
            Format::Tar => Parser::Tar(Box::default()),
            Format::Opaque => Parser::Opaque,
        };
        let chunker = Chunker::new(params);
        Self {
            inner: Regions {
                chunker,
                announced: None,
            },
            parser,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// If the bytes are not of the stream's format; the chunker is then of no more use.
    pub fn push(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), FormatError> {
        let regions = &mut self.inner;
        match &mut self.parser {
            Parser::Nar(parser) => parser.push(bytes, &mut |event| regions.nar(event, sink))?,
            Parser::Tar(parser) => parser.push(bytes, &mut |event| regions.tar(event, sink))?,
            Parser::Opaque => regions.chunker.glue(bytes, sink),
        }
        Ok(())
    }

    /// Bytes taken that lie in no chunk yet. Of an opaque stream they are all that a new chunker must be
    /// given to cut the rest alike.
    pub fn held(&self) -> &[u8] {
        self.inner.chunker.held()
    }

    /// Checks completeness and emits what is held back.
    ///
    /// # Errors
    /// If the stream ended too early.
    pub fn finish(self, sink: &mut dyn FnMut(&[u8])) -> Result<(), FormatError> {
        match self.parser {
            Parser::Nar(parser) => parser.finish()?,
            Parser::Tar(parser) => parser.finish()?,
            Parser::Opaque => {}
        }
        self.inner.chunker.finish(sink);
        Ok(())
    }
}

/// Turns a parser's events into regions.
struct Regions {
    chunker: Chunker,
    /// Size of a regular file whose content has not begun: structure may still come before it.
    announced: Option<u64>,
}

impl Regions {
    fn nar(&mut self, event: nar::Event<'_>, sink: &mut dyn FnMut(&[u8])) {
        match event {
            nar::Event::Structure(bytes) => self.chunker.glue(bytes, sink),
            nar::Event::Entry { kind, .. } => {
                if let nar::EntryKind::Regular { size, .. } = kind {
                    self.announced = Some(size);
                }
            }
            nar::Event::Content(bytes) => self.content(bytes, sink),
            nar::Event::ContentEnd => self.content_end(sink),
            nar::Event::DirectoryEnd => {}
        }
    }

    fn tar(&mut self, event: tar::Event<'_>, sink: &mut dyn FnMut(&[u8])) {
        match event {
            tar::Event::Structure(bytes) => self.chunker.glue(bytes, sink),
            tar::Event::Entry(entry) => {
                if let tar::EntryKind::Regular { size } = entry.kind {
                    self.announced = Some(size);
                }
            }
            tar::Event::Content(bytes) => self.content(bytes, sink),
            tar::Event::ContentEnd => self.content_end(sink),
        }
    }

    fn content(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) {
        if let Some(size) = self.announced.take() {
            self.chunker.file_begin(size, sink);
        }
        self.chunker.file(bytes, sink);
    }

    fn content_end(&mut self, sink: &mut dyn FnMut(&[u8])) {
        self.announced = None;
        self.chunker.file_end(sink);
    }
}
