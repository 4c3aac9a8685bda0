use super::{
    DEPTH_MAX, EntryKind, Event, MAGIC, NAME_BYTES_MAX, NarError, READ_DEPTH_MAX, TARGET_BYTES_MAX,
    padding,
};

/// Bytes of a string's length.
const LENGTH_BYTES: usize = 8;

/// What has to come next.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Magic,
    NodeOpen,
    TypeTag,
    Type,
    RegularTag,
    ExecutableValue,
    ContentsTag,
    /// Only the eight bytes of the length: the content is not held.
    ContentsLength,
    Content,
    Padding,
    TargetTag,
    Target,
    /// `)` of a regular file or a symlink.
    LeafClose,
    /// `entry`, or `)` of the directory.
    EntryOrClose,
    EntryOpen,
    NameTag,
    Name,
    NodeTag,
    EntryClose,
    /// The archive is complete.
    End,
    /// An error was reported.
    Failed,
}

/// What a token tells the caller.
enum Report {
    Nothing,
    Directory,
    Regular { size: u64 },
    Symlink,
    DirectoryEnd,
}

/// An open directory.
#[derive(Debug)]
struct Frame {
    /// Length of the path where the names of its entries begin.
    name_begin: usize,
    /// Length of the path with the current (or last) entry's name.
    name_end: usize,
}

/// A push parser with limits (depth 63, names 255, targets 4095 bytes). It holds
/// one structure token at most, and the path of the current entry.
///
/// Names that Nix makes on case-insensitive file systems (`x~nix~case~hack~1`) are names like others: a NAR may
/// hold them, and where they could collide the one who unpacks it has to look.
#[derive(Debug)]
pub struct Parser {
    depth_max: usize,
    state: State,
    /// Bytes of the archive before those not yet read.
    offset: u64,
    /// The beginning of a token that ended with an earlier input.
    held: Vec<u8>,
    /// The current entry's path; after an entry, still the path of that one, so
    /// that the next name can be compared.
    path: Vec<u8>,
    directories: Vec<Frame>,
    executable: bool,
    /// Content bytes to come.
    remaining: u64,
    /// Padding bytes to come.
    padding: usize,
}

impl Default for Parser {
    fn default() -> Self {
        Self::with_depth(DEPTH_MAX)
    }
}

impl Parser {
    /// At the start of a NAR that is to be taken in.
    pub fn new() -> Self {
        Self::default()
    }

    /// At the start of a NAR that a cache holds: it may be deeper than what is taken in today.
    pub fn of_stored() -> Self {
        Self::with_depth(READ_DEPTH_MAX)
    }

    fn with_depth(depth_max: usize) -> Self {
        Self {
            depth_max,
            state: State::default(),
            offset: 0,
            held: Vec::new(),
            path: Vec::new(),
            directories: Vec::new(),
            executable: false,
            remaining: 0,
            padding: 0,
        }
    }

