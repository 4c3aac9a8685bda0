//! Good requests of Actions' cache clients, to be changed.

use super::Request;

const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService/";
const REST: &str = "/_apis/artifactcache/";

/// Of every call, in every form. `upload` and `download` are the paths of signed URLs.
pub fn requests(upload: &str, download: &str) -> Vec<Request> {
    let json = |method: &str, body: &str| {
        Request::new("POST", format!("{SERVICE}{method}"), body)
            .header("Content-Type", "application/json")
    };
    let protobuf = |method: &str, body: &[u8]| {
        Request::new("POST", format!("/main{SERVICE}{method}"), body)
            .header("Content-Type", "application/protobuf")
    };
    let rest = |method, path: &str, body: &str| Request::new(method, format!("{REST}{path}"), body);
    let put = |more: &str, body: &str| Request::new("PUT", format!("{upload}{more}"), body);
    let list =
        "<?xml version=\"1.0\"?><BlockList><Latest>YQ==</Latest><Latest>Yg==</Latest></BlockList>";
    vec![
        json(
            "CreateCacheEntry",
            r#"{"key":"k","version":"v","metadata":{}}"#,
        ),
        json(
            "FinalizeCacheEntryUpload",
            r#"{"key":"k","version":"v","sizeBytes":"5"}"#,
        ),
        json(
            "GetCacheEntryDownloadURL",
            r#"{"key":"k","restoreKeys":["a","b"],"version":"v"}"#,
        ),
        protobuf("CreateCacheEntry", b"\x12\x01k\x1a\x01v"),
        protobuf("FinalizeCacheEntryUpload", b"\x12\x01k\x18\x05\x22\x01v"),
        protobuf(
            "GetCacheEntryDownloadURL",
            b"\x12\x01k\x1a\x01a\x1a\x01b\x22\x01v",
        ),
        rest("GET", "cache?keys=a,b&version=v", ""),
        rest("GET", "caches?key=a", ""),
        rest(
            "POST",
            "caches",
            r#"{"key":"k","version":"v","cacheSize":5}"#,
        ),
        rest("PATCH", "caches/1", "bytes").header("Content-Range", "bytes 0-4/*"),
        rest("POST", "caches/1", r#"{"size":5}"#),
        put("", "bytes").header("x-ms-blob-type", "BlockBlob"),
        put("", "").header("x-ms-blob-type", "AppendBlob"),
        put("&comp=block&blockid=YQ%3D%3D", "bytes"),
        put("&comp=blocklist", list),
        put("&comp=appendblock", "bytes").header("x-ms-blob-condition-appendpos", "0"),
        put("&comp=seal", ""),
        Request::new("GET", download, "").header("x-ms-range", "bytes=0-3"),
        Request::new("HEAD", download, ""),
    ]
}
