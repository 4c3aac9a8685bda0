//! A registry with the habits of GitHub's: Debian's docker-registry behind a proxy that
//!
//! - wants a Bearer token, which its token endpoint gives for a name and password (or, where the packages are
//!   public, for nothing), with a scope and a short life; what a token does not allow is refused with 403;
//! - answers a blob's GET with a redirect to another host, which refuses requests with an `Authorization`;
//! - refuses bodies of more than 4 MiB in a PATCH, and every DELETE; knows no referrers;
//! - gives at most 100 tags at a time, and names the next page in `Link`;
//! - says now and then that it is busy (429), and drops a connection now and then.
//!
//! What it was asked is written down, so that tests can count.

mod message;
mod pages;
mod tokens;

use super::registry::Registry;
use message::{Head, forward, read_head, respond};
use std::io::{BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokens::{Grant, Tokens};

/// Who may do everything: `user:password`, as `--dest-creds` takes it.
pub const WRITER: &str = "octo:ghs_writer";
/// Who may pull only: the token of a fork's job.
pub const READER: &str = "fork:ghs_reader";

const PATCH_BYTES_MAX: u64 = 4 << 20;
const TAGS_MAX: usize = 100;

/// How it behaves.
#[derive(Debug, Clone, Copy)]
pub struct Quirks {
    /// Anybody may pull.
    pub public: bool,
    /// How long a token lives.
    pub token_life: Duration,
    /// One of so many requests is answered with 429; 0: none.
    pub busy_every: u64,
    /// One of so many requests is not answered; 0: none.
    pub drop_every: u64,
    /// Ranges are ignored: all of a blob is sent.
    pub whole_blobs: bool,
    /// What the pages of tags after the first are answered with; 0: with tags.
    pub later_tags_status: u16,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            public: false,
            token_life: Duration::from_secs(3),
            busy_every: 37,
            drop_every: 23,
            whole_blobs: false,
            later_tags_status: 0,
        }
    }
}

impl Quirks {
    /// Never busy, no connection dropped, tokens that last: every request is the client's own wish.
    pub fn calm() -> Self {
        Self {
            token_life: Duration::from_secs(300),
            busy_every: 0,
            drop_every: 0,
            ..Self::default()
        }
    }
}

/// One request and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `GET`, …
    pub method: String,
    /// With its query; of the blobs' own host as on the registry, with `storage:` before it.
    pub path: String,
    /// Of the answer; 0 if there was none.
    pub status: u16,
    /// Of the request's body, as announced.
    pub bytes: u64,
}

/// A running double; ends with this value, as soon as its last connection does.
pub struct Ghcr {
    address: String,
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    address: String,
    storage: String,
    quirks: Quirks,
    tokens: Tokens,
    requests: AtomicU64,
    log: Mutex<Vec<Asked>>,
}

impl Ghcr {
    /// With all its quirks.
    pub fn start() -> Self {
        Self::with(Quirks::default())
    }

    /// With these.
    pub fn with(quirks: Quirks) -> Self {
        let (api, address) = listen();
        let (blobs, storage) = listen();
        let inner = Arc::new(Inner {
            registry: Registry::start(),
            address: address.clone(),
            storage,
            quirks,
            tokens: Tokens::new(quirks.token_life, quirks.public),
            requests: AtomicU64::new(0),
            log: Mutex::default(),
        });
        serve(api, &inner, Inner::api);
        serve(blobs, &inner, Inner::blob_host);
        Self { address, inner }
    }

    /// `127.0.0.1:PORT`, as image names begin.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The registry behind it, which asks for nothing and has no quirks.
    pub fn behind(&self) -> &str {
        self.inner.registry.address()
    }

    /// What was asked since the last call of this function.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.inner.log())
    }
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("cannot listen");
    let address = listener.local_addr().expect("it listens").to_string();
    (listener, address)
}

/// Each connection has a thread and one request. The listener lives as long as the test's process: it holds
/// the double by a weak link, and turns everyone away once that is gone.
fn serve(
    listener: TcpListener,
    inner: &Arc<Inner>,
    door: fn(&Inner, TcpStream) -> std::io::Result<()>,
) {
    let inner = Arc::downgrade(inner);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Some(inner) = inner.upgrade() else { break };
            // A client that went away is no fault of the test.
            std::thread::spawn(move || door(&inner, client).ok());
        }
    });
}

impl Inner {
    fn log(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, head: &Head, place: &str, status: u16) {
        self.log().push(Asked {
            method: head.method.clone(),
            path: format!("{place}{}", head.target),
            status,
            bytes: head.length(),
        });
    }

