//! The memory of chunk lists: which chunks a store path's NAR has, and which of them each file has.
//!
//! A hint that saves reading: `firn image push` after `firn push` need not read the files again. It is
//! keyed by store path, NAR hash and chunking parameters, bounded, and safe to delete; whatever cannot
//! be read is as good as absent. Nothing is believed because of it: the server verifies all bytes.
//!
//! A value is `count u32, count × (id [32], raw length u32), files u32, files × (first chunk u32,
//! chunks u32, size u64, length u16, path)`, little-endian, paths relative to the store path.

use firn_chunks::{ChunkId, ChunkList, ChunkRef};
use firn_formats::{Sha256, nix::StorePath};
use firn_image::archive::{Archive, Chunked};
use rusqlite::Connection;
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Largest sum of values kept, in bytes.
const VALUES_BYTES_MAX: i64 = 256 << 20;
/// Changes with [`V1`] and with the form of a value.
const VERSION: i32 = 1;

/// The chunks of one store path's NAR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathChunks {
    pub(crate) list: ChunkList,
    files: Vec<FileChunks>,
}

/// The chunks of one file: a range of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileChunks {
    path: PathBuf,
    size: u64,
    first: u32,
    count: u32,
}

impl PathChunks {
    /// From an archive that was just chunked; files by their place below `root`.
    pub(crate) fn new(root: &Path, archive: &Archive, chunked: Chunked) -> Self {
        let files = chunked
            .files
            .iter()
            .filter_map(|file| {
                let region = archive.files().get(file.file)?;
                Some(FileChunks {
                    path: region.file.strip_prefix(root).ok()?.to_path_buf(),
                    size: region.size,
                    first: u32::try_from(file.chunks.start).ok()?,
                    count: u32::try_from(file.chunks.len()).ok()?,
                })
            })
            .collect();
        Self {
            list: chunked.list,
            files,
        }
    }

    /// Each file's path relative to the root, its size and its chunks.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, u64, &[ChunkRef])> {
        self.files.iter().filter_map(|file| {
            let first = file.first as usize;
            let chunks = self.list.chunks.get(first..first + file.count as usize)?;
            let length: u64 = chunks.iter().map(|chunk| u64::from(chunk.raw_length)).sum();
            (length == file.size).then_some((file.path.as_path(), file.size, chunks))
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.list.chunks.len() * 36 + self.files.len() * 64 + 8);
        out.extend_from_slice(&(self.list.chunks.len() as u32).to_le_bytes());
        for chunk in &self.list.chunks {
            out.extend_from_slice(&chunk.id.0);
            out.extend_from_slice(&chunk.raw_length.to_le_bytes());
        }
        out.extend_from_slice(&(self.files.len() as u32).to_le_bytes());
        for file in &self.files {
            let path = file.path.as_os_str().as_bytes();
            out.extend_from_slice(&file.first.to_le_bytes());
            out.extend_from_slice(&file.count.to_le_bytes());
            out.extend_from_slice(&file.size.to_le_bytes());
            out.extend_from_slice(&(path.len() as u16).to_le_bytes());
            out.extend_from_slice(path);
        }
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let input = &mut bytes;
        let count = take_u32(input)? as usize;
        if count > input.len() / 36 {
            return None;
        }
        let mut chunks = Vec::with_capacity(count);
        for _ in 0..count {
            chunks.push(ChunkRef {
                id: ChunkId(take_array(input)?),
                raw_length: take_u32(input)?,
            });
        }
        let count = take_u32(input)? as usize;
        let mut files = Vec::with_capacity(count.min(input.len() / 18));
        for _ in 0..count {
            let (first, count) = (take_u32(input)?, take_u32(input)?);
            let size = u64::from_le_bytes(take_array(input)?);
            let length = u16::from_le_bytes(take_array(input)?) as usize;
            let (path, rest) = input.split_at_checked(length)?;
            *input = rest;
            files.push(FileChunks {
                path: PathBuf::from(OsStr::from_bytes(path)),
                size,
                first,
                count,
            });
        }
        input.is_empty().then_some(Self {
            list: ChunkList { chunks },
            files,
        })
    }
}

fn take_array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*taken)
}

fn take_u32(input: &mut &[u8]) -> Option<u32> {
    take_array(input).map(u32::from_le_bytes)
}

/// The file that remembers. Every failure is a forgotten list, never an error.
#[derive(Debug)]
pub(crate) struct Memory {
    connection: Option<Connection>,
}

impl Memory {
    /// A memory that remembers nothing.
    pub(crate) fn none() -> Self {
        Self { connection: None }
    }

    /// The memory in a file. One that is damaged or of another version is made anew.
    pub(crate) fn at(path: &Path) -> Self {
        let connection = open(path).or_else(|error| {
            tracing::debug!(%error, path = %path.display(), "the memory of chunk lists starts anew");
            // If it cannot be removed it cannot be opened below, and we do without.
            let _removed = std::fs::remove_file(path);
            open(path)
        });
        Self {
            connection: connection.ok(),
        }
    }

    /// What is remembered of a path with this NAR.
    pub(crate) fn get(
        &self,
        path: &StorePath,
        nar_hash: &Sha256,
        nar_size: u64,
    ) -> Option<PathChunks> {
        let value: Vec<u8> = self
            .connection
            .as_ref()?
            .prepare_cached("SELECT value FROM lists WHERE path = ?1 AND nar_hash = ?2")
            .ok()?
            .query_row((path.to_string(), nar_hash.0), |row| row.get(0))
            .ok()?;
        PathChunks::decode(&value).filter(|found| found.list.raw_length() == nar_size)
    }

