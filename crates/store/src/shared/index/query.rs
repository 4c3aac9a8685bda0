//! Questions to the index.

use super::Index;
use crate::{
    EntryKind, StoreError,
    shared::{Located, SHARED_DOMAIN, SharedEntry, StoredPack},
};
use firn_chunks::{
    ChunkId, ChunkList, EncoderId, FrameRecord, ListId, pack::Placed, segment::BlobRecord,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const ENTRY_COLUMNS: &str = "key, value, blobs, sequence, at";

impl Index {
    pub(in crate::shared) fn entry(
        &self,
        cache: &str,
        kind: EntryKind,
        key: &str,
    ) -> Result<Option<SharedEntry>, StoreError> {
        self.read(|connection| {
            let sql = format!(
                "SELECT {ENTRY_COLUMNS} FROM entries
                 WHERE cache = ?1 AND kind = ?2 AND key = ?3 AND NOT deleted"
            );
            Ok(connection
                .prepare_cached(&sql)?
                .query_row(params![cache, kind as u16, key], |row| entry(row, kind))
                .optional()?)
        })
    }

    /// The sequence of a key's newest entry or tombstone.
    pub(in crate::shared) fn sequence(
        &self,
        cache: &str,
        kind: EntryKind,
        key: &str,
    ) -> Result<Option<u64>, StoreError> {
        self.read(|connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT sequence FROM entries WHERE cache = ?1 AND kind = ?2 AND key = ?3",
                )?
                .query_row(params![cache, kind as u16, key], |row| row.get::<_, i64>(0))
                .optional()?
                .map(i64::cast_unsigned))
        })
    }

    pub(in crate::shared) fn entries(
        &self,
        cache: &str,
        kind: EntryKind,
        prefix: &str,
    ) -> Result<Vec<SharedEntry>, StoreError> {
        self.read(|connection| {
            let sql = format!(
                "SELECT {ENTRY_COLUMNS} FROM entries
                 WHERE cache = ?1 AND kind = ?2 AND key >= ?3 AND substr(key, 1, ?4) = ?3
                   AND NOT deleted
                 ORDER BY sequence DESC, key"
            );
            let characters = prefix.chars().count() as i64;
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement
                .query_map(params![cache, kind as u16, prefix, characters], |row| {
                    entry(row, kind)
                })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    pub(in crate::shared) fn entries_present(
        &self,
        cache: &str,
        kind: EntryKind,
        keys: &[&str],
    ) -> Result<Vec<bool>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT 1 FROM entries WHERE cache = ?1 AND kind = ?2 AND key = ?3 AND NOT deleted",
            )?;
            keys.iter()
                .map(|key| Ok(statement.exists(params![cache, kind as u16, key])?))
                .collect()
        })
    }

    pub(in crate::shared) fn blob(&self, list: &ListId) -> Result<Option<BlobRecord>, StoreError> {
        self.read(|connection| {
            let row = connection
                .prepare_cached(
                    "SELECT flags, identity, zstd, zstd_length, list FROM blobs WHERE id = ?1",
                )?
                .query_row([list.0], |row| {
                    let bytes: Vec<u8> = row.get(4)?;
                    Ok(BlobRecord {
                        domain: SHARED_DOMAIN.into(),
                        flags: row.get(0)?,
                        identity_sha256: row.get(1)?,
                        zstd_sha256: row.get(2)?,
                        zstd_length: row.get::<_, i64>(3)?.cast_unsigned(),
                        list: ChunkList::decode(&bytes).map_err(|error| {
                            rusqlite::Error::FromSqlConversionFailure(
                                4,
                                rusqlite::types::Type::Blob,
                                Box::new(error),
                            )
                        })?,
                    })
                })
                .optional()?;
            Ok(row)
        })
    }

    /// One place of each chunk: of several the one in the first pack by name.
    pub(in crate::shared) fn locate(
        &self,
        ids: &[ChunkId],
    ) -> Result<Vec<Option<Located>>, StoreError> {
        self.read(|connection| {
            let mut places = Places::new(connection);
            ids.iter()
                .map(|id| Ok(places.of(id)?.into_iter().next()))
                .collect()
        })
    }

    /// All places of a chunk.
    pub(in crate::shared) fn places(&self, id: &ChunkId) -> Result<Vec<Located>, StoreError> {
        self.read(|connection| Places::new(connection).of(id))
    }

    /// The frames of a pack, in order.
    pub(in crate::shared) fn frames_of(&self, pack: &Arc<str>) -> Result<Vec<Located>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT chunk, \"offset\", raw_length, frame_length, encoder, flags, checksum
                 FROM frames WHERE pack = (SELECT id FROM packs WHERE name = ?1) ORDER BY \"offset\"",
            )?;
            let rows = statement.query_map([pack.as_ref()], |row| {
                Ok(Located {
                    pack: pack.clone(),
                    placed: Placed {
                        offset: row.get::<_, i64>(1)?.cast_unsigned(),
                        record: FrameRecord {
                            id: ChunkId(row.get(0)?),
                            raw_length: row.get(2)?,
                            frame_length: row.get(3)?,
                            encoder: EncoderId(row.get(4)?),
                            flags: row.get(5)?,
                            checksum: row.get::<_, i64>(6)?.cast_unsigned(),
                        },
                    },
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// All blobs: their rows, and the ids of their lists.
    pub(in crate::shared) fn blob_rows(&self) -> Result<Vec<(i64, ListId)>, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT rowid, id FROM blobs ORDER BY rowid")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, ListId(row.get(1)?))))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The newest entries of all caches and kinds that this program knows, without tombstones.
    pub(in crate::shared) fn all_entries(&self) -> Result<Vec<(String, SharedEntry)>, StoreError> {
        self.read(|connection| {
            let sql = format!("SELECT {ENTRY_COLUMNS}, cache, kind FROM entries WHERE NOT deleted ORDER BY cache, kind, key");
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], |row| {
                let kind = EntryKind::from_number(row.get(6)?);
                let cache: String = row.get(5)?;
                kind.map(|kind| entry(row, kind).map(|entry| (cache, entry))).transpose()
            })?;
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            Ok(rows.into_iter().flatten().collect())
        })
    }

    /// The names of all packs.
    pub(in crate::shared) fn pack_names(&self) -> Result<HashSet<String>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT name FROM packs")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// A pack by name.
    pub(in crate::shared) fn pack(&self, name: &str) -> Result<Option<StoredPack>, StoreError> {
        self.read(|connection| {
            let length = connection
                .prepare_cached("SELECT length FROM packs WHERE name = ?1")?
                .query_row([name], |row| row.get::<_, i64>(0))
                .optional()?;
            Ok(length.map(|length| StoredPack {
                name: name.to_owned(),
                length: length.cast_unsigned(),
            }))
        })
    }
}

fn entry(row: &Row<'_>, kind: EntryKind) -> rusqlite::Result<SharedEntry> {
    let blobs: Vec<u8> = row.get(2)?;
    let blobs = blobs.as_chunks::<32>().0;
    Ok(SharedEntry {
        kind,
        key: row.get(0)?,
        value: row.get(1)?,
        blobs: blobs.iter().copied().map(ListId).collect(),
        sequence: row.get::<_, i64>(3)?.cast_unsigned(),
        at: row.get(4)?,
    })
}

/// Looks up places; shares the names of packs.
struct Places<'a> {
    connection: &'a Connection,
    names: HashMap<i64, Arc<str>>,
}

