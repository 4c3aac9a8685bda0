//! What a registry client is told.

use crate::ServiceError;
use firn_formats::oci::ErrorCode;
use firn_formats::push::ApiErrorCode;

/// A refusal in the registry's words.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", .code.code(), .detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
pub struct RegistryError {
    /// The code of the specification.
    pub code: ErrorCode,
    /// What exactly; clients print the message, so it goes there.
    pub detail: Option<String>,
    /// The status, if not the code's usual one.
    pub status: Option<u16>,
    /// The cause.
    #[source]
    pub source: Option<ServiceError>,
}

impl RegistryError {
    /// The bare code.
    pub fn new(code: ErrorCode) -> Self {
        Self {
            code,
            detail: None,
            status: None,
            source: None,
        }
    }

    /// With what exactly is wrong.
    pub fn with(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..Self::new(code)
        }
    }

    /// The HTTP status.
    pub fn http_status(&self) -> u16 {
        self.status.unwrap_or_else(|| self.code.status())
    }

    /// The JSON body. The detail stands in the message too, since that is what clients print.
    pub fn body(&self) -> String {
        let message = match &self.detail {
            Some(detail) => format!("{}: {detail}", self.code.message()),
            None => self.code.message().to_owned(),
        };
        serde_json::json!({
            "errors": [{
                "code": self.code.code(),
                "message": message,
                "detail": self.detail,
            }]
        })
        .to_string()
    }
}

impl From<ServiceError> for RegistryError {
    fn from(error: ServiceError) -> Self {
        let status = error.code().status();
        let code = match error.code() {
            ApiErrorCode::NotFound => ErrorCode::NameUnknown,
            ApiErrorCode::SessionGone => ErrorCode::BlobUploadUnknown,
            ApiErrorCode::BadRequest | ApiErrorCode::TooSlow => ErrorCode::BlobUploadInvalid,
            ApiErrorCode::HashMismatch => ErrorCode::DigestInvalid,
            ApiErrorCode::TooLarge => ErrorCode::SizeInvalid,
            ApiErrorCode::TooMany | ApiErrorCode::Busy => ErrorCode::TooManyRequests,
            ApiErrorCode::MissingReference | ApiErrorCode::MissingChunks => {
                ErrorCode::ManifestBlobUnknown
            }
            ApiErrorCode::Unauthorized => ErrorCode::Unauthorized,
            ApiErrorCode::Denied | ApiErrorCode::QuotaExceeded => ErrorCode::Denied,
            _ if matches!(error, ServiceError::TooManyUploads(_)) => ErrorCode::TooManyRequests,
            ApiErrorCode::StaleBlob | ApiErrorCode::Conflict => ErrorCode::Unsupported,
            ApiErrorCode::StorageFull | ApiErrorCode::Internal => ErrorCode::Unknown,
        };
        let own_status = status >= 500 || status == ApiErrorCode::TooSlow.status();
        Self {
            code,
            detail: Some(error.public_message()),
            status: own_status.then_some(status),
            source: Some(error),
        }
    }
}

impl From<firn_store::StoreError> for RegistryError {
    fn from(error: firn_store::StoreError) -> Self {
        ServiceError::from(error).into()
    }
}
