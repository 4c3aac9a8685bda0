//! Whether the packs' place is there: a folder that is not mounted is told from one that has lost its packs.
//!
//! An empty file `packs/<16 hex>.mark` lies beside the packs, and `meta` knows its number. Where it is, a pack
//! without a file is lost; where it is not, nobody can say so, and nothing is decided. A folder without a mark, such
//! as one of an earlier release, gets it when some of its packs are there. See docs/on-disk-format.md.

use crate::db::chunks::PackRow;
use crate::db::{Database, Durability, chunks};
use crate::files::Folder;
use crate::{StoreError, layout};
use rusqlite::{Connection, OptionalExtension as _};
use std::sync::Arc;

/// Packs that are looked for where the mark is not.
const LOOKED_FOR_MAX: usize = 64;

/// What is known of the packs' place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its mark, of this number, is there.
    Here(i64),
    /// Some of the packs are there, or none was ever made; with the number that the mark is to have, if it is known.
    Unmarked(Option<i64>),
    /// Not mounted, or another's.
    Away,
}

/// Looks for a mark, and where there is none, for packs; changes nothing.
pub(crate) fn look(folder: &Folder, connection: &Connection) -> Result<Found, StoreError> {
    let number = number(connection)?;
    if let Some(number) = number
        && folder.length(&layout::mark_key(number))?.is_some()
    {
        return Ok(Found::Here(number));
    }
    let packs = chunks::packs_newest(connection, LOOKED_FOR_MAX)?;
    for pack in &packs {
        if folder.length(&pack.key())?.is_some() {
            return Ok(Found::Unmarked(number.or(foreign_mark(folder)?)));
        }
    }
    match (packs.is_empty(), number) {
        // A database that was made anew, or before the first pack; the place may have its mark already.
        (true, None) => Ok(Found::Unmarked(foreign_mark(folder)?)),
        _ => Ok(Found::Away),
    }
}

/// Fails unless the packs' place is there; gives the number of its mark, if it has one.
pub(crate) fn expect(folder: &Folder, connection: &Connection) -> Result<Option<i64>, StoreError> {
    match look(folder, connection)? {
        Found::Here(number) => Ok(Some(number)),
        Found::Unmarked(number) => Ok(number),
        Found::Away => Err(away(folder, number(connection)?)),
    }
}

fn number(connection: &Connection) -> Result<Option<i64>, StoreError> {
    Ok(connection
        .query_row(
            "SELECT value FROM meta WHERE name = 'packs_mark'",
            [],
            |row| row.get(0),
        )
        .optional()?)
}

/// The number of a mark that lies among the packs.
pub(crate) fn foreign_mark(folder: &Folder) -> Result<Option<i64>, StoreError> {
    let marks = folder.names(layout::PACKS)?;
    Ok(marks.iter().find_map(|name| layout::parse_mark(name)))
}

/// The error names the file that is looked for.
fn away(folder: &Folder, number: Option<i64>) -> StoreError {
    let key = number.map_or_else(|| layout::PACKS.to_owned(), layout::mark_key);
    StoreError::Away(folder.path(&key))
}

/// The packs' place of an open store.
pub(crate) struct Presence {
    db: Arc<Database>,
    folder: Arc<Folder>,
}

impl Presence {
    pub(crate) fn new(db: Arc<Database>, folder: Arc<Folder>) -> Self {
        Self { db, folder }
    }

    /// Fails with [`StoreError::Away`] unless the packs' place is there; marks it, if it has no mark yet.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.db.read(|connection| look(&self.folder, connection))? {
            Found::Here(_) => Ok(()),
            Found::Unmarked(number) => self.mark(number),
            Found::Away => Err(away(&self.folder, self.db.read(number)?)),
        }
    }

    /// The file first, durably: a store that knows a mark, and does not find it, has lost its packs from sight.
    fn mark(&self, number: Option<i64>) -> Result<(), StoreError> {
        let number = match number {
            Some(number) => number,
            None => layout::random_mark()?,
        };
        let key = layout::mark_key(number);
        if self.folder.length(&key)?.is_none() {
            self.folder.create_new(&key)?;
        }
        self.db.write(Durability::Ordered, move |connection| {
            connection.execute(
                "INSERT INTO meta (name, value) VALUES ('packs_mark', ?1)
                 ON CONFLICT (name) DO UPDATE SET value = ?1",
                [number],
            )?;
            Ok(())
        })
    }

    /// Of a pack whose file was not found: whether it is lost for sure. Looked at twice, since a disk may be mounted
    /// or taken away meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Away`] if its place is not there.
    pub(crate) fn is_lost(&self, pack: &PackRow) -> Result<bool, StoreError> {
        let key = pack.key();
        for _ in 0..2 {
            self.check()?;
            if self.folder.leads_nowhere(&key)? {
                return Err(StoreError::Away(self.folder.path(&key)));
            }
            if self.folder.length(&key)?.is_some() {
                return Ok(false);
            }
        }
        self.check().map(|()| true)
    }
}
