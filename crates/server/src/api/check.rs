//! Checking and healing the store, for who may administer all of it.

use super::admin::covers;
use super::{Fault, gathered, small_json, who, work};
use crate::app::App;
use crate::body::{Body as OwnBody, MadeBody};
use crate::check::{data_options, view};
use crate::metrics::Door;
use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use firn_formats::admin::{CheckEvent, CheckRequest, DamagedView, Healed, Right};
use firn_formats::push::ApiErrorCode;
use firn_services::budget::Client;
use firn_services::check::{explain, parse_after};
use firn_store::DataProgress;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How often progress is told; in between, an empty line says that the check is alive.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Chunks in quarantine in one answer.
const DAMAGED_MAX: usize = 10_000;
/// Largest body of frames.
const HEAL_BYTES_MAX: usize = 16 << 20;

fn administrator(app: &App, headers: &HeaderMap) -> Result<(), Fault> {
    Ok(covers(&who(app, headers), &["*".to_owned()], Right::Admin)?)
}

/// Runs a check while the client listens: who goes away ends it.
pub(super) async fn check(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    administrator(&app, &headers)?;
    let request: CheckRequest = small_json(&app, body).await?;
    let sound = |(part, parts): (u32, u32)| part >= 1 && part <= parts;
    if request
        .read_data
        .as_ref()
        .is_some_and(|read| !sound(read.part))
    {
        return Err(Fault::new(
            ApiErrorCode::BadRequest,
            "a part is n of t, n from 1 to t",
        ));
    }
    let (sender, lines) = sync_channel(16);
    let sent = app.metrics.sent(Door::Api);
    tokio::task::spawn_blocking(move || run(&app, &request, &sender));
    let body = MadeBody::new(None, sent, move || Ok(next_line(&lines)));
    let mut response = Body::new(OwnBody::Made(body)).into_response();
    response.headers_mut().insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/jsonl"),
    );
    Ok(response)
}

fn next_line(lines: &Receiver<CheckEvent>) -> Option<Bytes> {
    match lines.recv_timeout(TELL_EVERY * 5) {
        Ok(event) => {
            let mut line = serde_json::to_vec(&event).unwrap_or_default();
            line.push(b'\n');
            Some(line.into())
        }
        Err(RecvTimeoutError::Timeout) => Some(Bytes::from_static(b"\n")),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

fn run(app: &App, request: &CheckRequest, events: &SyncSender<CheckEvent>) {
    let options = request.read_data.as_ref().map(data_options);
    let mut told = Instant::now();
    let mut listens = true;
    let mut go_on = |progress: &DataProgress| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let event = CheckEvent::Progress {
                bytes_done: progress.bytes_done,
                bytes_total: progress.bytes_total,
                chunks_damaged: progress.chunks_damaged,
            };
            listens = events.send(event).is_ok();
        }
        listens
    };
    let checked = app
        .services
        .store
        .check(options.as_ref(), &explain, &mut go_on);
    let event = match checked {
        Ok(report) => CheckEvent::Report(view(report)),
        Err(error) => {
            tracing::error!(%error, "a check failed");
            CheckEvent::Failed(format!("the check failed: {error}"))
        }
    };
    // Who does not listen any more has asked for nothing.
    let _ = events.send(event);
}

pub(super) async fn damaged(
    State(app): State<Arc<App>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Json<Vec<DamagedView>>, Fault> {
    administrator(&app, &headers)?;
    let after = match query.get("after") {
        Some(text) => Some(parse_after(text).ok_or_else(|| {
            Fault::new(
                ApiErrorCode::BadRequest,
                "after is DOMAIN-CHUNK, as in the last of a list",
            )
        })?),
        None => None,
    };
    let chunks = work(&app, move |app| {
        Ok(app.services.store.damaged(after.as_ref(), DAMAGED_MAX)?)
    })
    .await?;
    let view = |chunk: firn_store::DamagedChunk| DamagedView {
        domain: chunk.domain.0,
        chunk: chunk.id.to_string(),
        raw_length: chunk.raw_length,
        found_by: chunk.found_by,
        found_at: chunk.found_at,
    };
    Ok(Json(chunks.into_iter().map(view).collect()))
}

/// Takes frames for chunks in quarantine, in whatever domain; others are left.
pub(super) async fn heal(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Healed>, Fault> {
    administrator(&app, &headers)?;
    let client = Client::known("");
    let body = gathered(&app, body, (HEAL_BYTES_MAX, 2), &client).await?;
    let heal = move |app: &App| app.services.push.heal(&body.bytes);
    let chunks = work(&app, heal).await?;
    Ok(Json(Healed { chunks }))
}
