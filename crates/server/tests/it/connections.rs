//! Limits of connections and heads, and what is told to who meets one.

use crate::http::Client;
use crate::samples::{Upload, noise};
use firn_formats::nix::Compression;
use firn_testkit::TestServer;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Everything that comes until the other side closes.
fn rest(mut stream: TcpStream) -> String {
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it is still open"),
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

#[test]
fn an_address_has_so_many_connections_and_no_more() {
    let server = TestServer::start_with(|config| config.limits.connections_per_address_max = 3);
    let get = b"GET /healthz HTTP/1.1\r\nHost: firn\r\n\r\n";
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.host()).unwrap();
        stream.write_all(get).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let refused = TcpStream::connect(server.host()).unwrap();
    assert_eq!(rest(refused), "");
    // One that ends makes room for another.
    drop(held.pop());
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let mut stream = TcpStream::connect(server.host()).unwrap();
        let mut first = [0; 12];
        if stream.write_all(get).is_ok() && stream.read_exact(&mut first).is_ok() {
            break;
        }
        assert!(Instant::now() < until, "the place was not given back");
    }
}

#[test]
fn heads_and_idle_connections_have_their_time() {
    let server = TestServer::start_with(|config| config.limits.head_seconds_max = 1);
    for begin in [
        &b""[..],
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: fi",
        // As much of HTTP/2's beginning as tells nothing yet.
        b"PRI * HTTP/2.0\r\n\r\n",
        // Answered, and then silent.
        b"GET /healthz HTTP/1.1\r\nHost: firn\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.host()).unwrap();
        stream.write_all(begin).unwrap();
        let began = Instant::now();
        let _ = rest(stream);
        assert!(began.elapsed() < Duration::from_secs(8), "{begin:?}");
    }
    // A head that is too large is told so.
    let mut stream = TcpStream::connect(server.host()).unwrap();
    let _ = stream.write_all(format!("GET /{} HTTP/1.1\r\n", "x".repeat(300_000)).as_bytes());
    let answer = rest(stream);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
}

#[test]
fn who_finds_no_place_is_told_when_to_come_again() {
    let server = TestServer::start_with(|config| {
        config.limits.uploads_max = 1;
        config.limits.place_seconds_max = 1;
    });
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    // This one has brought enough for a place, and takes its time.
    let mut slow = TcpStream::connect(server.host()).unwrap();
    let token = server.admin_token();
    write!(
        slow,
        "PUT /main/log/slow.drv HTTP/1.1\r\nHost: firn\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 200000\r\n\r\n"
    )
    .unwrap();
    slow.write_all(&[b'x'; 100_000]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let upload = Upload::new("waits", &noise(50, 50_000), &[], Compression::Zstd);
    let busy = admin.put(&upload.nar_path(), &upload.file).expect(503);
    assert_eq!(busy.header("retry-after"), Some("5"));
    let blob = admin.send(
        "POST",
        "/v2/main/app/blobs/uploads/?digest=sha256:\
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        &[],
        b"x",
    );
    assert_eq!(
        blob.expect(503).json()["errors"][0]["code"],
        "TOOMANYREQUESTS"
    );
    slow.write_all(&[b'x'; 100_000]).unwrap();
    let mut first = [0; 12];
    slow.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 201");
    upload.push(&admin).expect(201);
}

#[test]
fn who_stops_sending_is_told_so() {
    let server = TestServer::start_with(|config| config.limits.silence_seconds_max = 1);
    for (method, path) in [
        ("PUT", "/main/log/silent.drv"),
        ("POST", "/api/v1/push/begin?cache=main"),
        (
            "POST",
            "/v2/main/app/blobs/uploads/?digest=sha256:\
            e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
    ] {
        let mut stream = TcpStream::connect(server.host()).unwrap();
        let token = server.admin_token();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: firn\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: 200000\r\nConnection: close\r\n\r\nx"
        )
        .unwrap();
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 408"), "{path}: {answer}");
    }
}
