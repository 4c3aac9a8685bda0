//! HTTP as this client needs it: bounded answers, typed refusals, patient retries, bytes counted.

mod count;
mod range;
mod roots;
mod url;

pub(crate) use range::{bad_answer, broken_off, patiently, read_range};
pub use url::ServerUrl;
pub(crate) use url::encode_query;

use crate::error::{ClientError, Result};
use count::{Counter, CountingConnector};
use firn_formats::{actions::github::RestError, push::ApiError};
use std::{
    io::Read,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    sync::{Arc, OnceLock},
    time::Duration,
};
use ureq::{
    Agent, Body, ResponseExt as _, SendBody,
    http::{HeaderMap, Method, Request, Response},
    tls::TlsConfig,
    unversioned::{
        resolver::DefaultResolver,
        transport::{Connector as _, DefaultConnector},
    },
};

/// Largest answer that is read whole, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Tries of one request before its failure is final.
const TRIES: u32 = 6;
const BACKOFF_FIRST: Duration = Duration::from_millis(150);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Longest `Retry-After` that is obeyed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A pool of connections. Clones share it and its counts.
#[derive(Debug, Clone)]
pub struct Http {
    connections: usize,
    /// For plain HTTP: knows no roots, which take milliseconds to read.
    plain: Agent,
    /// With the machine's roots; made for the first `https` URL.
    trusting: Arc<OnceLock<Agent>>,
    counter: Counter,
    requests: Arc<AtomicU64>,
    answered: Arc<AtomicBool>,
}

/// A request whose body can be sent again.
#[derive(Clone)]
pub struct Call<'a> {
    method: Method,
    url: String,
    authorization: Option<&'a str>,
    headers: Vec<(&'static str, String)>,
    body: Option<&'a [u8]>,
}

// By hand: what is said in confidence, or is long, is not shown.
impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl<'a> Call<'a> {
    /// A request without a body.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            authorization: None,
            headers: Vec::new(),
            body: None,
        }
    }

    /// A GET.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    /// Adds the value of the `Authorization` header.
    pub fn authorization(mut self, value: Option<&'a str>) -> Self {
        self.authorization = value;
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a body.
    pub fn body(mut self, media_type: &'static str, body: &'a [u8]) -> Self {
        self.body = Some(body);
        self.header("Content-Type", media_type)
    }

    /// Where it goes.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn request<B>(&self, body: B) -> Result<Request<B>> {
        let mut builder = Request::builder().method(&self.method).uri(&self.url);
        if let Some(value) = self.authorization {
            builder = builder.header("Authorization", value);
        }
        for (name, value) in &self.headers {
            builder = builder.header(*name, value);
        }
        builder
            .body(body)
            .map_err(|_| ClientError::Url(self.url.clone()))
    }
}

/// An answer's status and headers; the body is still to be read.
#[derive(Debug)]
pub struct Answer {
    url: String,
    response: Response<Body>,
}

impl Answer {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Where it was asked for.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How long the other side wants to be left alone; at most a minute.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header("Retry-After")?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
    }

    /// Whether a redirect led to another scheme, host or port than the request's, even if the next led back. What
    /// such an answer asks for, it asks in a stranger's name.
    pub(crate) fn left_origin(&self) -> bool {
        let origin = |uri: &ureq::http::Uri| {
            let scheme = uri.scheme_str().map(str::to_ascii_lowercase);
            let host = uri.host().map(str::to_ascii_lowercase);
            let usual = if scheme.as_deref() == Some("https") {
                443
            } else {
                80
            };
            (scheme, host, uri.port_u16().unwrap_or(usual))
        };
        let Ok(asked) = self.url.parse::<ureq::http::Uri>() else {
            return true;
        };
        let hops = self.response.get_redirect_history().unwrap_or_default();
        let last = std::iter::once(self.response.get_uri());
        hops.iter()
            .chain(last)
            .any(|hop| origin(hop) != origin(&asked))
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The body as a stream.
    pub fn into_reader(self) -> impl Read + Send + 'static {
        self.response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader()
    }

    /// The whole body, of at most 64 MiB.
    pub fn bytes(self) -> Result<Vec<u8>> {
        let url = self.url;
        self.response
            .into_body()
            .into_with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|source| ClientError::Unreachable {
                url,
                source: Box::new(source),
            })
    }

    /// The whole body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(self) -> Result<T> {
        let url = self.url.clone();
        let bytes = self.bytes()?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::BadAnswer {
            url,
            what: source.to_string(),
        })
    }

    /// The answer if its status is below 400, else the refusal it tells of.
    pub fn accept(self) -> Result<Self> {
        if self.status() < 400 {
            return Ok(self);
        }
        Err(self.into_refusal())
    }

    /// Reads Firn's own error bodies, the registry's, and those in GitHub's form.
    pub fn into_refusal(self) -> ClientError {
        let status = self.status();
        let url = self.url.clone();
        let body = self.bytes().unwrap_or_default();
        let (code, message, hint) = read_refusal(&body);
        let message = message.unwrap_or_else(|| reason(status).to_owned());
        ClientError::Refused {
            url,
            status,
            code,
            message,
            hint,
        }
    }
}

