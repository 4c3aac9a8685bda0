//! What goes wrong in the client.

use firn_formats::push::ApiErrorCode;
use std::path::{Path, PathBuf};

/// Every failure of this crate. Variants exist where a caller branches or a reader needs another next step.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ClientError {
    #[error("cannot reach {url}")]
    Unreachable {
        url: String,
        #[source]
        source: Box<ureq::Error>,
    },
    /// The server answered, and refused.
    #[error("{url}: {message} (HTTP {status})")]
    Refused {
        url: String,
        status: u16,
        code: Option<ApiErrorCode>,
        message: String,
        hint: Option<String>,
    },
    #[error("{url}: unexpected answer: {what}")]
    BadAnswer { url: String, what: String },
    #[error("{path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A file of Nix's configuration that somebody else makes.
    #[error("{path} is not written: {what}")]
    Unwritable { path: PathBuf, what: String },
    #[error("not a usable URL: {0}")]
    Url(String),
    #[error("cannot read the Nix database {path}")]
    NixDatabase {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("the Nix database does not know {path}")]
    PathNotValid { path: String },
    #[error("{path} is outside {store_dir}, the store that Firn serves")]
    ForeignStore { path: String, store_dir: String },
    #[error("the Nix database says of {path}: {what}")]
    PathInfo { path: String, what: String },
    #[error("{argument} is no store path, nor a link to one, nor something a flake builds")]
    Unresolvable { argument: String },
    #[error("`{command}` failed: {message}")]
    Command { command: String, message: String },
    #[error("cannot run `{command}`")]
    CommandMissing {
        command: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Archive(#[from] firn_image::archive::ArchiveError),
    #[error(transparent)]
    Compose(#[from] firn_image::compose::ComposeError),
    #[error(transparent)]
    Output(#[from] firn_image::output::OutputError),
    #[error(transparent)]
    Base(#[from] firn_image::base::BaseError),
    #[error(transparent)]
    Closure(#[from] firn_image::closure::ClosureError),
    #[error(transparent)]
    Digest(#[from] firn_formats::oci::digest::DigestError),
    #[error(transparent)]
    Reference(#[from] firn_formats::oci::reference::ReferenceError),
    #[error("malformed {what}")]
    Json {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} has no signature by a trusted key")]
    Untrusted { path: String },
    #[error("no trusted key is known for {url}")]
    NoTrustedKey { url: String },
    #[error("{path} is not in {url}")]
    NotCached { path: String, url: String },
    #[error("{what} does not have the hash it was announced with")]
    HashMismatch { what: String },
    #[error(transparent)]
    Nar(#[from] firn_formats::nix::nar::NarError),
    #[error("{path}: NARs compressed with {compression} cannot be unpacked here")]
    Compression { path: String, compression: String },
    #[error(transparent)]
    Store(#[from] firn_store::StoreError),
    #[error("{text:?}: {what}")]
    Location { text: String, what: String },
    #[error("{0}")]
    Setting(String),
    #[error("a worker thread ended before its work was done")]
    WorkerLost,
}

/// The crate's result.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

impl ClientError {
    /// Whether the other side's certificate was not taken.
    pub fn is_distrust(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if crate::http::is_tls(source))
    }

    pub(crate) fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    pub(crate) fn json(what: impl Into<String>, source: serde_json::Error) -> Self {
        Self::Json {
            what: what.into(),
            source,
        }
    }

    /// The server's code, if it gave one.
    pub fn code(&self) -> Option<ApiErrorCode> {
        match self {
            Self::Refused { code, .. } => *code,
            _ => None,
        }
    }

    /// The HTTP status, if the failure was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Proposing again, maybe in a new session, may help.
    pub(crate) fn is_resumable(&self) -> bool {
        matches!(
            self.code(),
            Some(ApiErrorCode::SessionGone | ApiErrorCode::StaleBlob | ApiErrorCode::MissingChunks)
        )
    }
}
