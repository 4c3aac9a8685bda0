//! Caches, tokens, status, figures.

use super::retention::InCache;
use super::{Fault, STATUS_JSON_BYTES_MAX, json, small_json, who, work};
use crate::app::App;
use crate::auth::{Peer, client};
use crate::body::leased;
use crate::gate::Busy;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use firn_formats::admin::{
    CacheConfigure, CacheCreate, CacheView, PathStatus, Right, Rotate, StatsView, StatusAnswer,
    StatusQuery, TokenCreate, TokenCreated, TokenKeyRotated, TokenView, WhoAmI,
};
use firn_formats::nix::NarInfo;
use firn_formats::push::{ApiErrorCode, PATHS_PER_REQUEST_MAX};
use firn_services::access::token::rfc3339;
use firn_services::registry::{Images, ImagesAsked};
use firn_services::{Cache, Identity, Refusal, ServiceError};
use firn_store::EntryKind;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// Whether `who` holds `right` on all that `patterns` cover.
pub(crate) fn covers(who: &Identity, patterns: &[String], right: Right) -> Result<(), Refusal> {
    match who {
        Identity::Anonymous => Err(Refusal::Unauthorized),
        Identity::Refused(fault) => Err(Refusal::BadToken(*fault)),
        Identity::Token(claims) if patterns.iter().all(|name| claims.grants(name, right)) => Ok(()),
        Identity::Token(_) => Err(Refusal::Denied),
    }
}

/// Whether `who` administers anything. Nothing of a body is read before that; what it names is looked at after.
fn administrator(who: &Identity) -> Result<(), Refusal> {
    covers(who, &[], Right::Admin)?;
    match who {
        Identity::Token(claims) if claims.allow.contains(&Right::Admin) => Ok(()),
        _ => Err(Refusal::Denied),
    }
}

