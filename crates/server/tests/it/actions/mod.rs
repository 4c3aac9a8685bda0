//! The Actions cache, spoken to as its clients do.

mod client;
mod hostile;
mod matrix;
mod semantics;
mod tokens;
mod uploads;

use crate::http::{Answer, Client};
use firn_formats::actions::Scope;
use firn_testkit::TestServer;
use serde_json::{Value, json};

const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService/";
const VERSION: &str = "v1";

/// A job: a token, and the calls that a client makes with it.
pub struct Job {
    http: Client,
    base: String,
}

impl Job {
    pub fn new(server: &TestServer, repository: &str, scopes: &[Scope]) -> Self {
        let token = server.actions_token("main", repository, scopes);
        Self::with_token(server, Some(&token))
    }

    pub fn with_token(server: &TestServer, token: Option<&str>) -> Self {
        Self {
            http: Client::new(&server.url(), token),
            base: server.url(),
        }
    }

    pub fn on_main(server: &TestServer) -> Self {
        Self::new(server, "acme/web", &[Scope::write("refs/heads/main")])
    }

    pub fn on_branch(server: &TestServer, branch: &str) -> Self {
        let scopes = [
            Scope::write(&format!("refs/heads/{branch}")),
            Scope::read("refs/heads/main"),
        ];
        Self::new(server, "acme/web", &scopes)
    }

    pub fn twirp(&self, method: &str, body: &Value) -> Answer {
        self.http.post_json(&format!("{SERVICE}{method}"), body)
    }

    /// The path and query of a URL that the server gave.
    pub fn path(&self, url: &str) -> String {
        let path = url.strip_prefix(&self.base);
        path.unwrap_or_else(|| panic!("{url} is elsewhere"))
            .to_owned()
    }

    pub fn create(&self, key: &str) -> Answer {
        self.twirp("CreateCacheEntry", &json!({"key": key, "version": VERSION}))
    }

    /// The path of a new upload.
    pub fn reserve(&self, key: &str) -> String {
        let created = self.create(key).expect(200).json();
        assert_eq!(created["ok"], true, "{created}");
        self.path(created["signed_upload_url"].as_str().unwrap())
    }

    /// As signed URLs are used: without a token.
    fn blob(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        Client::new(&self.base, None).send(method, path, headers, body)
    }

    pub fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.blob("PUT", path, &[("x-ms-blob-type", "BlockBlob")], body)
    }

    pub fn finalize(&self, key: &str, size: usize) -> Answer {
        let body = json!({"key": key, "version": VERSION, "size_bytes": size.to_string()});
        self.twirp("FinalizeCacheEntryUpload", &body)
    }

    /// Saves an entry; gives its id.
    pub fn save(&self, key: &str, bytes: &[u8]) -> String {
        let upload = self.reserve(key);
        self.put(&upload, bytes).expect(201);
        let done = self.finalize(key, bytes.len()).expect(200).json();
        assert_eq!(done["ok"], true, "{done}");
        done["entry_id"].as_str().unwrap().to_owned()
    }

    fn get(&self, key: &str, restore_keys: &[&str]) -> Value {
        let body = json!({"key": key, "restore_keys": restore_keys, "version": VERSION});
        self.twirp("GetCacheEntryDownloadURL", &body)
            .expect(200)
            .json()
    }

    /// The path of a download.
    fn download(&self, key: &str) -> Option<String> {
        let found = self.get(key, &[]);
        let url = found["signed_download_url"].as_str().unwrap();
        (found["ok"] == true).then(|| self.path(url))
    }

    /// The matched key and the bytes.
    pub fn restore(&self, key: &str, restore_keys: &[&str]) -> Option<(String, Vec<u8>)> {
        let found = self.get(key, restore_keys);
        if found["ok"] != true {
            return None;
        }
        let path = self.path(found["signed_download_url"].as_str().unwrap());
        let matched = found["matched_key"].as_str().unwrap().to_owned();
        Some((matched, self.blob("GET", &path, &[], b"").expect(200).body))
    }

    pub fn matched(&self, key: &str, restore_keys: &[&str]) -> Option<String> {
        self.restore(key, restore_keys).map(|(key, _)| key)
    }
}

/// Files of parts below a server's data folder.
fn staged(server: &TestServer) -> usize {
    match std::fs::read_dir(server.data().join("staged")) {
        Ok(files) => files.count(),
        Err(_) => 0,
    }
}
