//! The database's tables. `docs/on-disk-format.md` explains them.

use crate::StoreError;
use rusqlite::Connection;

/// Migration `n` brings a database of `user_version` n to n + 1.
const MIGRATIONS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
];

/// The version that this program knows.
pub(crate) const KNOWN: u32 = MIGRATIONS.len() as u32;

/// Brings a database to this program's version.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let version: usize =
        connection.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0))? as usize;
    if version > MIGRATIONS.len() {
        return Err(StoreError::FormatVersion {
            path: connection.path().unwrap_or_default().into(),
            found: version.to_string(),
            known: MIGRATIONS.len() as u32,
        });
    }
    for (from, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", from as u32 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