    /// Takes the next bytes and reports what they hold. All of `input` is
    /// consumed: `Structure` and `Content` slices, concatenated, equal the input.
    /// After an error the parser takes nothing any more.
    pub fn push(&mut self, input: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> Result<(), NarError> {
        let result = self.consume(input, sink);
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    /// Checks that the NAR is complete.
    pub fn finish(&self) -> Result<(), NarError> {
        match self.state {
            State::End => Ok(()),
            State::Failed => Err(self.error("parsing has failed before")),
            _ => Err(self.error("it ends too early")),
        }
    }

    fn error(&self, what: impl Into<String>) -> NarError {
        NarError {
            offset: self.offset,
            what: what.into(),
        }
    }

    fn consume(&mut self, input: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> Result<(), NarError> {
        let mut position = 0;
        // Structure bytes from here to `position` have been read but not reported.
        let mut structure = 0;
        while position < input.len() {
            let rest = &input[position..];
            match self.state {
                State::Content => {
                    report_structure(&input[structure..position], sink);
                    position += self.content(rest, sink);
                    structure = position;
                }
                State::Padding => position += self.skip_padding(rest)?,
                State::End => return Err(self.error("bytes follow the archive")),
                State::Failed => return Err(self.error("parsing has failed before")),
                _ if self.held.is_empty() && self.is_whole(rest)? => {
                    let token = &rest[..self.token_length(rest)?.unwrap_or(rest.len())];
                    let report = self.accept(token)?;
                    position += token.len();
                    if !matches!(report, Report::Nothing) {
                        report_structure(&input[structure..position], sink);
                        structure = position;
                        self.report(report, token, sink);
                    }
                }
                _ => {
                    position += self.hold(rest)?;
                    if !self.is_whole(&self.held)? {
                        continue;
                    }
                    let mut token = std::mem::take(&mut self.held);
                    let report = self.accept(&token)?;
                    if !matches!(report, Report::Nothing) {
                        report_structure(&input[structure..position], sink);
                        structure = position;
                        self.report(report, &token, sink);
                    }
                    token.clear();
                    self.held = token;
                }
            }
        }
        report_structure(&input[structure..], sink);
        Ok(())
    }

    /// Reports content; the number of bytes it took.
    fn content(&mut self, input: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> usize {
        let remaining = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let taken = remaining.min(input.len());
        sink(Event::Content(&input[..taken]));
        self.offset += taken as u64;
        self.remaining -= taken as u64;
        if self.remaining == 0 {
            self.content_end(sink);
        }
        taken
    }

    fn content_end(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        sink(Event::ContentEnd);
        self.state = match self.padding {
            0 => State::LeafClose,
            _ => State::Padding,
        };
    }

    fn skip_padding(&mut self, input: &[u8]) -> Result<usize, NarError> {
        let taken = self.padding.min(input.len());
        if input[..taken].iter().any(|byte| *byte != 0) {
            return Err(self.error("padding is not zero"));
        }
        self.offset += taken as u64;
        self.padding -= taken;
        if self.padding == 0 {
            self.state = State::LeafClose;
        }
        Ok(taken)
    }

    /// Length of the token that begins with `bytes`, padding included; `None`
    /// if the bytes do not tell yet.
    fn token_length(&self, bytes: &[u8]) -> Result<Option<usize>, NarError> {
        let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        if self.state == State::ContentsLength {
            return Ok(Some(LENGTH_BYTES));
        }
        let length = u64::from_le_bytes(*length);
        let max = match self.state {
            State::Name => NAME_BYTES_MAX,
            State::Target => TARGET_BYTES_MAX,
            _ => MAGIC.len(),
        };
        match usize::try_from(length) {
            Ok(short) if short <= max => Ok(Some(LENGTH_BYTES + short + padding(length))),
            _ => Err(self.error(format!(
                "a string of {length} bytes where at most {max} are allowed"
            ))),
        }
    }

    fn is_whole(&self, bytes: &[u8]) -> Result<bool, NarError> {
        Ok(self
            .token_length(bytes)?
            .is_some_and(|length| bytes.len() >= length))
    }

    /// Adds to the held token what it lacks; the number of bytes it took.
    fn hold(&mut self, input: &[u8]) -> Result<usize, NarError> {
        let length = self.token_length(&self.held)?.unwrap_or(LENGTH_BYTES);
        let taken = length.saturating_sub(self.held.len()).min(input.len());
        self.held.extend_from_slice(&input[..taken]);
        Ok(taken)
    }

    /// Takes a whole token.
    fn accept(&mut self, token: &[u8]) -> Result<Report, NarError> {
        let report = match self.state {
            State::ContentsLength => self.contents_length(token)?,
            _ => {
                let (bytes, pad) = split_token(token);
                if pad.iter().any(|byte| *byte != 0) {
                    return Err(self.error("padding is not zero"));
                }
                self.string(bytes)?
            }
        };
        self.offset += token.len() as u64;
        Ok(report)
    }

    fn string(&mut self, bytes: &[u8]) -> Result<Report, NarError> {
        self.state = match self.state {
            State::Magic => self.expect(bytes, MAGIC, State::NodeOpen)?,
            State::NodeOpen => self.expect(bytes, b"(", State::TypeTag)?,
            State::TypeTag => self.expect(bytes, b"type", State::Type)?,
            State::Type => return self.node_type(bytes),
            State::RegularTag => match bytes {
                b"executable" => {
                    self.executable = true;
                    State::ExecutableValue
                }
                _ => self.expect(bytes, b"contents", State::ContentsLength)?,
            },
            State::ExecutableValue => self.expect(bytes, b"", State::ContentsTag)?,
            State::ContentsTag => self.expect(bytes, b"contents", State::ContentsLength)?,
            State::TargetTag => self.expect(bytes, b"target", State::Target)?,
            State::Target => {
                if bytes.is_empty() || bytes.contains(&0) {
                    return Err(self.error("a symlink target is empty or has a NUL"));
                }
                self.state = State::LeafClose;
                return Ok(Report::Symlink);
            }
            State::LeafClose => {
                let next = self.node_end();
                self.expect(bytes, b")", next)?
            }
            State::EntryOrClose if bytes == b")" => {
                self.directories.pop();
                self.state = self.node_end();
                return Ok(Report::DirectoryEnd);
            }
            State::EntryOrClose => self.expect(bytes, b"entry", State::EntryOpen)?,
            State::EntryOpen => self.expect(bytes, b"(", State::NameTag)?,
            State::NameTag => self.expect(bytes, b"name", State::Name)?,
            State::Name => self.name(bytes)?,
            State::NodeTag => self.expect(bytes, b"node", State::NodeOpen)?,
            State::EntryClose => self.entry_close(bytes)?,
            state @ (State::ContentsLength
            | State::Content
            | State::Padding
            | State::End
            | State::Failed) => state,
        };
        Ok(Report::Nothing)
    }

    fn expect(&self, bytes: &[u8], expected: &[u8], next: State) -> Result<State, NarError> {
        if bytes == expected {
            return Ok(next);
        }
        Err(self.error(format!(
            "{:?} where {:?} should be",
            String::from_utf8_lossy(bytes),
            String::from_utf8_lossy(expected)
        )))
    }

    fn node_type(&mut self, bytes: &[u8]) -> Result<Report, NarError> {
        match bytes {
            b"regular" => {
                self.executable = false;
                self.state = State::RegularTag;
                Ok(Report::Nothing)
            }
            b"symlink" => {
                self.state = State::TargetTag;
                Ok(Report::Nothing)
            }
            b"directory" if self.directories.len() >= self.depth_max => {
                Err(self.error(format!("directories deeper than {}", self.depth_max)))
            }
            b"directory" => {
                self.state = State::EntryOrClose;
                Ok(Report::Directory)
            }
            _ => Err(self.error("a node of unknown type")),
        }
    }

    /// What follows a node: the root is in no entry.
    fn node_end(&self) -> State {
        match self.directories.is_empty() {
            true => State::End,
            false => State::EntryClose,
        }
    }

    fn contents_length(&mut self, token: &[u8]) -> Result<Report, NarError> {
        let length = token.first_chunk().copied().unwrap_or_default();
        let size = u64::from_le_bytes(length);
        // Nix's sizes are signed; this also keeps every offset from overflowing.
        if self
            .offset
            .checked_add(size)
            .is_none_or(|end| end > i64::MAX as u64)
        {
            return Err(self.error("a file is too large"));
        }
        self.remaining = size;
        self.padding = padding(size);
        self.state = State::Content;
        Ok(Report::Regular { size })
    }

    fn name(&mut self, name: &[u8]) -> Result<State, NarError> {
        let fault = if name.is_empty() || name == b"." || name == b".." {
            "a name is empty, . or .."
        } else if name.iter().any(|byte| *byte == b'/' || *byte == 0) {
            "a name has a slash or a NUL"
        } else {
            return self.enter(name);
        };
        Err(self.error(fault))
    }

    fn enter(&mut self, name: &[u8]) -> Result<State, NarError> {
        let Some(frame) = self.directories.last_mut() else {
            return Err(self.error("an entry outside of a directory"));
        };
        // Before the first entry the previous name is empty, below every name.
        if name <= &self.path[frame.name_begin..frame.name_end] {
            return Err(self.error("names are not sorted"));
        }
        self.path.truncate(frame.name_begin);
        self.path.extend_from_slice(name);
        frame.name_end = self.path.len();
        Ok(State::NodeTag)
    }

    fn entry_close(&mut self, bytes: &[u8]) -> Result<State, NarError> {
        if let Some(frame) = self.directories.last() {
            self.path.truncate(frame.name_end);
        }
        self.expect(bytes, b")", State::EntryOrClose)
    }

    fn report(&mut self, report: Report, token: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
        let kind = match report {
            Report::Nothing => return,
            Report::DirectoryEnd => return sink(Event::DirectoryEnd),
            Report::Directory => EntryKind::Directory,
            Report::Regular { size } => EntryKind::Regular {
                executable: self.executable,
                size,
                offset: self.offset,
            },
            Report::Symlink => EntryKind::Symlink {
                target: split_token(token).0,
            },
        };
        sink(Event::Entry {
            path: &self.path,
            kind,
        });
        match kind {
            EntryKind::Directory => self.open_directory(),
            EntryKind::Regular { size: 0, .. } => self.content_end(sink),
            EntryKind::Regular { .. } | EntryKind::Symlink { .. } => {}
        }
    }

    fn open_directory(&mut self) {
        if !self.directories.is_empty() {
            self.path.push(b'/');
        }
        self.directories.push(Frame {
            name_begin: self.path.len(),
            name_end: self.path.len(),
        });
    }
}

/// The bytes of a string token, and its padding.
fn split_token(token: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = token.split_first_chunk::<LENGTH_BYTES>() else {
        return (&[], &[]);
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    rest.split_at(length.min(rest.len()))
}

fn report_structure(bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
    if !bytes.is_empty() {
        sink(Event::Structure(bytes));
    }
}
