//! Another data folder as a source of frames.

use crate::db::chunks;
use crate::files::Folder;
use crate::types::DomainId;
use crate::{StoreError, layout, presence};
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
        presence::expect(&folder, &connection)?;
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

    /// A chunk's frame, verified, from whatever domain has it whole. It is looked for where the chunk is damaged, too:
    /// a backup has the database of the folder that lost it, and may have the pack as it was.
    pub fn frame(&self, id: &ChunkId) -> Result<Option<VerifiedFrame>, StoreError> {
        for domain in &self.domains {
            let Some((pack, offset, length)) = chunks::place(&self.connection, *domain, *id)?
            else {
                continue;
            };
            let Some(pack) = chunks::pack(&self.connection, pack)? else {
                continue;
            };
            match self.read(&pack.key(), offset, length) {
                Ok(None) | Err(StoreError::Damaged(_)) => {}
                Ok(Some(bytes)) => {
                    let mut raw = Vec::new();
                    if let Ok(frame) = Decoder::new().verify(*id, bytes.into(), &mut raw) {
                        return Ok(Some(frame));
                    }
                }
                // Others may be read: what is healed without it is healed. It is not said to be missing either.
                Err(error @ StoreError::Io { .. }) => {
                    tracing::warn!(chunk = %id, error = error.chain(), "a frame of the copy cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn read(&self, key: &str, offset: u64, length: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.folder.open_read(key)? else {
            return Ok(None);
        };
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(Some(bytes))
    }
}
