//! What became valid since some moment. Row ids of the Nix database only grow, so a moment is a row id.

use super::{LocalStore, database};
use crate::error::{ClientError, Result};
use firn_formats::nix::{StorePath, store_path::STORE_DIR};
use rusqlite::OptionalExtension as _;

/// A path that became valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentPath {
    /// Its row id: paths that come later have larger ones.
    pub id: i64,
    /// Its name.
    pub path: StorePath,
    /// Bytes of its NAR.
    pub nar_size: u64,
}

impl LocalStore {
    /// The largest row id there is; 0 for an empty store, and where Nix has not made its database yet.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn last_id(&self) -> Result<i64> {
        let database = self.database_path();
        if !database.exists() {
            return Ok(0);
        }
        let connection = database::open(&database)?;
        connection
            .query_row("SELECT coalesce(max(id), 0) FROM ValidPaths", [], |row| {
                row.get(0)
            })
            .map_err(|source| ClientError::NixDatabase {
                path: database,
                source,
            })
    }

    /// The next paths after a row id, in the order in which they became valid; paths of other store folders
    /// are left out. The second value is the row id to go on from.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn valid_after(&self, id: i64, paths_max: u32) -> Result<(Vec<RecentPath>, i64)> {
        let database = self.database_path();
        if !database.exists() {
            return Ok((Vec::new(), id));
        }
        let connection = database::open(&database)?;
        let read = || -> rusqlite::Result<Vec<(i64, String, Option<i64>)>> {
            connection
                .prepare(
                    "SELECT id, path, narSize FROM ValidPaths WHERE id > ?1 ORDER BY id LIMIT ?2",
                )?
                .query_map((id, paths_max), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect()
        };
        let rows = read().map_err(|source| ClientError::NixDatabase {
            path: database,
            source,
        })?;
        let last = rows.last().map_or(id, |(id, ..)| *id);
        let paths = rows.into_iter().filter_map(|(id, path, size)| {
            Some(RecentPath {
                id,
                path: StorePath::parse(&path).ok()?,
                nar_size: size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            })
        });
        Ok((paths.collect(), last))
    }

    /// Bytes of the NARs of paths, in order; `None` for those that are not valid.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn nar_sizes(&self, paths: &[StorePath]) -> Result<Vec<Option<u64>>> {
        let database = self.database_path();
        let connection = database::open(&database)?;
        let read = || -> rusqlite::Result<Vec<Option<u64>>> {
            let mut size = connection.prepare("SELECT narSize FROM ValidPaths WHERE path = ?1")?;
            paths
                .iter()
                .map(|path| {
                    let size: Option<Option<i64>> = size
                        .query_row([path.absolute()], |row| row.get(0))
                        .optional()?;
                    Ok(size.map(|size| size.map_or(0, i64::unsigned_abs)))
                })
                .collect()
        };
        read().map_err(|source| ClientError::NixDatabase {
            path: database,
            source,
        })
    }

    /// Which hash parts belong to valid paths, in order.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn valid_hash_parts(&self, hash_parts: &[String]) -> Result<Vec<bool>> {
        let database = self.database_path();
        let connection = database::open(&database)?;
        let read = || -> rusqlite::Result<Vec<bool>> {
            let mut next = connection
                .prepare("SELECT path FROM ValidPaths WHERE path >= ?1 ORDER BY path LIMIT 1")?;
            hash_parts
                .iter()
                .map(|hash| {
                    let prefix = format!("{STORE_DIR}/{hash}-");
                    let path: Option<String> =
                        next.query_row([&prefix], |row| row.get(0)).optional()?;
                    Ok(path.is_some_and(|path| path.starts_with(&prefix)))
                })
                .collect()
        };
        read().map_err(|source| ClientError::NixDatabase {
            path: database,
            source,
        })
    }

    /// All paths after a row id.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn all_valid_after(&self, id: i64) -> Result<Vec<RecentPath>> {
        let (paths, _) = self.valid_after(id, u32::MAX)?;
        Ok(paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_in_the_order_in_which_they_became_valid() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = LocalStore::new(dir.path(), "/nix/store");
        assert_eq!(store.last_id().expect("no Nix yet"), 0);
        assert_eq!(store.all_valid_after(0).expect("no paths"), []);
        std::fs::create_dir(dir.path().join("db")).expect("folder");
        let writer = rusqlite::Connection::open(dir.path().join("db/db.sqlite")).expect("database");
        writer
            .execute_batch(
                "CREATE TABLE ValidPaths (id integer primary key autoincrement not null,
                     path text unique not null, narSize integer);
                 CREATE TABLE Refs (referrer integer, reference integer);",
            )
            .expect("schema");
        assert_eq!(store.last_id().expect("an id"), 0);
        let path = |digit: &str| format!("/nix/store/{}-x", digit.repeat(32));
        for digit in ["3", "1", "2"] {
            writer
                .execute(
                    "INSERT INTO ValidPaths (path, narSize) VALUES (?1, 7)",
                    [path(digit)],
                )
                .expect("path");
        }
        writer
            .execute("INSERT INTO ValidPaths (path) VALUES ('/gnu/store/x')", [])
            .expect("path");
        assert_eq!(store.last_id().expect("an id"), 4);
        let (first, last) = store.valid_after(0, 2).expect("paths");
        assert_eq!(last, 2);
        let names: Vec<String> = first.iter().map(|one| one.path.absolute()).collect();
        assert_eq!(names, [path("3"), path("1")]);
        let (rest, last) = store.valid_after(last, 10).expect("paths");
        assert_eq!((rest.len(), last, rest[0].nar_size), (1, 4, 7));
        let named = |text: &str| StorePath::parse(text).expect("a path");
        let sizes = store.nar_sizes(&[named(&path("1")), named(&path("9"))]);
        assert_eq!(sizes.expect("sizes"), [Some(7), None]);
        let parts = ["1", "9"].map(|digit| digit.repeat(32));
        assert_eq!(
            store.valid_hash_parts(&parts).expect("parts"),
            [true, false]
        );
        assert_eq!(store.all_valid_after(4).expect("paths"), []);
    }
}
