//! Steps that change a folder, so that a test can record them and let one fail.
//!
//! Without the feature `failpoints`, which only tests switch on, a step is what it does and nothing more.

use std::io;
use std::path::Path;

/// What is done to the file system.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(feature = "failpoints"),
    allow(unreachable_pub, dead_code, reason = "tests see it")
)]
#[allow(missing_docs)]
pub enum Step<'a> {
    /// Opens a file for writing and makes it if it is not there.
    Create {
        path: &'a Path,
        truncate: bool,
    },
    Write {
        path: &'a Path,
        offset: u64,
        parts: &'a [io::IoSlice<'a>],
    },
    /// Fills a new file from another one.
    Copy(&'a Path),
    Length(&'a Path, u64),
    Sync(&'a Path),
    Rename(&'a Path, &'a Path),
    Link(&'a Path, &'a Path),
    Delete(&'a Path),
    MakeFolder(&'a Path),
    SyncFolder(&'a Path),
}

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(super) fn step<T>(_: Step<'_>, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    run()
}

#[cfg(feature = "failpoints")]
pub(super) use watched::step;
#[cfg(feature = "failpoints")]
pub use watched::{Watch, watch};

#[cfg(feature = "failpoints")]
mod watched {
    use super::Step;
    use std::io;
    use std::sync::{OnceLock, PoisonError, RwLock};

    /// Sees each step of this process: runs it, or says that it failed.
    pub type Watch =
        dyn Fn(&Step<'_>, &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> + Send + Sync;

    static WATCH: OnceLock<RwLock<Option<Box<Watch>>>> = OnceLock::new();

    /// Shows all steps of this process to `watch` from now on.
    pub fn watch(watch: Box<Watch>) {
        let place = WATCH.get_or_init(RwLock::default);
        *place.write().unwrap_or_else(PoisonError::into_inner) = Some(watch);
    }

    pub(in crate::files) fn step<T>(
        step: Step<'_>,
        run: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(place) = WATCH.get() else {
            return run();
        };
        let place = place.read().unwrap_or_else(PoisonError::into_inner);
        let Some(watch) = place.as_ref() else {
            return run();
        };
        let (mut run, mut done) = (Some(run), None);
        watch(&step, &mut || {
            let run = run.take().ok_or(io::ErrorKind::Other)?;
            done = Some(run()?);
            Ok(())
        })?;
        done.ok_or_else(|| io::ErrorKind::Other.into())
    }
}
