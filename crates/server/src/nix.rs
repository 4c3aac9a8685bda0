//! The Nix binary cache door: `/<cache>/…`, a cache's name having one or two components.
//!
//! Its paths are taken apart by hand: what a narinfo costs decides how long a big closure takes.

use crate::app::{App, WorkerFailed, bare, blocking, respond, status, text};
use crate::auth::{client, identify, peer};
use crate::body::{BlobBody, Body, BodyError, MadeBody};
use crate::gate::Busy;
use crate::metrics::Door;

use bytes::Bytes;
use firn_formats::admin::Right;
use firn_formats::http::{self as headers, Ranged};
use firn_formats::nix::CacheInfo;
use firn_formats::nix::store_path::STORE_DIR;
use firn_services::budget::Client;
use firn_services::document::{Content, Document};
use firn_services::nix_cache::{ExtraKind, HashText, NarForm, NarSource, Uploaded, hash_text};
use firn_services::{Cache, Identity, Refusal, ServiceError};
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue,
    RANGE, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::borrow::Cow;
use std::sync::Arc;

const NARINFO: HeaderValue = HeaderValue::from_static("text/x-nix-narinfo");
const CACHE_INFO: HeaderValue = HeaderValue::from_static("text/x-nix-cache-info");
const NAR: HeaderValue = HeaderValue::from_static("application/x-nix-nar");

/// What is asked for inside a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target<'a> {
    CacheInfo,
    PublicKey,
    Narinfo(HashText),
    Nar(&'a str),
    Extra(ExtraKind, &'a str),
}

/// Takes what follows a cache's name apart.
fn target(tail: &str) -> Option<Target<'_>> {
    if let Some((first, rest)) = tail.split_once('/') {
        let flat = !rest.is_empty() && !rest.contains('/');
        return match first {
            "nar" if flat => Some(Target::Nar(rest)),
            "log" if flat => Some(Target::Extra(ExtraKind::Log, rest)),
            "debuginfo" if flat => Some(Target::Extra(ExtraKind::DebugInfo, rest)),
            "realisations" if flat && rest.ends_with(".doi") => {
                Some(Target::Extra(ExtraKind::Realisation, rest))
            }
            "build-trace-v2" if rest.ends_with(".doi") && rest.matches('/').count() == 1 => {
                Some(Target::Extra(ExtraKind::BuildTrace, rest))
            }
            _ => None,
        };
    }
    match tail {
        "nix-cache-info" => return Some(Target::CacheInfo),
        "public-key" => return Some(Target::PublicKey),
        _ => {}
    }
    if let Some(hash) = tail.strip_suffix(".narinfo") {
        return hash_text(hash).map(Target::Narinfo);
    }
    let hash = tail.strip_suffix(".ls")?;
    hash_text(hash).map(|_| Target::Extra(ExtraKind::Listing, hash))
}

/// The cache's name and what is asked for in it. Names and targets cannot be mistaken for each
/// other, since no component of a name looks like the beginning of a target.
fn split(path: &str) -> Option<(&str, Target<'_>)> {
    let path = path.strip_prefix('/')?;
    let first = path.find('/')?;
    if let Some(target) = target(&path[first + 1..]) {
        return Some((&path[..first], target));
    }
    let second = first + 1 + path[first + 1..].find('/')?;
    Some((&path[..second], target(&path[second + 1..])?))
}

