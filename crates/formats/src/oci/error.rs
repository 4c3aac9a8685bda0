//! The registry's error table: every wire error, its code, message and status, in one place.

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

impl ErrorCode {
    /// The wire code, such as `BLOB_UNKNOWN`.
    pub fn code(self) -> &'static str {
        todo!()
    }
    /// The table's message.
    pub fn message(self) -> &'static str {
        todo!()
    }
    /// The HTTP status.
    pub fn status(self) -> u16 {
        todo!()
    }
    /// The JSON body `{"errors":[{code,message,detail}]}`.
    pub fn body(self, detail: Option<&str>) -> String {
        todo!("{detail:?}")
    }
}
