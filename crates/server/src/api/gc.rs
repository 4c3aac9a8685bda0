//! Collecting when somebody asks for it.

use super::admin::covers;
use super::{Fault, small_json, who};
use crate::app::{App, blocking};
use crate::body::{Body as OwnBody, BodyError, MadeBody};
use crate::keeper;
use crate::metrics::Door;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use firn_formats::admin::{CollectionRequest, CollectionView, Right};
use firn_formats::push::ApiErrorCode;
use firn_services::ServiceError;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// After so long the answer begins, and an empty line each time says that the collection goes on: clients do not
/// wait for minutes without a byte.
const LINE_EVERY: Duration = Duration::from_secs(10);

type Outcome = Result<CollectionView, ServiceError>;

pub(super) async fn gc(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    // It is about all caches at once.
    covers(&who(&app, &headers), &["*".to_owned()], Right::Admin)?;
    let request: CollectionRequest = small_json(&app, body).await?;
    let (sender, outcome) = sync_channel(1);
    let sent = app.metrics.sent(Door::Api);
    tokio::task::spawn_blocking(move || {
        // Who does not listen any more hears of it from the log.
        let _ = sender.send(keeper::collect_asked(&app, &request));
    });
    let first = blocking(move || (outcome.recv_timeout(LINE_EVERY), outcome)).await;
    match first {
        Ok((Ok(outcome), _)) => Ok(Json(outcome?).into_response()),
        Ok((Err(RecvTimeoutError::Timeout), outcome)) => Ok(in_time(outcome, sent)),
        Ok((Err(RecvTimeoutError::Disconnected), _)) | Err(_) => Err(Fault::new(
            ApiErrorCode::Internal,
            "the collection broke off",
        )),
    }
}

/// Empty lines, and then the report. A failure resets the connection, since the status line has been sent.
fn in_time(outcome: Receiver<Outcome>, sent: Counter) -> Response {
    let mut rest = Some(outcome);
    let body = MadeBody::new(None, sent, move || next(&mut rest));
    let mut response = Body::new(OwnBody::Made(body)).into_response();
    let media_type = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

fn next(rest: &mut Option<Receiver<Outcome>>) -> Result<Option<Bytes>, BodyError> {
    let Some(outcome) = rest.take() else {
        return Ok(None);
    };
    match outcome.recv_timeout(LINE_EVERY) {
        Ok(Ok(view)) => Ok(Some(serde_json::to_vec(&view).unwrap_or_default().into())),
        Ok(Err(error)) => Err(error.into()),
        Err(RecvTimeoutError::Timeout) => {
            *rest = Some(outcome);
            Ok(Some(Bytes::from_static(b"\n")))
        }
        Err(RecvTimeoutError::Disconnected) => Err(BodyError::Short),
    }
}
