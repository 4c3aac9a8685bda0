use super::*;
use std::io::{Cursor, ErrorKind, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;

const BYTES: u64 = 1 << 20;

/// Answers by the path; `/slow` says when it is asked and waits until it may go on.
struct Door {
    asked: mpsc::SyncSender<()>,
    go_on: std::sync::Mutex<mpsc::Receiver<()>>,
}

struct Fails(u64);

impl Read for Fails {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::Error::other("no more"));
        }
        let length = buffer.len().min(self.0 as usize);
        buffer[..length].fill(7);
        self.0 -= length as u64;
        Ok(length)
    }
}

impl LoopbackDoor for Door {
    fn get(&self, path: &str) -> LoopbackAnswer {
        let stream = |reader: Box<dyn Read + Send>| LoopbackAnswer::Stream {
            media_type: "application/x-nix-nar",
            length: BYTES,
            reader,
        };
        match path {
            "/bytes" => LoopbackAnswer::Bytes {
                media_type: "text/plain",
                bytes: b"here".to_vec(),
            },
            "/stream" => stream(Box::new(Cursor::new(vec![7; BYTES as usize]))),
            "/short" => stream(Box::new(Cursor::new(vec![7; 1000]))),
            "/fails" => stream(Box::new(Fails(BYTES / 2))),
            "/failed" => LoopbackAnswer::Failed("the store is away".to_owned()),
            "/slow" => {
                self.asked.send(()).unwrap();
                self.go_on.lock().unwrap().recv().unwrap();
                stream(Box::new(Fails(BYTES)))
            }
            _ => LoopbackAnswer::NotFound,
        }
    }
}

fn start() -> (Loopback, mpsc::Receiver<()>, mpsc::SyncSender<()>) {
    let (asked, was_asked) = mpsc::sync_channel(1);
    let (let_go_on, go_on) = mpsc::sync_channel(1);
    let door = Arc::new(Door {
        asked,
        go_on: go_on.into(),
    });
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    (Loopback::start(listen, door).unwrap(), was_asked, let_go_on)
}

/// Head and body of an answer.
fn ask(address: SocketAddr, method: &str, path: &str) -> (String, Vec<u8>) {
    ask_host(address, method, path, "Host: 127.0.0.1\r\n")
}

fn ask_host(address: SocketAddr, method: &str, path: &str, host: &str) -> (String, Vec<u8>) {
    let mut connection = TcpStream::connect(address).unwrap();
    let request = format!("{method} {path}?x HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    if let Err(error) = connection.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    // A reset takes along what was not read yet, the head too.
    let body = answer.split_off(end.map_or(0, |end| end + 4));
    (String::from_utf8(answer).unwrap().to_lowercase(), body)
}

#[test]
fn answers_have_their_status_type_and_bytes() {
    let (server, ..) = start();
    let (head, body) = ask(server.address(), "GET", "/bytes");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain\r\n"), "{head}");
    assert_eq!(body, b"here");
    let (head, body) = ask(server.address(), "GET", "/stream");
    assert!(
        head.contains(&format!("content-length: {BYTES}\r\n")),
        "{head}"
    );
    assert_eq!(body.len() as u64, BYTES);
    assert!(
        ask(server.address(), "GET", "/absent")
            .0
            .starts_with("http/1.1 404")
    );
    let (head, body) = ask(server.address(), "GET", "/failed");
    assert!(head.starts_with("http/1.1 502"), "{head}");
    assert_eq!(body, b"the store is away\n");
}

/// A page whose name was made to lead here is refused; it cannot say another Host than its own.
#[test]
fn s13_other_hosts_are_refused() {
    let (server, ..) = start();
    let port = server.address().port();
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            let (head, _) = ask_host(
                server.address(),
                "GET",
                "/bytes",
                &format!("Host: {host}\r\n"),
            );
            assert!(head.starts_with("http/1.1 200"), "{host}: {head}");
        }
    }
    for host in [
        "Host: evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: 10.0.0.1\r\n",
        "Host:\r\n",
        "",
    ] {
        let (head, body) = ask_host(server.address(), "GET", "/bytes", host);
        assert!(head.starts_with("http/1.1 4"), "{host}: {head}");
        assert_ne!(body, b"here");
    }
}

#[test]
fn head_tells_the_length_and_other_methods_are_refused() {
    let (server, ..) = start();
    let (head, body) = ask(server.address(), "HEAD", "/stream");
    assert!(
        head.contains(&format!("content-length: {BYTES}\r\n")),
        "{head}"
    );
    assert!(body.is_empty());
    assert!(
        ask(server.address(), "HEAD", "/bytes")
            .0
            .contains("content-length: 4\r\n")
    );
    let (head, _) = ask(server.address(), "PUT", "/bytes");
    assert!(head.starts_with("http/1.1 405"), "{head}");
}

#[test]
fn a_fault_in_mid_stream_never_looks_like_an_end() {
    let (server, ..) = start();
    for path in ["/fails", "/short"] {
        let (head, body) = ask(server.address(), "GET", path);
        assert!(
            head.is_empty() || head.contains(&format!("content-length: {BYTES}\r\n")),
            "{head}"
        );
        assert!((body.len() as u64) < BYTES, "{path}");
    }
}

#[test]
fn stopping_lets_a_request_end() {
    let (server, was_asked, let_go_on) = start();
    let address = server.address();
    let client = std::thread::spawn(move || ask(address, "GET", "/slow"));
    was_asked.recv().unwrap();
    let stopping = std::thread::spawn(move || server.stop());
    while TcpStream::connect(address).is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let_go_on.send(()).unwrap();
    assert_eq!(client.join().unwrap().1.len() as u64, BYTES);
    stopping.join().unwrap();
}
