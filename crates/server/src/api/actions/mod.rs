//! The Actions cache for people: what is there, what was looked for, what went.
//!
//! A job's token reads its own repository, and of it what its scopes let it read; it deletes and replaces where it
//! may save. Other tokens do by their rights on the cache. What a public cache's Actions entries are called is not
//! public.

pub(super) mod github;
mod view;

use super::{Fault, admin::covers, small_json, who, work};
use crate::app::App;
use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use firn_formats::actions::{NameError, RepositoryName, Scopes};
use firn_formats::admin::{
    ActionsHistory, ActionsReplace, ActionsReplaceable, ActionsRepositoryView, Right,
};
use firn_formats::push::ApiErrorCode;
use firn_services::access::MAIN_CACHE;
use firn_services::actions::{Entry, Looked, MissReason, Outcome, Repository};
use firn_services::{Cache, Identity, Refusal};
use http::HeaderMap;
use std::sync::Arc;

/// Look-ups and evictions in one answer, if it is not said how many, and at most.
const HISTORY_DEFAULT: usize = 1000;
const HISTORY_MAX: usize = 10_000;

/// A repository, and what of it may be seen and changed.
struct Guest {
    repository: Repository,
    /// Of a job's token; others see and change all.
    scopes: Option<Scopes>,
}

impl Guest {
    fn may_read(&self, scope: &str) -> bool {
        let scopes = self.scopes.as_ref();
        scopes.is_none_or(|scopes| scopes.readable().any(|name| name == scope))
    }

    /// A look-up without the names of scopes that may not be read.
    fn blanked(&self, mut looked: Looked) -> Looked {
        if let Outcome::Hit { scope, .. } | Outcome::Miss(MissReason::OtherScope { scope }) =
            &mut looked.outcome
            && !self.may_read(scope)
        {
            scope.clear();
        }
        looked
    }

    fn may_write(&self, scope: &str) -> bool {
        let scopes = self.scopes.as_ref();
        scopes.is_none_or(|scopes| scopes.writable() == Some(scope))
    }
}

/// The repository of a cache, if `who` has `right` there. Without `cache` it is the one that a token is for, else
/// `main`.
fn guest(
    app: &App,
    who: &Identity,
    cache: Option<&str>,
    name: RepositoryName,
    right: Right,
) -> Result<Guest, Refusal> {
    if let Identity::Token(claims) = who
        && claims.actions().is_some()
        && claims.allow.is_empty()
    {
        let (repository, scopes) = app.services.access.actions(who, cache)?;
        return match repository.name == name {
            true => Ok(Guest {
                repository,
                scopes: Some(scopes),
            }),
            false => Err(Refusal::Denied),
        };
    }
    let cache = granted(app, who, cache, right)?;
    Ok(Guest {
        repository: Repository { cache, name },
        scopes: None,
    })
}

/// A cache on which a token itself gives a right: that anybody may pull from it is not enough.
fn granted(
    app: &App,
    who: &Identity,
    cache: Option<&str>,
    right: Right,
) -> Result<Arc<Cache>, Refusal> {
    let cache = cache.unwrap_or_else(|| own_cache(who));
    covers(who, &[cache.to_owned()], right)?;
    app.services.access.authorize(who, cache, right)
}

fn own_cache(who: &Identity) -> &str {
    match who {
        Identity::Token(claims) => match claims.caches.as_slice() {
            [one] if !one.contains('*') => one,
            _ => MAIN_CACHE,
        },
        _ => MAIN_CACHE,
    }
}

/// A repository in a query.
#[derive(serde::Deserialize)]
pub(super) struct Of {
    cache: Option<String>,
    repository: Option<String>,
    key: Option<String>,
    since: Option<i64>,
    limit: Option<usize>,
}

impl Of {
    fn guest(&self, app: &App, who: &Identity, right: Right) -> Result<Guest, Fault> {
        let name = self.repository.as_deref().unwrap_or_default();
        let name = RepositoryName::parse(name).map_err(bad_name)?;
        Ok(guest(app, who, self.cache.as_deref(), name, right)?)
    }
}

fn bad_name(error: NameError) -> Fault {
    Fault::new(ApiErrorCode::BadRequest, error.to_string())
}

pub(super) async fn repositories(
    State(app): State<Arc<App>>,
    Query(query): Query<Of>,
    headers: HeaderMap,
) -> Result<Json<Vec<ActionsRepositoryView>>, Fault> {
    let who = who(&app, &headers);
    let cache = granted(&app, &who, query.cache.as_deref(), Right::Pull)?;
    let views = work(&app, move |app| {
        let actions = &app.services.actions;
        let names = actions.repositories(&cache)?;
        let views = names.into_iter().map(|name| {
            let cache = cache.clone();
            let repository = Repository { cache, name };
            Ok(view::repository(&repository, actions.usage(&repository)?))
        });
        views.collect()
    })
    .await?;
    Ok(Json(views))
}

pub(super) async fn history(
    State(app): State<Arc<App>>,
    Query(query): Query<Of>,
    headers: HeaderMap,
) -> Result<Json<ActionsHistory>, Fault> {
    let guest = query.guest(&app, &who(&app, &headers), Right::Pull)?;
    let history = work(&app, move |app| {
        let limit = query.limit.unwrap_or(HISTORY_DEFAULT).min(HISTORY_MAX);
        let wanted = |key: &str, at: i64| {
            query.key.as_ref().is_none_or(|wanted| wanted == key)
                && query.since.is_none_or(|since| at >= since)
        };
        let actions = &app.services.actions;
        let looked = actions.looked(&guest.repository, HISTORY_MAX)?;
        let gone = actions.gone(&guest.repository, HISTORY_MAX)?;
        let looked = looked.into_iter();
        let looked =
            looked.filter(|looked| wanted(&looked.key, looked.at) && guest.may_read(&looked.scope));
        let gone = gone.into_iter();
        let gone = gone.filter(|gone| wanted(&gone.key, gone.at) && guest.may_read(&gone.scope));
        Ok(ActionsHistory {
            lookups: looked
                .take(limit)
                .map(|looked| guest.blanked(looked))
                .map(view::looked)
                .collect(),
            gone: gone.take(limit).map(view::gone).collect(),
        })
    })
    .await?;
    Ok(Json(history))
}

pub(super) async fn replace(
    State(app): State<Arc<App>>,
    Query(query): Query<Of>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ActionsReplaceable>, Fault> {
    let who = who(&app, &headers);
    let guest = query.guest(&app, &who, Right::Delete)?;
    let request: ActionsReplace = small_json(&app, body).await?;
    let (entries, until) = work(&app, move |app| {
        let actions = &app.services.actions;
        let mut entries = actions.list(&guest.repository)?;
        entries.retain(|entry| is_meant(entry, &request) && guest.may_write(&entry.scope));
        let until = actions.let_replace(&guest.repository, &entries)?;
        Ok((entries.len() as u64, until))
    })
    .await?;
    match entries {
        0 => Err(Fault::new(ApiErrorCode::NotFound, "no such entry")),
        _ => Ok(Json(ActionsReplaceable { entries, until })),
    }
}

fn is_meant(entry: &Entry, request: &ActionsReplace) -> bool {
    let scope = request.scope.as_ref();
    entry.key == request.key && scope.is_none_or(|scope| *scope == entry.scope)
}
