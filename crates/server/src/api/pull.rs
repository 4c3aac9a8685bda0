//! What a client needs that puts NARs together itself; the frames it then takes from the Nix door, by ranges.

use super::push::{InCache, binary};
use super::{Fault, who, work};
use crate::app::App;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use firn_formats::admin::Right;
use http::HeaderMap;
use std::sync::Arc;

pub(super) async fn layout(
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
    let layout = work(&app, move |app| {
        app.services.nix_cache.layout(&cache, &hash)
    })
    .await?;
    Ok(binary(layout))
}
