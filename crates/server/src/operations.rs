//! Health, metrics, and the page that tells a person what to paste.

use crate::api::{Fault, covers};
use crate::app::{App, blocking};
use crate::auth::identify;
use crate::welcome;
use axum::Router;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use firn_formats::admin::Right;
use firn_services::Identity;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// The routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// The routes of the address that is for figures only: no token is asked for there.
pub(crate) fn figures_only() -> Router<Arc<App>> {
    Router::new().route("/metrics", get(figures))
}

/// Ready means that the store answers.
async fn ready(State(app): State<Arc<App>>) -> Response {
    match blocking(move || app.services.store.caches().map(|_| ())).await {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "not ready");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "the store does not answer\n",
            )
                .into_response()
        }
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Figures over all caches tell of private ones, so they are for those who may read all.
async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Fault> {
    let who = identify(&app.services.access, &headers);
    covers(&who, &["*".to_owned()], Right::Pull)?;
    Ok(figures(State(app)).await)
}

async fn figures(State(app): State<Arc<App>>) -> Response {
    let text = blocking(move || {
        let stats = app.services.store.stats()?;
        // Names of private caches are nobody's business; their numbers tell nothing.
        let named = app
            .services
            .access
            .caches(&Identity::Anonymous, Right::Pull);
        let names = named
            .iter()
            .map(|cache| (cache.row.id.0, cache.name().to_owned()));
        Ok::<_, firn_store::StoreError>(app.metrics.encode(&stats, names))
    })
    .await;
    match text {
        Ok(Ok(Ok(text))) => {
            let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, media_type)], text).into_response()
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

async fn page(State(app): State<Arc<App>>) -> Html<String> {
    let lines = escaped(&welcome::lines(&app.services.access, &app.url, None));
    Html(format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Firn</title>\n\
         <style>body{{font:16px/1.5 sans-serif;max-width:60em;margin:3em auto;padding:0 1em}}\
         pre{{background:#f3f5f7;padding:1em;overflow:auto}}</style>\n\
         <h1>Firn</h1>\n<p>A build cache for Nix and containers. To use it:</p>\n\
         <pre>{lines}</pre>\n"
    ))
}
