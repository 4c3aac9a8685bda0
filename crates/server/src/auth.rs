//! Credentials: Bearer, or Basic whose password is the token (netrc, docker login).

use base64::Engine as _;
use firn_services::{Access, Identity};
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// The token a request brings. Malformed credentials are an empty token, which nobody has.
pub(crate) fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?;
    let text = value.to_str().unwrap_or_default();
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Some(String::new());
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(rest)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default();
    let password = decoded.split_once(':').map_or("", |(_, password)| password);
    Some(password.to_owned())
}

/// Who a request comes from.
pub(crate) fn identify(access: &Access, headers: &HeaderMap) -> Identity {
    if !headers.contains_key(AUTHORIZATION) {
        return Identity::Anonymous;
    }
    access.identify(token(headers).as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials() {
        for (header, expected) in [
            ("Bearer abc", "abc"),
            ("bearer  abc ", "abc"),
            ("Basic dXNlcjpzZTpjcmV0", "se:cret"),
            ("Basic !!!", ""),
            ("Digest x", ""),
            ("", ""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, header.parse().unwrap());
            assert_eq!(token(&headers).as_deref(), Some(expected), "{header}");
        }
        assert_eq!(token(&HeaderMap::new()), None);
    }
}
