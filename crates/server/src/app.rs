//! What every request goes through: which door, who, how it went.

use crate::actions::rate::Rate;
use crate::body::Body;
use crate::config::Config;
use crate::gate::{Busy, Gate};
use crate::keeper::Keeper;
use crate::metrics::{Door, Metrics};
use crate::upload::{BodyReader, Pace};
use crate::{actions, api, nix, operations, registry, upload};
use bytes::Bytes;
use firn_formats::actions::github::is_rest_path;
use firn_services::Services;
use firn_services::budget::{Budget, Client, Lease};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument as _;

/// Frame bodies worked on at a time. One of each session is decoded, which takes some 4 MiB; the others
/// wait for it or for the disk.
const FRAME_WORKERS: usize = 8;
/// Parts of Actions entries at a time, for each upload that may be worked on: clients send several in parallel,
/// and one needs no more than a buffer.
const PARTS_AN_UPLOAD: usize = 4;
/// When to come again if there was no place, in seconds.
const COME_AGAIN_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// The turn and the place of an upload that is worked on.
pub(crate) type Places = (Option<Lease>, Lease);

/// The server's state.
pub(crate) struct App {
    pub(crate) services: Services,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) keeper: Keeper,
    /// Memory of the services' accountant.
    pub(crate) memory: Gate,
    pub(crate) frame_workers: Gate,
    uploads: Gate,
    /// Uploads, by their ids, that somebody works on: who waits for one has no place yet.
    pub(crate) turns: Gate,
    /// Long answers that anybody may ask for are made one at a time, for strangers and for others.
    pub(crate) answers: Gate,
    /// Parts of Actions entries on their way to the disk.
    pub(crate) parts: Gate,
    /// Actions entries being made of their parts.
    pub(crate) commits: Gate,
    pub(crate) actions_rate: Rate,
    pub(crate) oidc_keys: api::OidcKeys,
    /// The server's URL as it knows it: configured, or its address.
    pub(crate) url: String,
}

pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A response of bytes at hand.
pub(crate) fn respond(
    status: StatusCode,
    media_type: HeaderValue,
    bytes: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

/// A plain text response; ends in a newline, for those who use curl.
pub(crate) fn text(status: StatusCode, message: impl std::fmt::Display) -> Response<Body> {
    respond(status, TEXT, format!("{message}\n"))
}

/// A response without a body.
pub(crate) fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A status by number; the services' tables hold no others than valid ones.
pub(crate) fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A worker thread ended without an answer.
#[derive(Debug, thiserror::Error)]
#[error("a worker failed")]
pub(crate) struct WorkerFailed;

/// Runs what blocks on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkerFailed> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a worker failed");
        WorkerFailed
    })
}

impl App {
    pub(crate) fn new(services: Services, config: Config, url: String) -> Self {
        let patience = Duration::from_secs(config.limits.place_seconds_max);
        let gate = |budget| Gate::new(budget, patience);
        let places = |count| gate(Budget::places(count));
        Self {
            memory: gate(services.budget.clone()),
            services,
            metrics: Metrics::new(),
            keeper: Keeper::new(),
            frame_workers: places(FRAME_WORKERS),
            uploads: places(config.limits.uploads_max),
            turns: gate(Budget::turns()),
            answers: gate(Budget::answers()),
            parts: places(config.limits.uploads_max * PARTS_AN_UPLOAD),
            commits: places(config.limits.uploads_max),
            actions_rate: Rate::new(config.limits.actions_uploads_per_minute_max),
            oidc_keys: api::OidcKeys::default(),
            config,
            url,
        }
    }

    /// The URL by which a client knows the server: configured, or what its request says.
    pub(crate) fn base_url(&self, headers: &HeaderMap) -> String {
        if self.config.public_url.is_some() {
            return self.url.clone();
        }
        let header = |name: &str| headers.get(name)?.to_str().ok();
        match header("host") {
            Some(host) => {
                let scheme = header("x-forwarded-proto").filter(|scheme| *scheme == "https");
                format!("{}://{host}", scheme.unwrap_or("http"))
            }
            None => self.url.clone(),
        }
    }

