//! The key of a layer, from its tar.

use super::recipe::Terms;
use super::rules::Attributes;
use super::tree::{Node, Tree};
use super::{
    COPIED, DIRECTORY_MODE, EXECUTABLE_MODE, FILE_MODE, MTIME, PARENT_MODE, PathsKey,
    STORE_PARENTS, SYMLINK_MODE, mixed_key, root_key,
};
use crate::nix::StorePath;
use crate::sha256::Sha256Hasher;
use crate::tar::{self, Entry, EntryKind, Event, Parser, TRAILER_BYTES};
use std::cmp::Ordering;
use std::sync::Arc;

/// Most bytes of one entry's headers, with the padding before it. Longer ones hold names that no file system has.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// In what a tar differs from those that Firn's writer makes.
pub(super) type Unlike = &'static str;

const ATTRIBUTES: Unlike = "the mode or owner of an entry is not what it should be";

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The only key that this tar can have.
    Key(String),
    /// A layer of both kinds: [`Scan::mixed`] finds its key in a second pass.
    Mixed {
        /// The key that its store paths alone would have.
        paths_key: String,
    },
    /// It has no key that could be found, and why.
    Unlike(&'static str),
}

/// Computes the key of a layer from its tar, which comes in any pieces. Holds no content: some kilobytes at most.
pub struct Scan {
    parser: Parser,
    body: Body,
    failed: Option<Unlike>,
    length: u64,
}

/// What of the tar comes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Root files that sort before `nix`.
    Before,
    /// `nix` came: with `nix/store` it is a layer of store paths.
    Nix,
    /// Store paths.
    Store,
    /// Root files behind them.
    After,
    /// A layer of root files alone.
    Root,
}

struct Body {
    stage: Stage,
    terms: Option<Arc<Terms>>,
    /// Owner of all in the store, as the first entry says where no recipe does.
    owner: (u64, u64),
    /// Structure since the last content or entry, and how much of it is padding.
    pending: Vec<u8>,
    padding: usize,
    /// What `nix` has, and its header.
    nix: Option<(Attributes, Vec<u8>)>,
    paths: Option<PathsKey>,
    current: Option<(StorePath, Tree)>,
    last_name: Vec<u8>,
    /// Of a layer that may be one of root files alone: the whole tar.
    root: Option<Sha256Hasher>,
    /// Of a layer of both kinds, in the second pass: the tar of the root files alone.
    mixed: Option<Sha256Hasher>,
    has_root_files: bool,
    in_root_file: bool,
}

impl Scan {
    /// At the beginning of a tar. Without terms its owner is taken from it, and no rules are expected.
    pub fn new(terms: Option<Arc<Terms>>) -> Self {
        let owner = terms.as_ref().map_or((0, 0), |terms| terms.rules.owner());
        Self {
            parser: Parser::new(),
            body: Body {
                stage: Stage::Before,
                terms,
                owner,
                pending: Vec::new(),
                padding: 0,
                nix: None,
                paths: None,
                current: None,
                last_name: Vec::new(),
                root: Some(root_key()),
                mixed: None,
                has_root_files: false,
                in_root_file: false,
            },
            failed: None,
            length: 0,
        }
    }

    /// The second pass over a layer of both kinds.
    pub fn mixed(terms: Option<Arc<Terms>>, paths_key: &str) -> Self {
        let mut scan = Self::new(terms);
        scan.body.mixed = Some(mixed_key(paths_key));
        scan
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.failed.is_some() {
            return;
        }
        if let Some(root) = &mut self.body.root {
            root.update(bytes);
        }
        let body = &mut self.body;
        let mut outcome = Ok(());
        let parsed = self.parser.push(bytes, &mut |event| {
            if outcome.is_ok() {
                outcome = body.event(&event);
            }
        });
        let outcome = outcome.and(parsed.map_err(|_| "it is no tar"));
        if let Err(unlike) = outcome {
            self.fail(unlike);
        }
    }

    /// Nothing is held for what cannot become anything.
    fn fail(&mut self, unlike: Unlike) {
        *self = Self {
            failed: Some(unlike),
            length: self.length,
            ..Self::new(None)
        };
    }

