//! Failures of the API: `{"error": {code, message, hint}}`.

use crate::app::status;
use axum::Json;
use axum::response::{IntoResponse, Response};
use firn_formats::push::{ApiError, ApiErrorCode};
use firn_services::{Refusal, ServiceError};
use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;

/// A failure.
#[derive(Debug)]
pub(crate) struct Fault(ApiError);

#[derive(serde::Serialize)]
struct Body {
    error: ApiError,
}

impl Fault {
    pub(crate) fn new(code: ApiErrorCode, message: impl Into<String>) -> Self {
        Self(ApiError {
            code,
            message: message.into(),
            hint: None,
        })
    }

    pub(super) fn with_hint(mut self, hint: &str) -> Self {
        self.0.hint = Some(hint.to_owned());
        self
    }
}

impl From<ServiceError> for Fault {
    fn from(error: ServiceError) -> Self {
        let code = error.code();
        if code.status() >= 500 {
            tracing::error!(error = error.chain(), "request failed");
        }
        let fault = Self::new(code, error.public_message());
        match code {
            ApiErrorCode::MissingReference => fault.with_hint(
                "push the whole closure, or declare the upstream cache that has the rest",
            ),
            ApiErrorCode::QuotaExceeded => fault.with_hint(
                "`firn cache show` tells what the cache holds; an admin may raise its quota by: \
                 firn cache configure NAME --quota SIZE",
            ),
            _ => fault,
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Unauthorized => Self::new(ApiErrorCode::Unauthorized, message)
                .with_hint("set FIRN_TOKEN, or run: firn login URL"),
            Refusal::BadToken(_) => Self::new(ApiErrorCode::Unauthorized, message)
                .with_hint("ask for a new token, then run: firn login URL"),
            Refusal::Denied => Self::new(ApiErrorCode::Denied, message)
                .with_hint("a token is made for caches and rights by: firn token create"),
            Refusal::NotFound => Self::new(ApiErrorCode::NotFound, message)
                .with_hint("a cache is made by: firn cache create NAME"),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let code = self.0.code;
        let mut response = (status(code.status()), Json(Body { error: self.0 })).into_response();
        if code == ApiErrorCode::Unauthorized {
            response.headers_mut().insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"Firn\""),
            );
        }
        response
    }
}
