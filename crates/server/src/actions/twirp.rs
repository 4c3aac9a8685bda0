//! Version 2: Twirp, in JSON and in protobuf.

use super::{Call, Failure, UPLOAD_SECONDS, blobs, now, with_retry};
use crate::app::{JSON, respond, status};
use crate::body::Body;
use firn_formats::actions::twirp::{Answer, BODY_BYTES_MAX, Encoding, ErrorCode, Method, Request};
use firn_services::access::UrlClaims;
use firn_services::actions::{ActionsError, ENTRY_BYTES_MAX};
use firn_services::{Refusal, ServiceError};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::Incoming;

fn refuse(code: ErrorCode, message: &str) -> Response<Body> {
    respond(status(code.parts().1), JSON, code.body(message))
}

pub(super) async fn handle(
    call: &Call,
    cache: Option<&str>,
    name: &str,
    body: Incoming,
) -> Response<Body> {
    let encoding = call
        .header(CONTENT_TYPE)
        .and_then(Encoding::from_media_type);
    let method = Method::from_name(name).filter(|_| call.method == http::Method::POST);
    let (Some(method), Some(encoding)) = (method, encoding) else {
        call.discard(body);
        return refuse(
            ErrorCode::BadRoute,
            "no such method, or no such Content-Type",
        );
    };
    match answer(call, cache, method, encoding, body).await {
        Ok(answer) => respond(
            StatusCode::OK,
            HeaderValue::from_static(encoding.media_type()),
            answer.encode(encoding),
        ),
        Err(failure) => failed(method, encoding, &failure),
    }
}

/// A refusal: where the client shows an answer's message to its user, that; an error of Twirp's elsewhere.
fn failed(method: Method, encoding: Encoding, failure: &Failure) -> Response<Body> {
    failure.log();
    let message = failure.message();
    let shown = match failure {
        Failure::WriteDenied => true,
        Failure::Actions(error) => matches!(
            error,
            ActionsError::Name(_)
                | ActionsError::Size { .. }
                | ActionsError::Hole(_)
                | ActionsError::Service(
                    ServiceError::QuotaExceeded(_)
                        | ServiceError::TooLarge { .. }
                        | ServiceError::TooManyUploads(_)
                )
        ),
        _ => false,
    };
    let (ok, url) = (false, String::new());
    let answer = match method {
        Method::Create if shown => Answer::Created { ok, url, message },
        Method::Finalize if shown => Answer::Finalized {
            ok,
            entry: 0,
            message,
        },
        _ => return with_retry(refuse(code(failure), &message), failure),
    };
    let media_type = HeaderValue::from_static(encoding.media_type());
    respond(StatusCode::OK, media_type, answer.encode(encoding))
}

fn code(failure: &Failure) -> ErrorCode {
    match failure {
        Failure::Access(Refusal::Unauthorized | Refusal::BadToken(_)) => ErrorCode::Unauthenticated,
        Failure::Access(_) | Failure::ReadDenied | Failure::WriteDenied => {
            ErrorCode::PermissionDenied
        }
        Failure::Rate(_) => ErrorCode::ResourceExhausted,
        Failure::Malformed(_) => ErrorCode::Malformed,
        Failure::TooLarge(_) => ErrorCode::InvalidArgument,
        Failure::Actions(ActionsError::Exists { .. }) => ErrorCode::AlreadyExists,
        Failure::Actions(ActionsError::Gone) => ErrorCode::NotFound,
        Failure::Actions(ActionsError::Service(error)) => match error.code().status() {
            503 | 507 => ErrorCode::Unavailable,
            429 => ErrorCode::ResourceExhausted,
            404 => ErrorCode::NotFound,
            400..500 => ErrorCode::InvalidArgument,
            _ => ErrorCode::Internal,
        },
        Failure::Actions(_) => ErrorCode::InvalidArgument,
    }
}

async fn answer(
    call: &Call,
    cache: Option<&str>,
    method: Method,
    encoding: Encoding,
    body: Incoming,
) -> Result<Answer, Failure> {
    let guest = match call.guest(cache) {
        Ok(guest) => guest,
        Err(refused) => {
            call.discard(body);
            return Err(refused);
        }
    };
    let body = call.gather(body, BODY_BYTES_MAX, &guest.client()).await?;
    let request = Request::parse(method, encoding, &body.bytes)
        .map_err(|error| Failure::Malformed(error.to_string()))?;
    match method {
        Method::Create => create(call, guest, &request).await,
        Method::Finalize => finalize(call, guest, request).await,
        Method::Get => get(call, guest, request).await,
    }
}

async fn create(call: &Call, guest: super::Guest, request: &Request) -> Result<Answer, Failure> {
    let save = call.save(&guest, &request.key, &request.version, None)?;
    let cache = guest.repository.cache.row.id.0;
    let uploading = call
        .work(move |app| app.services.actions.reserve(&guest.repository, &save))
        .await?;
    let claims = UrlClaims {
        method: blobs::PUT.to_owned(),
        cache,
        entry: uploading.id().to_owned(),
        size: ENTRY_BYTES_MAX,
        exp: now() + UPLOAD_SECONDS,
        lookup: None,
    };
    Ok(Answer::Created {
        ok: true,
        url: call.signed_url("upload", uploading.id(), &claims)?,
        message: String::new(),
    })
}

async fn finalize(call: &Call, guest: super::Guest, request: Request) -> Result<Answer, Failure> {
    let scope = guest.scopes.writable().ok_or(Failure::WriteDenied)?;
    let scope = scope.to_owned();
    let repository = &guest.repository;
    let upload = format!(
        "{} {} {scope} {} {}",
        repository.cache.name(),
        repository.name.as_str(),
        request.version,
        request.key
    );
    let _place = call.commit(&guest.client(), &upload).await?;
    let entry = call
        .work(move |app| {
            let Request {
                key,
                version,
                size_bytes,
                ..
            } = request;
            let actions = &app.services.actions;
            actions.finish_key(&guest.repository, &scope, &version, &key, size_bytes)
        })
        .await?;
    Ok(Answer::Finalized {
        ok: true,
        entry: entry.id,
        message: String::new(),
    })
}

async fn get(call: &Call, guest: super::Guest, request: Request) -> Result<Answer, Failure> {
    let repository = guest.repository.clone();
    let keys = request.keys();
    let found = call.lookup(guest, keys, request.version).await?;
    let Some(hit) = found else {
        return Ok(Answer::Found {
            ok: false,
            url: String::new(),
            key: String::new(),
        });
    };
    let key = hit.entry.key.clone();
    Ok(Answer::Found {
        ok: true,
        url: call.download_url(repository, hit).await?,
        key,
    })
}
