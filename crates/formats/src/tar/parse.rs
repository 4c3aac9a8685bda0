//! The reader: a push parser that takes bytes in any pieces and holds no content.

use super::block::{self, Block};
use super::pax::Overrides;
use super::{BLOCK_BYTES, Entry, EntryKind, TarError, padding};

/// Longest path or link target, in bytes.
pub const NAME_BYTES_MAX: usize = 64 << 10;
/// Largest extended header, in bytes.
pub const PAX_BYTES_MAX: usize = 1 << 20;
/// Largest content, in bytes: what signed 64-bit offsets hold.
const SIZE_BYTES_MAX: u64 = i64::MAX as u64 - BLOCK_BYTES as u64;

/// What the reader reports; as in a NAR, every input byte is structure or content.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Headers, PAX data, padding, trailer, and the whole of entries that are
    /// neither directory, regular file nor link.
    Structure(&'a [u8]),
    /// An entry begins (after its structure bytes). Its path has lost leading
    /// `/` and `./` and trailing `/`; it may be empty (the root) and, coming
    /// from a stranger, hold `..` components.
    Entry(Box<Entry>),
    /// Bytes of the current regular file; never empty.
    Content(&'a [u8]),
    /// The current regular file has ended.
    ContentEnd,
}

/// A push parser of foreign tars (v7, ustar, PAX, GNU long names and numbers),
/// with limits. Sparse and multi-volume archives are errors. After an error it
/// only repeats it.
#[derive(Debug)]
pub struct Parser {
    state: State,
    /// The header block under way, `filled` bytes of it.
    block: Block,
    filled: usize,
    /// Bytes consumed.
    offset: u64,
    /// Of `g` headers, for all later entries.
    global: Overrides,
    /// Of `x` headers, on top of the global ones, for the next entry.
    local: Option<Overrides>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    failed: Option<TarError>,
}

#[derive(Debug)]
enum State {
    Header,
    /// One zero block was read.
    SecondZero,
    Meta {
        kind: MetaKind,
        data: Vec<u8>,
        size: usize,
    },
    Content {
        left: u64,
        padding: usize,
    },
    /// Padding, or the data of an entry that is not reported.
    Skip {
        left: u64,
    },
    End,
}

#[derive(Debug, Clone, Copy)]
enum MetaKind {
    PaxLocal,
    PaxGlobal,
    LongName,
    LongLink,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            state: State::Header,
            block: [0; BLOCK_BYTES],
            filled: 0,
            offset: 0,
            global: Overrides::default(),
            local: None,
            long_name: None,
            long_link: None,
            failed: None,
        }
    }
}

impl Parser {
    /// At the start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes; all of `input` is consumed unless it is malformed.
    /// The `Structure` and `Content` slices, concatenated, are the input.
    pub fn push(&mut self, input: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> Result<(), TarError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.advance(input, sink);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// Checks that the archive is complete: its two zero blocks were read.
    pub fn finish(self) -> Result<(), TarError> {
        match (&self.failed, &self.state) {
            (Some(error), _) => Err(error.clone()),
            (None, State::End) => Ok(()),
            (None, _) => Err(self.fault(0, "the archive ends too early")),
        }
    }

    /// Structure is gathered while it lasts: `from..at` of the input is
    /// structure that was consumed and not yet reported.
    fn advance(&mut self, input: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> Result<(), TarError> {
        let (mut from, mut at) = (0, 0);
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            let taken = match &mut self.state {
                State::Content { left, padding } => {
                    report_structure(&input[from..at], sink);
                    let taken = clamp(*left, rest.len());
                    sink(Event::Content(&rest[..taken]));
                    from = at + taken;
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = skip(*padding as u64);
                        sink(Event::ContentEnd);
                    }
                    taken
                }
                State::Skip { left } => {
                    let taken = clamp(*left, rest.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::Header;
                    }
                    taken
                }
                State::Meta { .. } => self.meta(rest)?,
                State::End => rest.len(),
                State::Header | State::SecondZero => self.gather_block(rest),
            };
            at += taken;
            self.offset += taken as u64;
            if self.filled == BLOCK_BYTES {
                self.filled = 0;
                if let Some(entry) = self.header()? {
                    report_structure(&input[from..at], sink);
                    from = at;
                    report_entry(entry, sink);
                }
            }
        }
        report_structure(&input[from..at], sink);
        Ok(())
    }

