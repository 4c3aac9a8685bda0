//! Tokens of a job from GitHub, exchanged for tokens of the Actions cache: `POST /api/v1/actions/oidc`.
//!
//! The issuer's keys are fetched when they are needed, kept for a while, and looked for again when a token names
//! another, but not at anybody's will: once in a while.

use super::{ADMIN_JSON_BYTES_MAX, Fault, json};
use crate::app::{App, blocking};
use crate::auth::Peer;
use axum::body::Body;
use axum::extract::State;
use axum::{Extension, Json};
use firn_formats::admin::TokenCreated;
use firn_formats::push::ApiErrorCode;
use firn_services::access::oidc::{self, Issuer, JwkSet, OidcFault};
use firn_services::budget::Client;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long keys are taken for good.
const KEYS_FOR: Duration = Duration::from_secs(3600);
/// How long they go on being taken where newer ones cannot be had.
const KEYS_WITHOUT_NEWS_FOR: Duration = Duration::from_secs(24 * 3600);
/// How soon they are looked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How long an issuer may take.
const FETCH_SECONDS_MAX: u64 = 10;
const KEYS_BYTES_MAX: u64 = 1 << 20;

#[derive(serde::Deserialize)]
struct Exchange {
    token: String,
}

struct Fetched {
    /// When they were last looked for.
    at: Instant,
    /// The last that came, and when.
    keys: Option<(Instant, Arc<JwkSet>)>,
}

/// Keys of issuers.
#[derive(Default)]
pub(crate) struct Keys(Mutex<HashMap<String, Fetched>>);

impl Keys {
    /// An issuer's keys, `fresh` ones if that may be. Whoever asks meanwhile waits.
    fn of(&self, issuer: &Issuer, fresh: bool) -> Option<Arc<JwkSet>> {
        self.at(issuer, fresh, Instant::now(), fetch)
    }

    fn at(
        &self,
        issuer: &Issuer,
        fresh: bool,
        now: Instant,
        fetch: impl FnOnce(&Issuer) -> Result<JwkSet, String>,
    ) -> Option<Arc<JwkSet>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |at: Instant, span: Duration| now.saturating_duration_since(at) < span;
        let mut good = None;
        if let Some(found) = known.get(&issuer.issuer) {
            let kept = found.keys.as_ref();
            good = kept.filter(|(at, _)| within(*at, KEYS_WITHOUT_NEWS_FOR));
            let young = good.is_some_and(|(at, _)| within(*at, KEYS_FOR));
            if (young && !fresh) || within(found.at, AGAIN_AFTER) {
                return good.map(|(_, keys)| keys.clone());
            }
        }
        let keys = match fetch(issuer) {
            Ok(keys) => Some((now, Arc::new(keys))),
            Err(error) => {
                let kept = good.is_some();
                tracing::error!(issuer = issuer.issuer, error, kept, "the issuer's keys");
                good.cloned()
            }
        };
        let answer = keys.as_ref().map(|(_, keys)| keys.clone());
        known.insert(issuer.issuer.clone(), Fetched { at: now, keys });
        answer
    }
}

/// Reads a URL or a file.
fn fetch(issuer: &Issuer) -> Result<JwkSet, String> {
    let keys = issuer
        .keys
        .clone()
        .unwrap_or_else(|| format!("{}/.well-known/jwks", issuer.issuer.trim_end_matches('/')));
    let bytes = if keys.starts_with("http://") || keys.starts_with("https://") {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(FETCH_SECONDS_MAX)))
            .build();
        let mut answer = config
            .new_agent()
            .get(&keys)
            .call()
            .map_err(|error| format!("{keys}: {error}"))?;
        let body = answer.body_mut().with_config().limit(KEYS_BYTES_MAX);
        body.read_to_vec()
            .map_err(|error| format!("{keys}: {error}"))?
    } else {
        std::fs::read(&keys).map_err(|error| format!("{keys}: {error}"))?
    };
    serde_json::from_slice(&bytes).map_err(|error| format!("{keys}: {error}"))
}

fn exchanged(app: &App, token: &str) -> Result<TokenCreated, Fault> {
    let refuse = |fault: &OidcFault| {
        let code = match fault {
            OidcFault::NotConfigured => ApiErrorCode::NotFound,
            OidcFault::NoRule => ApiErrorCode::Denied,
            _ => ApiErrorCode::Unauthorized,
        };
        Fault::new(code, fault.to_string())
    };
    let issuer = oidc::issuer(&app.config.actions_oidc, token).map_err(|fault| refuse(&fault))?;
    let unavailable = || Fault::new(ApiErrorCode::Busy, "the issuer's keys cannot be had now");
    let keys = app.oidc_keys.of(issuer, false).ok_or_else(unavailable)?;
    let request = match oidc::exchange(issuer, &keys, token) {
        // It may have new ones.
        Err(OidcFault::Key) => {
            let keys = app.oidc_keys.of(issuer, true).ok_or_else(unavailable)?;
            oidc::exchange(issuer, &keys, token)
        }
        exchanged => exchanged,
    };
    let request = request.map_err(|fault| refuse(&fault))?;
    Ok(app.services.access.tokens().issue(&request)?)
}

pub(super) async fn exchange(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<TokenCreated>, Fault> {
    let client = Client::Stranger(peer.0);
    let request = json::<Exchange>(&app, body, ADMIN_JSON_BYTES_MAX, &client).await?;
    let done = blocking(move || exchanged(&app, &request.value.token)).await;
    match done {
        Ok(exchanged) => exchanged.map(Json),
        Err(error) => Err(Fault::new(ApiErrorCode::Internal, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s22_a_failed_refresh_keeps_good_keys_for_a_day() {
        let issuer: Issuer =
            serde_json::from_str(r#"{"issuer": "https://i", "audience": "a", "rules": []}"#)
                .unwrap();
        let keys = Keys::default();
        let start = Instant::now();
        let good = |_: &Issuer| Ok(JwkSet { keys: Vec::new() });
        let down = |_: &Issuer| Err("down".to_owned());
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(keys.at(&issuer, false, start, good).is_some());
        assert!(keys.at(&issuer, true, after(60), down).is_some());
        assert!(keys.at(&issuer, false, after(61), down).is_some());
        assert!(keys.at(&issuer, false, after(2 * 3600), down).is_some());
        // They do not live on by failures.
        assert!(keys.at(&issuer, false, after(25 * 3600), down).is_none());
        assert!(keys.at(&issuer, false, after(26 * 3600), good).is_some());
    }
}
