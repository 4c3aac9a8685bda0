//! The door of GitHub Actions' cache clients.
//!
//! ```text
//! [/<cache>]/twirp/github.actions.results.api.v1.CacheService/<Method>    twirp: version 2
//! [/<cache>]/_apis/artifactcache/…                                         rest: version 1
//! /devstoreaccount1/<container>/<id>?…&sig=…                               blobs: the bytes, by signed URL
//! ```
//! The token names cache, repository and scopes. A cache in the path must be the token's.

mod blobs;
pub(crate) mod rate;
mod rest;
mod twirp;

use crate::app::{App, Places, WorkerFailed, blocking};
use crate::auth::identify;
use crate::body::Body;
use crate::gate::Busy;
use crate::query::parse_query;
use crate::upload::{self, BodyReader, GatherError};
use firn_formats::actions::{Scopes, rest as v1, twirp as v2};
use firn_services::access::UrlClaims;
use firn_services::actions::{ActionsError, Hit, Repository, Save};
use firn_services::budget::{Client, Lease};
use firn_services::{Refusal, ServiceError};
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The account of signed URLs: Azure's clients read one on an IP address and on localhost, and take it for a part
/// of the path elsewhere.
const ACCOUNT: &str = "/devstoreaccount1/";
/// How long the URL of an upload is good, in seconds: as long as GitHub's jobs at most. The upload itself ends much
/// sooner if no byte comes.
const UPLOAD_SECONDS: u64 = 6 * 3600;
/// How long the URL of a download is good, in seconds. One that has begun goes on.
const DOWNLOAD_SECONDS: u64 = 3600;
/// Asks that an entry which is there be replaced.
const REPLACE: HeaderName = HeaderName::from_static("x-firn-replace");

/// What a path asks for, and the cache that it names.
#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    Twirp(Option<&'a str>, &'a str),
    Rest(Option<&'a str>, &'a str),
    Blob(&'a str, &'a str),
}

/// The cache before a door's own path, if it is one: of one or two parts.
fn prefix(path: &str) -> Option<Option<&str>> {
    match path.strip_prefix('/') {
        None => path.is_empty().then_some(None),
        Some(cache) => {
            let parts = cache.split('/');
            let sound = parts.clone().count() <= 2 && parts.clone().all(|part| !part.is_empty());
            sound.then_some(Some(cache))
        }
    }
}

fn split(path: &str) -> Option<Target<'_>> {
    if let Some(rest) = path.strip_prefix(ACCOUNT) {
        let (container, id) = rest.split_once('/')?;
        return Some(Target::Blob(container, id));
    }
    if let Some((before, method)) = path.split_once(v2::SERVICE) {
        return prefix(before).map(|cache| Target::Twirp(cache, method));
    }
    let (before, call) = path.split_once(v1::SERVICE)?;
    prefix(before).map(|cache| Target::Rest(cache, call))
}

/// Whether a path is this door's.
pub(crate) fn is_ours(path: &str) -> bool {
    split(path).is_some()
}

/// A request's parts, as the handlers need them.
struct Call {
    app: Arc<App>,
    method: Method,
    headers: HeaderMap,
    query: Vec<(String, String)>,
}

/// Whom a token lets in.
struct Guest {
    repository: Repository,
    scopes: Scopes,
}

impl Guest {
    fn client(&self) -> Client {
        Client::known(self.repository.cache.name())
    }
}

/// Why a request is not done; each protocol has its own words.
enum Failure {
    Access(Refusal),
    /// The token gives the repository, and no scope to read or to write.
    ReadDenied,
    WriteDenied,
    Actions(ActionsError),
    /// Uploads came too fast; the next may come in so many seconds.
    Rate(u64),
    Malformed(String),
    TooLarge(usize),
}

impl From<ActionsError> for Failure {
    fn from(error: ActionsError) -> Self {
        Self::Actions(error)
    }
}
impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Access(refusal)
    }
}
impl From<WorkerFailed> for Failure {
    fn from(_: WorkerFailed) -> Self {
        Self::Actions(ActionsError::Service(ServiceError::WorkerFailed))
    }
}
impl From<Busy> for Failure {
    fn from(_: Busy) -> Self {
        Self::Actions(ActionsError::Service(ServiceError::Busy))
    }
}
impl From<GatherError> for Failure {
    fn from(error: GatherError) -> Self {
        match error {
            GatherError::TooLarge(limit) => Self::TooLarge(limit),
            GatherError::Broken(error) => {
                Self::Actions(ActionsError::Service(ServiceError::Interrupted(error)))
            }
            GatherError::Busy => Busy.into(),
        }
    }
}

