//! What goes wrong in a store.

use firn_chunks::ChunkId;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What goes wrong in a store.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StoreError {
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    #[error("{path} has format version {found}; this program knows {known}")]
    FormatVersion {
        path: PathBuf,
        found: String,
        known: u32,
    },
    #[error("the disk is full")]
    Full(#[source] io::Error),
    #[error("{path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Its packs or segments are there: a new database would forget them.
    #[error("packs and segments are here, but not their database {0}")]
    DatabaseMissing(PathBuf),
    /// The place of the packs, or of one of them, is not mounted, or is another's. Nothing is known to be lost.
    #[error("{0} is not there: the disk of the packs may not be mounted")]
    Away(PathBuf),
    #[error("the metadata database failed")]
    Database(#[source] rusqlite::Error),
    /// The file system cannot do what the database needs.
    #[error(
        "the database {path} cannot keep a write-ahead log there, only a journal of mode {taken}"
    )]
    NoWriteAheadLog { path: PathBuf, taken: String },
    #[error("{0} uploads are under way in this cache: finish or cancel some")]
    TooManyUploads(usize),
    #[error("session {0} is gone")]
    SessionGone(String),
    #[error("{} chunks of the blob are not here", .0.len())]
    MissingChunks(Vec<ChunkId>),
    #[error("a required entry is missing: {0}")]
    MissingEntry(String),
    #[error("already exists: {0}")]
    Conflict(String),
    #[error("no such cache: {0}")]
    NoSuchCache(String),
    #[error("a list is not of the chunks it names: {0}")]
    WrongList(String),
    /// Their SHA-256 is another than the one that was promised.
    #[error("the {length} bytes have sha256:{}", .found.hex())]
    WrongDigest {
        /// How many came.
        length: u64,
        /// What they have.
        found: firn_formats::Sha256,
    },
    #[error("stored bytes are damaged: {0}")]
    Damaged(String),
    /// What was read there lies elsewhere now, or is gone: whoever meets this looks again.
    #[error("pack {0} was collected meanwhile")]
    Collected(i64),
    #[error("the stream is malformed")]
    Format(#[from] firn_chunks::chunker::FormatError),
    #[error("reading the upload failed")]
    Upload(#[source] io::Error),
    #[error("{location}: {what}")]
    Backend {
        location: String,
        /// What was tried.
        what: String,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    #[error("{0} does not let anything be deleted")]
    Undeletable(String),
    #[error("{0} is the data folder of a Firn server: name the server, or another folder")]
    ServerFolder(PathBuf),
    #[error(
        "the run took more than half a day, so what it uploaded first may be gone: run it again"
    )]
    RunTooLong,
}

impl StoreError {
    /// Names the file an error belongs to; a full disk is a variant of its own, since callers branch on it.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(source),
            _ => Self::Io {
                path: path.into(),
                source,
            },
        }
    }

    /// Whether the storage could not be reached, which may pass: nothing is said of what is stored.
    pub fn is_unreachable(&self) -> bool {
        use rusqlite::ErrorCode;
        match self {
            Self::Io { .. } | Self::Away(_) => true,
            Self::Database(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::CannotOpen
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::OutOfMemory
                )
            ),
            _ => false,
        }
    }

    /// The error and its sources, in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// The same failure for another caller who waited on the same batch.
    pub(crate) fn duplicate(&self) -> Self {
        let copy = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        match self {
            Self::Locked(path) => Self::Locked(path.clone()),
            Self::FormatVersion { path, found, known } => Self::FormatVersion {
                path: path.clone(),
                found: found.clone(),
                known: *known,
            },
            Self::Full(source) => Self::Full(copy(source)),
            Self::DatabaseMissing(path) => Self::DatabaseMissing(path.clone()),
            Self::Away(path) => Self::Away(path.clone()),
            Self::Io { path, source } => Self::Io {
                path: path.clone(),
                source: copy(source),
            },
            Self::Database(source) => Self::Database(duplicate_database(source)),
            Self::NoWriteAheadLog { path, taken } => Self::NoWriteAheadLog {
                path: path.clone(),
                taken: taken.clone(),
            },
            Self::TooManyUploads(open) => Self::TooManyUploads(*open),
            Self::SessionGone(id) => Self::SessionGone(id.clone()),
            Self::MissingChunks(ids) => Self::MissingChunks(ids.clone()),
            Self::MissingEntry(key) => Self::MissingEntry(key.clone()),
            Self::Conflict(what) => Self::Conflict(what.clone()),
            Self::NoSuchCache(name) => Self::NoSuchCache(name.clone()),
            Self::WrongList(what) => Self::WrongList(what.clone()),
            Self::WrongDigest { length, found } => Self::WrongDigest {
                length: *length,
                found: *found,
            },
            Self::Damaged(what) => Self::Damaged(what.clone()),
            Self::Collected(pack) => Self::Collected(*pack),
            Self::Format(source) => Self::Format(source.clone()),
            Self::Upload(source) => Self::Upload(copy(source)),
            Self::Backend {
                location,
                what,
                source,
            } => Self::Backend {
                location: location.clone(),
                what: what.clone(),
                source: source.clone(),
            },
            Self::Undeletable(location) => Self::Undeletable(location.clone()),
            Self::ServerFolder(path) => Self::ServerFolder(path.clone()),
            Self::RunTooLong => Self::RunTooLong,
        }
    }
}

fn duplicate_database(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => {
            rusqlite::Error::SqliteFailure(*code, message.clone())
        }
        other => rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR),
            Some(other.to_string()),
        ),
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full(io::Error::new(
                io::ErrorKind::StorageFull,
                error.to_string(),
            )),
            _ => Self::Database(error),
        }
    }
}
