//! The calls of `/api/v1`, one method each.

mod actions;

pub use actions::ActionsRepository;

use crate::{
    credentials::Credential,
    error::{ClientError, Result},
    http::{Call, Http, ServerUrl, encode_query},
};
use firn_formats::{
    admin::{
        CacheConfigure, CacheCreate, CacheView, CheckEvent, CheckRequest, CheckView,
        CollectionRequest, CollectionView, DamagedView, Evict, EvictReport, EvictionView, Healed,
        ImageView, RootPin, RootView, Rotate, StatsView, StatusAnswer, StatusQuery, TokenCreate,
        TokenCreated, TokenKeyRotated, TokenView, WhoAmI,
    },
    push::{
        ApiErrorCode, Begin, Begun, FramesAccepted, PART_CHUNKS_MAX, PartTaken, Proposal,
        ProposalAnswer, Publish, Published,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::io::{BufRead as _, BufReader};
use ureq::http::Method;

const JSON: &str = "application/json";
/// Images in one answer.
const IMAGES_PAGE: usize = 10_000;
const BINARY: &str = "application/octet-stream";

/// How often a list that goes in parts is begun before its failure is final.
const PARTS_TRIES: u32 = 3;

/// A Firn server and the rights we have there.
#[derive(Clone)]
pub struct Server {
    http: Http,
    url: ServerUrl,
    token: Option<String>,
    authorization: Option<String>,
}

// By hand: the token is never shown.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_str();
        f.debug_struct("Server")
            .field("url", &url)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Connects to nothing yet.
    pub fn new(url: ServerUrl, token: Option<String>) -> Result<Self> {
        Ok(Self {
            http: Http::new(crate::push::sender_threads())?,
            url,
            authorization: token.clone().map(|token| Credential::Token(token).header()),
            token,
        })
    }

    /// Its URL.
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// The token in use.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Its connections.
    pub fn http(&self) -> &Http {
        &self.http
    }

    fn call<'a>(&'a self, method: Method, path: &str) -> Call<'a> {
        Call::new(method, self.url.join(path)).authorization(self.authorization.as_deref())
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.http
            .send(&self.call(Method::GET, path))?
            .accept()?
            .json()
    }

    fn post<T: DeserializeOwned>(&self, path: &str, message: &impl Serialize) -> Result<T> {
        self.send_json(Method::POST, path, message)
    }

    fn send_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        message: &impl Serialize,
    ) -> Result<T> {
        let body =
            serde_json::to_vec(message).map_err(|source| ClientError::json("request", source))?;
        self.http
            .send(&self.call(method, path).body(JSON, &body))?
            .accept()?
            .json()
    }

    fn delete(&self, path: &str) -> Result<()> {
        self.http
            .send(&self.call(Method::DELETE, path))?
            .accept()
            .map(drop)
    }

    /// Who the server takes us for.
    pub fn whoami(&self) -> Result<WhoAmI> {
        self.get("api/v1/whoami")
    }

    /// The caches we may see.
    pub fn caches(&self) -> Result<Vec<CacheView>> {
        self.get("api/v1/caches")
    }

    /// One cache.
    pub fn cache(&self, name: &str) -> Result<CacheView> {
        self.get(&format!("api/v1/caches/{name}"))
    }

    /// Makes a cache.
    pub fn cache_create(&self, create: &CacheCreate) -> Result<CacheView> {
        self.post("api/v1/caches", create)
    }

    /// Changes a cache's configuration.
    pub fn cache_configure(&self, name: &str, configure: &CacheConfigure) -> Result<CacheView> {
        self.send_json(Method::PATCH, &format!("api/v1/caches/{name}"), configure)
    }

    /// A cache's roots.
    pub fn roots(&self, cache: &str) -> Result<Vec<RootView>> {
        self.get(&format!("api/v1/roots?cache={}", encode_query(cache)))
    }

    /// Makes or moves a root.
    pub fn root_pin(&self, cache: &str, pin: &RootPin) -> Result<RootView> {
        self.post(&format!("api/v1/roots?cache={}", encode_query(cache)), pin)
    }

    /// Takes a root away.
    pub fn root_unpin(&self, cache: &str, name: &str) -> Result<()> {
        self.delete(&format!(
            "api/v1/roots?cache={}&name={}",
            encode_query(cache),
            encode_query(name)
        ))
    }

    /// Brings a cache within its limits.
    pub fn evict(&self, cache: &str, evict: Evict) -> Result<EvictReport> {
        self.post(
            &format!("api/v1/evict?cache={}", encode_query(cache)),
            &evict,
        )
    }

    /// What went from a cache, the newest first.
    pub fn evictions(&self, cache: &str, limit: usize) -> Result<Vec<EvictionView>> {
        self.get(&format!(
            "api/v1/evictions?cache={}&limit={limit}",
            encode_query(cache)
        ))
    }

    /// Gives a cache a new signing key.
    pub fn key_rotate(&self, cache: &str, rotate: Rotate) -> Result<CacheView> {
        let path = format!("api/v1/keys/rotate?cache={}", encode_query(cache));
        self.post(&path, &rotate)
    }

    /// Gives tokens a new signing key.
    pub fn token_key_rotate(&self, rotate: Rotate) -> Result<TokenKeyRotated> {
        self.post("api/v1/tokens/rotate", &rotate)
    }

    /// Deletes a cache.
    pub fn cache_delete(&self, name: &str) -> Result<()> {
        self.delete(&format!("api/v1/caches/{name}"))
    }

    /// The tokens that were made.
    pub fn tokens(&self) -> Result<Vec<TokenView>> {
        self.get("api/v1/tokens")
    }

    /// Makes a token.
    pub fn token_create(&self, create: &TokenCreate) -> Result<TokenCreated> {
        self.post("api/v1/tokens", create)
    }

    /// Revokes a token.
    pub fn token_revoke(&self, id: &str) -> Result<()> {
        self.delete(&format!("api/v1/tokens/{id}"))
    }

    /// What is cached of some paths.
    pub fn status(&self, query: &StatusQuery) -> Result<StatusAnswer> {
        self.post("api/v1/status", query)
    }

    /// Figures of the store.
    pub fn stats(&self) -> Result<StatsView> {
        self.get("api/v1/stats")
    }

    /// Takes away what nothing needs any more, or says what that would be. Waits for it.
    pub fn collect(&self, request: &CollectionRequest) -> Result<CollectionView> {
        self.post("api/v1/gc", request)
    }

    /// The images of a cache, or one of them (`NAME:TAG`) with its layers.
    pub fn images(&self, cache: &str, image: Option<&str>) -> Result<Vec<ImageView>> {
        let cache = encode_query(cache);
        if let Some(image) = image {
            let image = encode_query(image);
            return self.get(&format!("api/v1/images?cache={cache}&image={image}"));
        }
        let mut all: Vec<ImageView> = Vec::new();
        loop {
            let mut path = format!("api/v1/images?cache={cache}&n={IMAGES_PAGE}");
            if let Some(last) = all.last() {
                let last = encode_query(&format!("{}:{}", last.name, last.tag));
                path.push_str(&format!("&last={last}"));
            }
            let page: Vec<ImageView> = self.get(&path)?;
            // A server before this one knows no pages, and gives all each time.
            if all.first().is_some_and(|first| page.first() == Some(first)) {
                return Ok(all);
            }
            let more = page.len() == IMAGES_PAGE;
            all.extend(page);
            if !more {
                return Ok(all);
            }
        }
    }

    /// Checks the store; `told` hears of (bytes done, bytes in all).
    pub fn check(
        &self,
        request: &CheckRequest,
        told: &mut dyn FnMut(u64, u64),
    ) -> Result<CheckView> {
        let path = "api/v1/check";
        let body =
            serde_json::to_vec(request).map_err(|source| ClientError::json("request", source))?;
        let answer = self
            .http
            .send(&self.call(Method::POST, path).body(JSON, &body))?
            .accept()?;
        let bad = |what: String| ClientError::BadAnswer {
            url: self.url.join(path),
            what,
        };
        for line in BufReader::new(answer.into_reader()).lines() {
            let line = line.map_err(|error| bad(error.to_string()))?;
            if line.is_empty() {
                continue;
            }
            match serde_json::from_str(&line).map_err(|error| bad(error.to_string()))? {
                CheckEvent::Progress {
                    bytes_done,
                    bytes_total,
                    ..
                } => told(bytes_done, bytes_total),
                CheckEvent::Report(report) => return Ok(report),
                CheckEvent::Failed(what) => return Err(bad(what)),
            }
        }
        Err(bad("it ended before the report".to_owned()))
    }

    /// Chunks in quarantine, after one of them (`DOMAIN-CHUNK`).
    pub fn damaged(&self, after: Option<&str>) -> Result<Vec<DamagedView>> {
        match after {
            Some(after) => self.get(&format!("api/v1/damage?after={}", encode_query(after))),
            None => self.get("api/v1/damage"),
        }
    }

    /// Sends frames for chunks in quarantine, in the form of a push.
    pub fn heal(&self, body: &[u8]) -> Result<Healed> {
        self.http
            .send(&self.call(Method::POST, "api/v1/heal").body(BINARY, body))?
            .accept()?
            .json()
    }

    /// A cache's public key, `name:base64`.
    pub fn public_key(&self, cache: &str) -> Result<String> {
        let answer = self
            .http
            .send(&self.call(Method::GET, &format!("{cache}/public-key")))?
            .accept()?
            .bytes()?;
        Ok(String::from_utf8_lossy(&answer).trim().to_owned())
    }

    /// How the NAR of a path is stored, undecoded; `None` if the server has no answer, as older ones.
    pub(crate) fn nar_layout(&self, cache: &str, hash: &str) -> Result<Option<Vec<u8>>> {
        let path = format!("api/v1/nars/{hash}?cache={}", encode_query(cache));
        let answer = self.http.send(&self.call(Method::GET, &path))?;
        match answer.status() {
            404 | 405 => Ok(None),
            _ => Ok(Some(answer.accept()?.bytes()?)),
        }
    }

    pub(crate) fn begin(&self, cache: &str, begin: &Begin) -> Result<Begun> {
        self.post(
            &format!("api/v1/push/begin?cache={}", encode_query(cache)),
            begin,
        )
    }

    /// Proposes lists; one that is too long for a body goes in parts, by itself.
    pub(crate) fn propose(
        &self,
        session: &str,
        proposals: &[Proposal],
    ) -> Result<Vec<ProposalAnswer>> {
        let too_long = |proposal: &Proposal| proposal.chunks.len() > PART_CHUNKS_MAX;
        let (long, short): (Vec<_>, Vec<_>) = proposals.iter().partition(|one| too_long(one));
        let short: Vec<Proposal> = short.into_iter().cloned().collect();
        let mut of_short = match short.is_empty() && !long.is_empty() {
            true => Vec::new(),
            false => self.propose_once(session, &[], &short)?,
        }
        .into_iter();
        let mut answers = Vec::with_capacity(proposals.len());
        for proposal in proposals {
            let answer = match too_long(proposal) {
                true => Some(self.propose_in_parts(session, proposal)?),
                false => of_short.next(),
            };
            answers.extend(answer);
        }
        Ok(answers)
    }

    /// Proposes a list that is too long for one body. Its parts are in the server's memory only, so one that
    /// has restarted is told all again.
    fn propose_in_parts(&self, session: &str, proposal: &Proposal) -> Result<ProposalAnswer> {
        let mut tries = PARTS_TRIES;
        loop {
            tries -= 1;
            match self.propose_parts(session, proposal) {
                Err(error) if tries > 0 && error.code() == Some(ApiErrorCode::StaleBlob) => {}
                outcome => return outcome,
            }
        }
    }

    fn propose_parts(&self, session: &str, proposal: &Proposal) -> Result<ProposalAnswer> {
        let path = format!("api/v1/push/{session}/parts");
        let mut parts = Vec::new();
        let mut rest = proposal.chunks.as_slice();
        let part_of = |chunks: &[([u8; 32], u32)]| Proposal {
            kind: proposal.kind,
            chunks: chunks.to_vec(),
        };
        while rest.len() > PART_CHUNKS_MAX {
            let (part, after) = rest.split_at(PART_CHUNKS_MAX);
            let body = firn_formats::push::encode_proposals(&[part_of(part)]);
            let call = self.call(Method::POST, &path).body(BINARY, &body);
            let taken: PartTaken = self.http.send(&call)?.accept()?.json()?;
            parts.push(taken.part.to_string());
            rest = after;
        }
        let before = proposal.chunks.len() - rest.len();
        let mut answers = self.propose_once(session, &parts, &[part_of(rest)])?;
        answers
            .pop()
            .filter(|answer| answer.missing.len() == before + rest.len())
            .ok_or_else(|| ClientError::BadAnswer {
                url: self.url.join(&path),
                what: "it does not match the proposal".to_owned(),
            })
    }

    fn propose_once(
        &self,
        session: &str,
        parts: &[String],
        proposals: &[Proposal],
    ) -> Result<Vec<ProposalAnswer>> {
        let body = firn_formats::push::encode_proposals(proposals);
        let mut path = format!("api/v1/push/{session}/blobs");
        if !parts.is_empty() {
            path.push_str(&format!("?parts={}", parts.join(",")));
        }
        let bad = |what: String| ClientError::BadAnswer {
            url: self.url.join(&path),
            what,
        };
        let answer = self
            .http
            .send(&self.call(Method::POST, &path).body(BINARY, &body))?
            .accept()?
            .bytes()?;
        let answers =
            firn_formats::push::decode_answers(&answer).map_err(|error| bad(error.to_string()))?;
        let fits = answers.len() == proposals.len()
            && std::iter::zip(&answers, proposals).all(|(answer, proposal)| {
                !parts.is_empty() || answer.missing.len() == proposal.chunks.len()
            });
        if !fits {
            return Err(bad("it does not match the proposals".to_owned()));
        }
        Ok(answers)
    }

    pub(crate) fn frames(&self, session: &str, body: &[u8]) -> Result<FramesAccepted> {
        let path = format!("api/v1/push/{session}/frames");
        self.http
            .send(&self.call(Method::POST, &path).body(BINARY, body))?
            .accept()?
            .json()
    }

    pub(crate) fn publish(&self, session: &str, publish: &Publish) -> Result<Published> {
        self.post(&format!("api/v1/push/{session}/publish"), publish)
    }

    pub(crate) fn heartbeat(&self, session: &str) -> Result<()> {
        let path = format!("api/v1/push/{session}/heartbeat");
        self.http
            .send(&self.call(Method::POST, &path))?
            .accept()
            .map(drop)
    }

    pub(crate) fn close(&self, session: &str) -> Result<()> {
        self.delete(&format!("api/v1/push/{session}"))
    }
}
