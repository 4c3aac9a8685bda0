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
    at: Instant,
    keys: Option<Arc<JwkSet>>,
}

/// Keys of issuers.
#[derive(Default)]
pub(crate) struct Keys(Mutex<HashMap<String, Fetched>>);

impl Keys {
    /// An issuer's keys, `fresh` ones if that may be. Whoever asks meanwhile waits.
    fn of(&self, issuer: &Issuer, fresh: bool) -> Option<Arc<JwkSet>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&issuer.issuer) {
            let age = found.at.elapsed();
            let good = found.keys.is_some() && age < KEYS_FOR && !fresh;
            if good || age < AGAIN_AFTER {
                return found.keys.clone();
            }
        }
        let keys = match fetch(issuer) {
            Ok(keys) => Some(Arc::new(keys)),
            Err(error) => {
                tracing::error!(issuer = issuer.issuer, error, "the issuer's keys");
                None
            }
        };
        let at = Instant::now();
        let fetched = Fetched {
            at,
            keys: keys.clone(),
        };
        known.insert(issuer.issuer.clone(), fetched);
        keys
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
