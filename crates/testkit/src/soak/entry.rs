//! Entries of the Actions cache, spoken as its clients do: saved in two blocks, found by key, read by a signed URL.

use super::http::{Answer, Client};
use super::lock;
use super::pull::{Trouble, whole};
use super::sample::Seed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firn_formats::tar;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService/";
/// Whose tars in zstd are stored decoded.
const LIBRARY: &str = "@actions/cache-6.3.0 azsdk-js-storageblob/12";
const OTHERS: &str = "soak/1";

/// One save of a seed's archive: what was begun and not acknowledged is saved again under another key, as its first
/// one stays reserved for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Save {
    /// What the archive holds.
    pub(super) seed: Seed,
    /// How often it was tried before.
    pub(super) attempt: u32,
}

/// Jobs' tokens, a repository in each cache, and what is done with them.
#[derive(Clone)]
pub(super) struct Jobs {
    admin: Client,
    tokens: Arc<Mutex<HashMap<String, String>>>,
}

impl Save {
    fn key(self) -> String {
        format!("soak-{}-{}", self.seed.number, self.attempt)
    }

    /// Half of them come from the library that sends tars in zstd.
    const fn is_tar(self) -> bool {
        self.seed.number.is_multiple_of(2)
    }

    /// What is in it, before compression.
    fn content(self) -> Result<Vec<u8>, String> {
        let nar = self.seed.sample().nar;
        if !self.is_tar() {
            return Ok(nar);
        }
        let size = nar.len() as u64;
        let entry = tar::Entry {
            path: b"store/archive".to_vec(),
            kind: tar::EntryKind::Regular { size },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: self.seed.number,
        };
        let mut out = Vec::new();
        tar::header(&entry, &mut out).map_err(|error| error.to_string())?;
        out.extend_from_slice(&nar);
        out.resize(out.len() + tar::padding(size) + tar::TRAILER_BYTES, 0);
        Ok(out)
    }

    fn archive(self) -> Result<Vec<u8>, String> {
        let content = self.content()?;
        match self.is_tar() {
            true => zstd::bulk::compress(&content, 1).map_err(|error| error.to_string()),
            false => Ok(content),
        }
    }
}

impl Jobs {
    /// With a client that may make tokens.
    pub(super) fn new(admin: Client) -> Self {
        Self {
            admin,
            tokens: Arc::default(),
        }
    }

    /// A job on the main branch of a cache's only repository.
    fn job(&self, cache: &str, save: Save) -> Result<Client, String> {
        let known = lock(&self.tokens).get(cache).cloned();
        let token = match known {
            Some(token) => token,
            None => self.make_token(cache)?,
        };
        let agent = match save.is_tar() {
            true => LIBRARY,
            false => OTHERS,
        };
        Ok(self.admin.with(Some(&token), agent))
    }

    fn make_token(&self, cache: &str) -> Result<String, String> {
        let scopes = json!([{"Scope": "refs/heads/main", "Permission": 3}]);
        let actions = json!({"repository": "soak/soak", "scopes": scopes});
        let request = json!({"caches": [cache], "allow": [], "actions": actions});
        let body = request.to_string();
        let answer = self.admin.send(
            "POST",
            "/api/v1/tokens",
            Some("application/json"),
            body.as_bytes(),
        )?;
        let made = document(answer, "a token")?;
        let token = made["token"].as_str().ok_or("a token without a token")?;
        lock(&self.tokens).insert(cache.to_owned(), token.to_owned());
        Ok(token.to_owned())
    }

    /// Saves it.
    ///
    /// # Errors
    /// If the server does not acknowledge it.
    pub(super) fn save(&self, cache: &str, save: Save) -> Result<(), String> {
        let job = self.job(cache, save)?;
        let archive = save.archive()?;
        let call = |method: &str, body: Value| twirp(&job, method, &body);
        let created = call(
            "CreateCacheEntry",
            json!({"key": save.key(), "version": "v1"}),
        )?;
        let upload = url_of(&created, "signed_upload_url")?;
        // A signed URL wants no token.
        let blobs = job.with(None, OTHERS);
        let (first, second) = archive.split_at(archive.len() / 2);
        let id = |number: u8| STANDARD.encode(format!("block-{number:04}"));
        for (number, part) in [(2, second), (1, first)] {
            let block = id(number).replace('=', "%3D");
            blobs.put(&format!("{upload}&comp=block&blockid={block}"), None, part)?;
        }
        let list = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><Latest>{}</Latest><Latest>{}</Latest></BlockList>",
            id(1),
            id(2)
        );
        blobs.put(&format!("{upload}&comp=blocklist"), None, list.as_bytes())?;
        let size = archive.len().to_string();
        let finished = call(
            "FinalizeCacheEntryUpload",
            json!({"key": save.key(), "version": "v1", "size_bytes": size}),
        )?;
        match finished["ok"] == true {
            true => Ok(()),
            false => Err(format!("finishing: {finished}")),
        }
    }

    /// Restores it and compares every byte of what is in it; `None` if the key is not there.
    ///
    /// # Errors
    /// If it could not be read, or is another.
    pub(super) fn restore(&self, cache: &str, save: Save) -> Result<Option<u64>, Trouble> {
        let job = self.job(cache, save)?;
        let wanted = json!({"key": save.key(), "restore_keys": [], "version": "v1"});
        let found = twirp(&job, "GetCacheEntryDownloadURL", &wanted)?;
        if found["ok"] != true {
            return Ok(None);
        }
        if found["matched_key"] != save.key() {
            return Err(Trouble::Wrong(format!("another key: {found}")));
        }
        let path = url_of(&found, "signed_download_url")?;
        let body = whole(job.with(None, OTHERS).get(&path)?, "the archive")?;
        let content = match save.is_tar() {
            true => zstd::stream::decode_all(&body[..])
                .map_err(|error| Trouble::Wrong(format!("{}: {error}", save.key())))?,
            false => body,
        };
        match content == save.content()? {
            true => Ok(Some(content.len() as u64)),
            false => Err(Trouble::Wrong(format!("{}: bytes differ", save.key()))),
        }
    }

    /// Deletes it, as `gh cache delete` does.
    ///
    /// # Errors
    /// If the server does not acknowledge it.
    pub(super) fn delete(&self, cache: &str, save: Save) -> Result<(), String> {
        let key = save.key();
        let path = format!("/{cache}/repos/soak/soak/actions/caches?key={key}");
        let answer = self.job(cache, save)?.send("DELETE", &path, None, b"")?;
        match answer.status {
            404 => Ok(()),
            _ => answer.taken(&path),
        }
    }
}

fn document(answer: Answer, what: &str) -> Result<Value, String> {
    match answer.status {
        200..=299 => serde_json::from_slice(&answer.body).map_err(|error| error.to_string()),
        _ => answer.taken(what).map(|()| Value::Null),
    }
}

fn twirp(job: &Client, method: &str, body: &Value) -> Result<Value, String> {
    let path = format!("{SERVICE}{method}");
    let body = body.to_string();
    let answer = job.send("POST", &path, Some("application/json"), body.as_bytes())?;
    document(answer, method)
}

/// The path and the query of a URL that an answer gives.
fn url_of(answer: &Value, name: &str) -> Result<String, String> {
    let path = |url: &str| {
        let (_, rest) = url.split_once("://")?;
        Some(rest.get(rest.find('/')?..)?.to_owned())
    };
    let url = answer[name].as_str().and_then(path);
    url.ok_or_else(|| format!("no {name} in {answer}"))
}
