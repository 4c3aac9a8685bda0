//! A consistent copy of a data folder, made while a server works in it.
//!
//! Packs never change once they are sealed, so a copy holds each of them once. The database is copied first, in one
//! snapshot, then every pack that it names: what is new meanwhile, it does not name, and of a pack that grows it
//! names a length. A pack that the collector deletes meanwhile is missed; then the database is copied anew, which
//! names it no more. So nothing needs to hold the collector off, and nothing is left behind if a backup dies.
//! Last, the new database takes the place of the old, and what only that named goes: at every moment the copy
//! is a data folder that can be served. No pack goes while anything is damaged or lost.

use crate::db::chunks::{self, PackRow};
use crate::db::{damage, schema, staged};
use crate::files::{Copied, Folder};
use crate::{StoreError, layout, presence};
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
    /// Not in the server's folder any more: only the backup has them.
    pub packs_kept: u64,
    /// Named by the database, but neither there nor in the backup: the store is damaged.
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
    let named = copy_packs(&source, &dest, link, &mut report)?;
    // After the database: segments may tell of more than it holds, but not of less.
    let segments: Vec<String> = source.list(layout::SEGMENTS)?;
    for key in segments.iter().filter(|key| key.ends_with(".seg")) {
        dest.bring(&source, key, None, link)?;
        report.segments += 1;
    }
    for (key, length) in &named.parts {
        // Durable, so it never changes; one that has ended meanwhile is missed, and its row goes when the copy is
        // opened.
        dest.bring(&source, key, Some(*length), link)?;
    }
    let others = copy_others(&source, &dest, &mut report)?;
    replace_database(&dest)?;
    layout::check_version(&dest)?;
    prune(&source, &dest, &named, &segments, &others, &mut report)?;
    Ok(report)
}

/// What a copy of the database names.
struct Named {
    packs: Vec<PackRow>,
    /// Parts of what is staged, with their lengths.
    parts: Vec<(String, u64)>,
    /// Something is in quarantine.
    damaged: bool,
    /// The number of the packs' mark.
    mark: Option<i64>,
}

/// Deletes what only an older backup had. While anything is damaged or lost no pack goes: an old one may be the only
/// one with what is needed to heal it.
fn prune(
    source: &Folder,
    dest: &Folder,
    named: &Named,
    segments: &[String],
    others: &HashSet<String>,
    report: &mut BackupReport,
) -> Result<(), StoreError> {
    let whole = !named.damaged && report.packs_lost == 0 && report.packs_kept == 0;
    if whole {
        let packs: HashSet<String> = named.packs.iter().map(PackRow::key).collect();
        for key in layout::packs(dest)? {
            if !packs.contains(&key) {
                dest.delete(&key)?;
                report.packs_deleted += 1;
            }
        }
    }
    let segments: HashSet<&str> = segments.iter().map(String::as_str).collect();
    for key in dest.list(layout::SEGMENTS)? {
        // None at all is a folder that is not mounted, or one more loss.
        if !segments.is_empty() && !segments.contains(key.as_str()) {
            dest.delete(&key)?;
        }
    }
    let parts: HashSet<&str> = named.parts.iter().map(|(key, _)| key.as_str()).collect();
    for key in dest.list(layout::STAGED)? {
        if !parts.contains(key.as_str()) {
            dest.delete(&key)?;
        }
    }
    for key in dest.files_beside(&COPIED_ELSEWHERE)? {
        // Gone from a folder that is there; a whole folder without files may be away.
        let folder = key.rsplit_once('/').map(|(folder, _)| folder);
        let gone = !is_own(&key) && folder.is_some_and(|folder| holds(others, folder));
        if gone && !others.contains(&key) && source.length(&key)?.is_none() {
            dest.delete(&key)?;
        }
    }
    Ok(())
}

fn holds(keys: &HashSet<String>, folder: &str) -> bool {
    keys.iter().any(|key| {
        key.rsplit_once('/')
            .is_some_and(|(above, _)| above == folder)
    })
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

/// Copies the database, and every pack that it names. Gives what it names.
fn copy_packs(
    source: &Folder,
    dest: &Folder,
    link: bool,
    report: &mut BackupReport,
) -> Result<Named, StoreError> {
    let mut missed = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let named = copy_database(source, dest)?;
        let mut missing = BTreeSet::new();
        for pack in &named.packs {
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
            report.packs_total = named.packs.len() as u64;
            for key in &missing {
                match dest.length(key)? {
                    Some(_) => report.packs_kept += 1,
                    None => report.packs_lost += 1,
                }
            }
            mark(dest, &named)?;
            return Ok(named);
        }
        missed = missing;
    }
    Err(StoreError::Conflict(
        "packs go faster than they can be copied: try again".to_owned(),
    ))
}

/// The copy's packs are there.
fn mark(dest: &Folder, named: &Named) -> Result<(), StoreError> {
    let Some(key) = named.mark.map(layout::mark_key) else {
        return Ok(());
    };
    match dest.length(&key)? {
        Some(_) => Ok(()),
        None => dest.create_new(&key).map(drop),
    }
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

/// One snapshot of the database; gives what it names. Refuses a folder whose packs are not mounted.
fn copy_database(source: &Folder, dest: &Folder) -> Result<Named, StoreError> {
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
    presence::expect(source, &connection)?;
    dest.delete(TEMPORARY)?;
    dest.touch(TEMPORARY)?;
    let copy = dest.path(TEMPORARY);
    connection.execute("VACUUM INTO ?", [copy.to_string_lossy()])?;
    dest.sync(TEMPORARY)?;
    let copy = Connection::open(copy)?;
    Ok(Named {
        mark: presence::expect(source, &copy)?,
        packs: chunks::packs_in_use(&copy)?,
        parts: staged::all_parts(&copy)?,
        damaged: damage::any(&copy)?,
    })
}

/// Folders that are copied by what the database names, or by what lies in them.
const COPIED_ELSEWHERE: [&str; 3] = [layout::PACKS, layout::SEGMENTS, layout::STAGED];

/// What is a process's own, or grows, or is copied by itself.
fn is_own(key: &str) -> bool {
    key == "lock"
        || key == layout::VERSION_FILE
        || key.starts_with(layout::DATABASE)
        || key.ends_with(".tmp")
        || key.ends_with(".new")
}

/// Keys, tokens and whatever else lies beside the store; gives the keys of all.
fn copy_others(
    source: &Folder,
    dest: &Folder,
    report: &mut BackupReport,
) -> Result<HashSet<String>, StoreError> {
    let mut others = HashSet::new();
    for key in source.files_beside(&COPIED_ELSEWHERE)? {
        // They are small, and may change without changing their length.
        if !is_own(&key) && dest.bring_anew(source, &key)? {
            report.other_files += 1;
            others.insert(key);
        }
    }
    Ok(others)
}

fn replace_database(dest: &Folder) -> Result<(), StoreError> {
    // The log of a database that was served would be replayed into the new one, after a power cut too.
    dest.delete_durably(&format!("{}-wal", layout::DATABASE))?;
    dest.delete(&format!("{}-shm", layout::DATABASE))?;
    dest.rename(TEMPORARY, layout::DATABASE)?;
    Ok(())
}