    /// Gives all that is remembered, the oldest first.
    pub(crate) fn for_each(&self, visit: &mut dyn FnMut(&StorePath, &PathChunks)) {
        let read = |connection: &Connection| -> rusqlite::Result<()> {
            let mut all =
                connection.prepare("SELECT path, value FROM lists ORDER BY stored_at, rowid")?;
            let mut rows = all.query(())?;
            while let Some(row) = rows.next()? {
                let (path, value): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
                if let (Ok(path), Some(chunks)) = (
                    StorePath::parse_base_name(&path),
                    PathChunks::decode(&value),
                ) {
                    visit(&path, &chunks);
                }
            }
            Ok(())
        };
        if let Some(Err(error)) = self.connection.as_ref().map(read) {
            tracing::debug!(%error, "not all that is remembered was read");
        }
    }

    /// Remembers many in one transaction, and forgets the oldest beyond the bound.
    pub(crate) fn put<'a>(
        &mut self,
        lists: impl Iterator<Item = (&'a StorePath, Sha256, &'a PathChunks)>,
    ) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Err(error) = put(connection, lists) {
            tracing::debug!(%error, "chunk lists were not remembered");
        }
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    if let Some(parent) = path.parent() {
        // Opening reports what is wrong.
        let _made = std::fs::create_dir_all(parent);
    }
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_millis(200))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version != VERSION {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             DROP TABLE IF EXISTS lists;
             CREATE TABLE lists (
                 path TEXT NOT NULL,
                 nar_hash BLOB NOT NULL,
                 stored_at INTEGER NOT NULL,
                 value BLOB NOT NULL,
                 PRIMARY KEY (path, nar_hash)
             );
             PRAGMA user_version = {VERSION};
             COMMIT;"
        ))?;
    }
    connection
        .prepare("SELECT 1 FROM lists LIMIT 1")?
        .exists([])?;
    Ok(connection)
}

fn put<'a>(
    connection: &mut Connection,
    lists: impl Iterator<Item = (&'a StorePath, Sha256, &'a PathChunks)>,
) -> rusqlite::Result<()> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64);
    let transaction = connection.transaction()?;
    {
        let mut insert =
            transaction.prepare("INSERT OR REPLACE INTO lists VALUES (?1, ?2, ?3, ?4)")?;
        for (path, nar_hash, chunks) in lists {
            insert.execute((path.to_string(), nar_hash.0, now, chunks.encode()))?;
        }
    }
    forget_oldest(&transaction)?;
    transaction.commit()
}

fn forget_oldest(connection: &Connection) -> rusqlite::Result<()> {
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    if pages * page_bytes <= VALUES_BYTES_MAX {
        return Ok(());
    }
    connection.execute(
        "DELETE FROM lists WHERE rowid IN
             (SELECT rowid FROM lists ORDER BY stored_at, rowid LIMIT (SELECT count(*) / 2 FROM lists))",
        [],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seed: u8) -> PathChunks {
        let chunk = |byte: u8, raw_length| ChunkRef {
            id: ChunkId([byte; 32]),
            raw_length,
        };
        PathChunks {
            list: ChunkList {
                chunks: vec![
                    chunk(seed, 100),
                    chunk(2, 5000),
                    chunk(3, 3000),
                    chunk(4, 10),
                ],
            },
            files: vec![FileChunks {
                path: PathBuf::from("bin/x"),
                size: 8000,
                first: 1,
                count: 2,
            }],
        }
    }

    fn path(digit: char) -> StorePath {
        let text = format!("{}-x", String::from(digit).repeat(32));
        StorePath::parse_base_name(&text).expect("a store path")
    }

    #[test]
    fn values_survive_encoding_and_no_damage_panics() {
        let value = sample(1);
        let bytes = value.encode();
        assert_eq!(PathChunks::decode(&bytes), Some(value.clone()));
        for end in 0..bytes.len() {
            assert_eq!(PathChunks::decode(&bytes[..end]), None, "cut at {end}");
        }
        let files: Vec<_> = value.files().collect();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].2.len(), 2);
        let mut wrong = sample(1);
        wrong.files[0].size = 7999;
        assert_eq!(wrong.files().count(), 0);
    }

    #[test]
    fn lists_are_remembered_by_path_and_hash() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("deep/lists.sqlite");
        let hash = Sha256::of(b"one");
        Memory::at(&file).put([(&path('1'), hash, &sample(1))].into_iter());
        let memory = Memory::at(&file);
        assert_eq!(memory.get(&path('1'), &hash, 8110), Some(sample(1)));
        assert_eq!(memory.get(&path('1'), &hash, 8111), None);
        assert_eq!(memory.get(&path('2'), &hash, 8110), None);
        assert_eq!(memory.get(&path('1'), &Sha256::of(b"two"), 8110), None);
        let mut seen = Vec::new();
        memory.for_each(&mut |path, chunks| seen.push((path.clone(), chunks.clone())));
        assert_eq!(seen, [(path('1'), sample(1))]);
    }

    #[test]
    fn a_damaged_memory_is_made_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("lists.sqlite");
        std::fs::write(&file, vec![7; 10_000]).expect("write");
        let mut memory = Memory::at(&file);
        let hash = Sha256::of(b"one");
        memory.put([(&path('1'), hash, &sample(1))].into_iter());
        assert_eq!(memory.get(&path('1'), &hash, 8110), Some(sample(1)));
    }
}