    /// How fast bodies must come.
    pub(crate) fn pace(&self) -> Pace {
        Pace::new(&self.config.limits, self.metrics.received().clone())
    }

    /// A body for a blocking reader, once enough of it came, the upload named by `turn` is nobody else's, and there
    /// is a place for the work.
    pub(crate) async fn upload(
        &self,
        body: Incoming,
        client: &Client,
        turn: Option<&str>,
    ) -> Result<(BodyReader, Places), Busy> {
        let mut gates = vec![
            (self.uploads.clone(), client.clone()),
            (self.memory.clone(), client.clone()),
        ];
        let turn = turn.map(Client::known);
        gates.extend(turn.iter().map(|turn| (self.turns.clone(), turn.clone())));
        let mut reader = upload::reader(body, self.pace(), gates);
        reader.begun().await;
        let turn = match turn {
            Some(turn) => Some(self.turns.enter(&turn, 1).await?),
            None => None,
        };
        let place = self.uploads.enter(client, 1).await?;
        Ok((reader, (turn, place)))
    }
}

/// The doors, ready to take requests.
#[derive(Clone)]
pub(crate) struct Doors {
    pub(crate) app: Arc<App>,
    axum: TowerToHyperService<axum::Router>,
}

fn door(path: &str) -> Door {
    let first = path[1.min(path.len())..]
        .split('/')
        .next()
        .unwrap_or_default();
    match first {
        "v2" => Door::Registry,
        "api" => Door::Api,
        "" | "healthz" | "readyz" | "metrics" => Door::Operations,
        _ if actions::is_ours(path) => Door::Actions,
        _ if is_rest_path(path) => Door::Api,
        _ => Door::Nix,
    }
}

impl Doors {
    pub(crate) fn new(app: Arc<App>) -> Self {
        let router = api::routes()
            .merge(operations::routes())
            .with_state(app.clone());
        Self {
            app,
            axum: TowerToHyperService::new(router),
        }
    }

    /// One request.
    pub(crate) async fn handle(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let door = door(request.uri().path());
        // What is asked thousands of times a second gets no span unless someone debugs.
        if door == Door::Nix
            && matches!(*request.method(), Method::GET | Method::HEAD)
            && let Some(response) = nix::from_memory(&self.app, &request)
        {
            self.app.metrics.request(door, response.status().as_u16());
            return Ok(response);
        }
        let span = tracing::info_span!(
            "request",
            method = %request.method(),
            path = request.uri().path(),
        );
        let app = self.app.clone();
        let mut response = self.dispatch(door, request).instrument(span.clone()).await;
        let status = response.status();
        if matches!(status.as_u16(), 429 | 503) {
            response
                .headers_mut()
                .entry(RETRY_AFTER)
                .or_insert(COME_AGAIN_SECONDS);
        }
        app.metrics.request(door, status.as_u16());
        let _entered = span.enter();
        if status.is_server_error() {
            tracing::error!(status = status.as_u16(), "failed");
        } else {
            tracing::debug!(status = status.as_u16(), "done");
        }
        Ok(response)
    }

    async fn dispatch(self, door: Door, request: Request<Incoming>) -> Response<Body> {
        match door {
            Door::Nix => nix::handle(self.app, request).await,
            Door::Registry => registry::handle(self.app, request).await,
            Door::Actions => actions::handle(self.app, request).await,
            Door::Api | Door::Operations => {
                if let Some(refused) = api::refused_as_foreign(&request) {
                    return refused.map(Body::Axum);
                }
                let sent = self.app.metrics.sent(door);
                match self.axum.call(request.map(axum::body::Body::new)).await {
                    Ok(response) => {
                        let length = http_body::Body::size_hint(response.body()).lower();
                        sent.inc_by(length);
                        response.map(Body::Axum)
                    }
                    Err(never) => match never {},
                }
            }
        }
    }
}
