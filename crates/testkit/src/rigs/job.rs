//! A job of GitHub Actions as a server of caches sees it: a token, and the clients of its steps.

use super::program::{self, Outcome, run};
use super::serve::{Server, User};
use std::path::Path;
use std::process::Command;

/// Which of the two protocols a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Protocol {
    V1,
    V2,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];
}

/// A job with the rights of one token.
pub struct Job {
    url: String,
    token: String,
}

impl Job {
    /// Of a repository in the cache `main`: saves in the first of `scopes` and reads the others, too.
    pub fn new(server: &Server, repository: &str, scopes: &[&str]) -> Self {
        Self::in_cache(server, "main", repository, scopes)
    }

    /// Likewise, in another cache.
    pub fn in_cache(server: &Server, cache: &str, repository: &str, scopes: &[&str]) -> Self {
        let mut arguments = vec!["token", "create", "--cache", cache];
        arguments.extend(["--actions-repo", repository]);
        for scope in scopes {
            arguments.extend(["--scope", scope]);
        }
        let created = User::admin(server).json(&arguments);
        Self {
            url: server.url(),
            token: created["token"].as_str().expect("a token").to_owned(),
        }
    }

    /// Its token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Sets what a runner tells a job's steps.
    pub fn runner(&self, command: &mut Command, protocol: Protocol) {
        command
            .env("ACTIONS_RUNTIME_TOKEN", &self.token)
            .env("ACTIONS_CACHE_URL", format!("{}/", self.url))
            .env("ACTIONS_RESULTS_URL", format!("{}/", self.url));
        match protocol {
            Protocol::V1 => command.env_remove("ACTIONS_CACHE_SERVICE_V2"),
            Protocol::V2 => command
                .env("ACTIONS_CACHE_SERVICE_V2", "true")
                .env("GITHUB_SERVER_URL", "http://server.localhost"),
        };
    }

    /// Calls `saveCache` or `restoreCache` of GitHub's own library in a workspace; the key that was restored, or
    /// nothing.
    pub fn library(&self, protocol: Protocol, workspace: &Path, call: &[&str; 4]) -> Outcome {
        let module = program::cache_dir().join("node/node_modules/@actions/cache/lib/cache.js");
        assert!(module.is_file(), "run `make setup`");
        let temporary = workspace.with_extension("runner");
        std::fs::create_dir_all(&temporary).expect("cannot make the runner's folder");
        let mut command = program::command("node");
        command
            .arg(program::workspace().join("tools/ci-peers/actions-cache.mjs"))
            .args(call)
            .current_dir(workspace)
            .env("ACTIONS_CACHE_MODULE", module)
            .env("GITHUB_WORKSPACE", workspace)
            .env("RUNNER_TEMP", temporary);
        self.runner(&mut command, protocol);
        run(&mut command)
    }

    /// Saves bytes under a key by version 1, as little clients do; the status of the first call that is refused,
    /// else of the last.
    pub fn save(&self, key: &str, content: &[u8], replace: bool) -> u16 {
        let base = format!("{}/_apis/artifactcache/caches", self.url);
        let body = format!(r#"{{"key":"{key}","version":"v1"}}"#);
        let headers = [("X-Firn-Replace", "true")];
        let headers = if replace { &headers[..] } else { &[] };
        let (status, answer) = self.call("POST", &base, headers, body.as_bytes());
        if status >= 300 {
            return status;
        }
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        let upload = format!("{base}/{}", answer["cacheId"]);
        let range = format!("bytes 0-{}/*", content.len() - 1);
        let (status, _) = self.call("PATCH", &upload, &[("Content-Range", &range)], content);
        assert!(status < 300, "{status}");
        let size = format!(r#"{{"size":{}}}"#, content.len());
        self.call("POST", &upload, &[], size.as_bytes()).0
    }

    /// The key that is found for keys, by version 1.
    pub fn look_up(&self, keys: &str) -> Option<String> {
        Some(self.found(keys)?["cacheKey"].as_str()?.to_owned())
    }

    /// Downloads what is found for keys in two ranges, as clients do at the same time; the text.
    pub fn restore(&self, keys: &str, size: usize) -> Option<String> {
        let found = self.found(keys)?;
        let url = found["archiveLocation"].as_str()?;
        let (half, last) = (size / 2, size - 1);
        let part = |range: String| self.call("GET", url, &[("Range", &range)], b"").1;
        let second = part(format!("bytes={half}-{last}"));
        Some(part(format!("bytes=0-{}", half - 1)) + &second)
    }

    fn found(&self, keys: &str) -> Option<serde_json::Value> {
        let url = format!(
            "{}/_apis/artifactcache/cache?keys={keys}&version=v1",
            self.url
        );
        let (status, answer) = self.call("GET", &url, &[], b"");
        if status == 204 {
            return None;
        }
        Some(serde_json::from_str(&answer).expect("JSON"))
    }

    fn call(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("Authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = match method {
            "GET" => agent.run(request.body(()).expect("a request")),
            _ => agent.run(request.body(body).expect("a request")),
        };
        let mut answer = answer.expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        (answer.status().as_u16(), text)
    }
}
