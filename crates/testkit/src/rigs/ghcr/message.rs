//! HTTP/1.1 as far as the double speaks it: one request a connection, bodies of known length.

use super::Answer;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

/// A request's first lines.
pub(super) struct Head {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    headers: Vec<(String, String)>,
}

impl Head {
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, as it stands there.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let value = query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then_some(value)
        });
        value.map(decoded)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Of the body.
    pub(super) fn length(&self) -> u64 {
        let length = self.header("content-length");
        length.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// `%2C` and the like.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.map_or('%', char::from));
        out.push_str(part.get(2..).unwrap_or_default());
    }
    out
}

/// Empty if the client said nothing.
pub(super) fn read_head(stream: &mut impl BufRead) -> std::io::Result<Head> {
    let lines = read_lines(stream)?;
    let mut words = lines
        .first()
        .map(String::as_str)
        .unwrap_or_default()
        .split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, target) = (word(), word());
    let headers = lines.iter().skip(1).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    let head = Head {
        method,
        target,
        headers: headers.collect(),
    };
    assert!(
        head.header("transfer-encoding").is_none(),
        "the double knows bodies of a known length only"
    );
    Ok(head)
}

fn read_lines(stream: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line.to_owned());
    }
}

/// Sends an answer of the double's own.
pub(super) fn respond(mut client: TcpStream, head: &Head, answer: &Answer) -> std::io::Result<()> {
    let mut text = format!(
        "HTTP/1.1 {} Said\r\nContent-Length: {}\r\nConnection: close\r\n",
        answer.status,
        answer.body.len()
    );
    let date = firn_services::actions::http_date(seconds_now());
    if let Some(date) = date {
        text.push_str(&format!("Date: {date}\r\n"));
    }
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    client.write_all(text.as_bytes())?;
    if head.method != "HEAD" {
        client.write_all(&answer.body)?;
    }
    client.flush()
}

/// Since 1970.
fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

/// Passes a request on, without the headers named in `without`, and its answer back; `note` hears its status
/// before the client does. In HTTP/1.0 a server sends no chunks.
pub(super) fn forward(
    head: &Head,
    body: &mut impl Read,
    mut client: TcpStream,
    server: &str,
    without: &[&str],
    note: &dyn Fn(u16),
) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(server)?;
    let mut text = format!("{} {} HTTP/1.0\r\n", head.method, head.target);
    let own = ["connection", "authorization", "expect"];
    for (name, value) in &head.headers {
        if !own.contains(&name.as_str()) && !without.contains(&name.as_str()) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text.push_str("\r\n");
    upstream.write_all(text.as_bytes())?;
    if head.header("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    std::io::copy(&mut body.take(head.length()), &mut upstream)?;

    let mut answer = BufReader::new(upstream);
    let lines = read_lines(&mut answer)?;
    let status_line = lines.first().map(String::as_str).unwrap_or_default();
    let (_, status) = status_line.split_once(' ').unwrap_or_default();
    let mut text = format!("HTTP/1.1 {status}\r\n");
    for line in lines.iter().skip(1) {
        let name = line.split(':').next().unwrap_or_default();
        if !name.eq_ignore_ascii_case("connection") {
            text.push_str(&format!("{line}\r\n"));
        }
    }
    text.push_str("Connection: close\r\n\r\n");
    let code = status.split(' ').next().unwrap_or_default();
    note(code.parse().unwrap_or(0));
    client.write_all(text.as_bytes())?;
    if head.method != "HEAD" {
        std::io::copy(&mut answer, &mut client)?;
    }
    Ok(())
}

/// What a server answers to a GET.
pub(super) fn get(server: &str, path: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let mut upstream = TcpStream::connect(server)?;
    write!(upstream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut answer = BufReader::new(upstream);
    let lines = read_lines(&mut answer)?;
    let status = lines
        .first()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let mut body = Vec::new();
    answer.read_to_end(&mut body)?;
    Ok((status.unwrap_or(0), body))
}
