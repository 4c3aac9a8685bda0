//! Caches and domains.

use super::log::{self, Event};
use crate::StoreError;
use crate::types::{CacheId, CacheRow, DomainId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// Caches that are being deleted are as good as gone.
const COLUMNS: &str = "SELECT caches.id, caches.name, domain, domains.name, config
    FROM caches JOIN domains ON domains.id = domain WHERE deleting = ";
/// Rows of each kind that are deleted in one transaction: the writer is everybody's.
const DELETED_AT_ONCE: i64 = 500;

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
    let taken = connection
        .prepare_cached("SELECT deleting FROM caches WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    match taken {
        None => {}
        Some(false) => return Err(StoreError::Conflict(format!("cache {name}"))),
        Some(true) => {
            return Err(StoreError::Conflict(format!(
                "cache {name}, which is being deleted; try again when that is done"
            )));
        }
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
        "UPDATE caches SET config = ? WHERE id = ? AND NOT deleting",
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
        .prepare_cached(&format!("{COLUMNS} 0 AND caches.name = ?"))?
        .query_row([name], row)
        .optional()?)
}

pub(crate) fn by_id(connection: &Connection, id: CacheId) -> Result<Option<CacheRow>, StoreError> {
    Ok(connection
        .prepare_cached(&format!("{COLUMNS} 0 AND caches.id = ?"))?
        .query_row([id.0], row)
        .optional()?)
}

/// A cache that must be there.
pub(crate) fn expect(connection: &Connection, id: CacheId) -> Result<CacheRow, StoreError> {
    by_id(connection, id)?.ok_or_else(|| no_such(id))
}

pub(crate) fn all(connection: &Connection) -> Result<Vec<CacheRow>, StoreError> {
    listed(connection, false)
}

/// Those that are being deleted.
pub(crate) fn deleting(connection: &Connection) -> Result<Vec<CacheRow>, StoreError> {
    listed(connection, true)
}

fn listed(connection: &Connection, deleting: bool) -> Result<Vec<CacheRow>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} ? ORDER BY caches.name"))?;
    let rows = statement.query_map([deleting], row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Begins to delete a cache: from here on nobody sees it or opens a session for it, and its sessions have ended. Its
/// blobs keep what is left of their leases and are the collector's after that.
pub(crate) fn begin_deleting(connection: &Connection, cache: CacheId) -> Result<(), StoreError> {
    let name = expect(connection, cache)?.name;
    connection.execute("UPDATE caches SET deleting = 1 WHERE id = ?", [cache.0])?;
    connection.execute(
        "UPDATE sessions SET expires_at_ms = 0 WHERE cache = ?",
        [cache.0],
    )?;
    super::staged::end_all_of(connection, cache)?;
    log::append(connection, &Event::CacheDeleted { name })?;
    Ok(())
}

/// Deletes some of what is left of a cache that is being deleted; whether there may be more. Its sessions are for
/// `sessions::reap_all`.
pub(crate) fn delete_some(connection: &Connection, cache: CacheId) -> Result<bool, StoreError> {
    let mut more = false;
    for statement in [
        "DELETE FROM entry_blobs WHERE entry IN
             (SELECT sequence FROM entries WHERE cache = ?1 ORDER BY kind, key LIMIT ?2)",
        "DELETE FROM uses WHERE entry IN
             (SELECT sequence FROM entries WHERE cache = ?1 ORDER BY kind, key LIMIT ?2)",
        "DELETE FROM entries WHERE sequence IN
             (SELECT sequence FROM entries WHERE cache = ?1 ORDER BY kind, key LIMIT ?2)",
        "DELETE FROM evictions WHERE id IN (SELECT id FROM evictions WHERE cache = ?1 LIMIT ?2)",
        "DELETE FROM lookups WHERE id IN (SELECT id FROM lookups WHERE cache = ?1 LIMIT ?2)",
    ] {
        let deleted = connection
            .prepare_cached(statement)?
            .execute(params![cache.0, DELETED_AT_ONCE])?;
        more |= deleted > 0;
    }
    Ok(more)
}

/// Deletes the row of a cache of which nothing else is left. Segments are told once more: one that was written
/// meanwhile may have told entries that were still there.
pub(crate) fn end_deleting(connection: &Connection, cache: &CacheRow) -> Result<(), StoreError> {
    let deleted =
        connection.execute("DELETE FROM caches WHERE id = ? AND deleting", [cache.id.0])?;
    // Somebody else may have been at it, too.
    if deleted > 0 {
        let name = cache.name.clone();
        log::append(connection, &Event::CacheDeleted { name })?;
    }
    Ok(())
}

fn no_such(cache: CacheId) -> StoreError {
    StoreError::NoSuchCache(format!("number {}", cache.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d5_rows_of_a_deleted_cache_go_a_few_at_a_time() {
        let mut connection = Connection::open_in_memory().unwrap();
        crate::db::schema::migrate(&mut connection).unwrap();
        let cache = create(&connection, "main", "public", b"{}").unwrap();
        let rows = 2 * DELETED_AT_ONCE + 1;
        for row in 0..rows {
            connection
                .execute(
                    "INSERT INTO entries (sequence, cache, kind, key, value) VALUES (?1, ?2, 1, ?1, x'')",
                    [row + 10, cache.id.0],
                )
                .unwrap();
        }
        let left = || -> i64 {
            connection
                .query_row("SELECT count(*) FROM entries", [], |row| row.get(0))
                .unwrap()
        };
        begin_deleting(&connection, cache.id).unwrap();
        assert_eq!(left(), rows);
        for expected in [DELETED_AT_ONCE + 1, 1, 0] {
            assert!(delete_some(&connection, cache.id).unwrap());
            assert_eq!(left(), expected);
        }
        assert!(!delete_some(&connection, cache.id).unwrap());
        end_deleting(&connection, &cache).unwrap();
        create(&connection, "main", "public", b"{}").unwrap();
    }
}
