//! A small client: no status is an error, no redirect is followed.

use std::io::Read as _;
use std::time::Duration;

pub struct Client {
    agent: ureq::Agent,
    base: String,
    authorization: Option<String>,
    /// How often a request is sent whose connection breaks.
    tries: usize,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }
    /// Fails with the body unless the status is this.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

impl Client {
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
            authorization: token.map(|token| format!("Bearer {token}")),
            tries: 1,
        }
    }

    /// One that sends again what a broken connection took: a request that is refused before its body was read may
    /// lose its answer that way.
    pub fn patient(self) -> Self {
        Self { tries: 8, ..self }
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut last = None;
        for _ in 0..self.tries {
            match self.try_send(method, path, headers, body) {
                Ok(answer) => return answer,
                Err(error) => last = Some(error),
            }
        }
        panic!("{method} {path}: {last:?}");
    }

    fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ureq::Error> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        let explicit = headers.iter().any(|(name, _)| *name == "authorization");
        if let Some(authorization) = self.authorization.as_ref().filter(|_| !explicit) {
            request = request.header("authorization", authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let has_body = matches!(method, "PUT" | "POST" | "PATCH");
        let response = if has_body {
            self.agent.run(request.body(body).unwrap())
        } else {
            self.agent.run(request.body(()).unwrap())
        };
        let mut response = response?;
        let mut out = Vec::new();
        response.body_mut().as_reader().read_to_end(&mut out)?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response
                .headers()
                .iter()
                .map(|(name, value)| {
                    let value = value.to_str().unwrap_or_default().to_owned();
                    (name.as_str().to_owned(), value)
                })
                .collect(),
            body: out,
        })
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], &[])
    }
    pub fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[], &[])
    }
    pub fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.send("PUT", path, &[], body)
    }
    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], &[])
    }
    pub fn post_json(&self, path: &str, body: &impl serde::Serialize) -> Answer {
        let body = serde_json::to_vec(body).unwrap();
        self.send("POST", path, &[("content-type", "application/json")], &body)
    }
}