#[derive(serde::Deserialize)]
struct FirnRefusal {
    error: ApiError,
}

#[derive(serde::Deserialize)]
struct RegistryRefusal {
    errors: Vec<RegistryFault>,
}

#[derive(serde::Deserialize)]
struct RegistryFault {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

type Refusal = (
    Option<firn_formats::push::ApiErrorCode>,
    Option<String>,
    Option<String>,
);

fn read_refusal(body: &[u8]) -> Refusal {
    if let Ok(FirnRefusal { error }) = serde_json::from_slice(body) {
        return (Some(error.code), Some(error.message), error.hint);
    }
    if let Ok(RegistryRefusal { errors }) = serde_json::from_slice(body)
        && !errors.is_empty()
    {
        let texts: Vec<String> = errors
            .iter()
            .map(|fault| {
                format!("{} {}", fault.code, fault.message)
                    .trim()
                    .to_owned()
            })
            .collect();
        return (None, Some(texts.join("; ")), None);
    }
    if let Ok(RestError { message, .. }) = serde_json::from_slice(body) {
        return (None, Some(message), None);
    }
    let text = String::from_utf8_lossy(body);
    let line = text.lines().next().unwrap_or_default().trim();
    let plain = !line.is_empty() && line.len() < 200 && !line.starts_with('<');
    (None, plain.then(|| line.to_owned()), None)
}

fn reason(status: u16) -> &'static str {
    ureq::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("refused")
}

