//! The token endpoint: Basic in, a Bearer token with one scope out.

use super::message::Head;
use super::{Answer, READER, WRITER};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct Tokens {
    life: Duration,
    public: bool,
    given: AtomicU64,
    live: Mutex<HashMap<String, Token>>,
}

struct Token {
    repository: String,
    actions: Vec<String>,
    until: Instant,
}

/// What a request's token is worth.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Grant {
    Allowed,
    /// There is none, or it has ended.
    Unknown,
    /// It is of another scope.
    Denied,
}

/// What a request needs, as a challenge names it.
pub(super) fn scope_of(head: &Head) -> String {
    let actions = match action_of(head) {
        "pull" => "pull",
        _ => "pull,push",
    };
    format!("repository:{}:{actions}", repository_of(head.path()))
}

fn action_of(head: &Head) -> &'static str {
    match head.method.as_str() {
        "GET" | "HEAD" => "pull",
        "DELETE" => "delete",
        _ => "push",
    }
}

/// `a/b` of `/v2/a/b/blobs/…`.
fn repository_of(path: &str) -> &str {
    let name = path.strip_prefix("/v2/").unwrap_or_default();
    ["/blobs/", "/manifests/", "/tags/", "/referrers/"]
        .iter()
        .find_map(|part| name.split_once(part))
        .map_or("", |(name, _)| name)
}

/// What `user:password` may do.
fn rights_of(credentials: Option<&str>, public: bool) -> Option<&'static [&'static str]> {
    let basic = |credentials: &str| format!("Basic {}", STANDARD.encode(credentials));
    match credentials {
        Some(given) if given == basic(WRITER) => Some(&["pull", "push", "delete"]),
        Some(given) if given == basic(READER) => Some(&["pull"]),
        Some(_) => None,
        None if public => Some(&["pull"]),
        None => None,
    }
}

impl Tokens {
    pub(super) fn new(life: Duration, public: bool) -> Self {
        Self {
            life,
            public,
            given: AtomicU64::new(0),
            live: Mutex::default(),
        }
    }

    /// Answers `/token?scope=repository:NAME:ACTIONS`: as much of the scope as the caller may.
    pub(super) fn give(&self, head: &Head) -> Answer {
        let Some(rights) = rights_of(head.header("authorization"), self.public) else {
            let what = "requested access to the resource is denied";
            return Answer::error(403, "DENIED", what);
        };
        let scope = head.parameter("scope").unwrap_or_default();
        let mut parts = scope.splitn(3, ':').skip(1);
        let repository = parts.next().unwrap_or_default().to_owned();
        let wanted = parts.next().unwrap_or_default().split(',');
        let actions = wanted
            .filter(|action| rights.contains(action))
            .map(str::to_owned)
            .collect();
        let token = format!("t{}", self.given.fetch_add(1, Ordering::Relaxed));
        let life = self.life.as_secs();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.insert(
            token.clone(),
            Token {
                repository,
                actions,
                until: Instant::now() + self.life,
            },
        );
        Answer::json(
            200,
            &serde_json::json!({"token": token, "expires_in": life}),
        )
    }

    pub(super) fn check(&self, head: &Head) -> Grant {
        let given = head
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(token) = given.and_then(|given| live.get(given)) else {
            return Grant::Unknown;
        };
        if token.until < Instant::now() {
            return Grant::Unknown;
        }
        // `/v2/` itself belongs to nobody.
        let repository = repository_of(head.path());
        let fits = repository.is_empty() || repository == token.repository;
        let allowed = token.actions.iter().any(|action| action == action_of(head));
        match fits && allowed {
            true => Grant::Allowed,
            false => Grant::Denied,
        }
    }
}
