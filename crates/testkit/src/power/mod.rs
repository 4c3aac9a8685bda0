//! Power cuts: what is done to a folder is recorded, and the folder made anew as a cut may have left it.
//!
//! | module | what it does |
//! |---|---|
//! | here | records writes, names and syncs below a folder; lets one of them fail |
//! | `vfs` | shows what SQLite does |
//! | `disk` | says what a disk may hold after a cut |

mod disk;
mod vfs;

pub use disk::{Disk, Random};
pub use vfs::install;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// What was done, to a path below the recorded folder.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Op {
    /// Makes a file if it is not there, or empties it with `truncate`.
    Create {
        path: PathBuf,
        truncate: bool,
    },
    Write {
        path: PathBuf,
        offset: u64,
        bytes: Vec<u8>,
    },
    Length(PathBuf, u64),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Delete(PathBuf),
    MakeFolder(PathBuf),
    SyncFolder(PathBuf),
}

/// Kinds of steps that may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Write,
    /// Of a file or a folder.
    Sync,
    Name,
}

impl Op {
    fn kind(&self) -> Kind {
        match self {
            Self::Write { .. } | Self::Length(..) => Kind::Write,
            Self::Sync(_) | Self::SyncFolder(_) => Kind::Sync,
            _ => Kind::Name,
        }
    }
}

/// One line of a record.
#[derive(Debug, Clone)]
pub enum Event {
    /// It was done.
    Done(Op),
    /// It was said to have failed; nothing was done.
    Failed(Op),
    /// The recorded program says something.
    Note(usize),
}

/// Which steps fail, with what.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Of these …
    pub kind: Kind,
    /// … the one with this number, counted from 0, …
    pub at: usize,
    /// … and so many after it.
    pub more: usize,
    /// The number of the error.
    pub errno: i32,
}

/// Records what is done below a folder.
pub struct Recorder {
    root: PathBuf,
    state: Mutex<State>,
}

/// Chooses a step.
type Choice = Box<dyn Fn(&Op) -> bool + Send>;

#[derive(Default)]
struct State {
    events: Vec<Event>,
    fault: Option<Fault>,
    /// The next step that is chosen fails with this error.
    next: Option<(Choice, i32)>,
    seen: HashMap<Kind, usize>,
    failed: usize,
}

static RECORDERS: RwLock<Vec<Arc<Recorder>>> = RwLock::new(Vec::new());

/// The recorder of the folder in which a path lies.
pub fn recorder_of(path: &Path) -> Option<Arc<Recorder>> {
    let all = RECORDERS.read().unwrap_or_else(PoisonError::into_inner);
    all.iter().find(|one| path.starts_with(&one.root)).cloned()
}

impl Recorder {
    /// Begins to record, in an empty folder.
    pub fn start(root: &Path, fault: Option<Fault>) -> Arc<Self> {
        install();
        let state = State {
            fault,
            ..State::default()
        };
        let made = Arc::new(Self {
            root: root.to_owned(),
            state: Mutex::new(state),
        });
        let mut all = RECORDERS.write().unwrap_or_else(PoisonError::into_inner);
        all.push(made.clone());
        made
    }

    /// Ends the recording; gives what was done, and how many steps failed.
    pub fn stop(&self) -> (Vec<Event>, usize) {
        let mut all = RECORDERS.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.root != self.root);
        let mut state = self.state();
        (std::mem::take(&mut state.events), state.failed)
    }

    /// Lets the next of the chosen steps fail with the error of a number.
    pub fn fail_next(&self, choice: impl Fn(&Op) -> bool + Send + 'static, errno: i32) {
        self.state().next = Some((Box::new(choice), errno));
    }

    /// How many steps failed, as was asked for.
    pub fn failed(&self) -> usize {
        self.state().failed
    }

    /// The program says something.
    pub fn note(&self, note: usize) {
        self.state().events.push(Event::Note(note));
    }

    /// Does a step and records it; or records that it failed, and says so.
    ///
    /// # Errors
    /// Of `run`, and those that were asked for.
    pub fn step(&self, op: Op, run: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        // Held meanwhile: the record is in the order of what was done.
        let mut state = self.state();
        if let Some(errno) = state.fails(&op) {
            state.events.push(Event::Failed(op));
            return Err(io::Error::from_raw_os_error(errno));
        }
        run()?;
        state.events.push(Event::Done(op));
        Ok(())
    }

    /// Records what was done.
    fn done(&self, op: Op) {
        self.state().events.push(Event::Done(op));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fails(&mut self, op: &Op) -> Option<i32> {
        if let Some((_, errno)) = self.next.take_if(|(choice, _)| choice(op)) {
            self.failed += 1;
            return Some(errno);
        }
        let kind = op.kind();
        let seen = self.seen.entry(kind).or_default();
        let number = *seen;
        *seen += 1;
        let fault = self.fault.filter(|fault| fault.kind == kind)?;
        let hit = (fault.at..=fault.at + fault.more).contains(&number);
        self.failed += usize::from(hit);
        hit.then_some(fault.errno)
    }
}
