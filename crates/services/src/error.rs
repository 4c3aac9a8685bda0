//! One enum for what services refuse; the doors turn it into their own words.

use firn_formats::push::ApiErrorCode;
use firn_store::StoreError;
use std::path::PathBuf;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ServiceError {
    #[error("{0}")]
    BadRequest(String),
    #[error("malformed upload")]
    Format(#[source] firn_chunks::chunker::FormatError),
    #[error("the NAR of {path} is not taken")]
    Nar {
        path: String,
        #[source]
        source: firn_formats::nix::nar::NarError,
    },
    #[error("malformed narinfo")]
    NarInfo(#[from] firn_formats::nix::narinfo::NarInfoError),
    #[error("malformed request body")]
    Wire(#[from] firn_formats::push::WireError),
    #[error("malformed frame")]
    Frame(#[from] firn_chunks::frame::FrameError),
    #[error("the body does not decompress as {format}")]
    Decompression {
        format: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("the upload broke off")]
    Interrupted(#[source] std::io::Error),
    #[error("not found: {0}")]
    NotFound(String),
    #[error("the session is gone; begin again")]
    SessionGone,
    #[error("blob handle {0} is not known to this session (any more); propose the blob again")]
    StaleBlob(u32),
    #[error("{0} chunks of the blob are not here; propose it again and send them")]
    MissingChunks(usize),
    #[error("{0}")]
    HashMismatch(String),
    #[error("a reference is neither in the cache nor in the request: {0}")]
    MissingReference(String),
    #[error("already exists: {0}")]
    Conflict(String),
    #[error("{0} uploads are under way in this cache: finish or cancel some, or wait")]
    TooManyUploads(usize),
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: &'static str, limit: u64 },
    #[error(
        "the body decompresses to more than {limit} bytes, far more than came; send it without compression \
         (nix copy --to 'URL?compression=none'), or by firn push"
    )]
    Expands { limit: u64 },
    #[error("there are {limit} {what} already; come again when some have ended")]
    TooMany { what: &'static str, limit: usize },
    #[error("the server has no place for this now; come again")]
    Busy,
    #[error("the quota is exceeded: {0}")]
    QuotaExceeded(String),
    #[error("the secret file {path}")]
    SecretFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the secret file {path} cannot be used: {what}")]
    SecretContent { path: PathBuf, what: String },
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    #[error("the token cannot be made")]
    Token(#[source] jsonwebtoken::errors::Error),
    #[error("a worker failed")]
    WorkerFailed,
    #[error("a stored document is malformed")]
    StoredJson(#[from] serde_json::Error),
    #[error("a stored entry is damaged: {0}")]
    StoredEntry(String),
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::SessionGone(_) => Self::SessionGone,
            StoreError::MissingChunks(chunks) => Self::MissingChunks(chunks.len()),
            StoreError::MissingEntry(key) => Self::MissingReference(key),
            StoreError::Conflict(what) => Self::Conflict(what),
            StoreError::TooManyUploads(open) => Self::TooManyUploads(open),
            StoreError::NoSuchCache(name) => Self::NotFound(format!("cache {name}")),
            StoreError::Format(fault) => Self::Format(fault),
            StoreError::WrongList(what) => Self::HashMismatch(what),
            error @ StoreError::WrongDigest { .. } => Self::HashMismatch(error.to_string()),
            StoreError::Upload(source) => Self::Interrupted(source),
            other => Self::Store(other),
        }
    }
}

impl ServiceError {
    /// Whether stored bytes are known to be missing or damaged: all else that keeps them from being served may pass.
    pub fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::NotFound(_) | Self::MissingChunks(_) | Self::Store(StoreError::Damaged(_))
        )
    }

    /// What a client may branch on.
    pub fn code(&self) -> ApiErrorCode {
        match self {
            Self::Interrupted(source) if source.kind() == std::io::ErrorKind::TimedOut => {
                ApiErrorCode::TooSlow
            }
            Self::BadRequest(_)
            | Self::Format(_)
            | Self::Nar { .. }
            | Self::NarInfo(_)
            | Self::Wire(_)
            | Self::Frame(_)
            | Self::Decompression { .. }
            | Self::Interrupted(_) => ApiErrorCode::BadRequest,
            Self::NotFound(_) => ApiErrorCode::NotFound,
            Self::SessionGone => ApiErrorCode::SessionGone,
            Self::StaleBlob(_) => ApiErrorCode::StaleBlob,
            Self::MissingChunks(_) => ApiErrorCode::MissingChunks,
            Self::HashMismatch(_) => ApiErrorCode::HashMismatch,
            Self::MissingReference(_) => ApiErrorCode::MissingReference,
            Self::Conflict(_) | Self::TooManyUploads(_) => ApiErrorCode::Conflict,
            Self::TooLarge { .. } | Self::Expands { .. } => ApiErrorCode::TooLarge,
            Self::TooMany { .. } => ApiErrorCode::TooMany,
            Self::Busy => ApiErrorCode::Busy,
            Self::QuotaExceeded(_) => ApiErrorCode::QuotaExceeded,
            Self::Store(StoreError::Full(_)) => ApiErrorCode::StorageFull,
            Self::Store(error) if error.is_unreachable() => ApiErrorCode::Busy,
            Self::SecretFile { source, .. } if is_full(source) => ApiErrorCode::StorageFull,
            Self::SecretFile { .. }
            | Self::SecretContent { .. }
            | Self::Random(_)
            | Self::Token(_)
            | Self::WorkerFailed
            | Self::StoredJson(_)
            | Self::StoredEntry(_)
            | Self::Store(_) => ApiErrorCode::Internal,
        }
    }

    /// What a client is told: for its own faults the whole chain of causes, for ours nothing
    /// of the inside (the log has it).
    pub fn public_message(&self) -> String {
        if matches!(self, Self::Store(error) if error.is_unreachable()) {
            return "the server cannot reach its storage now; come again".to_owned();
        }
        match self.code() {
            ApiErrorCode::Internal => "internal error; the server's log says more".to_owned(),
            ApiErrorCode::StorageFull => "the server's storage is full".to_owned(),
            _ => self.chain(),
        }
    }

    /// The error and its sources, joined by colons.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}
