//! The log of what was published: segments follow it, and its positions are the entries' sequences.

use crate::StoreError;
use crate::types::{BlobId, CacheId};
use rusqlite::{Connection, params};

/// What a row of the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Cache(CacheId),
    CacheDeleted {
        name: String,
    },
    Frames {
        pack: i64,
        first: i64,
        last: i64,
    },
    PackSealed {
        pack: i64,
    },
    Blob(BlobId),
    Entry,
    EntryDeleted {
        cache: String,
        kind: u16,
        key: String,
    },
}

/// An event where it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) position: i64,
    pub(crate) at: i64,
    pub(crate) event: Event,
}

fn insert(
    connection: &Connection,
    what: i64,
    subject: i64,
    range: (i64, i64),
    name: Option<&str>,
    key: Option<&str>,
) -> Result<i64, StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO log (what, subject, first, last, name, key) VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![what, subject, range.0, range.1, name, key])?;
    Ok(connection.last_insert_rowid())
}

/// Appends an event in the caller's transaction; gives its position.
pub(crate) fn append(connection: &Connection, event: &Event) -> Result<i64, StoreError> {
    match event {
        Event::Cache(id) => insert(connection, 1, id.0, (0, 0), None, None),
        Event::CacheDeleted { name } => insert(connection, 2, 0, (0, 0), Some(name), None),
        Event::Frames { pack, first, last } => {
            insert(connection, 3, *pack, (*first, *last), None, None)
        }
        Event::PackSealed { pack } => insert(connection, 4, *pack, (0, 0), None, None),
        Event::Blob(id) => insert(connection, 5, id.0, (0, 0), None, None),
        Event::Entry => insert(connection, 6, 0, (0, 0), None, None),
        Event::EntryDeleted { cache, kind, key } => {
            let kind = i64::from(*kind);
            insert(connection, 7, 0, (kind, 0), Some(cache), Some(key))
        }
    }
}

/// The log's first `limit` rows.
pub(crate) fn read(connection: &Connection, limit: usize) -> Result<Vec<Logged>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT position, at, what, subject, first, last, name, key FROM log ORDER BY position LIMIT ?",
    )?;
    let rows = statement.query_map([limit as i64], |row| {
        let subject: i64 = row.get(3)?;
        let first: i64 = row.get(4)?;
        let text = |column| {
            row.get::<_, Option<String>>(column)
                .map(Option::unwrap_or_default)
        };
        let event = match row.get::<_, i64>(2)? {
            1 => Event::Cache(CacheId(subject)),
            2 => Event::CacheDeleted { name: text(6)? },
            3 => Event::Frames {
                pack: subject,
                first,
                last: row.get(5)?,
            },
            4 => Event::PackSealed { pack: subject },
            5 => Event::Blob(BlobId(subject)),
            6 => Event::Entry,
            7 => Event::EntryDeleted {
                cache: text(6)?,
                kind: u16::try_from(first).unwrap_or(0),
                key: text(7)?,
            },
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(2, other)),
        };
        Ok(Logged {
            position: row.get(0)?,
            at: row.get(1)?,
            event,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Forgets what a durable segment has been told.
pub(crate) fn trim(connection: &Connection, through: i64) -> Result<(), StoreError> {
    connection.execute("DELETE FROM log WHERE position <= ?", [through])?;
    Ok(())
}
