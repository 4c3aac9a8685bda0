//! What a stopped server's folder holds, against what is live in it.

use firn_chunks::{ChunkId, ChunkList};
use rusqlite::Connection;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Figures of a folder, and what should not be in it.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Folder {
    /// Of all files.
    pub bytes: u64,
    pub pack_bytes: u64,
    pub segment_bytes: u64,
    pub database_bytes: u64,
    /// Frames of chunks that a blob of an entry lists.
    pub live_bytes: u64,
    pub live_chunks: u64,
    /// Files without rows, rows without files, files of another length than their row says, temporary ones.
    pub orphans: Vec<String>,
    /// Sessions, pins, blobs without an entry, chunks without a blob: what should be gone when all leases ended.
    pub pending: Vec<(&'static str, u64)>,
}

fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the store") {
        let entry = entry.expect("an entry of a folder");
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path, entry.metadata().expect("its length").len())),
        }
    }
    found
}

fn count(database: &Connection, what: &str) -> u64 {
    let count: i64 = database
        .query_row(&format!("SELECT count(*) FROM {what}"), [], |row| {
            row.get(0)
        })
        .expect("a count");
    count.unsigned_abs()
}

impl Folder {
    /// Looks at a folder that no server has open.
    ///
    /// # Panics
    /// If it is no folder of a server.
    pub fn look(data: &Path) -> Self {
        let database = Connection::open(data.join("firn.db")).expect("the database");
        let mut folder = Self::default();
        for (path, length) in files(data) {
            let name = path
                .strip_prefix(data)
                .unwrap_or(&path)
                .display()
                .to_string();
            folder.bytes += length;
            let part = match name.split('/').next() {
                Some("packs") => &mut folder.pack_bytes,
                Some("segments") => &mut folder.segment_bytes,
                Some(name) if name.starts_with("firn.db") => &mut folder.database_bytes,
                _ => continue,
            };
            *part += length;
        }
        folder.compare_packs(data, &database);
        folder.sum_up(data, &database);
        folder
    }

    /// Every pack's file has its row, every row its file, of the length that it says.
    fn compare_packs(&mut self, data: &Path, database: &Connection) {
        let mut statement = database
            .prepare("SELECT name, sealed_length FROM packs")
            .expect("packs");
        let mut rows: HashMap<String, i64> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("packs")
            .map(|row| row.expect("a pack"))
            .collect();
        for (path, length) in files(data) {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            match path.extension().and_then(|end| end.to_str()) {
                Some("pack") => match rows.remove(&name) {
                    Some(sealed) if sealed.unsigned_abs() == length => {}
                    Some(sealed) => self.orphans.push(format!("{name}: {length}, not {sealed}")),
                    None => self.orphans.push(format!("file {name}")),
                },
                Some("tmp") => self.orphans.push(path.display().to_string()),
                _ => {}
            }
        }
        self.orphans
            .extend(rows.keys().map(|name| format!("row of {name}")));
    }

    fn sum_up(&mut self, data: &Path, database: &Connection) {
        let mut lists = database
            .prepare(
                "SELECT domain, list FROM blob_lists JOIN blobs ON id = blob
                 WHERE blob IN (SELECT blob FROM entry_blobs)",
            )
            .expect("lists");
        let mut live: HashSet<(i64, ChunkId)> = HashSet::new();
        let mut rows = lists.query([]).expect("lists");
        while let Some(row) = rows.next().expect("a list") {
            let domain: i64 = row.get(0).expect("its domain");
            let list: Vec<u8> = row.get(1).expect("its bytes");
            let list = ChunkList::decode(&list).expect("a sound list");
            live.extend(list.chunks.iter().map(|chunk| (domain, chunk.id)));
        }
        let mut chunks = database
            // A condemned one keeps its row until its pack goes.
            .prepare("SELECT domain, id, frame_length FROM chunks WHERE state = 1")
            .expect("chunks");
        let mut rows = chunks.query([]).expect("chunks");
        let mut dead = 0;
        while let Some(row) = rows.next().expect("a chunk") {
            let id: [u8; 32] = row.get(1).expect("its id");
            let length: u32 = row.get(2).expect("its length");
            match live.contains(&(row.get(0).expect("its domain"), ChunkId(id))) {
                true => {
                    self.live_chunks += 1;
                    self.live_bytes += u64::from(length);
                }
                false => dead += 1,
            }
        }
        let lost = live.len() as u64 - self.live_chunks;
        let staged = data.join("staged");
        let parts = match staged.exists() {
            true => files(&staged).len() as u64,
            false => 0,
        };
        let orphaned = "blobs WHERE id NOT IN (SELECT blob FROM entry_blobs)";
        self.pending = vec![
            ("sessions", count(database, "sessions")),
            ("pins", count(database, "pins")),
            ("uploads to the Actions cache", count(database, "staged")),
            ("parts of such uploads", count(database, "staged_parts")),
            ("files of such parts", parts),
            ("blobs without an entry", count(database, orphaned)),
            ("chunks without a blob", dead),
            ("chunks that are listed and not here", lost),
        ];
        self.pending.retain(|(_, count)| *count > 0);
    }

    /// Files and rows that belong to nothing: to be empty when all leases have ended and were collected.
    pub fn left_over(&self) -> BTreeSet<String> {
        let pending = self
            .pending
            .iter()
            .map(|(what, count)| format!("{count} {what}"));
        self.orphans.iter().cloned().chain(pending).collect()
    }
}
