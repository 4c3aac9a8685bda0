//! What caches keep: roots, evictions.

use super::{Fault, STATUS_JSON_BYTES_MAX, json, who, work};
use crate::app::App;
use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use firn_formats::admin::{
    Evict, EvictReport, EvictionCause, EvictionView, Right, RootPin, RootView,
};
use firn_services::budget::Client;
use firn_services::retention::Evictions;
use firn_store::{Evicted, EvictionReason};
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// Evictions in one answer, if it is not said how many.
const EVICTIONS_DEFAULT: usize = 100;
/// And at most.
const EVICTIONS_MAX: usize = 10_000;

#[derive(serde::Deserialize)]
pub(super) struct InCache {
    pub(super) cache: String,
}

#[derive(serde::Deserialize)]
pub(super) struct OfRoot {
    cache: String,
    name: String,
}

#[derive(serde::Deserialize)]
pub(super) struct Page {
    cache: String,
    limit: Option<usize>,
}

pub(super) async fn roots(
    State(app): State<Arc<App>>,
    Query(query): Query<InCache>,
    headers: HeaderMap,
) -> Result<Json<Vec<RootView>>, Fault> {
    let who = who(&app, &headers);
    let access = &app.services.access;
    let cache = access.authorize(&who, &query.cache, Right::Pull)?;
    let roots = work(&app, move |app| app.services.retention.roots(&cache)).await?;
    Ok(Json(roots))
}

/// Who may push may also say what of it stays.
pub(super) async fn pin(
    State(app): State<Arc<App>>,
    Query(query): Query<InCache>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<RootView>, Fault> {
    let who = who(&app, &headers);
    let access = &app.services.access;
    let cache = access.authorize(&who, &query.cache, Right::Push)?;
    let client = Client::known(cache.name());
    let request = json::<RootPin>(&app, body, STATUS_JSON_BYTES_MAX, &client).await?;
    let root = work(&app, move |app| {
        app.services.retention.pin(&cache, &request.value)
    })
    .await?;
    Ok(Json(root))
}

pub(super) async fn unpin(
    State(app): State<Arc<App>>,
    Query(query): Query<OfRoot>,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    let who = who(&app, &headers);
    let access = &app.services.access;
    let cache = access.authorize(&who, &query.cache, Right::Delete)?;
    work(&app, move |app| {
        app.services.retention.unpin(&cache, &query.name)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn evict(
    State(app): State<Arc<App>>,
    Query(query): Query<InCache>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<EvictReport>, Fault> {
    let who = who(&app, &headers);
    let access = &app.services.access;
    let cache = access.authorize(&who, &query.cache, Right::Admin)?;
    let client = Client::known(cache.name());
    let request = json::<Evict>(&app, body, STATUS_JSON_BYTES_MAX, &client).await?;
    let dry_run = request.value.dry_run;
    let evictions = work(&app, move |app| match dry_run {
        true => app.services.retention.preview(&cache),
        false => app.services.retention.evict(&cache),
    })
    .await?;
    Ok(Json(report(evictions, dry_run)))
}

fn report(evictions: Evictions, dry_run: bool) -> EvictReport {
    EvictReport {
        dry_run,
        paths: evictions.paths,
        images: evictions.images,
        bytes: evictions.bytes,
        stayed: evictions.stayed,
        evicted: evictions.evicted.into_iter().map(view).collect(),
    }
}

pub(super) async fn evictions(
    State(app): State<Arc<App>>,
    Query(query): Query<Page>,
    headers: HeaderMap,
) -> Result<Json<Vec<EvictionView>>, Fault> {
    let who = who(&app, &headers);
    let access = &app.services.access;
    let cache = access.authorize(&who, &query.cache, Right::Pull)?;
    let limit = query.limit.unwrap_or(EVICTIONS_DEFAULT).min(EVICTIONS_MAX);
    let evictions = work(&app, move |app| {
        app.services.retention.evictions(&cache, limit)
    })
    .await?;
    Ok(Json(evictions.into_iter().map(view).collect()))
}

pub(super) fn view(evicted: Evicted) -> EvictionView {
    EvictionView {
        name: evicted.name,
        at: Some(evicted.at).filter(|at| *at > 0),
        reason: match evicted.reason {
            EvictionReason::Unused => EvictionCause::Unused,
            EvictionReason::Quota => EvictionCause::Quota,
            EvictionReason::Deleted => EvictionCause::Deleted,
            EvictionReason::Replaced => EvictionCause::Replaced,
        },
        bytes: evicted.bytes,
        used_at: evicted.used_at,
    }
}
