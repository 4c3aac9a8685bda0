//! What a page of another site may not do in a browser that has credentials for this server: such a page can send
//! requests, but of few kinds, and browsers say where they come from.

use super::Fault;
use axum::response::{IntoResponse as _, Response};
use firn_formats::push::ApiErrorCode;
use http::header::CONTENT_TYPE;
use http::{HeaderName, Method, Request, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What administers, below `/api/v1/`. Its bodies are JSON.
const ADMINISTRATION: [&str; 8] = [
    "caches",
    "tokens",
    "roots",
    "evict",
    "keys",
    "gc",
    "check",
    "actions/replace",
];

/// The answer to a request that a foreign page may have sent; none for others.
pub(crate) fn refused(request: &Request<Incoming>) -> Option<Response> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let header = |name: HeaderName| request.headers().get(name)?.to_str().ok();
    if let Some(site) = header(SEC_FETCH_SITE)
        && !matches!(site, "same-origin" | "none")
    {
        let what = "a page of another site may change nothing here";
        return Some(Fault::new(ApiErrorCode::Denied, what).into_response());
    }
    let is_json = header(CONTENT_TYPE).is_some_and(|media_type| {
        let essence = media_type.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    });
    if is_json || request.body().is_end_stream() || !administers(request.uri().path()) {
        return None;
    }
    let what = "the body's type is not JSON";
    let fault = Fault::new(ApiErrorCode::BadRequest, what)
        .with_hint("send the header Content-Type: application/json");
    let mut response = fault.into_response();
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Some(response)
}

fn administers(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/api/v1/") else {
        return false;
    };
    ADMINISTRATION.iter().any(|part| {
        let below = rest.strip_prefix(part);
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    })
}
