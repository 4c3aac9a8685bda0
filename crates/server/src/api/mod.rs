//! `/api/v1`: Firn's own, as `firn_formats::push` and `firn_formats::admin` describe it.

mod actions;
mod admin;
mod check;
mod fault;
mod foreign;
mod gc;
mod oidc;
mod pull;
mod push;
mod retention;

pub(crate) use admin::covers;
pub(crate) use fault::Fault;
pub(crate) use foreign::refused as refused_as_foreign;
pub(crate) use oidc::Keys as OidcKeys;

use crate::app::{App, blocking};
use crate::auth::identify;
use crate::upload::{GatherError, Gathered, PARSED_COST, gather};
use axum::Router;
use axum::body::Body;
use axum::routing::{delete, get, post};
use firn_formats::push::ApiErrorCode;
use firn_services::budget::{Client, Lease};
use firn_services::{Identity, ServiceError};
use http::HeaderMap;
use std::sync::Arc;

/// Largest JSON body of a push: 20,000 paths with their references.
const PUSH_JSON_BYTES_MAX: usize = 32 << 20;
/// Largest list of paths to ask for, or to evict: 20,000 of them. Anybody may ask.
const STATUS_JSON_BYTES_MAX: usize = 8 << 20;
/// Largest JSON body of the administration.
const ADMIN_JSON_BYTES_MAX: usize = 64 << 10;

/// The routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/whoami", get(admin::whoami))
        .route(
            "/api/v1/caches",
            get(admin::caches).post(admin::cache_create),
        )
        .route(
            "/api/v1/caches/{*name}",
            get(admin::cache)
                .patch(admin::cache_configure)
                .delete(admin::cache_delete),
        )
        .route(
            "/api/v1/tokens",
            get(admin::tokens).post(admin::token_create),
        )
        .route("/api/v1/tokens/{id}", delete(admin::token_revoke))
        .route("/api/v1/status", post(admin::status))
        .route(
            "/api/v1/roots",
            get(retention::roots)
                .post(retention::pin)
                .delete(retention::unpin),
        )
        .route("/api/v1/evict", post(retention::evict))
        .route("/api/v1/evictions", get(retention::evictions))
        .route("/api/v1/keys/rotate", post(admin::key_rotate))
        .route("/api/v1/tokens/rotate", post(admin::token_key_rotate))
        .route("/api/v1/stats", get(admin::stats))
        .route("/api/v1/gc", post(gc::gc))
        .route("/api/v1/images", get(admin::images))
        .route("/api/v1/check", post(check::check))
        .route("/api/v1/damage", get(check::damaged))
        .route("/api/v1/heal", post(check::heal))
        .route("/api/v1/push/begin", post(push::begin))
        .route("/api/v1/push/{session}", delete(push::close))
        .route("/api/v1/push/{session}/parts", post(push::part))
        .route("/api/v1/push/{session}/blobs", post(push::blobs))
        .route("/api/v1/push/{session}/frames", post(push::frames))
        .route("/api/v1/push/{session}/publish", post(push::publish))
        .route("/api/v1/push/{session}/heartbeat", post(push::heartbeat))
        .route("/api/v1/chunks/{hash}", get(push::chunk_list))
        .route("/api/v1/nars/{hash}", get(pull::layout))
        .route("/api/v1/actions/oidc", post(oidc::exchange))
        .route("/api/v1/actions/repositories", get(actions::repositories))
        .route("/api/v1/actions/history", get(actions::history))
        .route("/api/v1/actions/replace", post(actions::replace))
        .fallback(actions::github::handle)
}

fn who(app: &App, headers: &HeaderMap) -> Identity {
    identify(&app.services.access, headers)
}

/// Work for a blocking thread, with its faults in the API's words.
async fn work<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, Fault> {
    let app = app.clone();
    match blocking(move || work(&app)).await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(Fault::new(ApiErrorCode::Internal, error.to_string())),
    }
}

/// Gathers a body of at most so many bytes, each of which costs so many of the client's share.
async fn gathered(
    app: &App,
    body: Body,
    bounds: (usize, usize),
    client: &Client,
) -> Result<Gathered, Fault> {
    gather(body, bounds, app.pace(), &app.memory, client)
        .await
        .map_err(|error| match error {
            GatherError::TooLarge(limit) => Fault::new(
                ApiErrorCode::TooLarge,
                format!("the body is larger than {limit} bytes"),
            ),
            GatherError::Broken(error) => ServiceError::Interrupted(error).into(),
            GatherError::Busy => ServiceError::Busy.into(),
        })
}

/// What a body of JSON says, and what it holds until it was worked on.
struct Parsed<T> {
    value: T,
    _place: Option<Lease>,
}

/// Bytes of a large body of JSON for each of its elements, at the least: what one is parsed to takes as much and
/// more.
const ELEMENT_BYTES_MIN: usize = 20;
/// A smaller body is parsed whatever is in it.
const SMALL_JSON_BYTES: usize = 64 << 10;

/// Reads a JSON body of at most `bytes_max`.
async fn json<T: serde::de::DeserializeOwned>(
    app: &App,
    body: Body,
    bytes_max: usize,
    client: &Client,
) -> Result<Parsed<T>, Fault> {
    let body = gathered(app, body, (bytes_max, PARSED_COST), client).await?;
    let bad = |what: String| {
        let text = format!("the body is not what is expected here: {what}");
        Fault::new(ApiErrorCode::BadRequest, text)
    };
    if body.bytes.len() > SMALL_JSON_BYTES {
        let elements = body.bytes.iter().filter(|byte| **byte == b',').count();
        if elements > body.bytes.len() / ELEMENT_BYTES_MIN {
            return Err(bad("more elements than its length is good for".to_owned()));
        }
    }
    let value = serde_json::from_slice(&body.bytes).map_err(|error| bad(error.to_string()))?;
    Ok(Parsed {
        value,
        _place: body.place,
    })
}

/// As [`json`], of a small one, by whoever was let in: it costs nothing that is worth counting.
async fn small_json<T: serde::de::DeserializeOwned>(app: &App, body: Body) -> Result<T, Fault> {
    let parsed = json(app, body, ADMIN_JSON_BYTES_MAX, &Client::known("")).await?;
    Ok(parsed.value)
}
