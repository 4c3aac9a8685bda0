//! Credentials: Bearer, or Basic whose password is the token (netrc, docker login).

use firn_services::{Access, Identity};
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// The token a request brings. Malformed credentials are an empty token, which nobody has.
pub(crate) fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?;
    Some(firn_formats::http::token(
        value.to_str().unwrap_or_default(),
    ))
}

/// Who a request comes from.
pub(crate) fn identify(access: &Access, headers: &HeaderMap) -> Identity {
    if !headers.contains_key(AUTHORIZATION) {
        return Identity::Anonymous;
    }
    access.identify(token(headers).as_deref())
}