type Answer = Result<Response<Body>, Failure>;

const READ_DENIED: &str = "cache read denied: the token gives no scope to read";
const WRITE_DENIED: &str = "cache write denied: the token gives no scope to write";

impl Failure {
    /// What the client is told.
    fn message(&self) -> String {
        match self {
            Self::Access(refusal) => refusal.to_string(),
            Self::ReadDenied => READ_DENIED.to_owned(),
            Self::WriteDenied => WRITE_DENIED.to_owned(),
            Self::Actions(ActionsError::Service(error)) => error.public_message(),
            Self::Actions(error) => error.to_string(),
            Self::Rate(seconds) => {
                format!("too many uploads to this repository; come again in {seconds} s")
            }
            Self::Malformed(what) => what.clone(),
            Self::TooLarge(limit) => format!("the body is larger than {limit} bytes"),
        }
    }

    /// The HTTP status, where a protocol has no other.
    fn status(&self) -> u16 {
        match self {
            Self::Access(Refusal::Unauthorized | Refusal::BadToken(_)) => 401,
            Self::Access(_) | Self::ReadDenied | Self::WriteDenied => 403,
            Self::Rate(_) => 429,
            Self::Malformed(_) => 400,
            Self::TooLarge(_) => 413,
            Self::Actions(error) => match error {
                ActionsError::Exists { .. } => 409,
                ActionsError::Gone => 404,
                ActionsError::Service(error) => error.code().status(),
                _ => 400,
            },
        }
    }

    /// Logs what is the server's own fault.
    fn log(&self) {
        if let Self::Actions(ActionsError::Service(error)) = self
            && error.code().status() >= 500
        {
            tracing::error!(error = error.chain(), "request failed");
        }
    }
}

