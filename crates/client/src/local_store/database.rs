//! Nix's own database, read only.
//!
//! Schema 10: `ValidPaths(id, path, hash, deriver, narSize, sigs, ca, …)` and `Refs(referrer,
//! reference)`. The hash is `sha256:` with base16, signatures are separated by spaces.

use crate::error::{ClientError, Result};
use firn_formats::{
    Sha256,
    nix::{Signature, StorePath, store_path::STORE_DIR},
};
use firn_image::closure::PathInfo;
use rusqlite::{Connection, OpenFlags};
use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    time::Duration,
};

/// Opens for reading, as whoever may read the file.
///
/// The database is in WAL mode: a reader wants the shared-memory file beside it, which a normal
/// user may neither make nor write. Where that fails the file is read as immutable, which is sound
/// only while no write-ahead log holds newer pages.
pub(super) fn open(path: &Path) -> Result<Connection> {
    match open_checked(path, "mode=ro") {
        Ok(connection) => Ok(connection),
        Err(error) if path.exists() && log_is_empty(path) => {
            tracing::debug!(%error, "the Nix database is read as immutable");
            open_checked(path, "immutable=1")
        }
        Err(error) => Err(error),
    }
    .map_err(|source| ClientError::NixDatabase {
        path: path.to_path_buf(),
        source,
    })
}

fn open_checked(path: &Path, parameters: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let uri = format!(
        "file:{}?{parameters}",
        crate::http::encode_query(&path.to_string_lossy())
    );
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    // Opening reads nothing; only a query shows whether reading is possible.
    connection
        .prepare("SELECT 1 FROM Refs LIMIT 1")?
        .exists([])?;
    Ok(connection)
}

fn log_is_empty(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).map_or_else(
        |error| error.kind() == std::io::ErrorKind::NotFound,
        |metadata| metadata.len() == 0,
    )
}

/// The closure, in no particular order, from one snapshot.
pub(super) fn closure(
    connection: &Connection,
    database: &Path,
    roots: &[StorePath],
) -> Result<Vec<PathInfo>> {
    connection
        .execute_batch("BEGIN")
        .map_err(|source| fault(database, source))?;
    let walked = Walk::new(connection)
        .map_err(|source| fault(database, source))?
        .closure(database, roots);
    // Ends a read transaction; nothing can be lost.
    let _ended = connection.execute_batch("COMMIT");
    walked
}

/// Those of the paths that are valid here.
pub(super) fn valid(
    connection: &Connection,
    database: &Path,
    paths: &[StorePath],
) -> Result<Vec<StorePath>> {
    let sql = |source| fault(database, source);
    let mut walk = Walk::new(connection).map_err(sql)?;
    let mut found = Vec::new();
    for path in paths {
        if walk.root(path).map_err(sql)?.is_some() {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn fault(database: &Path, source: rusqlite::Error) -> ClientError {
    ClientError::NixDatabase {
        path: database.to_path_buf(),
        source,
    }
}

struct Row {
    id: i64,
    path: String,
    hash: String,
    deriver: Option<String>,
    nar_size: Option<i64>,
    signatures: Option<String>,
    ca: Option<String>,
}

struct Walk<'c> {
    by_path: rusqlite::Statement<'c>,
    by_id: rusqlite::Statement<'c>,
    references: rusqlite::Statement<'c>,
}

const COLUMNS: &str = "SELECT id, path, hash, deriver, narSize, sigs, ca FROM ValidPaths";

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        id: row.get(0)?,
        path: row.get(1)?,
        hash: row.get(2)?,
        deriver: row.get(3)?,
        nar_size: row.get(4)?,
        signatures: row.get(5)?,
        ca: row.get(6)?,
    })
}