    /// What all of it was.
    pub fn finish(self) -> Found {
        if let Some(unlike) = self.failed {
            return Found::Unlike(unlike);
        }
        match self.parser.finish() {
            Ok(()) => self.body.finish().unwrap_or_else(Found::Unlike),
            Err(_) => Found::Unlike("it ends too early"),
        }
    }
}

impl Body {
    fn event(&mut self, event: &Event<'_>) -> Result<(), Unlike> {
        match event {
            Event::Structure(bytes) => {
                if self.pending.len() + bytes.len() > HEADER_BYTES_MAX {
                    return Err("a header is too long");
                }
                self.pending.extend_from_slice(bytes);
            }
            Event::Entry(entry) => return self.entry(entry),
            Event::Content(bytes) if self.in_root_file => self.root_bytes(bytes),
            Event::Content(bytes) => {
                if let Some((_, tree)) = &mut self.current {
                    tree.content(bytes);
                }
            }
            Event::ContentEnd if self.in_root_file => {}
            Event::ContentEnd => {
                if let Some((_, tree)) = &mut self.current {
                    tree.content_end();
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Unlike> {
        let mut expected = vec![0; self.padding];
        tar::header(entry, &mut expected).map_err(|_| "a path that no entry can have")?;
        if self.pending != expected || entry.mtime != MTIME {
            return Err("a header is not as Firn writes it");
        }
        let header = expected.split_off(self.padding);
        self.end_root_file();
        self.pending.clear();
        self.padding = match entry.kind {
            EntryKind::Regular { size } => tar::padding(size),
            EntryKind::Hardlink { .. } => return Err("a hard link"),
            EntryKind::Directory | EntryKind::Symlink { .. } => 0,
        };
        let path = entry.path.as_slice();
        let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
        let in_store = path.strip_prefix(b"nix/store/");
        let directory = entry.kind == EntryKind::Directory;
        match (self.stage, first.cmp(b"nix")) {
            (Stage::Before, Ordering::Less) => self.root_entry(entry, &header),
            (Stage::Before, _) if path == b"nix" && directory => {
                self.stage = Stage::Nix;
                self.nix = Some((of(entry), header));
                Ok(())
            }
            (Stage::Before, _) => {
                self.stage = Stage::Root;
                self.root_entry(entry, &header)
            }
            (Stage::Nix, _) if path == b"nix/store" && directory => {
                self.stage = Stage::Store;
                self.root = None;
                self.begin_store(entry)
            }
            (Stage::Nix, _) => {
                self.stage = Stage::Root;
                self.root_entry(entry, &header)
            }
            (Stage::Root, _) => self.root_entry(entry, &header),
            (Stage::Store, _) if in_store.is_some() => {
                self.store_entry(entry, in_store.unwrap_or_default())
            }
            (Stage::Store | Stage::After, Ordering::Less) => Err("entries are not sorted"),
            (Stage::Store | Stage::After, _)
                if in_store.is_some() || STORE_PARENTS.contains(&path) =>
            {
                Err("something of the store lies behind it")
            }
            (Stage::Store, _) => {
                self.end_path();
                self.stage = Stage::After;
                // The root files' own tar has the directory before what it has in it.
                if let Some((_, nix)) = self.nix.take().filter(|_| first == b"nix") {
                    self.root_bytes(&nix);
                }
                self.root_entry(entry, &header)
            }
            (Stage::After, _) => self.root_entry(entry, &header),
        }
    }

    /// Both parents at once: of a layer of root files `nix` may have any owner and mode.
    fn begin_store(&mut self, store: &Entry) -> Result<(), Unlike> {
        let Some((nix, _)) = &self.nix else {
            return Err("entries are not sorted");
        };
        if self.terms.is_none() {
            self.owner = (nix.uid, nix.gid);
        }
        let rules = self.terms.as_ref().map(|terms| terms.rules.lines());
        self.paths = Some(PathsKey::new(self.owner, &rules.unwrap_or_default()));
        let made = [(STORE_PARENTS[0], *nix), (STORE_PARENTS[1], of(store))];
        match made
            .iter()
            .all(|(path, attributes)| *attributes == self.attributes(path, PARENT_MODE))
        {
            true => Ok(()),
            false => Err(ATTRIBUTES),
        }
    }

    fn attributes(&self, path: &[u8], mode: u32) -> Attributes {
        let (uid, gid) = self.owner;
        match &self.terms {
            Some(terms) => terms.attributes(path, mode),
            None => Attributes { mode, uid, gid },
        }
    }

    /// An entry of a store path; `inside` is its path in the store.
    fn store_entry(&mut self, entry: &Entry, inside: &[u8]) -> Result<(), Unlike> {
        let path = entry.path.as_slice();
        let (node, mode) = match &entry.kind {
            EntryKind::Directory => (Node::Directory, DIRECTORY_MODE),
            EntryKind::Symlink { target } => (Node::Symlink(target), SYMLINK_MODE),
            EntryKind::Hardlink { .. } => return Err("a hard link"),
            EntryKind::Regular { size } => {
                let executable = match &self.terms {
                    Some(terms) => terms.is_executable(path, entry.mode),
                    None => entry.mode == EXECUTABLE_MODE,
                };
                let mode = if executable {
                    EXECUTABLE_MODE
                } else {
                    FILE_MODE
                };
                let size = *size;
                (Node::File { executable, size }, mode)
            }
        };
        let mut expected = self.attributes(path, mode);
        if matches!(node, Node::Symlink(_)) {
            // As the writer has it, whatever a rule says.
            expected.mode = SYMLINK_MODE;
        }
        if of(entry) != expected {
            return Err(ATTRIBUTES);
        }
        match inside.iter().position(|byte| *byte == b'/') {
            None => self.begin_path(inside, &node),
            Some(slash) => match &mut self.current {
                Some((_, tree)) if self.last_name == inside[..slash] => {
                    tree.entry(&inside[slash + 1..], &node)
                }
                _ => Err("an entry does not lie in a store path before it"),
            },
        }
    }

    fn begin_path(&mut self, name: &[u8], node: &Node<'_>) -> Result<(), Unlike> {
        self.end_path();
        if name <= self.last_name.as_slice() {
            return Err("store paths are not sorted");
        }
        let path = std::str::from_utf8(name).ok();
        let path = path.and_then(|name| StorePath::parse_base_name(name).ok());
        let path = path.ok_or("a name in the store is not that of a store path")?;
        self.last_name = name.to_vec();
        self.current = Some((path, Tree::new(node)));
        Ok(())
    }

    fn end_path(&mut self) {
        if let (Some((path, tree)), Some(paths)) = (self.current.take(), &mut self.paths) {
            paths.add(&path, &tree.finish());
        }
    }

    /// A root file's entry: its bytes are what the key is of.
    fn root_entry(&mut self, entry: &Entry, header: &[u8]) -> Result<(), Unlike> {
        // So that no tar is taken for the text of one with copies.
        if header.starts_with(COPIED) {
            return Err("a root file has a name that cannot be told from copies");
        }
        self.has_root_files = true;
        self.in_root_file = matches!(entry.kind, EntryKind::Regular { .. });
        self.root_bytes(header);
        Ok(())
    }

    fn root_bytes(&mut self, bytes: &[u8]) {
        if let Some(mixed) = &mut self.mixed {
            mixed.update(bytes);
        }
    }

    fn end_root_file(&mut self) {
        if std::mem::take(&mut self.in_root_file) {
            let padding = vec![0; self.padding];
            self.root_bytes(&padding);
        }
    }

    fn finish(mut self) -> Result<Found, Unlike> {
        let end = self.padding + TRAILER_BYTES;
        if self.pending.len() != end || self.pending.iter().any(|byte| *byte != 0) {
            return Err("it does not end as Firn ends it");
        }
        self.end_root_file();
        self.end_path();
        let key = match (self.paths, self.root) {
            (None, Some(root)) => root.finish().hex(),
            (Some(paths), _) if !self.has_root_files => paths.finish(),
            (Some(paths), _) => match self.mixed {
                Some(mut mixed) => {
                    mixed.update(&[0; TRAILER_BYTES]);
                    mixed.finish().hex()
                }
                None => {
                    let paths_key = paths.finish();
                    return Ok(Found::Mixed { paths_key });
                }
            },
            (None, None) => return Err("it is empty"),
        };
        Ok(Found::Key(key))
    }
}

fn of(entry: &Entry) -> Attributes {
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
    }
}
