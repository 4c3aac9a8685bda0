//! URLs of servers and caches, normalised so that they can be keys.

use crate::error::{ClientError, Result};
use std::fmt;

/// `http://host[:port][/prefix]` or the same with `https`, without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// Reads a URL. Without a scheme, loopback hosts are spoken to in plain HTTP, others in TLS.
    pub fn parse(text: &str) -> Result<Self> {
        let mut text = text.trim();
        while let Some(shorter) = text.strip_suffix('/').filter(|rest| !rest.ends_with(":/")) {
            text = shorter;
        }
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else if is_loopback(host_of(text)) {
            format!("http://{text}")
        } else {
            format!("https://{text}")
        };
        // URLs are shown, logged and kept. So this one is not even quoted.
        let authority = with_scheme.split("://").nth(1).unwrap_or_default();
        if authority
            .split('/')
            .next()
            .is_some_and(|authority| authority.contains('@'))
        {
            return Err(ClientError::Setting(
                "a URL must hold no credentials; FIRN_TOKEN or `firn login` gives them".to_owned(),
            ));
        }
        let uri: ureq::http::Uri = with_scheme
            .parse()
            .map_err(|_| ClientError::Url(text.to_owned()))?;
        let sound = matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none();
        if !sound {
            return Err(ClientError::Url(text.to_owned()));
        }
        Ok(Self(with_scheme))
    }

    /// The text, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `host[:port]`.
    pub fn authority(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    /// The host, without its port.
    pub fn host(&self) -> &str {
        host_of(self.authority())
    }

    /// This URL with `/path` behind it; `path` comes without its slash.
    pub fn join(&self, path: &str) -> String {
        format!("{}/{path}", self.0)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The host of `host[:port][/…]`, brackets of IPv6 addresses taken off.
fn host_of(authority: &str) -> &str {
    let authority = authority.split('/').next().unwrap_or_default();
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

/// Whether a host name or address is this machine's.
fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Percent-encodes what may not stand in a query's value.
pub(crate) fn encode_query(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_chosen_by_host() {
        let url = |text| ServerUrl::parse(text).expect(text).0;
        assert_eq!(url("localhost:5000"), "http://localhost:5000");
        assert_eq!(url("127.0.0.1:8484/"), "http://127.0.0.1:8484");
        assert_eq!(url("[::1]:80/x"), "http://[::1]:80/x");
        assert_eq!(url("cache.example.org"), "https://cache.example.org");
        assert_eq!(url("http://10.0.0.1:1/a//"), "http://10.0.0.1:1/a");
        for bad in ["", "ftp://x", "http://", "http://a b", "http://a?q=1"] {
            assert!(ServerUrl::parse(bad).is_err(), "{bad}");
        }
        for secret in [
            "https://user:hunter2@host/x",
            "user:hunter2@host",
            "hunter2@127.0.0.1",
        ] {
            let refused = ServerUrl::parse(secret).expect_err(secret);
            assert!(!format!("{refused} {refused:?}").contains("hunter2"));
        }
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode_query("acme/web"), "acme/web");
        assert_eq!(encode_query("a b&c=é"), "a%20b%26c%3D%C3%A9");
    }
}
