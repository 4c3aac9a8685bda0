//! A consistent copy of a data folder, made while a server works in it.
//!
//! Packs never change once they are sealed, so a copy holds each of them once. The database is copied first, in one
//! snapshot, then every pack that it names: what is new meanwhile, it does not name, and of a pack that grows it
//! names a length. A pack that the collector deletes meanwhile is missed; then the database is copied anew, which
//! names it no more. So nothing needs to hold the collector off, and nothing is left behind if a backup dies.
//! Last, the new database takes the place of the old, and what only that named goes: at every moment the copy
//! is a data folder that can be served.

use crate::db::chunks::{self, PackRow};
use crate::db::schema;
use crate::files::{Copied, Folder};
use crate::{StoreError, layout};
use rusqlite::{Connection, OpenFlags};
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

/// Where the copy of the database grows.
const TEMPORARY: &str = "firn.db.backup";
/// Databases that are copied in one backup, each since a pack was collected meanwhile.
const ROUNDS_MAX: usize = 20;

/// What a backup did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BackupReport {
    pub packs_total: u64,
    /// They name the same bytes as the server's folder.
    pub packs_linked: u64,
    pub packs_copied: u64,
    pub bytes_copied: u64,
    /// Named by the database, but not there: the store is damaged.
    pub packs_lost: u64,
    /// Of an older backup, and not needed any more.
    pub packs_deleted: u64,
    pub segments: u64,
    /// Keys, tokens and the like.
    pub other_files: u64,
}

/// Makes, or brings up to date, a copy of the data folder `source` in the folder `dest`. With `link`, packs of a
/// folder on the same file system are linked, not copied.
pub(crate) fn backup(source: &Path, dest: &Path, link: bool) -> Result<BackupReport, StoreError> {
    let source = Folder::open_existing(source)?;
    layout::check_version(&source)?;
    let dest = open_dest(&source, dest)?;
    let _lock = dest.lock()?;
    let mut report = BackupReport::default();
    let packs = copy_packs(&source, &dest, link, &mut report)?;
    // After the database: segments may tell of more than it holds, but not of less.
    let segments: Vec<String> = source.list(layout::SEGMENTS)?;
    for key in segments.iter().filter(|key| key.ends_with(".seg")) {
        dest.bring(&source, key, None, link)?;
        report.segments += 1;
    }
    copy_others(&source, &dest, &mut report)?;
    replace_database(&dest)?;
    layout::check_version(&dest)?;
    for key in dest.list(layout::PACKS)? {
        if !packs.contains(&key) {
            dest.delete(&key)?;
            report.packs_deleted += 1;
        }
    }
    let segments: HashSet<String> = segments.into_iter().collect();
    for key in dest.list(layout::SEGMENTS)? {
        if !segments.contains(&key) {
            dest.delete(&key)?;
        }
    }
    Ok(report)
}

/// An empty folder, or one that holds a backup.
fn open_dest(source: &Folder, dest: &Path) -> Result<Folder, StoreError> {
    let folder = Folder::open(dest)?;
    let real = |folder: &Folder| {
        let path = folder.path("");
        std::path::absolute(&path)
            .and_then(|_| path.canonicalize())
            .map_err(|error| StoreError::io(&path, error))
    };
    let (from, to) = (real(source)?, real(&folder)?);
    let is_store = folder.length("lock")?.is_some();
    if to.starts_with(&from) || from.starts_with(&to) || !(is_store || folder.is_empty()?) {
        return Err(StoreError::Conflict(format!(
            "{} is neither empty nor a backup",
            dest.display()
        )));
    }
    Ok(folder)
}

/// Copies the database, and every pack that it names. Gives the keys of these.
fn copy_packs(
    source: &Folder,
    dest: &Folder,
    link: bool,
    report: &mut BackupReport,
) -> Result<BTreeSet<String>, StoreError> {
    let mut missed = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let packs = copy_database(source, dest)?;
        let mut missing = BTreeSet::new();
        for pack in &packs {
            match copy_pack(source, dest, pack, link)? {
                None => {
                    missing.insert(pack.key());
                }
                Some(Copied::There) => {}
                Some(Copied::Linked) => report.packs_linked += 1,
                Some(Copied::Written(bytes)) => {
                    report.packs_copied += 1;
                    report.bytes_copied += bytes;
                }
            }
        }
        // One that is named still, and still not there, was not collected but lost.
        if missing.is_subset(&missed) {
            report.packs_total = packs.len() as u64;
            report.packs_lost = missing.len() as u64;
            return Ok(packs.iter().map(PackRow::key).collect());
        }
        missed = missing;
    }
    Err(StoreError::Conflict(
        "packs go faster than they can be copied: try again".to_owned(),
    ))
}

/// A sealed pack as it is; of an open one what its row says, and never as a link: who opens the copy seals it.
fn copy_pack(
    source: &Folder,
    dest: &Folder,
    pack: &PackRow,
    link: bool,
) -> Result<Option<Copied>, StoreError> {
    match (pack.sealed_length, pack.durable_length) {
        // A row that has no file yet.
        (0, 0) => Ok(Some(Copied::There)),
        (0, durable) => dest.bring(source, &pack.key(), Some(durable), false),
        (sealed, _) => dest.bring(source, &pack.key(), Some(sealed), link),
    }
}

/// One snapshot of the database; gives the packs that it names.
fn copy_database(source: &Folder, dest: &Folder) -> Result<Vec<PackRow>, StoreError> {
    dest.delete(TEMPORARY)?;
    dest.touch(TEMPORARY)?;
    let path = source.path(layout::DATABASE);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version != schema::KNOWN {
        return Err(StoreError::FormatVersion {
            path,
            found: version.to_string(),
            known: schema::KNOWN,
        });
    }
    let copy = dest.path(TEMPORARY);
    connection.execute("VACUUM INTO ?", [copy.to_string_lossy()])?;
    dest.sync(TEMPORARY)?;
    chunks::packs_in_use(&Connection::open(copy)?)
}

/// Keys, tokens and whatever else lies beside the store; what is a process's own, or grows, stays.
fn copy_others(
    source: &Folder,
    dest: &Folder,
    report: &mut BackupReport,
) -> Result<(), StoreError> {
    for key in source.files_beside(&[layout::PACKS, layout::SEGMENTS])? {
        let own = key == "lock"
            || key == layout::VERSION_FILE
            || key.starts_with(layout::DATABASE)
            || key.ends_with(".tmp")
            || key.ends_with(".new");
        if !own {
            // They are small, and may change without changing their length.
            dest.delete(&key)?;
            dest.bring(source, &key, None, false)?;
            report.other_files += 1;
        }
    }
    Ok(())
}

fn replace_database(dest: &Folder) -> Result<(), StoreError> {
    // The log of a database that was served would be replayed into the new one, after a power cut too.
    dest.delete_durably(&format!("{}-wal", layout::DATABASE))?;
    dest.delete(&format!("{}-shm", layout::DATABASE))?;
    dest.rename(TEMPORARY, layout::DATABASE)?;
    Ok(())
}
