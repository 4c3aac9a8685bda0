//! The token endpoint: Basic credentials, or none, for a short-lived Bearer token.

use super::{Answer, Call, Failure};
use crate::app::{JSON, respond};
use crate::auth::client;
use crate::query::parse_query;
use crate::upload::gather;
use firn_formats::admin::Right;
use firn_services::registry::RegistryError;
use firn_services::{Identity, Refusal};
use http::StatusCode;
use hyper::body::Incoming;

/// Life of a token from here, in seconds: longer than any one upload should take, since the
/// client cannot change it under way.
const TOKEN_SECONDS: u64 = 3600;
const FORM_BYTES_MAX: usize = 64 << 10;

/// The caches and rights that scopes ask for and `who` has.
fn granted(call: &Call, who: &Identity, scopes: &[String]) -> (Vec<String>, Vec<Right>) {
    let mut caches = Vec::new();
    let mut rights = Vec::new();
    let scopes = scopes.iter().flat_map(|scope| scope.split_whitespace());
    for scope in scopes {
        let mut parts = scope.splitn(3, ':');
        let (Some("repository"), Some(name), Some(actions)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let Ok((cache, _)) = call.app.services.registry.split_name(who, name) else {
            continue;
        };
        for action in actions.split(',') {
            let asked: &[Right] = match action {
                "pull" => &[Right::Pull],
                // Who may only create gets that: clients know no such word.
                "push" => &[Right::Create, Right::Push],
                "delete" => &[Right::Delete],
                "*" => &[Right::Pull, Right::Create, Right::Push, Right::Delete],
                _ => &[],
            };
            let Identity::Token(claims) = who else {
                continue;
            };
            for right in asked {
                if claims.grants(&cache, *right) {
                    if !caches.contains(&cache) {
                        caches.push(cache.clone());
                    }
                    if !rights.contains(right) {
                        rights.push(*right);
                    }
                }
            }
        }
    }
    // A product of caches and rights may give more than was asked, never more than was had:
    // what of it the parent lacks is taken out.
    rights.retain(|right| match who {
        Identity::Token(claims) => caches.iter().all(|cache| claims.grants(cache, *right)),
        _ => false,
    });
    (caches, rights)
}

/// GET, or POST of a form with `password` or `refresh_token` (OAuth2 as docker speaks it).
pub(super) async fn issue(call: &Call, body: Incoming) -> Answer {
    let form = if call.method == http::Method::POST {
        let (pace, gate) = (call.app.pace(), &call.app.memory);
        let client = client(&call.who, call.peer);
        let form = gather(body, (FORM_BYTES_MAX, 1), pace, gate, &client).await;
        let bytes = form.map(|form| form.bytes).unwrap_or_default();
        parse_query(&String::from_utf8_lossy(&bytes))
    } else {
        Vec::new()
    };
    let secret = form
        .iter()
        .find(|(key, _)| key == "password" || key == "refresh_token")
        .map(|(_, value)| value.as_str());
    let who = match (&call.who, secret) {
        (Identity::Anonymous, Some(secret)) => call.app.services.access.identify(Some(secret)),
        (who, _) => who.clone(),
    };
    let parent = match &who {
        Identity::Refused(fault) => {
            return Ok(call.unauthorized(Refusal::BadToken(*fault), None));
        }
        Identity::Anonymous => None,
        Identity::Token(claims) => Some(claims.clone()),
    };
    let scopes: Vec<String> = call
        .query
        .iter()
        .chain(&form)
        .filter(|(key, _)| key == "scope")
        .map(|(_, value)| value.clone())
        .collect();
    let (caches, rights) = granted(call, &who, &scopes);
    let (token, claims) = call
        .app
        .services
        .access
        .tokens()
        .exchange(parent.as_deref(), caches, rights, TOKEN_SECONDS)
        .map_err(|error| Failure::Registry(RegistryError::from(error)))?;
    let seconds = claims
        .exp
        .map_or(TOKEN_SECONDS, |exp| exp.saturating_sub(claims.iat));
    let issued = time_text(claims.iat);
    let body = serde_json::json!({
        "token": token,
        "access_token": token,
        "expires_in": seconds,
        "issued_at": issued,
    });
    Ok(respond(StatusCode::OK, JSON, body.to_string()))
}

fn time_text(seconds: u64) -> String {
    firn_services::access::token::rfc3339(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_come_apart() {
        assert_eq!(
            parse_query("scope=repository%3Amain%2Fapp%3Apull&a=b+c&d&x=%zz"),
            [
                ("scope".to_owned(), "repository:main/app:pull".to_owned()),
                ("a".to_owned(), "b c".to_owned()),
                ("d".to_owned(), String::new()),
                ("x".to_owned(), "%zz".to_owned()),
            ]
        );
    }
}