/// Says when to come again, if that is why.
fn with_retry(mut response: Response<Body>, failure: &Failure) -> Response<Body> {
    if let Failure::Rate(seconds) = failure {
        response
            .headers_mut()
            .insert(http::header::RETRY_AFTER, HeaderValue::from(*seconds));
    }
    response
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Call {
    fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn guest(&self, cache: Option<&str>) -> Result<Guest, Failure> {
        let access = &self.app.services.access;
        let who = identify(access, &self.headers);
        let (repository, scopes) = access.actions(&who, cache)?;
        Ok(Guest { repository, scopes })
    }

    /// Work for a blocking thread.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&App) -> Result<T, ActionsError> + Send + 'static,
    ) -> Result<T, Failure> {
        let app = self.app.clone();
        Ok(blocking(move || work(&app)).await??)
    }

    /// A document, and what it holds until it was worked on.
    async fn gather(
        &self,
        body: Incoming,
        bytes_max: usize,
        client: &Client,
    ) -> Result<upload::Gathered, Failure> {
        let (pace, memory) = (self.app.pace(), &self.app.memory);
        let bounds = (bytes_max, upload::PARSED_COST);
        Ok(upload::gather(body, bounds, pace, memory, client).await?)
    }

    /// A part's body for a blocking reader, once the upload named by `turn` is nobody else's, and its place.
    async fn part(
        &self,
        body: Incoming,
        client: &Client,
        turn: Option<&str>,
    ) -> Result<(BodyReader, Places), Failure> {
        let (parts, turns) = (&self.app.parts, &self.app.turns);
        let turn = turn.map(Client::known);
        let mut gates = vec![(parts.clone(), client.clone())];
        gates.extend(turn.iter().map(|turn| (turns.clone(), turn.clone())));
        let mut reader = upload::reader(body, self.app.pace(), gates);
        reader.begun().await;
        let turn = match turn {
            Some(turn) => Some(turns.enter(&turn, 1).await?),
            None => None,
        };
        let place = parts.enter(client, 1).await?;
        Ok((reader, (turn, place)))
    }

    /// A place to finish an upload in: a second call for the same one waits outside.
    async fn commit(&self, client: &Client, upload: &str) -> Result<(Lease, Lease), Failure> {
        let turn = self.app.turns.enter(&Client::known(upload), 1).await?;
        let place = self.app.commits.enter(client, 1).await?;
        Ok((turn, place))
    }

    /// Reads on what a client sends that was refused, for a while, so that it hears the answer.
    fn discard(&self, body: Incoming) {
        drop(upload::reader(body, self.app.pace(), Vec::new()));
    }

    async fn lookup(
        &self,
        guest: Guest,
        keys: Vec<String>,
        version: String,
    ) -> Result<Option<Hit>, Failure> {
        firn_formats::actions::check_keys(&keys).map_err(ActionsError::from)?;
        firn_formats::actions::check_version(&version).map_err(ActionsError::from)?;
        if guest.scopes.readable().next().is_none() {
            return Err(Failure::ReadDenied);
        }
        let cache = guest.repository.cache.row.id.0;
        let found = self
            .work(move |app| {
                let Guest { repository, scopes } = guest;
                let actions = &app.services.actions;
                Ok(actions.lookup(&repository, &scopes, &keys, &version)?)
            })
            .await?;
        self.app.metrics.lookup(cache, found.is_some());
        Ok(found)
    }

    /// Where, and whether, a guest may save, and that it does not come too fast.
    fn save(
        &self,
        guest: &Guest,
        key: &str,
        version: &str,
        size: Option<u64>,
    ) -> Result<Save, Failure> {
        let scope = guest.scopes.writable().ok_or(Failure::WriteDenied)?;
        let replace = self.header(REPLACE).is_some_and(|value| value == "true");
        self.app
            .actions_rate
            .admit(&guest.repository)
            .map_err(Failure::Rate)?;
        Ok(Save {
            key: key.to_owned(),
            version: version.to_owned(),
            scope: scope.to_owned(),
            default_branch: guest.scopes.is_default(scope),
            size,
            user_agent: self.header(USER_AGENT).unwrap_or_default().to_owned(),
            replace,
        })
    }

    /// `URL/devstoreaccount1/<container>/<id>?sig=…`, as this client knows the server.
    fn signed_url(
        &self,
        container: &str,
        id: &str,
        claims: &UrlClaims,
    ) -> Result<String, ActionsError> {
        let signature = self.app.services.access.tokens().sign_url(claims)?;
        let base = self.app.base_url(&self.headers);
        Ok(format!("{base}{ACCOUNT}{container}/{id}?sig={signature}"))
    }

    /// From where what was found is downloaded.
    async fn download_url(&self, repository: Repository, hit: Hit) -> Result<String, Failure> {
        let cache = repository.cache.row.id.0;
        let (entry, lookup) = (hit.entry.id.to_string(), hit.lookup);
        let size = self
            .work(move |app| {
                let actions = &app.services.actions;
                let size = actions.served_bytes(&hit.entry)?;
                actions.promised(repository, hit.lookup, size);
                Ok(size)
            })
            .await?;
        let claims = UrlClaims {
            method: blobs::GET.to_owned(),
            cache,
            entry,
            size,
            exp: now() + DOWNLOAD_SECONDS,
            lookup: Some(lookup),
        };
        Ok(self.signed_url("download", &claims.entry, &claims)?)
    }
}

/// One request to this door.
pub(crate) async fn handle(app: Arc<App>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let call = Call {
        app,
        method: parts.method,
        headers: parts.headers,
        query: parse_query(parts.uri.query().unwrap_or_default()),
    };
    match split(parts.uri.path()) {
        Some(Target::Twirp(cache, method)) => twirp::handle(&call, cache, method, body).await,
        Some(Target::Rest(cache, path)) => rest::handle(&call, cache, path, body).await,
        Some(Target::Blob(container, id)) => blobs::handle(&call, container, id, body).await,
        None => crate::app::text(http::StatusCode::NOT_FOUND, "no such endpoint"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_apart_with_and_without_a_cache() {
        let twirp = "/twirp/github.actions.results.api.v1.CacheService/CreateCacheEntry";
        for (path, expected) in [
            (
                twirp.to_owned(),
                Some(Target::Twirp(None, "CreateCacheEntry")),
            ),
            (
                format!("/acme/web{twirp}"),
                Some(Target::Twirp(Some("acme/web"), "CreateCacheEntry")),
            ),
            (
                "/main/_apis/artifactcache/caches/5".to_owned(),
                Some(Target::Rest(Some("main"), "caches/5")),
            ),
            (
                "/devstoreaccount1/upload/x".to_owned(),
                Some(Target::Blob("upload", "x")),
            ),
            (format!("/a/b/c{twirp}"), None),
            (format!("//{twirp}"), None),
            ("/main/nix-cache-info".to_owned(), None),
            ("/devstoreaccount1/x".to_owned(), None),
        ] {
            assert_eq!(split(&path), expected, "{path}");
        }
    }
}
