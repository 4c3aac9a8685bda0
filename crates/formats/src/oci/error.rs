//! The registry's error table: every wire error, its code, message and status, in one place.
//!
//! Codes and their meaning stand in the OCI distribution specification, "Error
//! Codes"; the statuses are those of its endpoint table, and of Docker's
//! distribution where the specification is silent.

/// The codes of the distribution specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ErrorCode {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    RangeInvalid,
    Unknown,
}

/// `(wire code, message, status)`.
type Row = (&'static str, &'static str, u16);

impl ErrorCode {
    /// Every error, in the specification's order.
    pub const ALL: [Self; 16] = [
        Self::BlobUnknown,
        Self::BlobUploadInvalid,
        Self::BlobUploadUnknown,
        Self::DigestInvalid,
        Self::ManifestBlobUnknown,
        Self::ManifestInvalid,
        Self::ManifestUnknown,
        Self::NameInvalid,
        Self::NameUnknown,
        Self::SizeInvalid,
        Self::Unauthorized,
        Self::Denied,
        Self::Unsupported,
        Self::TooManyRequests,
        Self::RangeInvalid,
        Self::Unknown,
    ];

    fn row(self) -> Row {
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", "blob unknown to registry", 404),
            Self::BlobUploadInvalid => ("BLOB_UPLOAD_INVALID", "blob upload invalid", 400),
            Self::BlobUploadUnknown => (
                "BLOB_UPLOAD_UNKNOWN",
                "blob upload unknown to registry",
                404,
            ),
            Self::DigestInvalid => (
                "DIGEST_INVALID",
                "provided digest did not match uploaded content",
                400,
            ),
            Self::ManifestBlobUnknown => (
                "MANIFEST_BLOB_UNKNOWN",
                "manifest references a manifest or blob unknown to registry",
                400,
            ),
            Self::ManifestInvalid => ("MANIFEST_INVALID", "manifest invalid", 400),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", "manifest unknown to registry", 404),
            Self::NameInvalid => ("NAME_INVALID", "invalid repository name", 400),
            Self::NameUnknown => ("NAME_UNKNOWN", "repository name not known to registry", 404),
            Self::SizeInvalid => (
                "SIZE_INVALID",
                "provided length did not match content length",
                400,
            ),
            Self::Unauthorized => ("UNAUTHORIZED", "authentication required", 401),
            Self::Denied => ("DENIED", "requested access to the resource is denied", 403),
            Self::Unsupported => ("UNSUPPORTED", "the operation is unsupported", 405),
            Self::TooManyRequests => ("TOOMANYREQUESTS", "too many requests", 429),
            // Not in the specification's list, which gives an out-of-order chunk
            // only its status; the code is Docker's.
            Self::RangeInvalid => ("RANGE_INVALID", "invalid content range", 416),
            Self::Unknown => ("UNKNOWN", "unknown error", 500),
        }
    }

    /// The wire code, such as `BLOB_UNKNOWN`.
    pub fn code(self) -> &'static str {
        self.row().0
    }

    /// The table's message.
    pub fn message(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().2
    }

    /// The error of a wire code, for a client that reads a registry's answer.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.code() == code)
    }

    /// The JSON body `{"errors":[{code,message,detail}]}`; `detail` is left out if there is none.
    pub fn body(self, detail: Option<&str>) -> String {
        let mut error = serde_json::json!({ "code": self.code(), "message": self.message() });
        if let Some(detail) = detail {
            error["detail"] = detail.into();
        }
        serde_json::json!({ "errors": [error] }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_its_codes_distinct() {
        for error in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(error.code()), Some(error));
            assert!((400..600).contains(&error.status()));
            assert!(!error.message().is_empty());
        }
        assert_eq!(ErrorCode::from_code("NO_SUCH_CODE"), None);
    }

    #[test]
    fn statuses_are_those_that_clients_branch_on() {
        let status = |code| ErrorCode::from_code(code).unwrap().status();
        assert_eq!(status("UNAUTHORIZED"), 401);
        assert_eq!(status("DENIED"), 403);
        assert_eq!(status("MANIFEST_UNKNOWN"), 404);
        assert_eq!(status("BLOB_UNKNOWN"), 404);
        assert_eq!(status("BLOB_UPLOAD_UNKNOWN"), 404);
        assert_eq!(status("DIGEST_INVALID"), 400);
        assert_eq!(status("RANGE_INVALID"), 416);
        assert_eq!(status("TOOMANYREQUESTS"), 429);
    }

    #[test]
    fn bodies_are_the_specifications_json() {
        assert_eq!(
            ErrorCode::BlobUnknown.body(None),
            r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#
        );
        let body = ErrorCode::Denied.body(Some("say \"please\"\n"));
        let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(parsed["errors"][0]["detail"], "say \"please\"\n");
    }
}
