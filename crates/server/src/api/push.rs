//! The push protocol's endpoints.

use super::{Fault, gathered, json, who, work};
use crate::app::App;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use firn_formats::admin::Right;
use firn_formats::push::{
    ApiErrorCode, Begin, Begun, FRAMES_BODY_BYTES_MAX, FramesAccepted, PROPOSALS_BODY_BYTES_MAX,
    Publish, Published,
};
use firn_services::push::PushSession;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// A body of frames may be this much longer than the limit, for their ids and lengths.
const FRAMES_OVERHEAD_BYTES: usize = 1 << 20;

#[derive(serde::Deserialize)]
pub(super) struct InCache {
    pub(super) cache: String,
}

/// The session of a path, if the caller may push into its cache. Who may not learns as little
/// as of a session that never was.
async fn session(
    app: &Arc<App>,
    headers: &HeaderMap,
    id: String,
) -> Result<Arc<PushSession>, Fault> {
    let who = who(app, headers);
    let found = work(app, move |app| app.services.push.session(&id)).await?;
    app.services
        .access
        .authorize(&who, found.cache().name(), Right::Push)
        .map_err(|refusal| match refusal {
            firn_services::Refusal::Denied | firn_services::Refusal::NotFound => {
                Fault::from(firn_services::ServiceError::SessionGone)
            }
            other => other.into(),
        })?;
    Ok(found)
}

pub(super) fn binary(bytes: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}

pub(super) async fn begin(
    State(app): State<Arc<App>>,
    Query(query): Query<InCache>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Begun>, Fault> {
    let who = who(&app, &headers);
    let cache = app
        .services
        .access
        .authorize(&who, &query.cache, Right::Push)?;
    let begin: Begin = json(&app, body).await?;
    let begun = work(&app, move |app| app.services.push.begin(&cache, &begin)).await?;
    Ok(Json(begun))
}

pub(super) async fn blobs(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let session = session(&app, &headers, id).await?;
    let body = gathered(&app, body, PROPOSALS_BODY_BYTES_MAX).await?;
    let answers = work(&app, move |app| app.services.push.propose(&session, &body)).await?;
    Ok(binary(answers))
}

pub(super) async fn frames(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<FramesAccepted>, Fault> {
    let session = session(&app, &headers, id).await?;
    let bytes_max = FRAMES_BODY_BYTES_MAX + FRAMES_OVERHEAD_BYTES;
    let length = match http_body::Body::size_hint(&body).exact() {
        Some(length) => usize::try_from(length).map_or(bytes_max, |length| length.min(bytes_max)),
        None => bytes_max,
    };
    let gone = |_| Fault::new(ApiErrorCode::Internal, "the server is stopping");
    let kib = u32::try_from(length.div_ceil(1024)).unwrap_or(u32::MAX);
    let _memory = app.frame_bodies.acquire_many(kib).await.map_err(gone)?;
    let body = gathered(&app, body, bytes_max).await?;
    let _worker = app.frame_workers.acquire().await.map_err(gone)?;
    let accepted = work(&app, move |app| app.services.push.frames(&session, &body)).await?;
    Ok(Json(accepted))
}

pub(super) async fn publish(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Published>, Fault> {
    let session = session(&app, &headers, id).await?;
    let request: Publish = json(&app, body).await?;
    let published = work(&app, move |app| {
        app.services.push.publish(&session, &request)
    })
    .await?;
    Ok(Json(published))
}

pub(super) async fn heartbeat(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    let session = session(&app, &headers, id).await?;
    work(&app, move |app| app.services.push.heartbeat(&session)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn close(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    let session = session(&app, &headers, id).await?;
    work(&app, move |app| app.services.push.close(&session)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn chunk_list(
    State(app): State<Arc<App>>,
    Path(hash): Path<String>,
    Query(query): Query<InCache>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let who = who(&app, &headers);
    let cache = app
        .services
        .access
        .authorize(&who, &query.cache, Right::Pull)?;
    let list = work(&app, move |app| app.services.push.chunk_list(&cache, &hash)).await?;
    Ok(binary(list))
}
