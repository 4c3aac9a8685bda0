//! Caches and domains.

use super::log::{self, Event};
use crate::StoreError;
use crate::types::{CacheId, CacheRow, DomainId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

const COLUMNS: &str = "SELECT caches.id, caches.name, domain, domains.name, config
    FROM caches JOIN domains ON domains.id = domain";

fn row(row: &Row<'_>) -> rusqlite::Result<CacheRow> {
    Ok(CacheRow {
        id: CacheId(row.get(0)?),
        name: row.get(1)?,
        domain: DomainId(row.get(2)?),
        domain_name: row.get(3)?,
        config: row.get(4)?,
    })
}

/// The domain of that name, made if need be.
pub(crate) fn domain(connection: &Connection, name: &str) -> Result<DomainId, StoreError> {
    connection.execute("INSERT OR IGNORE INTO domains (name) VALUES (?)", [name])?;
    let id = connection.query_row("SELECT id FROM domains WHERE name = ?", [name], |row| {
        row.get(0)
    })?;
    Ok(DomainId(id))
}

/// The domain of that name, if there is one.
pub(crate) fn domain_id(connection: &Connection, name: &str) -> Result<Option<i64>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT id FROM domains WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}

/// A domain's name.
pub(crate) fn domain_name(connection: &Connection, id: DomainId) -> Result<String, StoreError> {
    connection
        .query_row("SELECT name FROM domains WHERE id = ?", [id.0], |row| {
            row.get(0)
        })
        .optional()?
        .ok_or_else(|| StoreError::NoSuchCache(format!("of domain {}", id.0)))
}

pub(crate) fn create(
    connection: &Connection,
    name: &str,
    domain_name: &str,
    config: &[u8],
) -> Result<CacheRow, StoreError> {
    if by_name(connection, name)?.is_some() {
        return Err(StoreError::Conflict(format!("cache {name}")));
    }
    let domain = domain(connection, domain_name)?;
    connection.execute(
        "INSERT INTO caches (name, domain, config) VALUES (?, ?, ?)",
        params![name, domain.0, config],
    )?;
    let id = CacheId(connection.last_insert_rowid());
    log::append(connection, &Event::Cache(id))?;
    Ok(CacheRow {
        id,
        name: name.to_owned(),
        domain,
        domain_name: domain_name.to_owned(),
        config: config.to_owned(),
    })
}

pub(crate) fn configure(
    connection: &Connection,
    cache: CacheId,
    config: &[u8],
) -> Result<(), StoreError> {
    let changed = connection.execute(
        "UPDATE caches SET config = ? WHERE id = ?",
        params![config, cache.0],
    )?;
    if changed == 0 {
        return Err(no_such(cache));
    }
    log::append(connection, &Event::Cache(cache))?;
    Ok(())
}

pub(crate) fn by_name(connection: &Connection, name: &str) -> Result<Option<CacheRow>, StoreError> {
    Ok(connection
        .prepare_cached(&format!("{COLUMNS} WHERE caches.name = ?"))?
        .query_row([name], row)
        .optional()?)
}

pub(crate) fn by_id(connection: &Connection, id: CacheId) -> Result<Option<CacheRow>, StoreError> {
    Ok(connection
        .prepare_cached(&format!("{COLUMNS} WHERE caches.id = ?"))?
        .query_row([id.0], row)
        .optional()?)
}

/// A cache that must be there.
pub(crate) fn expect(connection: &Connection, id: CacheId) -> Result<CacheRow, StoreError> {
    by_id(connection, id)?.ok_or_else(|| no_such(id))
}

pub(crate) fn all(connection: &Connection) -> Result<Vec<CacheRow>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} ORDER BY caches.name"))?;
    let rows = statement.query_map([], row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Removes a cache with its entries and sessions. Its blobs keep what is left of their leases and
/// are the collector's after that.
pub(crate) fn delete(connection: &Connection, cache: CacheId) -> Result<(), StoreError> {
    let name = expect(connection, cache)?.name;
    for statement in [
        "DELETE FROM entry_blobs WHERE entry IN (SELECT sequence FROM entries WHERE cache = ?)",
        "DELETE FROM uses WHERE entry IN (SELECT sequence FROM entries WHERE cache = ?)",
        "DELETE FROM entries WHERE cache = ?",
        "DELETE FROM upload_chunks WHERE upload IN (SELECT session FROM uploads WHERE cache = ?)",
        "DELETE FROM uploads WHERE cache = ?",
        "DELETE FROM evictions WHERE cache = ?",
        "DELETE FROM lookups WHERE cache = ?",
        "DELETE FROM pins WHERE session IN (SELECT id FROM sessions WHERE cache = ?)",
        "DELETE FROM sessions WHERE cache = ?",
        "DELETE FROM caches WHERE id = ?",
    ] {
        connection.execute(statement, [cache.0])?;
    }
    super::staged::end_all_of(connection, cache)?;
    log::append(connection, &Event::CacheDeleted { name })?;
    Ok(())
}

fn no_such(cache: CacheId) -> StoreError {
    StoreError::NoSuchCache(format!("number {}", cache.0))
}
