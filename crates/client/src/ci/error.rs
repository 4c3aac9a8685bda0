//! What goes wrong around a CI job.

use super::{glob::GlobError, hash_files::HashFilesError};
use crate::ClientError;
use firn_store::StoreError;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Every failure of this module.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CiError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Glob(#[from] GlobError),
    #[error(transparent)]
    HashFiles(#[from] HashFilesError),
    #[error("{path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not what Firn writes there")]
    Document {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path}: {what}")]
    Folder { path: PathBuf, what: String },
    #[error(transparent)]
    Tar(#[from] firn_formats::tar::TarError),
    #[error("the queue {path}")]
    Queue {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("{0}")]
    Setting(String),
}

/// The module's result.
pub type Result<T, E = CiError> = std::result::Result<T, E>;

impl CiError {
    pub(crate) fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// Whether it is about a folder beside the store, not about the store itself.
    pub(crate) fn is_about_a_folder(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Folder { .. } | Self::Tar(_))
    }

    /// Whether the place refused us: it may be read, and not written.
    pub fn is_refusal(&self) -> bool {
        // What is transparent does not stand in its own chain.
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(match self {
            Self::Client(error) => error,
            Self::Store(error) => error,
            other => other,
        });
        while let Some(error) = next {
            // A shared error forwards to its own source, so that what it holds is not in the chain.
            let shared = error
                .downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()
                .and_then(|shared| shared.downcast_ref::<ClientError>());
            let status = shared
                .or_else(|| error.downcast_ref::<ClientError>())
                .and_then(ClientError::status);
            let denied = error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
            if matches!(status, Some(401 | 403)) || denied {
                return true;
            }
            next = error.source();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_found_however_deep_it_lies() {
        let refused = |status| ClientError::Refused {
            url: "u".to_owned(),
            status,
            code: None,
            message: "m".to_owned(),
            hint: None,
        };
        let deep = |status| {
            CiError::Store(StoreError::Backend {
                location: "l".to_owned(),
                what: "upload".to_owned(),
                source: Arc::new(refused(status)),
            })
        };
        assert!(deep(403).is_refusal() && deep(401).is_refusal() && !deep(500).is_refusal());
        assert!(CiError::Client(refused(403)).is_refusal());
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert!(CiError::Client(ClientError::io("/x", denied)).is_refusal());
    }
}
