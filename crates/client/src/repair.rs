//! Healing a server's damaged chunks from another store that has them.

use crate::api::Server;
use crate::error::{ClientError, Result};
use crate::storage::{SharedStore, StorageLocation, open_storage};
use firn_chunks::{ChunkId, VerifiedFrame};
use firn_formats::{Sha256, push::encode_frame};
use std::path::Path;

/// Bytes of frames sent at once.
const BODY_BYTES: usize = 4 << 20;

/// A store that may have what another has lost.
pub enum Replica {
    /// A server's data folder, such as a backup.
    Folder(firn_store::Replica),
    /// A store without a server.
    Shared(SharedStore),
}

impl Replica {
    /// Opens a data folder, or whatever [`StorageLocation`] names.
    pub fn open(text: &str) -> Result<Self> {
        if firn_store::Replica::is_one(Path::new(text)) {
            return Ok(Self::Folder(firn_store::Replica::open(Path::new(text))?));
        }
        let store = open_storage(&StorageLocation::parse(text)?, None)?;
        store.refresh()?;
        Ok(Self::Shared(store))
    }

    fn frame(&self, id: &ChunkId) -> Result<Option<VerifiedFrame>> {
        Ok(match self {
            Self::Folder(replica) => replica.frame(id)?,
            Self::Shared(store) => store.frame(id)?,
        })
    }
}

/// Sends the server frames for those of its damaged chunks that the replica has; says how many were healed. The
/// server verifies each.
pub fn heal(server: &Server, replica: &Replica) -> Result<u64> {
    let mut healed = 0;
    let mut after: Option<String> = None;
    loop {
        let damaged = server.damaged(after.as_deref())?;
        let Some(last) = damaged.last() else {
            return Ok(healed);
        };
        after = Some(format!("{}-{}", last.domain, last.chunk));
        let mut body = Vec::new();
        for chunk in &damaged {
            let id = Sha256::from_hex(&chunk.chunk).ok_or_else(|| ClientError::BadAnswer {
                url: server.url().to_string(),
                what: format!("{:?} is no chunk", chunk.chunk),
            })?;
            if let Some(frame) = replica.frame(&ChunkId(id.0))? {
                encode_frame(&id.0, frame.frame(), &mut body);
            }
            if body.len() >= BODY_BYTES {
                healed += server.heal(&body)?.chunks;
                body.clear();
            }
        }
        if !body.is_empty() {
            healed += server.heal(&body)?.chunks;
        }
    }
}