impl<'c> Walk<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            by_path: connection.prepare(&format!("{COLUMNS} WHERE path = ?1"))?,
            by_id: connection.prepare(&format!("{COLUMNS} WHERE id = ?1"))?,
            references: connection.prepare("SELECT reference FROM Refs WHERE referrer = ?1")?,
        })
    }

    fn root(&mut self, path: &StorePath) -> rusqlite::Result<Option<Row>> {
        let mut rows = self.by_path.query([path.absolute()])?;
        rows.next()?.map(read_row).transpose()
    }

    fn references_of(&mut self, id: i64) -> rusqlite::Result<Vec<i64>> {
        self.references.query_map([id], |row| row.get(0))?.collect()
    }

    fn closure(&mut self, database: &Path, roots: &[StorePath]) -> Result<Vec<PathInfo>> {
        let sql = |source| fault(database, source);
        let mut rows: HashMap<i64, (Row, Vec<i64>)> = HashMap::new();
        let mut queue = VecDeque::new();
        for root in roots {
            let row = self
                .root(root)
                .map_err(sql)?
                .ok_or_else(|| ClientError::PathNotValid {
                    path: root.absolute(),
                })?;
            queue.push_back(row.id);
        }
        while let Some(id) = queue.pop_front() {
            if rows.contains_key(&id) {
                continue;
            }
            let row = self.by_id.query_row([id], read_row).map_err(sql)?;
            let references = self.references_of(id).map_err(sql)?;
            queue.extend(references.iter().filter(|other| !rows.contains_key(other)));
            rows.insert(id, (row, references));
        }
        let paths: HashMap<i64, StorePath> = rows
            .iter()
            .map(|(id, (row, _))| Ok((*id, logical(&row.path)?)))
            .collect::<Result<_>>()?;
        rows.values()
            .map(|(row, references)| path_info(row, references, &paths))
            .collect()
    }
}

fn logical(path: &str) -> Result<StorePath> {
    StorePath::parse(path).map_err(|_| ClientError::ForeignStore {
        path: path.to_owned(),
        store_dir: STORE_DIR.to_owned(),
    })
}

