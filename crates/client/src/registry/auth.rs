//! Registries' challenges: Basic, or a Bearer token from a token endpoint.

use crate::{
    credentials::Credential,
    error::{ClientError, Result},
    http::{Call, Http, encode_query},
};
use serde::Deserialize;
use ureq::http::Method;

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
    /// Refuses a token endpoint that would have credentials sent more openly than the registry has them sent. One
    /// on another host is usual: ghcr.io's is on its own, Docker Hub's is not.
    pub(super) fn check(&self, registry: &str) -> Result<()> {
        let is = |text: &str, scheme: &str| {
            text.get(..scheme.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
        };
        if is(&self.realm, "https://") || is(&self.realm, "http://") && is(registry, "http://") {
            return Ok(());
        }
        Err(ClientError::BadAnswer {
            url: registry.to_owned(),
            what: format!(
                "it asks for credentials to be sent to {}, which is not https",
                self.realm
            ),
        })
    }

    /// Exchanges the credential, if there is one, for a token; gives the header's value.
    pub(super) fn token(
        &self,
        http: &Http,
        scopes: &[String],
        credential: Option<&Credential>,
    ) -> Result<String> {
        if let Some(Credential::Token(identity)) = credential
            && let Some(token) = self.refreshed(http, scopes, identity)?
        {
            return Ok(format!("Bearer {token}"));
        }
        let separator = if self.realm.contains('?') { '&' } else { '?' };
        let scopes = scopes
            .iter()
            .map(|scope| format!("scope={}", encode_query(scope)));
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
        let token = answer.token().ok_or(ClientError::BadAnswer {
            url,
            what: "it holds no token".to_owned(),
        })?;
        Ok(format!("Bearer {token}"))
    }

    /// What docker's config calls an identity token is exchanged by OAuth 2 (distribution's "Token Authentication
    /// Specification", POST). An endpoint that does not know that is asked in the other way, with the token as a
    /// password.
    fn refreshed(&self, http: &Http, scopes: &[String], identity: &str) -> Result<Option<String>> {
        let mut form = format!(
            "grant_type=refresh_token&client_id=firn&scope={}&refresh_token={}",
            encode_query(&scopes.join(" ")),
            encode_query(identity)
        );
        if let Some(service) = &self.service {
            form.push_str(&format!("&service={}", encode_query(service)));
        }
        let call = Call::new(Method::POST, &self.realm).body(FORM, form.as_bytes());
        let answer = http.send(&call)?;
        if answer.status() != 200 {
            return Ok(None);
        }
        Ok(answer
            .json::<TokenAnswer>()
            .ok()
            .and_then(TokenAnswer::token))
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

impl TokenAnswer {
    fn token(self) -> Option<String> {
        let mut both = [self.token, self.access_token].into_iter();
        both.find(|token| !token.is_empty())
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

    #[test]
    fn s2_a_realm_in_plain_http_is_refused_by_a_registry_in_https() {
        let refused = |registry: &str, realm: &str| {
            let realm = realm.to_owned();
            let bearer = Bearer {
                realm,
                service: None,
            };
            bearer.check(registry).is_err()
        };
        assert!(!refused("https://ghcr.io", "https://ghcr.io/token"));
        assert!(!refused(
            "https://registry-1.docker.io",
            "https://auth.docker.io/token"
        ));
        assert!(!refused(
            "http://127.0.0.1:5000",
            "http://127.0.0.1:5001/auth"
        ));
        for realm in [
            "http://ghcr.io/token",
            "HTTP://x/",
            "file:///etc/x",
            "token",
            "",
        ] {
            assert!(refused("https://ghcr.io", realm), "{realm}");
        }
    }

    /// Answers one request with a status and a body; gives the request.
    fn one_answer(
        answers: &[(u16, &'static str)],
    ) -> (String, std::thread::JoinHandle<Vec<String>>) {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let realm = format!("http://{}/token", listener.local_addr().expect("a port"));
        let answers = answers.to_vec();
        let served = std::thread::spawn(move || {
            let serve = |(status, body): (u16, &str)| {
                let (mut client, _) = listener.accept().expect("a client");
                let mut request = vec![0; 64 << 10];
                let count = client.read(&mut request).expect("a request");
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n");
                write!(client, "{head}Connection: close\r\n\r\n{body}").expect("an answer");
                String::from_utf8_lossy(&request[..count]).into_owned()
            };
            answers.into_iter().map(serve).collect()
        });
        (realm, served)
    }

    #[test]
    fn identity_tokens_are_exchanged_or_sent_as_a_password() {
        let exchange = |answers: &[(u16, &'static str)]| {
            let (realm, served) = one_answer(answers);
            let bearer = Bearer {
                realm,
                service: Some("r.example".to_owned()),
            };
            let credential = Credential::Token("id+1".to_owned());
            let http = Http::new(1).expect("http");
            let scopes = [
                "repository:a:pull".to_owned(),
                "repository:b:pull".to_owned(),
            ];
            let token = bearer.token(&http, &scopes, Some(&credential));
            (
                token.expect("a token"),
                served.join().expect("the requests"),
            )
        };
        let (token, asked) = exchange(&[(200, r#"{"access_token":"t"}"#)]);
        assert_eq!(token, "Bearer t");
        assert!(asked[0].starts_with("POST /token "), "{}", asked[0]);
        let (token, asked) = exchange(&[(405, ""), (200, r#"{"token":"u"}"#)]);
        assert_eq!(token, "Bearer u");
        let get = asked[1].to_ascii_lowercase();
        assert!(
            get.starts_with("get /token?scope=") && get.contains("&scope="),
            "{get}"
        );
        assert!(get.contains("authorization: basic "), "{get}");
    }
}
