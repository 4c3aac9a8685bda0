//! The push protocol's endpoints.

use super::{Fault, PUSH_JSON_BYTES_MAX, gathered, json, who, work};
use crate::app::App;
use crate::gate::Busy;
use crate::upload::Gathered;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use firn_formats::admin::Right;
use firn_formats::push::{
    ApiErrorCode, Begin, Begun, FRAMES_BODY_BYTES_MAX, FramesAccepted, PROPOSALS_BODY_BYTES_MAX,
    PartTaken, Publish, Published,
};
use firn_services::ServiceError;
use firn_services::budget::Client;
use firn_services::push::PushSession;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// A body of frames may be this much longer than the limit, for their ids and lengths.
const FRAMES_OVERHEAD_BYTES: usize = 1 << 20;

/// What a proposal costs while it is worked on, for each of its bytes: itself, its chunks, their ids in order.
const PROPOSALS_COST: usize = 4;

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
    let client = Client::known(cache.name());
    let begin = json::<Begin>(&app, body, PUSH_JSON_BYTES_MAX, &client).await?;
    let begin = move |app: &App| app.services.push.begin(&cache, &begin.value);
    let begun = work(&app, begin).await?;
    Ok(Json(begun))
}

#[derive(serde::Deserialize)]
pub(super) struct Continuing {
    /// Numbers of parts, separated by commas.
    #[serde(default)]
    parts: String,
}

impl Continuing {
    fn numbers(&self) -> Result<Vec<u32>, Fault> {
        let parts = self.parts.split(',').filter(|part| !part.is_empty());
        parts
            .map(|part| part.parse())
            .collect::<Result<_, _>>()
            .map_err(|_| Fault::new(ApiErrorCode::BadRequest, "parts are numbers"))
    }
}

/// A body of proposals, with memory for what is made of it.
async fn proposals(app: &App, session: &PushSession, body: Body) -> Result<Gathered, Fault> {
    let client = Client::known(session.cache().name());
    let bounds = (PROPOSALS_BODY_BYTES_MAX, PROPOSALS_COST);
    gathered(app, body, bounds, &client).await
}

pub(super) async fn part(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PartTaken>, Fault> {
    let session = session(&app, &headers, id).await?;
    let body = proposals(&app, &session, body).await?;
    // The whole body goes along: it is paid for until the work is done, whoever still listens.
    let take = move |app: &App| {
        let Gathered {
            bytes,
            place: _place,
        } = body;
        app.services.push.take_part(&session, &bytes)
    };
    Ok(Json(work(&app, take).await?))
}

pub(super) async fn blobs(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(continuing): Query<Continuing>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let session = session(&app, &headers, id).await?;
    let parts = continuing.numbers()?;
    let body = proposals(&app, &session, body).await?;
    let propose = move |app: &App| {
        let Gathered {
            bytes,
            place: _place,
        } = body;
        app.services.push.propose(&session, &parts, &bytes)
    };
    let answers = work(&app, propose).await?;
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
    let client = Client::known(session.cache().name());
    let body = gathered(&app, body, (bytes_max, 1), &client).await?;
    let worker = app.frame_workers.enter(&client, 1).await;
    let _worker = worker.map_err(|Busy| ServiceError::Busy)?;
    let frames = move |app: &App| {
        let Gathered {
            bytes,
            place: _place,
        } = body;
        app.services.push.frames(&session, &bytes)
    };
    let accepted = work(&app, frames).await?;
    Ok(Json(accepted))
}

pub(super) async fn publish(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Published>, Fault> {
    let session = session(&app, &headers, id).await?;
    let client = Client::known(session.cache().name());
    let request = json::<Publish>(&app, body, PUSH_JSON_BYTES_MAX, &client).await?;
    let published = work(&app, move |app| {
        app.services.push.publish(&session, &request.value)
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
