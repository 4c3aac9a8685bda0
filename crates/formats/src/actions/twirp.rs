//! Version 2: `POST /twirp/github.actions.results.api.v1.CacheService/<Method>`.
//!
//! | method | request (protobuf field) | answer (1, 2, 3) |
//! |---|---|---|
//! | CreateCacheEntry | key (2), version (3) | ok, signed_upload_url, message |
//! | FinalizeCacheEntryUpload | key (2), size_bytes (3), version (4) | ok, entry_id, message |
//! | GetCacheEntryDownloadURL | key (2), restore_keys (3, repeated), version (4) | ok, signed_download_url, matched_key |
//!
//! JSON is read in snake_case and camelCase and written in snake_case; 64-bit numbers are read as numbers and as
//! strings and written as strings. Errors are JSON in either case.

use super::names::{KEYS_MAX, NameError};
use super::protobuf::{self, Malformed, put_number, put_text};
use serde::{Deserialize, Deserializer};

/// The service's path, with a slash at the end.
pub const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService/";
/// Longest body of a request, in bytes: ten keys of 512 characters, each escaped.
pub const BODY_BYTES_MAX: usize = 128 << 10;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Create,
    Finalize,
    Get,
}

impl Method {
    /// By its name in the path.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "CreateCacheEntry" => Some(Self::Create),
            "FinalizeCacheEntryUpload" => Some(Self::Finalize),
            "GetCacheEntryDownloadURL" => Some(Self::Get),
            _ => None,
        }
    }
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    /// By a Content-Type. Twirp knows these two.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/json" => Some(Self::Json),
            "application/protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }

    /// The Content-Type of answers.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/protobuf",
        }
    }
}

/// Why a body is no request.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MessageError {
    #[error("the body is not JSON of this call")]
    Json(#[source] serde_json::Error),
    #[error(transparent)]
    Protobuf(#[from] Malformed),
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Any of the requests; what one has not is empty or 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Request {
    /// The primary key.
    #[serde(deserialize_with = "or_default")]
    pub key: String,
    /// The version.
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// Other keys, of lookups.
    #[serde(alias = "restoreKeys", deserialize_with = "or_default")]
    pub restore_keys: Vec<String>,
    /// Bytes that were uploaded.
    #[serde(alias = "sizeBytes", deserialize_with = "number")]
    pub size_bytes: u64,
}

/// proto3's JSON allows null for what is not there.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match Option::<Number>::deserialize(deserializer)? {
        None => Ok(0),
        Some(Number::Number(number)) => Ok(number),
        Some(Number::Text(text)) => {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let parsed = digits.then(|| text.parse().ok()).flatten();
            parsed.ok_or_else(|| serde::de::Error::custom("not a 64-bit number"))
        }
    }
}

impl Request {
    /// Parses the request of a method.
    ///
    /// # Errors
    /// If it is no message, or has too many keys. What the names are is looked at when they are used.
    pub fn parse(method: Method, encoding: Encoding, body: &[u8]) -> Result<Self, MessageError> {
        let request = match encoding {
            Encoding::Json => {
                // A struct would be read from a list, too.
                let object: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_slice(body).map_err(MessageError::Json)?;
                Self::deserialize(serde_json::Value::Object(object)).map_err(MessageError::Json)?
            }
            Encoding::Protobuf => Self::parse_protobuf(method, body)?,
        };
        match request.restore_keys.len() > KEYS_MAX {
            true => Err(NameError::TooManyKeys.into()),
            false => Ok(request),
        }
    }

    fn parse_protobuf(method: Method, body: &[u8]) -> Result<Self, Malformed> {
        let mut request = Self::default();
        protobuf::read(body, |number, field| {
            match (number, method) {
                (2, _) => request.key = field.text()?.to_owned(),
                (3, Method::Create) | (4, Method::Finalize | Method::Get) => {
                    request.version = field.text()?.to_owned();
                }
                (3, Method::Finalize) => request.size_bytes = field.number()?,
                // One more than may be is enough to be refused.
                (3, Method::Get) if request.restore_keys.len() <= KEYS_MAX => {
                    request.restore_keys.push(field.text()?.to_owned());
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(request)
    }

    /// The primary key, and then the others.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = vec![self.key.clone()];
        for key in &self.restore_keys {
            // BuildKit repeats the primary one.
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        keys
    }
}

/// Any of the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Answer {
    Created {
        ok: bool,
        url: String,
        message: String,
    },
    Finalized {
        ok: bool,
        entry: u64,
        message: String,
    },
    Found {
        ok: bool,
        url: String,
        key: String,
    },
}

impl Answer {
    /// Written.
    pub fn encode(&self, encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Json => self.json().to_string().into_bytes(),
            Encoding::Protobuf => self.protobuf(),
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Created { ok, url, message } => {
                serde_json::json!({ "ok": ok, "signed_upload_url": url, "message": message })
            }
            Self::Finalized { ok, entry, message } => {
                serde_json::json!({ "ok": ok, "entry_id": entry.to_string(), "message": message })
            }
            Self::Found { ok, url, key } => {
                serde_json::json!({ "ok": ok, "signed_download_url": url, "matched_key": key })
            }
        }
    }

    fn protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Created { ok, url, message } => {
                put_number(&mut out, 1, u64::from(*ok));
                put_text(&mut out, 2, url);
                put_text(&mut out, 3, message);
            }
            Self::Finalized { ok, entry, message } => {
                put_number(&mut out, 1, u64::from(*ok));
                put_number(&mut out, 2, *entry);
                put_text(&mut out, 3, message);
            }
            Self::Found { ok, url, key } => {
                put_number(&mut out, 1, u64::from(*ok));
                put_text(&mut out, 2, url);
                put_text(&mut out, 3, key);
            }
        }
        out
    }
}

