//! A layer over SQLite's own file system that shows writes, syncs and deletions to the recorder of their folder.
//!
//! It is registered as the default, so that programs under test need not know of it. Files stay those of the layer
//! below, byte for byte: only four of their methods are exchanged, and `xOpen` and `xDelete`. Locks, shared memory and
//! reading are untouched. Shared memory is not recorded: after a power cut there is none.
//!
//! No crate fits: `sqlite-plugin` and `sqlite-vfs` want a whole file system, with locks and shared memory, instead of
//! a layer over the one that is tested.

// SQLite calls functions of C. What is relied on stands at each place.
#![allow(unsafe_code)]

use super::{Op, Recorder, recorder_of};
use rusqlite::ffi::{self, sqlite3_file, sqlite3_io_methods, sqlite3_vfs};
use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Once, OnceLock, PoisonError};

/// The layer below, as a number: it lives as long as the process.
static BELOW: OnceLock<usize> = OnceLock::new();
/// Files that are open and recorded, by their address.
static OPEN: LazyLock<Mutex<HashMap<usize, Open>>> = LazyLock::new(Mutex::default);

#[derive(Clone)]
struct Open {
    path: PathBuf,
    recorder: Arc<Recorder>,
    /// The methods below, which live as long as the process.
    below: &'static sqlite3_io_methods,
    /// As in the layer below: the first sync of a journal or log makes its name durable too.
    names: bool,
}

/// Registers the layer, once.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: with null it finds the default one, which is static.
        let below = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
        assert!(!below.is_null(), "SQLite has no file system");
        let _ = BELOW.set(below as usize);
        // SAFETY: it is not null, and of plain data.
        let mut layer = unsafe { *below };
        layer.zName = c"firn-power".as_ptr();
        layer.pNext = std::ptr::null_mut();
        layer.xOpen = Some(open);
        layer.xDelete = Some(delete);
        // SAFETY: what is leaked lives as long as the process.
        let code = unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(layer)), 1) };
        assert_eq!(code, ffi::SQLITE_OK);
    });
}

fn below() -> *mut sqlite3_vfs {
    BELOW
        .get()
        .map_or(std::ptr::null_mut(), |below| *below as *mut _)
}

fn files() -> MutexGuard<'static, HashMap<usize, Open>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn of(file: *mut sqlite3_file) -> Option<Open> {
    files().get(&(file as usize)).cloned()
}

/// # Safety
/// `name` is null or a string of C.
unsafe fn path(name: *const c_char) -> Option<PathBuf> {
    if name.is_null() {
        return None;
    }
    // SAFETY: as above.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    Some(Path::new(OsStr::from_bytes(bytes)).to_owned())
}

/// Runs a function of the layer below as a step; an error that was asked for is `failed`.
fn step(recorder: &Recorder, op: Op, failed: c_int, run: impl FnOnce() -> c_int) -> c_int {
    let mut code = None;
    let done = recorder.step(op, || {
        let given = run();
        code = Some(given);
        match given {
            ffi::SQLITE_OK => Ok(()),
            _ => Err(io::ErrorKind::Other.into()),
        }
    });
    match (code, done) {
        (Some(code), _) => code,
        (None, Err(error))
            if error.raw_os_error() == Some(28) && failed == ffi::SQLITE_IOERR_WRITE =>
        {
            ffi::SQLITE_FULL
        }
        (None, _) => failed,
    }
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a name or null.
    let path = unsafe { path(name) };
    let new = path.as_ref().is_some_and(|path| !path.exists());
    // SAFETY: the arguments are SQLite's own, and the file has room for one of the layer below.
    let code = unsafe {
        (*below())
            .xOpen
            .map(|open| open(below(), name, file, flags, out))
    };
    let code = code.unwrap_or(ffi::SQLITE_CANTOPEN);
    let recorded = path.and_then(|path| Some((recorder_of(&path)?, path)));
    let (ffi::SQLITE_OK, Some((recorder, path))) = (code, recorded) else {
        return code;
    };
    if new {
        let create = Op::Create {
            path: path.clone(),
            truncate: false,
        };
        // It is made already; only writes, syncs and renames are asked to fail here.
        recorder.done(create);
    }
    let journals =
        ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;
    // SAFETY: an opened file has its methods, which are static.
    let below: &'static sqlite3_io_methods = unsafe { &*(*file).pMethods };
    let opened = Open {
        path,
        recorder,
        below,
        names: flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & journals != 0,
    };
    files().insert(file as usize, opened);
    // SAFETY: the file is ours to change until this returns.
    unsafe { (*file).pMethods = methods(below) };
    code
}

