//! Version 1, below `_apis/artifactcache/`.

use serde::{Deserialize, Serialize};

/// The door's path, with a slash at the end.
pub const SERVICE: &str = "/_apis/artifactcache/";
/// Longest body that is JSON, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// `POST caches`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Reserve {
    pub key: String,
    pub version: String,
    #[serde(default)]
    pub cache_size: Option<u64>,
}

/// Its answer; 0 would be none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Reserved {
    pub cache_id: u64,
}

/// `POST caches/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub struct Commit {
    pub size: u64,
}

/// An entry: the answer of `GET cache`, and one of those of `GET caches`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Found {
    pub cache_id: u64,
    pub scope: String,
    pub cache_key: String,
    pub cache_version: String,
    pub creation_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_location: Option<String>,
}

/// The answer of `GET caches`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct List {
    pub total_count: u64,
    pub artifact_caches: Vec<Found>,
}

/// An error's body. `kind` is what clients know as `typeKey`.
pub fn error(message: &str, kind: Option<&str>) -> String {
    match kind {
        Some(kind) => serde_json::json!({ "message": message, "typeKey": kind }).to_string(),
        None => serde_json::json!({ "message": message }).to_string(),
    }
}

/// The `typeKey` of an entry that is there already.
pub const ALREADY_EXISTS: &str = "ArtifactCacheItemAlreadyExistsException";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_names_of_the_clients() {
        let reserve: Reserve =
            serde_json::from_str(r#"{"key":"k","version":"v","cacheSize":3,"more":1}"#).unwrap();
        assert_eq!(reserve.cache_size, Some(3));
        assert!(serde_json::from_str::<Reserve>(r#"{"key":"k"}"#).is_err());
        assert!(serde_json::from_str::<Commit>(r#"{"size":-1}"#).is_err());
        let reserved = serde_json::to_string(&Reserved { cache_id: 7 }).unwrap();
        assert_eq!(reserved, r#"{"cacheId":7}"#);
        let found = Found {
            cache_id: 1,
            scope: "s".into(),
            cache_key: "k".into(),
            cache_version: "v".into(),
            creation_time: "t".into(),
            archive_location: None,
        };
        let text = serde_json::to_string(&found).unwrap();
        assert!(text.contains(r#""cacheKey":"k""#) && !text.contains("archiveLocation"));
    }
}
