//! A small client. A status is never an error; a connection that broke, or a body that is not whole, is one.

use std::io::Read as _;
use std::time::Duration;

/// Largest body that is read.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// A status and a whole body.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, to its end.
    pub body: Vec<u8>,
}

/// Requests to one server.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    token: Option<String>,
    user_agent: &'static str,
}

impl Client {
    /// With a token, or without one.
    pub fn new(base: &str, token: Option<&str>) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(60)))
            .allow_non_standard_methods(true)
            .build();
        Self {
            agent: config.new_agent(),
            base: base.to_owned(),
            token: token.map(str::to_owned),
            user_agent: "soak/1",
        }
    }

    /// The same server, for another who says that he is `user_agent`.
    #[must_use]
    pub fn with(&self, token: Option<&str>, user_agent: &'static str) -> Self {
        Self {
            token: token.map(str::to_owned),
            user_agent,
            ..self.clone()
        }
    }

    /// One request.
    ///
    /// # Errors
    /// If the connection fails before the answer is whole.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        media_type: Option<&str>,
        body: &[u8],
    ) -> Result<Answer, String> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("user-agent", self.user_agent);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(media_type) = media_type {
            request = request.header("content-type", media_type);
        }
        let bodiless = body.is_empty() && matches!(method, "GET" | "HEAD" | "DELETE");
        let answered = match bodiless {
            true => self.agent.run(request.body(()).map_err(text)?),
            false => self.agent.run(request.body(body).map_err(text)?),
        };
        let answered = answered.map_err(text)?;
        let status = answered.status().as_u16();
        let mut body = Vec::new();
        answered
            .into_body()
            .into_reader()
            .take(BODY_BYTES_MAX)
            .read_to_end(&mut body)
            .map_err(text)?;
        Ok(Answer { status, body })
    }

    /// As [`Client::send`].
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn get(&self, path: &str) -> Result<Answer, String> {
        self.send("GET", path, None, b"")
    }

    /// PUTs; an error unless it was taken.
    ///
    /// # Errors
    /// If the connection fails, or the server refuses.
    pub fn put(&self, path: &str, media_type: Option<&str>, body: &[u8]) -> Result<(), String> {
        self.send("PUT", path, media_type, body)?.taken(path)
    }
}

impl Answer {
    /// An error unless the server took what it was sent.
    ///
    /// # Errors
    /// With the status and the body.
    pub fn taken(self, what: &str) -> Result<(), String> {
        match self.status {
            200..=299 => Ok(()),
            status => Err(format!(
                "{what}: {status}: {}",
                String::from_utf8_lossy(&self.body).trim_end()
            )),
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
