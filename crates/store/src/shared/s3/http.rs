//! HTTP for the S3 client: by the program's own client, so that there is one TLS stack and one set of roots.

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use ureq::http::{Method, Request};
use ureq::{Agent, Body};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Of an answer's head, and of a whole body of at most some MiB either way.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
const BODY_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs requests on blocking threads, and counts them.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) agent: Agent,
    pub(super) requests: Arc<AtomicU64>,
    /// Longest body that is read, in bytes.
    pub(super) body_bytes_max: u64,
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let connector = self.clone();
        self.requests.fetch_add(1, Ordering::Relaxed);
        let run = move || connector.run(Request::from_parts(parts, body));
        match tokio::task::spawn_blocking(run).await {
            Ok(answer) => answer.map_err(|error| HttpError::new(kind_of(&error), error)),
            Err(error) => Err(HttpError::new(HttpErrorKind::Unknown, error)),
        }
    }
}

impl Connector {
    fn run(&self, request: Request<Bytes>) -> Result<HttpResponse, ureq::Error> {
        let bodiless = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::DELETE
        );
        let answer = match bodiless && request.body().is_empty() {
            true => self.send(request.map(drop)),
            false => self.send(request.map(|body| body.to_vec())),
        }?;
        let (parts, body) = answer.into_parts();
        let bytes = body
            .into_with_config()
            .limit(self.body_bytes_max)
            .read_to_vec()?;
        let body = Full::new(Bytes::from(bytes)).map_err(|never: Infallible| match never {});
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }

    fn send(
        &self,
        request: Request<impl ureq::AsSendBody>,
    ) -> Result<ureq::http::Response<Body>, ureq::Error> {
        let request = self
            .agent
            .configure_request(request)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_send_body(Some(BODY_TIMEOUT))
            .timeout_recv_body(Some(BODY_TIMEOUT))
            .build();
        self.agent.run(request)
    }
}

/// Tells what may be tried again.
fn kind_of(error: &ureq::Error) -> HttpErrorKind {
    match error {
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => HttpErrorKind::Connect,
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            HttpErrorKind::Connect
        }
        ureq::Error::Io(_) | ureq::Error::Protocol(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    }
}