fn percent_decoded(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes
            .get(at + 1..at + 3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match digits {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// Answers a narinfo from memory, without waiting for anything.
pub(crate) fn from_memory(app: &App, request: &Request<Incoming>) -> Option<Response<Body>> {
    let (name, Target::Narinfo(hash)) = split(request.uri().path())? else {
        return None;
    };
    let who = identify(&app.services.access, request.headers());
    if asks_to_push(app, request.method(), &who, name) {
        return None;
    }
    let cache = app
        .services
        .access
        .authorize(&who, name, Right::Pull)
        .ok()?;
    let narinfo = app.services.nix_cache.narinfo_in_memory(&cache, &hash)?;
    app.metrics.lookup(cache.row.id.0, true);
    Some(narinfo_response(app, narinfo))
}

/// A HEAD by one who may push asks whether to upload; "yes, here" is then a promise (rule 5).
fn asks_to_push(app: &App, method: &Method, who: &Identity, name: &str) -> bool {
    *method == Method::HEAD
        && matches!(who, Identity::Token(_))
        && app
            .services
            .access
            .authorize(who, name, Right::Push)
            .is_ok()
}

fn narinfo_response(app: &App, narinfo: Bytes) -> Response<Body> {
    app.metrics.sent(Door::Nix).inc_by(narinfo.len() as u64);
    respond(StatusCode::OK, NARINFO, narinfo)
}

fn refused(refusal: Refusal, reading: bool) -> Response<Body> {
    let needs_login = match refusal {
        Refusal::Unauthorized | Refusal::BadToken(_) => true,
        // Old and new Nix take a 401 for "not there"; a cache that is not there answers the same.
        Refusal::Denied => reading,
        Refusal::NotFound => return text(StatusCode::NOT_FOUND, refusal),
    };
    if !needs_login {
        return text(StatusCode::FORBIDDEN, refusal);
    }
    let mut response = text(StatusCode::UNAUTHORIZED, refusal);
    response.headers_mut().insert(
        WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"Firn\""),
    );
    response
}

fn failed(error: &ServiceError) -> Response<Body> {
    let status = status(error.code().status());
    if status.is_server_error() {
        tracing::error!(error = error.chain(), "request failed");
    }
    text(status, error.public_message())
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "not found")
}

type Outcome = Result<Response<Body>, ServiceError>;

fn answered(outcome: Result<Outcome, WorkerFailed>) -> Response<Body> {
    match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => failed(&error),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

/// One request to this door.
pub(crate) async fn handle(app: Arc<App>, request: Request<Incoming>) -> Response<Body> {
    let path = percent_decoded(request.uri().path()).into_owned();
    let Some((name, target)) = split(&path) else {
        return not_found();
    };
    let who = identify(&app.services.access, request.headers());
    let method = request.method().clone();
    match method {
        Method::GET | Method::HEAD => {
            let pushing = asks_to_push(&app, &method, &who, name);
            let right = if pushing { Right::Push } else { Right::Pull };
            let cache = match app.services.access.authorize(&who, name, right) {
                Ok(cache) => cache,
                Err(refusal) => return refused(refusal, true),
            };
            get(app, cache, &target, &request, &who, pushing).await
        }
        Method::PUT => match app.services.access.authorize(&who, name, Right::Push) {
            Ok(cache) => put(app, cache, &target, request).await,
            Err(refusal) => refused(refusal, false),
        },
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD or PUT"),
    }
}

async fn get(
    app: Arc<App>,
    cache: Arc<Cache>,
    target: &Target<'_>,
    request: &Request<Incoming>,
    who: &Identity,
    pushing: bool,
) -> Response<Body> {
    match target {
        Target::CacheInfo => {
            let info = CacheInfo {
                store_dir: STORE_DIR.to_owned(),
                want_mass_query: true,
                priority: cache.config.priority,
            };
            respond(StatusCode::OK, CACHE_INFO, info.to_string())
        }
        Target::PublicKey => {
            let keys = cache.public_keys();
            let lines: Vec<String> = keys.iter().map(ToString::to_string).collect();
            text(StatusCode::OK, lines.join("\n"))
        }
        Target::Narinfo(hash) => {
            let hash = *hash;
            answered(blocking(move || narinfo(&app, &cache, &hash, pushing)).await)
        }
        Target::Nar(file) => {
            let file = (*file).to_owned();
            let range = request
                .headers()
                .get(RANGE)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            answered(blocking(move || nar(&app, &cache, &file, range.as_deref(), pushing)).await)
        }
        Target::Extra(kind, file) => {
            let kind = *kind;
            let file = (*file).to_owned();
            let client = client(who, peer(request.extensions()));
            extra(app, cache, kind, file, &client).await
        }
    }
}

fn narinfo(app: &App, cache: &Cache, hash: &HashText, pushing: bool) -> Outcome {
    if pushing {
        let text = std::str::from_utf8(hash).unwrap_or_default();
        let present = app.services.nix_cache.present_for_pusher(cache, &[text])?;
        if present != [true] {
            return Ok(not_found());
        }
    }
    let found = app.services.nix_cache.narinfo(cache, hash)?;
    app.metrics.lookup(cache.row.id.0, found.is_some());
    Ok(match found {
        Some(narinfo) => narinfo_response(app, narinfo),
        None => not_found(),
    })
}

/// GET or HEAD: opening proves that all of it can be had, before the status line says so.
fn nar(app: &App, cache: &Cache, file: &str, range: Option<&str>, pushing: bool) -> Outcome {
    if pushing && !app.services.nix_cache.renew_nar(cache, file)? {
        return Ok(not_found());
    }
    let Some(source) = app.services.nix_cache.nar(cache, file)? else {
        return Ok(not_found());
    };
    let opened = match source.form {
        NarForm::Stored(representation) => stored_nar(app, &source, representation, range),
        NarForm::Wrapped(compression, length) => {
            let mut wrapped = app.services.nix_cache.wrap_nar(&source.blob, compression)?;
            let sent = app.metrics.sent(Door::Nix);
            let next = move || wrapped.next_block().map_err(BodyError::from);
            let mut response = Response::new(Body::Made(MadeBody::new(length, sent, next)));
            response.headers_mut().insert(CONTENT_TYPE, NAR);
            Ok(response)
        }
    };
    opened.or_else(|error| {
        tracing::error!(file, error = error.chain(), "a NAR cannot be served");
        Ok(match error.is_loss() {
            // One that cannot be served whole is not here: Nix then builds it or looks elsewhere.
            true => not_found(),
            // It is here, and Nix is to come again: it remembers what it was told is not here.
            false => text(StatusCode::SERVICE_UNAVAILABLE, error.public_message()),
        })
    })
}

fn stored_nar(
    app: &App,
    source: &NarSource,
    representation: firn_store::Representation,
    range: Option<&str>,
) -> Outcome {
    let length = source.length().unwrap_or(0);
    let part = match headers::range(range, length) {
        Ranged::Whole => None,
        Ranged::Part(first, count) => Some((first, count)),
        Ranged::Unsatisfiable => return Ok(unsatisfiable(length)),
    };
    let reader = app
        .services
        .nix_cache
        .read_nar(&source.blob, representation, part)?;
    let body = Body::Blob(BlobBody::new(reader, app.metrics.sent(Door::Nix)));
    Ok(bytes_response(body, NAR, part, length))
}

/// 416 with the length there is.
pub(crate) fn unsatisfiable(length: u64) -> Response<Body> {
    let mut response = bare(StatusCode::RANGE_NOT_SATISFIABLE);
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    response
}

/// 200, or 206 for a part, with exact lengths.
pub(crate) fn bytes_response(
    body: Body,
    media_type: HeaderValue,
    part: Option<(u64, u64)>,
    length: u64,
) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media_type);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        CONTENT_LENGTH,
        HeaderValue::from(part.map_or(length, |(_, count)| count)),
    );
    if let Some((first, count)) = part {
        let last = first + count - 1;
        if let Ok(value) = HeaderValue::try_from(format!("bytes {first}-{last}/{length}")) {
            headers.insert(CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// A document beside a narinfo. A listing that nobody pushed is made, one at a time: anybody may ask for it, and it
/// costs as much as the NAR.
async fn extra(
    app: Arc<App>,
    cache: Arc<Cache>,
    kind: ExtraKind,
    file: String,
    client: &Client,
) -> Response<Body> {
    let looking = (app.clone(), cache.clone(), file.clone());
    let found = blocking(move || {
        let (app, cache, file) = looking;
        app.services.nix_cache.extra(&cache, kind, &file)
    });
    let found = match found.await {
        Ok(Ok(None)) if kind == ExtraKind::Listing => {
            let Ok(place) = app.answers.enter(client, 1).await else {
                return failed(&ServiceError::Busy);
            };
            let making = (app.clone(), cache, file);
            blocking(move || {
                let (_place, (app, cache, file)) = (place, making);
                app.services.nix_cache.made_listing(&cache, &file)
            })
            .await
        }
        found => found,
    };
    answered(found.map(|found| document(&app, kind, found?)))
}

fn document(app: &App, kind: ExtraKind, found: Option<Document>) -> Outcome {
    let Some(document) = found else {
        return Ok(not_found());
    };
    let media_type = HeaderValue::from_static(kind.media_type());
    let Document {
        content, length, ..
    } = document;
    let sent = app.metrics.sent(Door::Nix);
    Ok(match content {
        Content::Inline(bytes) => {
            sent.inc_by(length);
            respond(StatusCode::OK, media_type, bytes)
        }
        Content::Blob(reader) => {
            let body = Body::Blob(BlobBody::new(*reader, sent));
            bytes_response(body, media_type, None, length)
        }
    })
}

async fn put(
    app: Arc<App>,
    cache: Arc<Cache>,
    target: &Target<'_>,
    request: Request<Incoming>,
) -> Response<Body> {
    let encoding = request
        .headers()
        .get(CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    if matches!(target, Target::CacheInfo | Target::PublicKey) {
        return text(StatusCode::FORBIDDEN, "this file is the server's own");
    }
    let client = Client::known(cache.name());
    let (mut body, _place) = match app.upload(request.into_body(), &client, None).await {
        Ok(begun) => begun,
        Err(Busy) => return failed(&ServiceError::Busy),
    };
    let encoding = encoding.as_deref().map(str::to_owned);
    let worker = app.clone();
    let outcome = match target {
        Target::Nar(file) => {
            let file = (*file).to_owned();
            blocking(move || {
                let nix_cache = &worker.services.nix_cache;
                nix_cache.put_nar(&cache, &file, encoding.as_deref(), &mut body)
            })
            .await
        }
        Target::Narinfo(hash) => {
            let hash = *hash;
            blocking(move || {
                let nix_cache = &worker.services.nix_cache;
                nix_cache.put_narinfo(&cache, &hash, encoding.as_deref(), &mut body)
            })
            .await
        }
        Target::Extra(kind, file) => {
            let (kind, file) = (*kind, (*file).to_owned());
            blocking(move || {
                let nix_cache = &worker.services.nix_cache;
                nix_cache.put_extra(&cache, kind, &file, encoding.as_deref(), &mut body)
            })
            .await
        }
        Target::CacheInfo | Target::PublicKey => return not_found(),
    };
    answered(outcome.map(|uploaded| {
        uploaded.map(|uploaded| match uploaded {
            Uploaded::Created => bare(StatusCode::CREATED),
            Uploaded::Known => bare(StatusCode::OK),
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_apart_into_cache_and_target() {
        let hash = "0123456789abcdfghijklmnpqrsvwxyz";
        let narinfo = Target::Narinfo(hash_text(hash).unwrap());
        for (path, expected) in [
            (
                "/main/nix-cache-info".to_owned(),
                Some(("main", Target::CacheInfo)),
            ),
            (
                format!("/main/{hash}.narinfo"),
                Some(("main", narinfo.clone())),
            ),
            (
                format!("/acme/web/{hash}.narinfo"),
                Some(("acme/web", narinfo)),
            ),
            (
                "/acme/web/nar/x.nar".to_owned(),
                Some(("acme/web", Target::Nar("x.nar"))),
            ),
            ("/a/nar/x/y".to_owned(), None),
            ("/a/b/c/nix-cache-info".to_owned(), None),
            ("/nix-cache-info".to_owned(), None),
            ("/main/short.narinfo".to_owned(), None),
            ("/main".to_owned(), None),
            ("/".to_owned(), None),
            (
                "/m/build-trace-v2/d.drv/out.doi".to_owned(),
                Some(("m", Target::Extra(ExtraKind::BuildTrace, "d.drv/out.doi"))),
            ),
        ] {
            assert_eq!(split(&path), expected, "{path}");
        }
    }

    #[test]
    fn percent_signs() {
        assert_eq!(percent_decoded("/a%21b%zz%"), "/a!b%zz%");
        assert_eq!(percent_decoded("/plain"), "/plain");
    }
}