    fn api(&self, client: TcpStream) -> std::io::Result<()> {
        let mut body = BufReader::new(client.try_clone()?);
        let head = read_head(&mut body)?;
        if head.method.is_empty() {
            return Ok(());
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if is_due(number, self.quirks.drop_every) {
            self.note(&head, "", 0);
            // In the middle of an upload, not before it.
            std::io::copy(&mut body.take(head.length() / 2), &mut std::io::sink())?;
            return Ok(());
        }
        let answer = match self.refusal(&head, number) {
            Some(refusal) => refusal,
            None if head.path() == "/token" => self.tokens.give(&head),
            None if self.refuses_page(&head) => {
                Answer::error(self.quirks.later_tags_status, "UNKNOWN", "not this page")
            }
            None if head.path().ends_with("/tags/list") => {
                pages::tags(self.registry.address(), &head, TAGS_MAX)
            }
            None if head.method == "GET" && is_blob(head.path()) => self.elsewhere(&head),
            None => {
                let note = |status| self.note(&head, "", status);
                let registry = self.registry.address();
                return forward(&head, &mut body, client, registry, &[], &note);
            }
        };
        self.note(&head, "", answer.status);
        // What is refused is read all the same: a client that still sends would not hear the answer.
        std::io::copy(&mut body.take(head.length()), &mut std::io::sink())?;
        respond(client, &head, &answer)
    }

    /// What is answered without asking the registry behind.
    fn refusal(&self, head: &Head, number: u64) -> Option<Answer> {
        if head.path() == "/token" {
            return None;
        }
        if is_due(number, self.quirks.busy_every) {
            let busy = Answer::error(429, "TOOMANYREQUESTS", "slow down");
            return Some(busy.header("Retry-After", "1"));
        }
        match self.tokens.check(head) {
            Grant::Allowed => {}
            Grant::Unknown => {
                let challenge = format!(
                    r#"Bearer realm="http://{0}/token",service="{0}",scope="{1}""#,
                    self.address,
                    tokens::scope_of(head)
                );
                let refusal = Answer::error(401, "UNAUTHORIZED", "authentication required");
                return Some(refusal.header("WWW-Authenticate", &challenge));
            }
            Grant::Denied => {
                let what = "permission_denied: The token provided does not match expected scopes.";
                return Some(Answer::error(403, "DENIED", what));
            }
        }
        if head.method == "DELETE" {
            let what = "The operation is unsupported.";
            return Some(Answer::error(405, "UNSUPPORTED", what));
        }
        if head.method == "PATCH" && head.length() > PATCH_BYTES_MAX {
            return Some(Answer::error(413, "SIZE_INVALID", "chunk too large"));
        }
        if head.path().contains("/referrers/") {
            return Some(Answer::error(404, "NOT_FOUND", "page not found"));
        }
        None
    }

    fn refuses_page(&self, head: &Head) -> bool {
        self.quirks.later_tags_status > 0
            && head.path().ends_with("/tags/list")
            && head.parameter("last").is_some()
    }

    /// Blobs lie at another host, whose URLs carry the right to read them.
    fn elsewhere(&self, head: &Head) -> Answer {
        let target = format!("http://{}{}?se=later&sig=secret", self.storage, head.path());
        Answer::new(307, Vec::new()).header("Location", &target)
    }

    fn blob_host(&self, client: TcpStream) -> std::io::Result<()> {
        let mut body = BufReader::new(client.try_clone()?);
        let head = read_head(&mut body)?;
        if head.method.is_empty() {
            return Ok(());
        }
        let signed = head.target.ends_with("sig=secret");
        if head.header("authorization").is_some() || !signed {
            let refusal = Answer::error(400, "InvalidAuthenticationInfo", "two authorizations");
            self.note(&head, "storage:", refusal.status);
            return respond(client, &head, &refusal);
        }
        let dropped: &[&str] = match self.quirks.whole_blobs {
            true => &["range"],
            false => &[],
        };
        let note = |status| self.note(&head, "storage:", status);
        let registry = self.registry.address();
        forward(&head, &mut body, client, registry, dropped, &note)
    }
}

fn is_due(number: u64, every: u64) -> bool {
    every > 0 && number.is_multiple_of(every)
}

fn is_blob(path: &str) -> bool {
    path.contains("/blobs/sha256:")
}

/// An answer of the double's own.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, body.to_string().into_bytes()).header("Content-Type", "application/json")
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let fault = serde_json::json!({"code": code, "message": message});
        Self::json(status, &serde_json::json!({"errors": [fault]}))
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}
