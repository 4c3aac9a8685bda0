//! The bytes, by signed URLs that behave like Azure's blob storage.
//!
//! | request | what it does |
//! |---|---|
//! | `PUT`, `x-ms-blob-type: BlockBlob` | all of an upload |
//! | `PUT …&comp=block&blockid=` | a block of it |
//! | `PUT …&comp=blocklist` | which blocks, and in which order |
//! | `PUT`, `x-ms-blob-type: AppendBlob`; `…&comp=appendblock`; `…&comp=seal` | one piece after the other |
//! | `GET`, `HEAD` | an entry, or a range of it |
//!
//! A signature is good for one method on one entry or upload and for so many bytes; it is compared in constant time.

use super::{Answer, Call, Failure};
use crate::app::{bare, respond, status};
use crate::body::{BlobBody, Body};
use crate::metrics::Door;
use crate::nix::{bytes_response, unsatisfiable};
use firn_formats::actions::azure;
use firn_formats::http::{self as headers, Ranged};
use firn_services::Refusal;
use firn_services::access::TokenFault;
use firn_services::access::UrlClaims;
use firn_services::actions::{ActionsError, Entry, Part, http_date};
use firn_services::budget::Client;
use firn_store::CacheId;
use http::header::{
    CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, RANGE,
};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;

pub(super) const GET: &str = "get";
pub(super) const PUT: &str = "put";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const VERSION: HeaderName = HeaderName::from_static("x-ms-version");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
const MS_RANGE: HeaderName = HeaderName::from_static("x-ms-range");
const APPEND_AT: HeaderName = HeaderName::from_static("x-ms-blob-condition-appendpos");
const APPENDED_AT: HeaderName = HeaderName::from_static("x-ms-blob-append-offset");

pub(super) async fn handle(
    call: &Call,
    container: &str,
    id: &str,
    body: Incoming,
) -> Response<Body> {
    let mut response = match route(call, container, id, body).await {
        Ok(response) => response,
        Err(failure) => refuse(&failure),
    };
    let headers = response.headers_mut();
    // Clients log it; it means nothing here.
    let request = firn_services::access::token::random_id().unwrap_or_default();
    if let Ok(value) = HeaderValue::try_from(request) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(VERSION, HeaderValue::from_static("2021-08-06"));
    response
}

fn refuse(failure: &Failure) -> Response<Body> {
    failure.log();
    let number = failure.status();
    let code = match failure {
        Failure::Access(_) => "AuthenticationFailed",
        Failure::TooLarge(_) => "RequestBodyTooLarge",
        Failure::Actions(ActionsError::Gone) => "BlobNotFound",
        Failure::Actions(ActionsError::Block(_)) => "InvalidBlockList",
        Failure::Actions(ActionsError::Hole(_)) => "AppendPositionConditionNotMet",
        Failure::Actions(_) if number == 413 => "RequestBodyTooLarge",
        Failure::Actions(_) if number >= 500 => "InternalError",
        _ => "InvalidInput",
    };
    let number = match failure {
        Failure::Access(_) => 403,
        Failure::Actions(ActionsError::Hole(_)) => 412,
        _ => number,
    };
    let xml = HeaderValue::from_static("application/xml");
    let text = azure::error(code, &failure.message());
    let mut response = respond(status(number), xml, text);
    let headers = response.headers_mut();
    headers.insert(ERROR_CODE, HeaderValue::from_static(code));
    response
}

/// The claims of a URL that is good for this method on this entry or upload.
fn claims(call: &Call, container: &str, id: &str) -> Result<UrlClaims, Failure> {
    let wanted = match (container, &call.method) {
        ("upload", &Method::PUT) => PUT,
        ("download", &Method::GET | &Method::HEAD) => GET,
        _ => return Err(Refusal::Denied.into()),
    };
    let signature = call.parameter("sig").unwrap_or_default();
    let found = call.app.services.access.tokens().verify_url(signature);
    found
        .filter(|claims| claims.method == wanted && claims.entry == id)
        .ok_or(Failure::Access(Refusal::BadToken(TokenFault::Invalid)))
}

async fn route(call: &Call, container: &str, id: &str, body: Incoming) -> Answer {
    let claims = match claims(call, container, id) {
        Ok(claims) => claims,
        Err(refused) => {
            call.discard(body);
            return Err(refused);
        }
    };
    if claims.method == GET {
        return get(call, claims).await;
    }
    match call.parameter("comp") {
        None => put(call, claims, body).await,
        Some("block") => block(call, claims, body).await,
        Some("blocklist") => block_list(call, claims, body).await,
        Some("appendblock") => append(call, claims, body).await,
        Some("seal") => Ok(bare(StatusCode::OK)),
        Some(_) => {
            call.discard(body);
            Err(Failure::Malformed(
                "this part of Azure's is not here".to_owned(),
            ))
        }
    }
}

/// The cache of an upload; what a URL was signed for was let in.
fn client(claims: &UrlClaims) -> Client {
    Client::known(&format!("cache {}", claims.cache))
}

fn length(call: &Call) -> Option<u64> {
    call.header(CONTENT_LENGTH)?.parse().ok()
}

