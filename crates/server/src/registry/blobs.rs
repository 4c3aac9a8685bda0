//! GET, HEAD and DELETE of blobs.

use super::{Answer, Call, DOCKER_CONTENT_DIGEST};
use crate::app::bare;
use crate::body::{BlobBody, Body};
use crate::metrics::Door;
use crate::nix::{bytes_response, unsatisfiable};

use firn_formats::admin::Right;
use firn_formats::http::{self as headers, Ranged};
use firn_formats::oci::ErrorCode;
use firn_services::registry::RegistryError;
use http::header::{ETAG, HeaderValue, RANGE};
use http::{Method, StatusCode};

pub(super) async fn get(call: &Call, digest: &str) -> Answer {
    let digest = Call::digest(digest)?;
    // A HEAD by one who may push asks whether to upload; "here" is then a promise (rule 5).
    let pusher = (call.method == Method::HEAD)
        .then(|| call.repository(Right::Create).ok())
        .flatten();
    let pushing = pusher.is_some();
    let repository = match pusher {
        Some(repository) => repository,
        None => call.repository(Right::Pull)?,
    };
    let range = call.header(RANGE).map(str::to_owned);
    let digest_text = digest.to_string();
    let mut response = call
        .work(move |app| {
            let registry = &app.services.registry;
            if pushing && !registry.renew_blob(&repository.cache, &digest)? {
                let unknown = RegistryError::with(ErrorCode::BlobUnknown, digest.to_string());
                return Err(unknown);
            }
            let found = registry.blob(&repository.cache, &digest)?;
            let part = match headers::range(range.as_deref(), found.length) {
                Ranged::Whole => None,
                Ranged::Part(first, count) => Some((first, count)),
                Ranged::Unsatisfiable => return Ok(unsatisfiable(found.length)),
            };
            // Opening proves that all of it can be had; what cannot is not here.
            let reader = registry.read_blob(&found, part).map_err(|error| {
                tracing::error!(%error, %digest, "a blob cannot be served");
                RegistryError::with(ErrorCode::BlobUnknown, digest.to_string())
            })?;
            let body = Body::Blob(BlobBody::new(reader, app.metrics.sent(Door::Registry)));
            let media_type = HeaderValue::from_static("application/octet-stream");
            Ok(bytes_response(body, media_type, part, found.length))
        })
        .await?;
    if let Ok(value) = HeaderValue::try_from(format!("\"{digest_text}\"")) {
        response.headers_mut().insert(ETAG, value);
    }
    if let Ok(value) = HeaderValue::try_from(digest_text) {
        response.headers_mut().insert(DOCKER_CONTENT_DIGEST, value);
    }
    Ok(response)
}

pub(super) async fn delete(call: &Call, digest: &str) -> Answer {
    let repository = call.repository(Right::Delete)?;
    let digest = Call::digest(digest)?;
    call.work(move |app| {
        app.services
            .registry
            .delete_blob(&repository.cache, &digest)
    })
    .await?;
    Ok(bare(StatusCode::ACCEPTED))
}