fn agent(connections: usize, counter: &Counter, tls: TlsConfig) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .save_redirect_history(true)
        .user_agent(concat!("firn/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_per_read(Some(Duration::from_secs(300)))
        .timeout_per_write(Some(Duration::from_secs(120)))
        .max_idle_connections(connections.max(4) * 2)
        .max_idle_connections_per_host(connections.max(4))
        .output_buffer_size(128 << 10)
        .input_buffer_size(128 << 10)
        .tls_config(tls)
        .build();
    let connector = DefaultConnector::new().chain(CountingConnector(counter.clone()));
    Agent::with_parts(config, connector, DefaultResolver::default())
}

impl Http {
    /// A pool for at most `connections` parallel requests to one host. Sets up nothing yet:
    /// TLS is initialised by the first `https` request.
    pub fn new(connections: usize) -> Result<Self> {
        let counter = Counter::default();
        Ok(Self {
            connections,
            plain: agent(connections, &counter, TlsConfig::default()),
            trusting: Arc::default(),
            counter,
            requests: Arc::default(),
            answered: Arc::default(),
        })
    }

    fn agent(&self, url: &str) -> Result<&Agent> {
        let https = url
            .get(..6)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
        match https {
            true => self.trusting(),
            false => Ok(&self.plain),
        }
    }

    /// The agent behind requests to a URL, for a library that makes requests of its own.
    pub(crate) fn agent_for(&self, url: &str) -> Result<Agent> {
        self.agent(url).cloned()
    }

    fn trusting(&self) -> Result<&Agent> {
        if let Some(agent) = self.trusting.get() {
            return Ok(agent);
        }
        let tls = TlsConfig::builder().root_certs(roots::load()?).build();
        let made = agent(self.connections, &self.counter, tls);
        Ok(self.trusting.get_or_init(|| made))
    }

    /// Bytes of all requests so far, heads included (inside TLS, where there is TLS).
    pub fn bytes_sent(&self) -> u64 {
        self.counter.bytes()
    }

    /// Requests so far, with those that were sent again and those to where redirects led.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Sends; repeats what a network or a busy server failed. Statuses of 400 and more are
    /// answers, not errors; see [`Answer::accept`].
    pub fn send(&self, call: &Call<'_>) -> Result<Answer> {
        let mut wait = BACKOFF_FIRST;
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = self.send_once(call);
            let pause = match &outcome {
                Ok(answer) if is_transient(answer.status()) => answer.retry_after(),
                Err(ClientError::Unreachable { source, .. }) if self.may_recover(source) => None,
                _ => return outcome,
            };
            if tries >= TRIES {
                return outcome;
            }
            tracing::debug!(url = call.url, tries, "request failed; it is sent again");
            std::thread::sleep(pause.unwrap_or(wait));
            wait = (wait * 2).min(BACKOFF_MAX);
        }
    }

    fn send_once(&self, call: &Call<'_>) -> Result<Answer> {
        let run = |agent: &Agent| -> Result<Result<Response<Body>, ureq::Error>> {
            Ok(match call.body {
                Some(body) => agent.run(call.request(body)?),
                None if call.method == Method::POST || call.method == Method::PUT => {
                    agent.run(call.request(&[] as &[u8])?)
                }
                None => agent.run(call.request(())?),
            })
        };
        let agent = self.agent(&call.url)?;
        let mut response = run(agent)?;
        // From plain HTTP only a redirect leads to TLS, and then the roots are needed after all.
        if std::ptr::eq(agent, &self.plain) && response.as_ref().is_err_and(is_tls) {
            response = run(self.trusting()?)?;
        }
        self.answer(&call.url, response)
    }

    /// Sends a body of known length from a reader, once.
    pub fn send_stream(&self, call: &Call<'_>, length: u64, body: &mut dyn Read) -> Result<Answer> {
        let mut request = call.request(SendBody::from_reader(body))?;
        request
            .headers_mut()
            .insert("Content-Length", ureq::http::HeaderValue::from(length));
        let response = self.agent(&call.url)?.run(request);
        self.answer(&call.url, response)
    }

    fn answer(&self, url: &str, response: Result<Response<Body>, ureq::Error>) -> Result<Answer> {
        let visited = response.as_ref().ok().and_then(|answer| {
            let history = answer.get_redirect_history()?;
            u64::try_from(history.len()).ok()
        });
        let hops = visited.unwrap_or(1).max(1);
        self.requests.fetch_add(hops, Ordering::Relaxed);
        let response = response.map_err(|source| ClientError::Unreachable {
            url: url.to_owned(),
            source: Box::new(source),
        })?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(Answer {
            url: url.to_owned(),
            response,
        })
    }

    /// A host that never answered and refuses connections is not there; whoever typed its
    /// name should hear so at once. After a first answer it may be restarting.
    fn may_recover(&self, error: &ureq::Error) -> bool {
        match error {
            error if is_tls(error) => false,
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                self.answered.load(Ordering::Relaxed)
            }
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
            ureq::Error::Protocol(_) => self.answered.load(Ordering::Relaxed),
            _ => false,
        }
    }
}

/// Whether TLS failed: certificates above all, which are no better the next time.
pub(crate) fn is_tls(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        // What TLS makes of bytes and certificates that it does not take, during a handshake.
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firn_and_registry_refusals_are_read() {
        let (code, message, hint) = read_refusal(
            br#"{"error":{"code":"session_gone","message":"it ended","hint":"begin again"}}"#,
        );
        assert_eq!(code, Some(firn_formats::push::ApiErrorCode::SessionGone));
        assert_eq!(message.as_deref(), Some("it ended"));
        assert_eq!(hint.as_deref(), Some("begin again"));
        let (code, message, _) =
            read_refusal(br#"{"errors":[{"code":"DENIED","message":"no"},{"code":"X"}]}"#);
        assert_eq!(code, None);
        assert_eq!(message.as_deref(), Some("DENIED no; X"));
        assert_eq!(read_refusal(b"<html>").1, None);
        assert_eq!(
            read_refusal(b"plain words\n").1.as_deref(),
            Some("plain words")
        );
    }

    #[test]
    fn a_host_that_refuses_connections_is_reported_at_once() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let http = Http::new(1).expect("an agent");
        let started = std::time::Instant::now();
        let error = http
            .send(&Call::get(format!("http://127.0.0.1:{port}/")))
            .expect_err("nothing listens");
        assert!(matches!(error, ClientError::Unreachable { .. }));
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}
