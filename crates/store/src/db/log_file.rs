//! The log that SQLite writes before the database (`firn.db-wal`), as a file.

use crate::files::Folder;
use crate::{StoreError, layout};
use std::sync::Arc;

/// The log of a folder's database.
pub(crate) struct LogFile {
    folder: Arc<Folder>,
}

impl LogFile {
    pub(crate) fn new(folder: &Arc<Folder>) -> Self {
        Self {
            folder: folder.clone(),
        }
    }

    /// Writes all of it once more, as it reads, and syncs it. Only for who is the one that writes to the database,
    /// between two transactions: readers see the same bytes before and after.
    pub(crate) fn write_again(&self) -> Result<(), StoreError> {
        self.folder
            .write_again(&format!("{}-wal", layout::DATABASE))
    }
}