/// Twirp's errors that are given here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ErrorCode {
    Malformed,
    BadRoute,
    InvalidArgument,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    ResourceExhausted,
    Internal,
    Unavailable,
}

impl ErrorCode {
    /// Its name and HTTP status.
    pub fn parts(self) -> (&'static str, u16) {
        match self {
            Self::Malformed => ("malformed", 400),
            Self::BadRoute => ("bad_route", 404),
            Self::InvalidArgument => ("invalid_argument", 400),
            Self::Unauthenticated => ("unauthenticated", 401),
            Self::PermissionDenied => ("permission_denied", 403),
            Self::NotFound => ("not_found", 404),
            Self::AlreadyExists => ("already_exists", 409),
            Self::ResourceExhausted => ("resource_exhausted", 429),
            Self::Internal => ("internal", 500),
            Self::Unavailable => ("unavailable", 503),
        }
    }

    /// The body, in JSON.
    pub fn body(self, message: &str) -> String {
        serde_json::json!({ "code": self.parts().0, "msg": message }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &str) -> Result<Request, MessageError> {
        Request::parse(Method::Get, Encoding::Json, body.as_bytes())
    }

    #[test]
    fn json_is_read_in_both_cases() {
        let snake = json(r#"{"key":"k","restore_keys":["a","b"],"version":"v","size_bytes":"12"}"#);
        let camel = json(
            r#"{"metadata":{"repositoryId":"1"},"key":"k","restoreKeys":["a","b"],"version":"v","sizeBytes":12}"#,
        );
        let snake = snake.unwrap();
        assert_eq!(snake, camel.unwrap());
        assert_eq!((snake.size_bytes, snake.keys().len()), (12, 3));
        let empty = json(r#"{"key":null,"restore_keys":null,"size_bytes":null}"#).unwrap();
        assert_eq!(empty, Request::default());
        assert_eq!(json("{}").unwrap(), Request::default());
    }

    #[test]
    fn hostile_json_is_refused() {
        let many = format!(r#"{{"restore_keys":[{}""]}}"#, "\"\",".repeat(KEYS_MAX));
        for bad in [
            "",
            "[]",
            "null",
            r#"{"key":1}"#,
            r#"{"size_bytes":-1}"#,
            r#"{"size_bytes":"-1"}"#,
            r#"{"size_bytes":"+1"}"#,
            r#"{"size_bytes":1.5}"#,
            r#"{"size_bytes":"99999999999999999999"}"#,
            r#"{"restore_keys":"a"}"#,
            r#"{"restore_keys":["a"],"restoreKeys":["b"]}"#,
            &many,
            &"[".repeat(100_000),
        ] {
            assert!(json(bad).is_err(), "{bad:.60}");
        }
    }

    #[test]
    fn protobuf_fields_are_those_of_the_method() {
        let mut body = Vec::new();
        put_text(&mut body, 2, "k");
        put_text(&mut body, 3, "3");
        put_text(&mut body, 3, "three");
        put_text(&mut body, 4, "4");
        put_text(&mut body, 1, "metadata");
        let get = Request::parse(Method::Get, Encoding::Protobuf, &body).unwrap();
        assert_eq!(get.keys(), ["k", "3", "three"]);
        assert_eq!(get.version, "4");
        let create = Request::parse(Method::Create, Encoding::Protobuf, &body).unwrap();
        assert_eq!(
            (create.version.as_str(), create.restore_keys.len()),
            ("three", 0)
        );
        assert!(Request::parse(Method::Finalize, Encoding::Protobuf, &body).is_err());
        let mut body = Vec::new();
        put_number(&mut body, 3, 77);
        let finalize = Request::parse(Method::Finalize, Encoding::Protobuf, &body).unwrap();
        assert_eq!(finalize.size_bytes, 77);
        let mut body = Vec::new();
        for _ in 0..100 {
            put_text(&mut body, 3, "r");
        }
        assert!(Request::parse(Method::Get, Encoding::Protobuf, &body).is_err());
        assert!(Request::parse(Method::Get, Encoding::Protobuf, b"\x12\x01\xff").is_err());
    }

    #[test]
    fn answers_have_strings_for_numbers() {
        let done = Answer::Finalized {
            ok: true,
            entry: 5,
            message: String::new(),
        };
        let expected = r#"{"entry_id":"5","message":"","ok":true}"#;
        assert_eq!(done.encode(Encoding::Json), expected.as_bytes());
        assert_eq!(done.encode(Encoding::Protobuf), b"\x08\x01\x10\x05");
        assert_eq!(
            Encoding::from_media_type("application/json; charset=utf-8"),
            Some(Encoding::Json)
        );
        assert_eq!(Encoding::from_media_type("text/plain"), None);
    }
}