pub(super) async fn whoami(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<WhoAmI>, Fault> {
    let (anonymous, caches, allow) = match who(&app, &headers) {
        Identity::Anonymous => (true, Vec::new(), Vec::new()),
        Identity::Refused(fault) => return Err(Refusal::BadToken(fault).into()),
        Identity::Token(claims) => (false, claims.caches.clone(), claims.allow.clone()),
    };
    Ok(Json(WhoAmI {
        anonymous,
        caches,
        allow,
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

pub(super) async fn caches(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<Vec<CacheView>>, Fault> {
    let who = who(&app, &headers);
    let views = work(&app, move |app| {
        let access = &app.services.access;
        let visible = access.caches(&who, Right::Pull);
        visible
            .iter()
            .map(|cache| access.cache_view(cache))
            .collect()
    })
    .await?;
    Ok(Json(views))
}

pub(super) async fn cache(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<CacheView>, Fault> {
    let who = who(&app, &headers);
    let cache = app.services.access.authorize(&who, &name, Right::Pull)?;
    let view = work(&app, move |app| app.services.access.cache_view(&cache)).await?;
    Ok(Json(view))
}

pub(super) async fn cache_create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CacheView>, Fault> {
    let who = who(&app, &headers);
    administrator(&who)?;
    let request: CacheCreate = small_json(&app, body).await?;
    // To share a domain is to share what is in it: that takes the right on both names.
    let mut names = vec![request.name.clone()];
    names.extend(request.domain.clone());
    // Its images may be called as some of the cache above.
    let above = app.services.access.parent(&request.name);
    names.extend(above.map(|cache| cache.name().to_owned()));
    covers(&who, &names, Right::Admin)?;
    let view = work(&app, move |app| {
        let access = &app.services.access;
        let cache = access.cache_create(&request)?;
        access.cache_view(&cache)
    })
    .await?;
    Ok(Json(view))
}

pub(super) async fn cache_configure(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CacheView>, Fault> {
    let who = who(&app, &headers);
    let cache = app.services.access.authorize(&who, &name, Right::Admin)?;
    let request: CacheConfigure = small_json(&app, body).await?;
    let view = work(&app, move |app| {
        let access = &app.services.access;
        let cache = access.cache_configure(&cache, &request)?;
        app.services.retention.reconfigured(&cache);
        access.cache_view(&cache)
    })
    .await?;
    Ok(Json(view))
}

pub(super) async fn cache_delete(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    let who = who(&app, &headers);
    let cache = app.services.access.authorize(&who, &name, Right::Admin)?;
    work(&app, move |app| app.services.access.cache_delete(&cache)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn tokens(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<Vec<TokenView>>, Fault> {
    let who = who(&app, &headers);
    covers(&who, &[], Right::Admin)?;
    let mut tokens = work(&app, |app| app.services.access.tokens().list()).await?;
    tokens.retain(|token| covers(&who, &token.caches, Right::Admin).is_ok());
    Ok(Json(tokens))
}

pub(super) async fn token_create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<TokenCreated>, Fault> {
    let who = who(&app, &headers);
    administrator(&who)?;
    let request: TokenCreate = small_json(&app, body).await?;
    covers(&who, &request.caches, Right::Admin)?;
    let created = work(&app, move |app| {
        app.services.access.tokens().create(&request)
    })
    .await?;
    Ok(Json(created))
}

pub(super) async fn token_revoke(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    let who = who(&app, &headers);
    covers(&who, &[], Right::Admin)?;
    let wanted = id.clone();
    let token = work(&app, move |app| app.services.access.tokens().get(&wanted)).await?;
    let may = token.is_some_and(|token| covers(&who, &token.caches, Right::Admin).is_ok());
    if !may {
        return Err(Fault::new(ApiErrorCode::NotFound, "no such token"));
    }
    work(&app, move |app| app.services.access.tokens().revoke(&id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn key_rotate(
    State(app): State<Arc<App>>,
    Query(query): Query<InCache>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CacheView>, Fault> {
    let who = who(&app, &headers);
    let access = &app.services.access;
    let cache = access.authorize(&who, &query.cache, Right::Admin)?;
    let request: Rotate = small_json(&app, body).await?;
    let view = work(&app, move |app| {
        let access = &app.services.access;
        let cache = access.rotate_key(&cache, request.overlap_seconds)?;
        access.cache_view(&cache)
    })
    .await?;
    Ok(Json(view))
}

pub(super) async fn token_key_rotate(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<TokenKeyRotated>, Fault> {
    // The key is everybody's.
    covers(&who(&app, &headers), &["*".to_owned()], Right::Admin)?;
    let request: Rotate = small_json(&app, body).await?;
    let until = work(&app, move |app| {
        let access = &app.services.access;
        access.rotate_token_key(request.overlap_seconds)
    })
    .await?;
    Ok(Json(TokenKeyRotated {
        old_tokens_until: rfc3339(until).unwrap_or_default(),
    }))
}

pub(super) async fn status(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<StatusAnswer>, Fault> {
    let who = who(&app, &headers);
    let access = &app.services.access;
    // The body says which cache is meant: who may read none is refused before it.
    match who {
        Identity::Token(_) => {}
        _ if !access.caches(&who, Right::Pull).is_empty() => {}
        Identity::Anonymous => return Err(Refusal::Unauthorized.into()),
        Identity::Refused(fault) => return Err(Refusal::BadToken(fault).into()),
    }
    let client = client(&who, peer);
    let query = json::<StatusQuery>(&app, body, STATUS_JSON_BYTES_MAX, &client).await?;
    let access = &app.services.access;
    let cache = access.authorize(&who, &query.value.cache, Right::Pull)?;
    let answer = work(&app, move |app| path_status(app, &cache, &query.value)).await?;
    Ok(Json(answer))
}

fn path_status(
    app: &App,
    cache: &Cache,
    query: &StatusQuery,
) -> Result<StatusAnswer, ServiceError> {
    if query.paths.len() > PATHS_PER_REQUEST_MAX {
        return Err(ServiceError::BadRequest(
            "too many paths in one request; send several".to_owned(),
        ));
    }
    let mut answer = StatusAnswer::default();
    for path in &query.paths {
        let base_name = path.rsplit('/').next().unwrap_or_default();
        let Some(hash) = base_name.get(..32) else {
            continue;
        };
        let store = &app.services.store;
        let Some(entry) = store.entry(cache.row.id, EntryKind::Narinfo, hash)? else {
            let evicted = app.services.retention.evicted_path(cache, hash)?;
            let evicted = evicted.map(super::retention::view);
            answer
                .evicted
                .extend(evicted.map(|evicted| (path.clone(), evicted)));
            continue;
        };
        let narinfo = NarInfo::parse(&String::from_utf8_lossy(&entry.value))?;
        let status = PathStatus {
            nar_size: narinfo.nar_size,
            stored_bytes: narinfo.file_size.unwrap_or_default(),
            published_at: entry.created_at,
        };
        answer.present.insert(path.clone(), status);
    }
    Ok(answer)
}

/// Which images are asked for.
#[derive(serde::Deserialize)]
pub(super) struct ImagesQuery {
    cache: String,
    image: Option<String>,
    /// So many at the most, those after `last`.
    n: Option<usize>,
    last: Option<String>,
}

pub(super) async fn images(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Query(query): Query<ImagesQuery>,
) -> Result<Response, Fault> {
    let who = who(&app, &headers);
    let access = &app.services.access;
    let cache = access.authorize(&who, &query.cache, Right::Pull)?;
    let client = client(&who, peer);
    let place = app.answers.enter(&client, 1).await;
    let place = place.map_err(|Busy| ServiceError::Busy)?;
    let asked = ImagesAsked {
        only: query.image,
        count: query.n,
        after: query.last,
    };
    let answer = work(&app, move |app| {
        let _place = place;
        let Images { views, mut lease } = app.services.registry.images(&cache, &asked, &client)?;
        let bytes = serde_json::to_vec(&views)?;
        drop(views);
        // A slow client holds what it has not taken yet.
        lease.shrink(lease.amount().saturating_sub(bytes.len() as u64));
        Ok(leased(bytes.into(), lease))
    });
    let media_type = [(http::header::CONTENT_TYPE, crate::app::JSON)];
    Ok((media_type, Body::from(answer.await?)).into_response())
}

pub(super) async fn stats(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<StatsView>, Fault> {
    // Figures over all domains would tell tenants of each other.
    covers(&who(&app, &headers), &["*".to_owned()], Right::Admin)?;
    let stats = work(&app, |app| Ok(app.services.store.stats()?)).await?;
    Ok(Json(StatsView {
        chunks: stats.chunks,
        chunk_raw_bytes: stats.chunk_raw_bytes,
        chunk_stored_bytes: stats.chunk_stored_bytes,
        blobs: stats.blobs,
        blob_identity_bytes: stats.blob_identity_bytes,
        packs: stats.packs,
        sessions: stats.sessions,
        time_behind_seconds: stats.time_behind_seconds,
    }))
}
