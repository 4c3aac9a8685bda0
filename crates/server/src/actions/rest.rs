//! Version 1: REST, which Gitea and Forgejo speak.

use super::{Answer, Call, Failure, with_retry};
use crate::app::{JSON, bare, respond, status};
use crate::body::Body;
use firn_formats::actions::rest::{
    ALREADY_EXISTS, BODY_BYTES_MAX, Commit, Found, List, Reserve, Reserved, error,
};
use firn_formats::http::content_range;
use firn_services::access::token::rfc3339;
use firn_services::actions::{ActionsError, Entry, Part};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

pub(super) async fn handle(
    call: &Call,
    cache: Option<&str>,
    path: &str,
    body: Incoming,
) -> Response<Body> {
    match route(call, cache, path, body).await {
        Ok(response) => response,
        Err(failure) => {
            failure.log();
            let exists = matches!(failure, Failure::Actions(ActionsError::Exists { .. }));
            let kind = exists.then_some(ALREADY_EXISTS);
            let text = error(&failure.message(), kind);
            with_retry(respond(status(failure.status()), JSON, text), &failure)
        }
    }
}

async fn route(call: &Call, cache: Option<&str>, path: &str, body: Incoming) -> Answer {
    let guest = match call.guest(cache) {
        Ok(guest) => guest,
        Err(refused) => {
            call.discard(body);
            return Err(refused);
        }
    };
    let id = path.strip_prefix("caches/");
    match (&call.method, path) {
        (&Method::GET, "cache") => get(call, guest).await,
        (&Method::GET, "caches") => list(call, guest).await,
        (&Method::POST, "caches") => reserve(call, guest, body).await,
        (&Method::PATCH, _) if id.is_some() => patch(call, guest, number(id)?, body).await,
        (&Method::POST, _) if id.is_some() => commit(call, guest, number(id)?, body).await,
        _ => {
            call.discard(body);
            let text = error("no such endpoint", None);
            Ok(respond(StatusCode::NOT_FOUND, JSON, text))
        }
    }
}

fn number(id: Option<&str>) -> Result<u64, Failure> {
    let digits = |id: &&str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = id.filter(digits).and_then(|id| id.parse().ok());
    parsed.ok_or(Failure::Actions(ActionsError::Gone))
}

fn json(code: StatusCode, answer: &impl Serialize) -> Response<Body> {
    respond(code, JSON, serde_json::to_vec(answer).unwrap_or_default())
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|fault| Failure::Malformed(format!("the body is not JSON of this call: {fault}")))
}

fn found(entry: &Entry, url: Option<String>) -> Found {
    let created = u64::try_from(entry.created_at).ok().and_then(rfc3339);
    Found {
        cache_id: entry.id,
        scope: entry.scope.clone(),
        cache_key: entry.key.clone(),
        cache_version: entry.version.clone(),
        creation_time: created.unwrap_or_default(),
        archive_location: url,
    }
}

async fn get(call: &Call, guest: super::Guest) -> Answer {
    let keys = call.parameter("keys").unwrap_or_default();
    let keys: Vec<String> = keys.split(',').map(str::to_owned).collect();
    let version = call.parameter("version").unwrap_or_default().to_owned();
    let repository = guest.repository.clone();
    match call.lookup(guest, keys, version).await? {
        None => Ok(bare(StatusCode::NO_CONTENT)),
        Some(hit) => {
            let url = call.download_url(repository, hit.clone()).await?;
            Ok(json(StatusCode::OK, &found(&hit.entry, Some(url))))
        }
    }
}

/// What the token may read and begins with a key; the client shows it when it missed.
async fn list(call: &Call, guest: super::Guest) -> Answer {
    if guest.scopes.readable().next().is_none() {
        return Err(Failure::ReadDenied);
    }
    let key = call.parameter("key").unwrap_or_default().to_owned();
    let entries = call
        .work(move |app| {
            let mut entries = app.services.actions.list(&guest.repository)?;
            let readable = |entry: &Entry| guest.scopes.readable().any(|name| name == entry.scope);
            entries.retain(|entry| entry.key.starts_with(&key) && readable(entry));
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.id));
            Ok(entries)
        })
        .await?;
    let listed = List {
        total_count: entries.len() as u64,
        artifact_caches: entries
            .iter()
            .take(LISTED_MAX)
            .map(|entry| found(entry, None))
            .collect(),
    };
    Ok(json(StatusCode::OK, &listed))
}

/// Entries in one answer.
const LISTED_MAX: usize = 100;

async fn reserve(call: &Call, guest: super::Guest, body: Incoming) -> Answer {
    let body = call.gather(body, BODY_BYTES_MAX, &guest.client()).await?;
    let request: Reserve = parse(&body.bytes)?;
    let save = call.save(&guest, &request.key, &request.version, request.cache_size)?;
    let uploading = call
        .work(move |app| app.services.actions.reserve(&guest.repository, &save))
        .await?;
    let cache_id = uploading.number();
    Ok(json(StatusCode::CREATED, &Reserved { cache_id }))
}

async fn patch(call: &Call, guest: super::Guest, number: u64, body: Incoming) -> Answer {
    let place = place(call, &guest);
    let (start, length) = match place {
        Ok(place) => place,
        Err(failure) => {
            call.discard(body);
            return Err(failure);
        }
    };
    let (mut reader, _place) = call.part(body, &guest.client(), None).await?;
    call.work(move |app| {
        let actions = &app.services.actions;
        let uploading = actions.uploading(&guest.repository, number)?;
        may_write(&guest, uploading.scope())?;
        actions.put_part(&uploading, &Part::Range(start), Some(length), &mut reader)
    })
    .await?;
    Ok(bare(StatusCode::NO_CONTENT))
}

/// Where a part begins, and how long it is.
fn place(call: &Call, guest: &super::Guest) -> Result<(u64, u64), Failure> {
    guest.scopes.writable().ok_or(Failure::WriteDenied)?;
    let malformed = || Failure::Malformed("Content-Range is not `bytes FIRST-LAST/*`".to_owned());
    let range = call.header(CONTENT_RANGE).and_then(content_range);
    let (first, last) = range
        .filter(|(first, last)| last >= first)
        .ok_or_else(malformed)?;
    let length = (last - first).checked_add(1).ok_or_else(malformed)?;
    let said = call
        .header(CONTENT_LENGTH)
        .and_then(|text| text.parse().ok());
    match said {
        Some(said) if said != length => Err(ActionsError::Size {
            said: length,
            found: said,
        }
        .into()),
        _ => Ok((first, length)),
    }
}

/// An upload goes on only where the token may write now.
fn may_write(guest: &super::Guest, scope: &str) -> Result<(), ActionsError> {
    match guest.scopes.writable() == Some(scope) {
        true => Ok(()),
        false => Err(ActionsError::Gone),
    }
}

async fn commit(call: &Call, guest: super::Guest, number: u64, body: Incoming) -> Answer {
    let client = guest.client();
    let body = call.gather(body, BODY_BYTES_MAX, &client).await?;
    let Commit { size } = parse(&body.bytes)?;
    guest.scopes.writable().ok_or(Failure::WriteDenied)?;
    let _place = call.commit(&client, &format!("upload {number}")).await?;
    call.work(move |app| {
        let actions = &app.services.actions;
        if let Ok(uploading) = actions.uploading(&guest.repository, number) {
            may_write(&guest, uploading.scope())?;
        }
        actions.finish_number(&guest.repository, number, size)
    })
    .await?;
    Ok(bare(StatusCode::NO_CONTENT))
}
