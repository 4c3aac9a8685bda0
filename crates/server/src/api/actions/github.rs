//! GitHub's REST about caches, for `gh cache` and what else speaks it: [`firn_formats::actions::github`].

use super::{Guest, guest, view};
use crate::api::{Fault, who};
use crate::app::{App, blocking, status};
use crate::query::parse_query;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use firn_formats::actions::github::{
    CacheList, CacheUsage, ListQuery, Resource, RestError, RestFault, RestPath, RetentionLimit,
    Sort, StorageLimit,
};
use firn_formats::admin::Right;
use firn_formats::push::ApiErrorCode;
use firn_services::actions::{Entry, Usage};
use firn_services::{Refusal, ServiceError};
use http::header::LINK;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use std::fmt::Write as _;
use std::sync::Arc;

const SECONDS_A_DAY: u64 = 24 * 3600;

/// A refusal.
struct Refused {
    status: u16,
    message: String,
}

impl Refused {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    fn not_found() -> Self {
        Self::new(404, "Not Found")
    }
}

impl From<RestFault> for Refused {
    fn from(fault: RestFault) -> Self {
        Self::new(422, fault.to_string())
    }
}

/// What somebody may not see is not there, as at GitHub.
impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthorized => Self::new(401, "Requires authentication"),
            Refusal::BadToken(fault) => Self::new(401, format!("Bad credentials: {fault}")),
            Refusal::Denied | Refusal::NotFound => Self::not_found(),
        }
    }
}

impl From<ServiceError> for Refused {
    fn from(error: ServiceError) -> Self {
        let status = error.code().status();
        if status >= 500 {
            tracing::error!(error = error.chain(), "request failed");
        }
        Self::new(status, error.public_message())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let error = RestError {
            message: self.message,
            status: self.status.to_string(),
        };
        (status(self.status), Json(error)).into_response()
    }
}

/// Whatever none of the routes is for.
pub(in crate::api) async fn handle(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Response {
    let (request, _) = request.into_parts();
    let path = request.uri.path().to_owned();
    match RestPath::parse(&path) {
        Ok(Some(path)) => match answer(&app, &request, path).await {
            Ok(response) => response,
            Err(refused) => refused.into_response(),
        },
        Ok(None) => Fault::new(ApiErrorCode::NotFound, "no such endpoint").into_response(),
        Err(fault) => Refused::from(fault).into_response(),
    }
}

async fn answer(app: &Arc<App>, request: &Parts, path: RestPath<'_>) -> Result<Response, Refused> {
    let right = match request.method {
        Method::GET | Method::HEAD => Right::Pull,
        Method::DELETE => Right::Delete,
        _ => return Err(Refused::not_found()),
    };
    let deletes = right == Right::Delete;
    let full_name = path.repository.to_string();
    let who = who(app, &request.headers);
    let name = path.repository.clone();
    let guest = match guest(app, &who, path.cache, path.repository, right) {
        // Who may see them is told the truth.
        Err(Refusal::Denied) if deletes => {
            super::guest(app, &who, path.cache, name, Right::Pull)?;
            return Err(Refused::new(
                403,
                "the token may list caches, and not delete them",
            ));
        }
        guest => guest?,
    };
    let query = parse_query(request.uri.query().unwrap_or_default());
    let list = ListQuery::of(query.iter().map(|(name, value)| (&**name, &**value)))?;
    match (path.resource, deletes) {
        (Resource::Entries, false) => {
            let (page, total) = listed(app, guest, list.clone()).await?;
            let mut response = Json(page).into_response();
            let url = format!("{}{}", app.base_url(&request.headers), request.uri.path());
            link(response.headers_mut(), &list, &url, &query, total);
            Ok(response)
        }
        (Resource::Entries, true) => delete(app, guest, Chosen::Named(list)).await,
        (Resource::Entry(id), true) => delete(app, guest, Chosen::Id(id)).await,
        (Resource::Entry(_), false) => Err(Refused::not_found()),
        (_, true) => Err(Refused::not_found()),
        (resource, false) => {
            let usage = work(app, move |app| {
                app.services.actions.usage(&guest.repository)
            })
            .await?;
            Ok(figures(resource, full_name, usage))
        }
    }
}

async fn work<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, Refused> {
    let app = app.clone();
    match blocking(move || work(&app)).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(ServiceError::WorkerFailed.into()),
    }
}

