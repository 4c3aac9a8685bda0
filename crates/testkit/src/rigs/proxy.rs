//! A proxy that changes what a server says: the attacker between a client and its cache.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// Gets the path that was asked for and the body of a 200; what it returns is sent instead.
pub type Alter = dyn Fn(&str, Vec<u8>) -> Vec<u8> + Send + Sync;

/// A proxy on loopback; it lives as long as the test's process, and is idle when its test is over.
pub struct Proxy {
    address: String,
}

impl Proxy {
    /// Stands before `server` (`127.0.0.1:PORT`).
    pub fn before(
        server: &str,
        alter: impl Fn(&str, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::start(server, None, alter)
    }

    /// Answers what begins with `prefix` as a server that does not know it, and changes nothing else.
    pub fn without(server: &str, prefix: &'static str) -> Self {
        Self::start(server, Some(prefix), |_, body| body)
    }

    fn start(
        server: &str,
        unknown: Option<&'static str>,
        alter: impl Fn(&str, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("cannot listen");
        let address = listener.local_addr().expect("it listens").to_string();
        let server = server.to_owned();
        let alter: Arc<Alter> = Arc::new(alter);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (server, alter) = (server.clone(), Arc::clone(&alter));
                // A client that went away is no fault of the test.
                std::thread::spawn(move || forward(client, &server, unknown, &*alter).ok());
            }
        });
        Self { address }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `http://127.0.0.1:PORT/CACHE`.
    pub fn cache(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }
}

/// One request without a body, one answer, and the connection is closed.
fn forward(
    mut client: TcpStream,
    server: &str,
    unknown: Option<&str>,
    alter: &Alter,
) -> std::io::Result<()> {
    let mut request = BufReader::new(client.try_clone()?);
    let head = read_head(&mut request)?;
    let first = |head: &[String]| head.first().cloned().unwrap_or_default();
    let path = first(&head)
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    if unknown.is_some_and(|prefix| path.starts_with(prefix)) {
        let nothing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(nothing.as_bytes());
    }
    let mut upstream = TcpStream::connect(server)?;
    for line in head.iter().filter(|line| !is_header(line, "connection")) {
        write!(upstream, "{line}\r\n")?;
    }
    write!(upstream, "Connection: close\r\n\r\n")?;

    let mut answer = BufReader::new(upstream);
    let answer_head = read_head(&mut answer)?;
    let chunked = answer_head
        .iter()
        .any(|line| is_header(line, "transfer-encoding"));
    assert!(!chunked, "the proxy knows bodies of a known length only");
    let mut body = Vec::new();
    let is_get = first(&head).starts_with("GET ");
    if is_get {
        answer.read_to_end(&mut body)?;
    }
    if is_get && first(&answer_head).contains(" 200") {
        body = alter(&path, body);
    }
    // The body may have another length now.
    let kept = |line: &&String| {
        !(is_header(line, "connection") || is_get && is_header(line, "content-length"))
    };
    for line in answer_head.iter().filter(kept) {
        write!(client, "{line}\r\n")?;
    }
    if is_get {
        write!(client, "Content-Length: {}\r\n", body.len())?;
    }
    write!(client, "Connection: close\r\n\r\n")?;
    client.write_all(&body)
}

fn read_head(stream: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(head);
        }
        head.push(line.to_owned());
    }
}

fn is_header(line: &str, name: &str) -> bool {
    line.split_once(':')
        .is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
}
