//! A closed folder before it is opened: what would keep a server from starting is a finding here.

use super::{Finding, FindingKind};
use crate::db::schema;
use crate::files::Folder;
use crate::{StoreError, layout};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// Looks at version and database; changes nothing but what SQLite recovers by itself. Nothing found means that
/// the store can be opened.
pub(crate) fn inspect(dir: &Path) -> Result<Vec<Finding>, StoreError> {
    let folder = Folder::open(dir)?;
    let _lock = folder.lock()?;
    if let Some(finding) = version(&folder)? {
        return Ok(vec![finding]);
    }
    Ok(database(&folder)?.into_iter().collect())
}

fn finding(kind: FindingKind, subject: &str, detail: impl Into<String>) -> Finding {
    Finding {
        kind,
        subject: subject.to_owned(),
        detail: detail.into(),
        breaks: Vec::new(),
        breaks_total: 0,
    }
}

fn version(folder: &Folder) -> Result<Option<Finding>, StoreError> {
    let name = layout::VERSION_FILE;
    if folder.length(name)?.is_none() {
        return Ok(Some(finding(FindingKind::Version, name, "it is not here")));
    }
    match layout::check_version(folder) {
        Ok(()) => Ok(None),
        Err(StoreError::FormatVersion { found, known, .. }) => {
            let detail = format!("the folder has format {found}; this program knows {known}");
            Ok(Some(finding(FindingKind::Version, name, detail)))
        }
        Err(error) => Err(error),
    }
}

fn database(folder: &Folder) -> Result<Option<Finding>, StoreError> {
    let name = layout::DATABASE;
    if folder.length(name)?.unwrap_or(0) == 0 {
        return Ok(Some(finding(FindingKind::Database, name, "it is not here")));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let looked = Connection::open_with_flags(folder.path(name), flags).and_then(|connection| {
        let whole: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((whole, version))
    });
    Ok(match looked {
        Ok((whole, _)) if whole != "ok" => {
            let detail = format!("it is damaged: {}", whole.replace('\n', " "));
            Some(finding(FindingKind::Database, name, detail))
        }
        Ok((_, version)) if version > schema::KNOWN => {
            let known = schema::KNOWN;
            let detail = format!("the database has version {version}; this program knows {known}");
            Some(finding(FindingKind::Version, name, detail))
        }
        Ok(_) => None,
        Err(error) => {
            let detail = format!("it is damaged: {error}");
            Some(finding(FindingKind::Database, name, detail))
        }
    })
}