/// Methods that record, over these. One table for each of the few of the layer below.
fn methods(below: &'static sqlite3_io_methods) -> &'static sqlite3_io_methods {
    static MADE: LazyLock<Mutex<HashMap<usize, &'static sqlite3_io_methods>>> =
        LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry(std::ptr::from_ref(below) as usize)
        .or_insert_with(|| {
            Box::leak(Box::new(sqlite3_io_methods {
                xClose: Some(close),
                xWrite: Some(write),
                xTruncate: Some(truncate),
                xSync: Some(sync),
                ..*below
            }))
        })
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let Some(open) = files().remove(&(file as usize)) else {
        return ffi::SQLITE_MISUSE;
    };
    // SAFETY: the file is of the layer below.
    open.below
        .xClose
        .map_or(ffi::SQLITE_OK, |close| unsafe { close(file) })
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Some(open), Ok(length)) = (of(file), usize::try_from(count)) else {
        return ffi::SQLITE_MISUSE;
    };
    // SAFETY: SQLite gives `count` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), length) };
    let op = Op::Write {
        path: open.path.clone(),
        offset: u64::try_from(offset).unwrap_or(0),
        bytes: bytes.to_vec(),
    };
    step(&open.recorder, op, ffi::SQLITE_IOERR_WRITE, || {
        let write = open.below.xWrite;
        // SAFETY: the file is of the layer below, the rest is SQLite's own.
        write.map_or(ffi::SQLITE_IOERR, |write| unsafe {
            write(file, from, count, offset)
        })
    })
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    let Some(open) = of(file) else {
        return ffi::SQLITE_MISUSE;
    };
    let op = Op::Length(open.path.clone(), u64::try_from(size).unwrap_or(0));
    step(&open.recorder, op, ffi::SQLITE_IOERR_TRUNCATE, || {
        let truncate = open.below.xTruncate;
        // SAFETY: the file is of the layer below.
        truncate.map_or(ffi::SQLITE_IOERR, |truncate| unsafe {
            truncate(file, size)
        })
    })
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    let Some(open) = of(file) else {
        return ffi::SQLITE_MISUSE;
    };
    let op = Op::Sync(open.path.clone());
    let code = step(&open.recorder, op, ffi::SQLITE_IOERR_FSYNC, || {
        // SAFETY: the file is of the layer below.
        open.below
            .xSync
            .map_or(ffi::SQLITE_IOERR, |sync| unsafe { sync(file, flags) })
    });
    if code == ffi::SQLITE_OK && open.names {
        if let Some(open) = files().get_mut(&(file as usize)) {
            open.names = false;
        }
        sync_folder(&open.recorder, &open.path);
    }
    code
}

/// The layer below ignores an error of it.
fn sync_folder(recorder: &Recorder, path: &Path) {
    if let Some(folder) = path.parent() {
        let _ = recorder.step(Op::SyncFolder(folder.to_owned()), || Ok(()));
    }
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, names: c_int) -> c_int {
    let run = || {
        // SAFETY: the arguments are SQLite's own.
        let code = unsafe {
            (*below())
                .xDelete
                .map(|delete| delete(below(), name, names))
        };
        code.unwrap_or(ffi::SQLITE_IOERR)
    };
    // SAFETY: SQLite gives a name or null.
    let path = unsafe { path(name) };
    let Some((recorder, path)) = path.and_then(|path| Some((recorder_of(&path)?, path))) else {
        return run();
    };
    let code = step(
        &recorder,
        Op::Delete(path.clone()),
        ffi::SQLITE_IOERR_DELETE,
        run,
    );
    if code == ffi::SQLITE_OK && names != 0 {
        sync_folder(&recorder, &path);
    }
    code
}