fn path_info(row: &Row, references: &[i64], paths: &HashMap<i64, StorePath>) -> Result<PathInfo> {
    let unsound = |what: &str| ClientError::PathInfo {
        path: row.path.clone(),
        what: what.to_owned(),
    };
    let mut references: Vec<StorePath> = references
        .iter()
        .filter_map(|id| paths.get(id).cloned())
        .collect();
    references.sort();
    Ok(PathInfo {
        path: logical(&row.path)?,
        nar_hash: Sha256::parse_nix(&row.hash).map_err(|_| unsound("its hash is no SHA-256"))?,
        nar_size: row
            .nar_size
            .and_then(|size| u64::try_from(size).ok())
            .filter(|size| *size > 0)
            .ok_or_else(|| unsound("it has no size"))?,
        references,
        deriver: row
            .deriver
            .as_deref()
            .and_then(|path| StorePath::parse(path).ok()),
        signatures: row
            .signatures
            .iter()
            .flat_map(|texts| texts.split_ascii_whitespace())
            .filter_map(|text| Signature::parse(text).ok())
            .collect(),
        ca: row.ca.clone().filter(|ca| !ca.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_store::LocalStore;

    const SCHEMA: &str = "
        PRAGMA journal_mode = WAL;
        CREATE TABLE ValidPaths (
            id integer primary key autoincrement not null,
            path text unique not null, hash text not null,
            registrationTime integer not null, deriver text, narSize integer,
            ultimate integer, sigs text, ca text);
        CREATE TABLE Refs (
            referrer integer not null, reference integer not null,
            primary key (referrer, reference));";
    const HASH: &str = "sha256:8fae0721231070b97bb944434049d5d623c81e875e4dd78d475530f58aa1136d";

    struct Fixture {
        dir: tempfile::TempDir,
        writer: Connection,
    }

    fn path(digit: char, name: &str) -> String {
        format!("/nix/store/{}-{name}", String::from(digit).repeat(32))
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            std::fs::create_dir(dir.path().join("db")).expect("folder");
            let writer = Connection::open(dir.path().join("db/db.sqlite")).expect("database");
            writer.execute_batch(SCHEMA).expect("schema");
            Self { dir, writer }
        }

        fn add(&self, path: &str, hash: &str, size: i64, references: &[&str]) {
            self.writer
                .execute(
                    "INSERT INTO ValidPaths (path, hash, registrationTime, deriver, narSize, sigs, ca)
                     VALUES (?1, ?2, 1, ?3, ?4, '', '')",
                    (path, hash, self::path('9', "x.drv"), size),
                )
                .expect("path");
            for reference in references {
                self.writer
                    .execute(
                        "INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b
                         WHERE a.path = ?1 AND b.path = ?2",
                        (path, reference),
                    )
                    .expect("reference");
            }
        }

        fn closure(&self, roots: &[&str]) -> Result<firn_image::closure::Closure> {
            let roots: Vec<StorePath> = roots
                .iter()
                .map(|root| StorePath::parse(root).expect("a store path"))
                .collect();
            LocalStore::new(self.dir.path(), "/nix/store").closure(&roots)
        }
    }

    #[test]
    fn the_closure_comes_references_first() {
        let nix = Fixture::new();
        let (a, b, c, d) = (
            path('1', "z"),
            path('2', "y"),
            path('3', "x"),
            path('4', "w"),
        );
        nix.add(&a, HASH, 100, &[]);
        nix.add(&b, HASH, 200, &[&a]);
        nix.add(&c, HASH, 300, &[&b, &a]);
        nix.add(&d, HASH, 400, &[]);
        nix.writer
            .execute("INSERT INTO Refs VALUES (3, 3)", [])
            .expect("self-reference");
        let closure = nix.closure(&[&c]).expect("closure");
        let names: Vec<String> = closure
            .paths
            .iter()
            .map(|info| info.path.absolute())
            .collect();
        assert_eq!(names, [a, b, c.clone()]);
        let top = &closure.paths[2];
        assert_eq!(top.references.len(), 3, "itself too");
        assert_eq!(top.nar_size, 300);
        assert_eq!(top.ca, None);
        assert_eq!(top.deriver.as_ref().map(StorePath::name), Some("x.drv"));
        assert_eq!(format!("sha256:{}", top.nar_hash.hex()), HASH);
    }

    #[test]
    fn unknown_and_unsound_paths_are_named() {
        let nix = Fixture::new();
        nix.add(&path('1', "a"), "sha1:00", 1, &[]);
        nix.add(&path('2', "b"), HASH, 0, &[]);
        nix.add(
            "/gnu/store/33333333333333333333333333333333-c",
            HASH,
            5,
            &[],
        );
        nix.add(
            &path('4', "d"),
            HASH,
            5,
            &["/gnu/store/33333333333333333333333333333333-c"],
        );
        let missing = nix.closure(&[&path('5', "e")]);
        assert!(
            matches!(missing, Err(ClientError::PathNotValid { path }) if path == self::path('5', "e"))
        );
        for root in [path('1', "a"), path('2', "b")] {
            assert!(matches!(
                nix.closure(&[&root]),
                Err(ClientError::PathInfo { .. })
            ));
        }
        let foreign = nix.closure(&[&path('4', "d")]);
        assert!(matches!(foreign, Err(ClientError::ForeignStore { .. })));
    }

    #[test]
    fn without_write_permission_an_idle_database_is_read_all_the_same() {
        use std::os::unix::fs::PermissionsExt as _;
        let nix = Fixture::new();
        nix.add(&path('1', "a"), HASH, 1, &[]);
        let Fixture { dir, writer } = nix;
        writer.close().expect("checkpointed");
        let db = dir.path().join("db");
        assert!(!db.join("db.sqlite-wal").exists());
        std::fs::set_permissions(&db, std::fs::Permissions::from_mode(0o555)).expect("chmod");
        let connection = open_checked(&db.join("db.sqlite"), "immutable=1").expect("immutable");
        let root = StorePath::parse(&path('1', "a")).expect("a store path");
        assert_eq!(
            closure(&connection, &db, &[root]).expect("closure").len(),
            1
        );
        std::fs::set_permissions(&db, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    #[test]
    fn a_log_with_pages_forbids_immutable_reading() {
        let nix = Fixture::new();
        nix.add(&path('1', "a"), HASH, 1, &[]);
        let file = nix.dir.path().join("db/db.sqlite");
        assert!(
            !log_is_empty(&file),
            "the writer is open, so its log holds pages"
        );
        assert!(log_is_empty(&nix.dir.path().join("db/other.sqlite")));
    }
}