/// Takes one part in.
async fn part(call: &Call, claims: UrlClaims, part: Part, body: Incoming) -> Result<(), Failure> {
    let length = length(call);
    let (mut reader, _place) = call.part(body, &client(&claims), None).await?;
    call.work(move |app| {
        let actions = &app.services.actions;
        let uploading = actions.uploading_by_id(&claims.entry)?;
        let whole = part == Part::Whole;
        actions.put_part(&uploading, &part, length, &mut reader)?;
        match whole {
            true => actions.put_order(&uploading, &[Part::Whole]),
            false => Ok(()),
        }
    })
    .await
}

/// `201 Created`, with what Azure's clients look for.
fn created() -> Response<Body> {
    let mut response = bare(StatusCode::CREATED);
    let headers = response.headers_mut();
    let at = i64::try_from(super::now()).unwrap_or(0);
    put_header(headers, LAST_MODIFIED, http_date(at));
    put_header(headers, ETAG, Some(format!("\"0x{at:X}\"")));
    response
}

fn put_header(headers: &mut HeaderMap, name: HeaderName, value: Option<String>) {
    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(name, value);
    }
}

async fn put(call: &Call, claims: UrlClaims, body: Incoming) -> Answer {
    match call.header(BLOB_TYPE) {
        Some("AppendBlob") => {
            call.discard(body);
            call.work(move |app| {
                app.services
                    .actions
                    .uploading_by_id(&claims.entry)
                    .map(drop)
            })
            .await?;
        }
        Some("BlockBlob") | None => part(call, claims, Part::Whole, body).await?,
        Some(_) => {
            call.discard(body);
            return Err(Failure::Malformed("x-ms-blob-type is not known".to_owned()));
        }
    }
    Ok(created())
}

async fn block(call: &Call, claims: UrlClaims, body: Incoming) -> Answer {
    // A plus sign that a client left as it is has become a space; base64 has no spaces.
    let id = call
        .parameter("blockid")
        .unwrap_or_default()
        .replace(' ', "+");
    if !azure::is_block_id(&id) {
        call.discard(body);
        return Err(Failure::Malformed("blockid is not one".to_owned()));
    }
    part(call, claims, Part::Block(id), body).await?;
    Ok(created())
}

async fn block_list(call: &Call, claims: UrlClaims, body: Incoming) -> Answer {
    let client = client(&claims);
    let body = call.gather(body, azure::LIST_BYTES_MAX, &client).await?;
    let ids =
        azure::block_list(&body.bytes).map_err(|fault| Failure::Malformed(fault.to_string()))?;
    let parts: Vec<Part> = ids.into_iter().map(Part::Block).collect();
    call.work(move |app| {
        let actions = &app.services.actions;
        let uploading = actions.uploading_by_id(&claims.entry)?;
        actions.put_order(&uploading, &parts)
    })
    .await?;
    Ok(created())
}

async fn append(call: &Call, claims: UrlClaims, body: Incoming) -> Answer {
    let (length, at) = (length(call), call.header(APPEND_AT));
    let at = match at.map(str::parse).transpose() {
        Ok(at) => at,
        Err(_) => {
            call.discard(body);
            return Err(Failure::Malformed(format!("{APPEND_AT} is not a number")));
        }
    };
    let turn = Some(claims.entry.as_str());
    let (mut reader, _place) = call.part(body, &client(&claims), turn).await?;
    let began = call
        .work(move |app| {
            let actions = &app.services.actions;
            let uploading = actions.uploading_by_id(&claims.entry)?;
            actions.append(&uploading, at, length, &mut reader)
        })
        .await?;
    let mut response = created();
    put_header(response.headers_mut(), APPENDED_AT, Some(began.to_string()));
    Ok(response)
}

async fn get(call: &Call, claims: UrlClaims) -> Answer {
    let range = call.header(MS_RANGE).or_else(|| call.header(RANGE));
    let range = range.map(str::to_owned);
    let followed = (call.app.clone(), claims.lookup);
    let (entry, mut response) = call
        .work(move |app| {
            let actions = &app.services.actions;
            let entry = actions.signed_entry(CacheId(claims.cache), &claims.entry, claims.size)?;
            let length = claims.size;
            let part = match headers::range(range.as_deref(), length) {
                Ranged::Whole => None,
                Ranged::Part(first, count) => Some((first, count)),
                Ranged::Unsatisfiable => return Ok((entry, unsatisfiable(length))),
            };
            // Opening proves that all of it can be had; what cannot is not here.
            let reader = actions.read(&entry, part)?;
            let mut body = BlobBody::new(reader, app.metrics.sent(Door::Actions));
            if let (app, Some(lookup)) = followed {
                actions.transfer_begins(lookup);
                body = body.told(move |bytes| app.services.actions.transferred(lookup, bytes));
            }
            let body = Body::Blob(body);
            let media_type = HeaderValue::from_static("application/octet-stream");
            Ok((entry, bytes_response(body, media_type, part, length)))
        })
        .await?;
    named(response.headers_mut(), &entry);
    Ok(response)
}

/// What names an entry's bytes: they never change.
fn named(headers: &mut HeaderMap, entry: &Entry) {
    put_header(headers, LAST_MODIFIED, http_date(entry.created_at));
    put_header(
        headers,
        ETAG,
        Some(format!("\"{:x}-{:x}\"", entry.id, entry.size)),
    );
    headers.insert(BLOB_TYPE, HeaderValue::from_static("BlockBlob"));
}
