//! Manifests and referrers.

use super::{Answer, Call, DOCKER_CONTENT_DIGEST, Failure};
use crate::app::{bare, respond};
use crate::auth::client;
use crate::body::{Body, leased};
use crate::gate::Busy;
use crate::metrics::Door;
use crate::upload::{GatherError, Gathered, PARSED_COST, gather};
use firn_formats::admin::Right;
use firn_formats::oci::manifest::MANIFEST_BYTES_MAX;
use firn_formats::oci::{ErrorCode, Tag, media_type};
use firn_services::budget::Client;
use firn_services::registry::{
    FoundManifest, ManifestReference, NewManifest, RegistryError, Repository, has_zstd_layers,
};
use http::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// A manifest of so many bytes costs nothing to hold.
const SMALL_BYTES: usize = 64 << 10;
/// Most tags in one PUT.
const TAGS_MAX: usize = 100;
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// The first Docker that reads zstd layers.
const DOCKER_WITH_ZSTD: u32 = 23;

/// Everything under `/manifests/`.
pub(super) async fn handle(call: &Call, reference: &str, body: Incoming) -> Answer {
    let parsed = || {
        ManifestReference::parse(reference).map_err(|error| match call.method {
            // What cannot be a tag names no manifest, as the specification's suite has it.
            Method::PUT => error,
            _ if error.code == ErrorCode::ManifestInvalid => RegistryError {
                code: ErrorCode::ManifestUnknown,
                ..error
            },
            _ => error,
        })
    };
    match call.method {
        Method::GET | Method::HEAD => get(call, parsed()?).await,
        Method::PUT => put(call, parsed()?, body).await,
        Method::DELETE => {
            let reference = parsed()?;
            let repository = call.repository(Right::Delete)?;
            call.work(move |app| {
                let registry = &app.services.registry;
                registry.delete_manifest(&repository, &reference)
            })
            .await?;
            Ok(bare(StatusCode::ACCEPTED))
        }
        _ => Ok(bare(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

async fn get(call: &Call, reference: ManifestReference) -> Answer {
    let repository = match call.method {
        // A HEAD tells a pusher whether to push.
        Method::HEAD => call
            .repository(Right::Create)
            .or_else(|_| call.repository(Right::Pull))?,
        _ => call.repository(Right::Pull)?,
    };
    let again = (repository.clone(), reference.clone());
    let mut found = call
        .work(move |app| app.services.registry.manifest(&repository, &reference))
        .await?;
    if call.method == Method::GET {
        refuse_old_docker(call, &found)?;
        let length = found.bytes.len();
        if length > SMALL_BYTES {
            // It is not held while there is no room, and then for as long as its client takes it.
            drop(std::mem::take(&mut found.bytes));
            let client = client(&call.who, call.peer);
            let lease = call.app.memory.enter(&client, length as u64).await?;
            let (repository, reference) = again;
            found = call
                .work(move |app| app.services.registry.manifest(&repository, &reference))
                .await?;
            found.bytes = leased(found.bytes, lease);
        }
    }
    let sent = call.app.metrics.sent(Door::Registry);
    sent.inc_by(found.bytes.len() as u64);
    let media_type = HeaderValue::try_from(&found.media_type)
        .unwrap_or(HeaderValue::from_static(media_type::OCI_MANIFEST));
    let mut response = respond(StatusCode::OK, media_type, found.bytes);
    if let Ok(value) = HeaderValue::try_from(format!("\"{}\"", found.digest)) {
        response.headers_mut().insert(ETAG, value);
    }
    insert_digest(&mut response, &found.digest);
    Ok(response)
}

fn insert_digest(response: &mut Response<Body>, digest: &str) {
    if let Ok(value) = HeaderValue::try_from(digest) {
        response.headers_mut().insert(DOCKER_CONTENT_DIGEST, value);
    }
}

/// The major version of a Docker daemon.
fn docker_major(user_agent: &str) -> Option<u32> {
    let version = user_agent.strip_prefix("docker/")?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// A Docker that would download the image and then fail to unpack it is told why at once.
fn refuse_old_docker(call: &Call, found: &FoundManifest) -> Result<(), RegistryError> {
    let Some(major) = call.header(USER_AGENT).and_then(docker_major) else {
        return Ok(());
    };
    if major >= DOCKER_WITH_ZSTD || !has_zstd_layers(found) {
        return Ok(());
    }
    tracing::warn!(
        image = call.name,
        docker = major,
        "a Docker before 23 asked for an image with zstd layers; push it with --compression gzip"
    );
    Err(RegistryError {
        status: Some(StatusCode::BAD_REQUEST.as_u16()),
        ..RegistryError::with(
            ErrorCode::Unsupported,
            format!(
                "this image has zstd layers, which Docker {major} cannot read (23 and later can); \
                 push it with: firn image push --compression gzip"
            ),
        )
    })
}

async fn put(call: &Call, reference: ManifestReference, body: Incoming) -> Answer {
    let repository = call.repository(Right::Create)?;
    let may_move = call.repository(Right::Push).is_ok();
    let tags = tags(call)?;
    let content_type = call
        .header(CONTENT_TYPE)
        .map(|text| text.split(';').next().unwrap_or(text).trim().to_owned())
        .unwrap_or_default();
    let Gathered {
        bytes,
        place: _place,
    } = gathered(call, &repository, body).await?;
    let stored = call
        .work(move |app| {
            let registry = &app.services.registry;
            let new = NewManifest {
                reference: &reference,
                tags: &tags,
                content_type: &content_type,
                bytes: &bytes,
                may_move,
            };
            registry.put_manifest(&repository, new)
        })
        .await?;
    let mut response = bare(StatusCode::CREATED);
    let location = format!("/v2/{}/manifests/{}", call.name, stored.digest);
    if let Ok(value) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, value);
    }
    if call.parameter("tag").is_some() {
        for tag in &stored.tags {
            if let Ok(value) = HeaderValue::try_from(tag.as_str()) {
                response.headers_mut().append(OCI_TAG, value);
            }
        }
    }
    if let Some(subject) = stored.subject
        && let Ok(value) = HeaderValue::try_from(subject.to_string())
    {
        response.headers_mut().insert(OCI_SUBJECT, value);
    }
    insert_digest(&mut response, &stored.digest.to_string());
    Ok(response)
}

/// The tags that a PUT by digest names as parameters.
fn tags(call: &Call) -> Result<Vec<Tag>, RegistryError> {
    let named = call.query.iter().filter(|(key, _)| key == "tag");
    let tags = named
        .map(|(_, tag)| Tag::parse(tag))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| RegistryError::with(ErrorCode::ManifestInvalid, error.to_string()))?;
    if tags.len() > TAGS_MAX {
        return Err(RegistryError {
            status: Some(StatusCode::URI_TOO_LONG.as_u16()),
            ..RegistryError::with(
                ErrorCode::ManifestInvalid,
                format!("at most {TAGS_MAX} tags at once"),
            )
        });
    }
    Ok(tags)
}

async fn gathered(
    call: &Call,
    repository: &Repository,
    body: Incoming,
) -> Result<Gathered, Failure> {
    let app = &call.app;
    let client = Client::known(repository.cache.name());
    let bounds = (MANIFEST_BYTES_MAX, PARSED_COST);
    gather(body, bounds, app.pace(), &app.memory, &client)
        .await
        .map_err(|error| match error {
            GatherError::TooLarge(limit) => Failure::Registry(RegistryError {
                status: Some(StatusCode::PAYLOAD_TOO_LARGE.as_u16()),
                ..RegistryError::with(
                    ErrorCode::SizeInvalid,
                    format!("a manifest has at most {limit} bytes"),
                )
            }),
            GatherError::Broken(error) => Failure::Registry(RegistryError::with(
                ErrorCode::ManifestInvalid,
                error.to_string(),
            )),
            GatherError::Busy => Busy.into(),
        })
}

/// The referrers of a digest; there may be none, but never a 404.
pub(super) async fn referrers(call: &Call, digest: &str) -> Answer {
    let repository = call.repository(Right::Pull)?;
    let digest = Call::digest(digest)?;
    let artifact_type = call.parameter("artifactType").map(str::to_owned);
    let filtered = artifact_type.is_some();
    let index = call
        .work(move |app| {
            let registry = &app.services.registry;
            registry.referrers(&repository, &digest, artifact_type.as_deref())
        })
        .await?;
    let media_type = HeaderValue::from_static(media_type::OCI_INDEX);
    let mut response = respond(StatusCode::OK, media_type, index);
    if filtered {
        response.headers_mut().insert(
            OCI_FILTERS_APPLIED,
            HeaderValue::from_static("artifactType"),
        );
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_versions() {
        for (agent, major) in [
            ("docker/20.10.24+dfsg1 go/go1.19.8 os/linux", Some(20)),
            ("docker/26.1.5 go/go1.22", Some(26)),
            ("containers/5.24.1", None),
            ("docker/dev", None),
        ] {
            assert_eq!(docker_major(agent), major, "{agent}");
        }
    }
}