async fn listed(
    app: &Arc<App>,
    guest: Guest,
    query: ListQuery,
) -> Result<(CacheList, usize), Refused> {
    work(app, move |app| {
        let mut entries = app.services.actions.list(&guest.repository)?;
        entries
            .retain(|entry| query.takes(&entry.key, &entry.scope) && guest.may_read(&entry.scope));
        let rank = |entry: &Entry| match query.sort {
            Sort::LastAccessed => entry.used_at_ms,
            Sort::Created => entry.created_at,
            Sort::Size => i64::try_from(entry.size).unwrap_or(i64::MAX),
        };
        entries.sort_by_key(|entry| (rank(entry), entry.id));
        if !query.ascending {
            entries.reverse();
        }
        let total = entries.len();
        let page = query.page(entries);
        Ok((list(&page, total), total))
    })
    .await
}

fn list(entries: &[Entry], total: usize) -> CacheList {
    CacheList {
        total_count: total as u64,
        actions_caches: entries.iter().map(view::entry).collect(),
    }
}

fn link(
    headers: &mut HeaderMap,
    list: &ListQuery,
    url: &str,
    query: &[(String, String)],
    total: usize,
) {
    let others: Vec<String> = query
        .iter()
        .filter(|(name, _)| name != "page")
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    let link = list.link(url, &others.join("&"), total);
    if let Some(value) = link.and_then(|link| HeaderValue::try_from(link).ok()) {
        headers.insert(LINK, value);
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Which entries are to be deleted.
enum Chosen {
    Id(u64),
    /// By key, and by ref if it is given.
    Named(ListQuery),
}

async fn delete(app: &Arc<App>, guest: Guest, chosen: Chosen) -> Result<Response, Refused> {
    let by_id = matches!(chosen, Chosen::Id(_));
    if let Chosen::Named(query) = &chosen
        && query.key.is_none()
    {
        return Err(Refused::new(422, "key is missing"));
    }
    let gone = work(app, move |app| {
        let actions = &app.services.actions;
        let mut entries = actions.list(&guest.repository)?;
        entries.retain(|entry| {
            let chosen = match &chosen {
                Chosen::Id(id) => entry.id == *id,
                Chosen::Named(query) => {
                    query.key.as_ref() == Some(&entry.key) && query.takes(&entry.key, &entry.scope)
                }
            };
            chosen && guest.may_write(&entry.scope)
        });
        let ids: Vec<u64> = entries.iter().map(|entry| entry.id).collect();
        actions.delete(&guest.repository, &ids)
    })
    .await?;
    match (gone.is_empty(), by_id) {
        (true, _) => Err(Refused::not_found()),
        (false, true) => Ok(StatusCode::NO_CONTENT.into_response()),
        (false, false) => Ok(Json(list(&gone, gone.len())).into_response()),
    }
}

fn figures(resource: Resource, full_name: String, usage: Usage) -> Response {
    match resource {
        Resource::RetentionLimit => Json(RetentionLimit {
            max_cache_retention_days: usage.keep_for_seconds.div_ceil(SECONDS_A_DAY),
        })
        .into_response(),
        Resource::StorageLimit => Json(StorageLimit {
            max_cache_size_gb: usage.quota_bytes.div_ceil(1 << 30),
        })
        .into_response(),
        _ => Json(CacheUsage {
            full_name,
            active_caches_size_in_bytes: usage.bytes,
            active_caches_count: usage.entries,
            stored_bytes: usage.stored_bytes,
            quota_bytes: usage.quota_bytes,
        })
        .into_response(),
    }
}
