//! Uploads of blobs: mounted, in one go, or in pieces.

use super::{Answer, Call, DOCKER_CONTENT_DIGEST, Failure};
use crate::app::bare;
use crate::body::Body;
use firn_formats::admin::Right;
use firn_formats::http::content_range;
use firn_formats::oci::{Digest, ErrorCode};
use firn_services::budget::Client;
use firn_services::registry::{RegistryError, Repository, UploadStatus};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, HeaderValue, LOCATION, RANGE};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// POST: a mount, a whole blob, or the beginning of an upload.
pub(super) async fn begin(call: &Call, body: Incoming) -> Answer {
    let repository = call.repository(Right::Create)?;
    if let Some(mount) = call.parameter("mount") {
        let digest = Call::digest(mount)?;
        if mounted(call, &repository, &digest).await? {
            return Ok(created(call, &digest));
        }
    }
    if let Some(digest) = call.parameter("digest") {
        let digest = Call::digest(digest)?;
        let client = Client::known(repository.cache.name());
        let (mut reader, _place) = call.app.upload(body, &client, None).await?;
        let wanted = digest.clone();
        call.work(move |app| {
            let registry = &app.services.registry;
            registry.upload_whole(&repository, &wanted, &mut reader)
        })
        .await?;
        return Ok(created(call, &digest));
    }
    let upload = call
        .work(move |app| app.services.registry.upload_begin(&repository))
        .await?;
    Ok(progress(call, &upload, StatusCode::ACCEPTED))
}

/// Mounts from the repository named, if the caller may read that; from the same cache otherwise.
async fn mounted(call: &Call, to: &Repository, digest: &Digest) -> Result<bool, Failure> {
    let registry = &call.app.services.registry;
    let from = match call.parameter("from") {
        None => to.cache.clone(),
        Some(from) => {
            let Ok((cache, _)) = registry.split_name(&call.who, from) else {
                return Ok(false);
            };
            match call
                .app
                .services
                .access
                .authorize(&call.who, &cache, Right::Pull)
            {
                Ok(cache) => cache,
                Err(_) => return Ok(false),
            }
        }
    };
    let (to, digest) = (to.cache.clone(), digest.clone());
    call.work(move |app| app.services.registry.mount(&from, &to, &digest))
        .await
}

/// Everything below an upload's own URL.
pub(super) async fn handle(call: &Call, id: &str, body: Incoming) -> Answer {
    let repository = call.repository(Right::Create)?;
    let id = id.to_owned();
    match call.method {
        Method::GET => {
            let upload = call
                .work(move |app| app.services.registry.upload_status(&repository, &id))
                .await?;
            Ok(progress(call, &upload, StatusCode::NO_CONTENT))
        }
        Method::DELETE => {
            call.work(move |app| app.services.registry.upload_cancel(&repository, &id))
                .await?;
            Ok(bare(StatusCode::NO_CONTENT))
        }
        Method::PATCH => {
            let upload = append(call, repository, id, body).await?;
            Ok(progress(call, &upload, StatusCode::ACCEPTED))
        }
        Method::PUT => finish(call, repository, id, body).await,
        _ => Ok(bare(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

/// Where a body says that it begins: `Content-Range: <first>-<last>`, with or without a unit.
fn start(call: &Call) -> Result<Option<u64>, RegistryError> {
    let Some(header) = call.header(CONTENT_RANGE) else {
        return Ok(None);
    };
    let invalid =
        || RegistryError::with(ErrorCode::RangeInvalid, format!("Content-Range: {header}"));
    let (first, last) = content_range(header).ok_or_else(invalid)?;
    let length: Option<u64> = call
        .header(CONTENT_LENGTH)
        .and_then(|length| length.parse().ok());
    let agrees = length.is_none_or(|length| last.checked_sub(first) == length.checked_sub(1));
    if agrees {
        Ok(Some(first))
    } else {
        Err(invalid())
    }
}

async fn append(
    call: &Call,
    repository: Repository,
    id: String,
    body: Incoming,
) -> Result<UploadStatus, Failure> {
    let start = start(call)?;
    let client = Client::known(repository.cache.name());
    let (mut reader, _place) = call.app.upload(body, &client, Some(&id)).await?;
    call.work(move |app| {
        let registry = &app.services.registry;
        registry.upload_append(&repository, &id, start, &mut reader)
    })
    .await
}

async fn finish(call: &Call, repository: Repository, id: String, body: Incoming) -> Answer {
    let digest = call.parameter("digest").ok_or_else(|| {
        RegistryError::with(ErrorCode::DigestInvalid, "PUT needs ?digest=<digest>")
    })?;
    let digest = Call::digest(digest)?;
    let start = start(call)?;
    let client = Client::known(repository.cache.name());
    let (mut reader, _place) = call.app.upload(body, &client, Some(&id)).await?;
    let wanted = digest.clone();
    call.work(move |app| {
        let registry = &app.services.registry;
        registry.upload_finish(&repository, &id, start, &mut reader, &wanted)
    })
    .await?;
    Ok(created(call, &digest))
}

fn created(call: &Call, digest: &Digest) -> Response<Body> {
    let mut response = bare(StatusCode::CREATED);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(format!("/v2/{}/blobs/{digest}", call.name)) {
        headers.insert(LOCATION, value);
    }
    if let Ok(value) = HeaderValue::try_from(digest.to_string()) {
        headers.insert(DOCKER_CONTENT_DIGEST, value);
    }
    response
}

fn progress(call: &Call, upload: &UploadStatus, status: StatusCode) -> Response<Body> {
    let mut response = bare(status);
    let headers = response.headers_mut();
    let location = format!("/v2/{}/blobs/uploads/{}", call.name, upload.id);
    if let Ok(value) = HeaderValue::try_from(location) {
        headers.insert(LOCATION, value);
    }
    let last = upload.offset.saturating_sub(1);
    if let Ok(value) = HeaderValue::try_from(format!("0-{last}")) {
        headers.insert(RANGE, value);
    }
    if let Ok(value) = HeaderValue::try_from(upload.id.as_str()) {
        headers.insert(UPLOAD_UUID, value);
    }
    response
}
