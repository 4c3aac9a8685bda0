//! Nix's database for an image: schema 10, which every Nix since 2.0 reads, with the image's paths.
//!
//! SQLite writes the same file for the same statements, so it is as reproducible as the binary that writes it:
//! ids are in the closure's order, the time of registration is a second after 1970. Derivers, signatures and
//! content addresses are left out, as `nix-store --dump-db` does: two machines may know different ones.

use crate::error::{ClientError, Result};
use firn_formats::nix::{StorePath, store_path::STORE_DIR};
use firn_image::{
    closure::Closure,
    spec::{RootContent, RootFile},
};
use rusqlite::Connection;
use std::{collections::HashMap, path::Path};

const DATABASE: &str = "nix/var/nix/db/db.sqlite";
const SCHEMA_FILE: &str = "nix/var/nix/db/schema";
const SCHEMA_VERSION: &[u8] = b"10";
const ROOTS: &str = "nix/var/nix/gcroots/firn";
/// Of the registration of every path.
const REGISTERED: i64 = 1;

/// What Nix looks for; names of columns, indexes and triggers are its own.
const SCHEMA: &str = "
    CREATE TABLE ValidPaths (
        id integer primary key autoincrement not null,
        path text unique not null,
        hash text not null,
        registrationTime integer not null,
        deriver text,
        narSize integer,
        ultimate integer,
        sigs text,
        ca text
    );
    CREATE TABLE Refs (
        referrer integer not null,
        reference integer not null,
        primary key (referrer, reference),
        foreign key (referrer) references ValidPaths(id) on delete cascade,
        foreign key (reference) references ValidPaths(id) on delete restrict
    );
    CREATE INDEX IndexReferrer ON Refs(referrer);
    CREATE INDEX IndexReference ON Refs(reference);
    CREATE TRIGGER DeleteSelfRefs BEFORE DELETE ON ValidPaths BEGIN
        DELETE FROM Refs WHERE referrer = old.id AND reference = old.id;
    END;
    CREATE TABLE DerivationOutputs (
        drv integer not null,
        id text not null,
        path text not null,
        primary key (drv, id),
        foreign key (drv) references ValidPaths(id) on delete cascade
    );
    CREATE INDEX IndexDerivationOutputs ON DerivationOutputs(path);";

/// The files of a Nix that has the closure's paths, its roots kept from the garbage collector.
pub fn image_database(closure: &Closure) -> Result<Vec<RootFile>> {
    let folder =
        tempfile::tempdir().map_err(|source| ClientError::io(std::env::temp_dir(), source))?;
    let file = folder.path().join("db.sqlite");
    write(&file, closure).map_err(|source| ClientError::NixDatabase {
        path: file.clone(),
        source,
    })?;
    let database = std::fs::read(&file).map_err(|source| ClientError::io(&file, source))?;
    let entry = |path: String, content, mode| RootFile {
        path,
        content,
        mode,
    };
    let mut files = vec![
        entry(DATABASE.to_owned(), RootContent::File(database), 0o644),
        entry(
            SCHEMA_FILE.to_owned(),
            RootContent::File(SCHEMA_VERSION.to_vec()),
            0o644,
        ),
        entry(ROOTS.to_owned(), RootContent::Directory, 0o755),
    ];
    files.extend(closure.roots.iter().map(|root| {
        let link = RootContent::Symlink(format!("{STORE_DIR}/{root}"));
        entry(format!("{ROOTS}/{root}"), link, 0o777)
    }));
    Ok(files)
}

fn write(file: &Path, closure: &Closure) -> rusqlite::Result<()> {
    let mut connection = Connection::open(file)?;
    connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    let mut ids: HashMap<&StorePath, i64> = HashMap::new();
    {
        let mut insert = transaction.prepare(
            "INSERT INTO ValidPaths (path, hash, registrationTime, narSize) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for info in &closure.paths {
            let id = insert.insert((
                info.path.absolute(),
                format!("sha256:{}", info.nar_hash.hex()),
                REGISTERED,
                i64::try_from(info.nar_size).unwrap_or(i64::MAX),
            ))?;
            ids.insert(&info.path, id);
        }
        let mut refer =
            transaction.prepare("INSERT INTO Refs (referrer, reference) VALUES (?1, ?2)")?;
        for info in &closure.paths {
            let references = info.references.iter().filter_map(|path| ids.get(path));
            for reference in references {
                refer.execute((ids.get(&info.path), reference))?;
            }
        }
    }
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)
}