    fn gather_block(&mut self, rest: &[u8]) -> usize {
        let taken = rest.len().min(BLOCK_BYTES - self.filled);
        self.block[self.filled..self.filled + taken].copy_from_slice(&rest[..taken]);
        self.filled += taken;
        taken
    }

    /// Takes bytes of an extended header or long name; applies it when whole.
    fn meta(&mut self, rest: &[u8]) -> Result<usize, TarError> {
        let State::Meta { kind, data, size } = &mut self.state else {
            return Ok(0);
        };
        let taken = rest.len().min(*size - data.len());
        data.extend_from_slice(&rest[..taken]);
        if data.len() == *size {
            let (kind, data) = (*kind, std::mem::take(data));
            self.state = skip(padding(data.len() as u64) as u64);
            // Named by where the data begins, however it was split.
            let before = data.len() - taken;
            self.apply_meta(kind, &data)
                .map_err(|what| self.fault(before, what))?;
        }
        Ok(taken)
    }

    fn apply_meta(&mut self, kind: MetaKind, data: &[u8]) -> Result<(), &'static str> {
        match kind {
            MetaKind::PaxLocal => {
                let global = &self.global;
                self.local
                    .get_or_insert_with(|| global.clone())
                    .apply(data)?;
            }
            MetaKind::PaxGlobal => self.global.apply(data)?,
            MetaKind::LongName => self.long_name = Some(block::text(data).to_vec()),
            MetaKind::LongLink => self.long_link = Some(block::text(data).to_vec()),
        }
        Ok(())
    }

    /// Reads the gathered block, sets the state that follows it, and gives the
    /// entry that it begins, if it begins one.
    fn header(&mut self) -> Result<Option<Entry>, TarError> {
        let zero = self.block.iter().all(|byte| *byte == 0);
        match (&self.state, zero) {
            (State::SecondZero, true) => {
                self.state = State::End;
                return Ok(None);
            }
            (State::SecondZero, false) => {
                return Err(self.fault(BLOCK_BYTES, "one zero block stands alone"));
            }
            (_, true) => {
                self.state = State::SecondZero;
                return Ok(None);
            }
            (_, false) => {}
        }
        if !block::is_sealed(&self.block) {
            return Err(self.fault(BLOCK_BYTES, "wrong checksum of a header"));
        }
        match self.block[block::TYPE] {
            b'x' | b'X' => self.meta_begin(MetaKind::PaxLocal, PAX_BYTES_MAX)?,
            b'g' => self.meta_begin(MetaKind::PaxGlobal, PAX_BYTES_MAX)?,
            // One more for the closing NUL.
            b'L' => self.meta_begin(MetaKind::LongName, NAME_BYTES_MAX + 1)?,
            b'K' => self.meta_begin(MetaKind::LongLink, NAME_BYTES_MAX + 1)?,
            b'S' => return Err(self.fault(BLOCK_BYTES, "sparse files are not supported")),
            b'M' => return Err(self.fault(BLOCK_BYTES, "multi-volume tars are not supported")),
            kind => return self.entry(kind),
        }
        Ok(None)
    }

    fn meta_begin(&mut self, kind: MetaKind, bytes_max: usize) -> Result<(), TarError> {
        let size = self.field(block::SIZE, "size")?;
        let size = usize::try_from(size)
            .ok()
            .filter(|size| *size <= bytes_max)
            .ok_or_else(|| self.fault(BLOCK_BYTES, "extended header too large"))?;
        self.state = match size {
            0 => State::Header,
            _ => State::Meta {
                kind,
                data: Vec::new(),
                size,
            },
        };
        Ok(())
    }

    fn entry(&mut self, kind: u8) -> Result<Option<Entry>, TarError> {
        let said = match self.local.take() {
            Some(local) => local,
            None => self.global.clone(),
        };
        let (long_name, long_link) = (self.long_name.take(), self.long_link.take());
        let path = said.path.or(long_name).unwrap_or_else(|| self.short_name());
        let target = said
            .link_path
            .or(long_link)
            .unwrap_or_else(|| block::text(&self.block[block::LINK_NAME]).to_vec());
        let size = match said.size {
            Some(size) => size,
            None => self.field(block::SIZE, "size")?,
        };
        if size > SIZE_BYTES_MAX {
            return Err(self.fault(BLOCK_BYTES, "size too large"));
        }

        let skipped = skip(size + padding(size) as u64);
        let (kind, next) = match kind {
            // Before ustar a directory was a file whose name ends with a slash.
            0 if path.ends_with(b"/") => (EntryKind::Directory, skipped),
            0 | b'0' | b'7' => (EntryKind::Regular { size }, content(size)),
            b'1' => {
                let target = relative(&target).to_vec();
                (EntryKind::Hardlink { target }, State::Header)
            }
            b'2' => (EntryKind::Symlink { target }, State::Header),
            b'5' => (EntryKind::Directory, State::Header),
            // GNU's directory with a listing of its names as data.
            b'D' => (EntryKind::Directory, skipped),
            // Devices and FIFOs have no data, whatever their size field says.
            b'3' | b'4' | b'6' => {
                self.state = State::Header;
                return Ok(None);
            }
            _ => {
                self.state = skipped;
                return Ok(None);
            }
        };
        let entry = Entry {
            path: relative(&path).to_vec(),
            kind,
            mode: (self.field_or_zero(block::MODE, "mode")? & 0o7777) as u32,
            uid: self.said_or(said.uid, block::UID, "uid")?,
            gid: self.said_or(said.gid, block::GID, "gid")?,
            mtime: self.said_or(said.mtime, block::MTIME, "mtime")?,
        };
        self.state = next;
        Ok(Some(entry))
    }

    /// The name of the header itself, with ustar's prefix where there is one.
    fn short_name(&self) -> Vec<u8> {
        let name = block::text(&self.block[block::NAME]);
        let prefix = block::text(&self.block[block::PREFIX]);
        // GNU's header ("ustar  ") keeps times where ustar has the prefix.
        let posix = &self.block[block::MAGIC] == block::USTAR_MAGIC;
        match prefix {
            prefix if posix && !prefix.is_empty() => [prefix, b"/", name].concat(),
            _ => name.to_vec(),
        }
    }

    fn said_or(
        &self,
        said: Option<u64>,
        field: std::ops::Range<usize>,
        name: &str,
    ) -> Result<u64, TarError> {
        match said {
            Some(value) => Ok(value),
            None => self.field_or_zero(field, name),
        }
    }

    /// A numeric field where a negative number means nothing worse than 0.
    fn field_or_zero(&self, field: std::ops::Range<usize>, name: &str) -> Result<u64, TarError> {
        block::number(&self.block[field])
            .map(Option::unwrap_or_default)
            .map_err(|_| self.fault(BLOCK_BYTES, &format!("broken {name}")))
    }

    fn field(&self, field: std::ops::Range<usize>, name: &str) -> Result<u64, TarError> {
        match block::number(&self.block[field]) {
            Ok(Some(value)) => Ok(value),
            _ => Err(self.fault(BLOCK_BYTES, &format!("broken {name}"))),
        }
    }

    /// A fault that began `before` bytes before what was consumed.
    fn fault(&self, before: usize, what: &str) -> TarError {
        TarError::Malformed {
            offset: self.offset.saturating_sub(before as u64),
            what: what.to_owned(),
        }
    }
}

fn report_structure(bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
    if !bytes.is_empty() {
        sink(Event::Structure(bytes));
    }
}

/// An empty file has no content bytes that would end it.
fn report_entry(entry: Entry, sink: &mut dyn FnMut(Event<'_>)) {
    let empty = entry.kind == EntryKind::Regular { size: 0 };
    sink(Event::Entry(Box::new(entry)));
    if empty {
        sink(Event::ContentEnd);
    }
}

fn skip(left: u64) -> State {
    match left {
        0 => State::Header,
        left => State::Skip { left },
    }
}

fn content(size: u64) -> State {
    match size {
        0 => State::Header,
        left => State::Content {
            left,
            padding: padding(size),
        },
    }
}

fn clamp(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

/// Without leading `/` and `./` and trailing `/`; `.` is the root.
fn relative(path: &[u8]) -> &[u8] {
    let mut rest = path;
    while let Some(shorter) = rest.strip_prefix(b"/").or(rest.strip_prefix(b"./")) {
        rest = shorter;
    }
    while let Some(shorter) = rest.strip_suffix(b"/") {
        rest = shorter;
    }
    match rest {
        b"." => &[],
        rest => rest,
    }
}

#[cfg(test)]
mod tests;
