//! Another data folder as a source of frames.

use crate::db::chunks;
use crate::files::Folder;
use crate::types::DomainId;
use crate::{StoreError, layout};
use firn_chunks::{ChunkId, Decoder, VerifiedFrame};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// A data folder that is only read: a backup, or that of another server, which may run.
pub struct Replica {
    folder: Folder,
    connection: Connection,
    domains: Vec<DomainId>,
}

#[allow(clippy::missing_errors_doc)]
impl Replica {
    /// Whether a folder is a server's data folder.
    pub fn is_one(dir: &Path) -> bool {
        dir.join(layout::DATABASE).is_file()
    }

    /// Opens one.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let folder = Folder::open_existing(dir)?;
        layout::check_version(&folder)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(folder.path(layout::DATABASE), flags)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        let domains = connection
            .prepare("SELECT id FROM domains")?
            .query_map([], |row| row.get(0).map(DomainId))?
            .collect::<Result<_, _>>()?;
        Ok(Self {
            folder,
            connection,
            domains,
        })
    }

    /// A chunk's frame, verified, from whatever domain has it whole.
    pub fn frame(&self, id: &ChunkId) -> Result<Option<VerifiedFrame>, StoreError> {
        for domain in &self.domains {
            let Some(located) = chunks::locate_one(&self.connection, *domain, *id)? else {
                continue;
            };
            let Some(pack) = chunks::pack(&self.connection, located.pack)? else {
                continue;
            };
            let Some(file) = self.folder.open_read(&pack.key())? else {
                continue;
            };
            let mut bytes = vec![0; located.frame_length as usize];
            let mut raw = Vec::new();
            if file.read_exact_at(&mut bytes, located.offset).is_ok()
                && let Ok(frame) = Decoder::new().verify(*id, bytes.into(), &mut raw)
            {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}