impl<'a> Places<'a> {
    fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            names: HashMap::new(),
        }
    }

    fn of(&mut self, id: &ChunkId) -> Result<Vec<Located>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT pack, \"offset\", raw_length, frame_length, encoder, flags, checksum
             FROM frames WHERE chunk = ?1",
        )?;
        let rows = statement.query_map([id.0], |row| {
            let placed = Placed {
                offset: row.get::<_, i64>(1)?.cast_unsigned(),
                record: FrameRecord {
                    id: *id,
                    raw_length: row.get(2)?,
                    frame_length: row.get(3)?,
                    encoder: EncoderId(row.get(4)?),
                    flags: row.get(5)?,
                    checksum: row.get::<_, i64>(6)?.cast_unsigned(),
                },
            };
            Ok((row.get::<_, i64>(0)?, placed))
        })?;
        let mut found = Vec::with_capacity(1);
        for row in rows {
            let (pack, placed) = row?;
            found.push(Located {
                pack: self.name(pack)?,
                placed,
            });
        }
        found.sort_by(|a, b| (&a.pack, a.placed.offset).cmp(&(&b.pack, b.placed.offset)));
        Ok(found)
    }

    fn name(&mut self, id: i64) -> Result<Arc<str>, StoreError> {
        if let Some(name) = self.names.get(&id) {
            return Ok(name.clone());
        }
        let name: String = self
            .connection
            .prepare_cached("SELECT name FROM packs WHERE id = ?1")?
            .query_row([id], |row| row.get(0))?;
        let name: Arc<str> = name.into();
        self.names.insert(id, name.clone());
        Ok(name)
    }
}
