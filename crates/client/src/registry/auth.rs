//! Registries' challenges: Basic, or a Bearer token from a token endpoint.

use crate::{
    credentials::Credential,
    error::{ClientError, Result},
    http::{Call, Http, encode_query},
};
use serde::Deserialize;

/// What a `WWW-Authenticate` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer(Bearer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    realm: String,
    service: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Challenge {
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest);
        let find = |name: &str| {
            parameters
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.clone())
        };
        Some(Self::Bearer(Bearer {
            realm: find("realm")?,
            service: find("service"),
        }))
    }
}

/// `key="value", key=value`: commas inside quotes belong to the value.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((key.trim().to_owned(), value.trim().to_owned()));
        rest = next.trim_start_matches([',', ' ']);
    }
    found
}

impl Bearer {
    /// Exchanges the credential, if there is one, for a token; gives the header's value.
    pub(super) fn token(
        &self,
        http: &Http,
        scopes: &[String],
        credential: Option<&Credential>,
    ) -> Result<String> {
        let separator = if self.realm.contains('?') { '&' } else { '?' };
        let scopes = scopes.iter().map(|scope| format!("scope={}", encode_query(scope)));
        let scopes = scopes.collect::<Vec<_>>().join("&");
        let mut url = format!("{}{separator}{scopes}", self.realm);
        if let Some(service) = &self.service {
            url.push_str(&format!("&service={}", encode_query(service)));
        }
        let header = credential.map(Credential::basic_header);
        let answer: TokenAnswer = http
            .send(&Call::get(&url).authorization(header.as_deref()))?
            .accept()?
            .json()?;
        let token = [answer.token, answer.access_token]
            .into_iter()
            .find(|token| !token.is_empty())
            .ok_or(ClientError::BadAnswer {
                url,
                what: "it holds no token".to_owned(),
            })?;
        Ok(format!("Bearer {token}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        assert_eq!(
            Challenge::parse(r#"Basic realm="x""#),
            Some(Challenge::Basic)
        );
        assert_eq!(
            Challenge::parse(
                r#"Bearer realm="https://a/token?x=1",service="reg, one",scope="repository:a:pull,push""#
            ),
            Some(Challenge::Bearer(Bearer {
                realm: "https://a/token?x=1".to_owned(),
                service: Some("reg, one".to_owned()),
            }))
        );
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer"), None);
        assert!(Challenge::parse("Bearer realm=").is_some());
    }
}
