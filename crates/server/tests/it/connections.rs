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

/// A request whose body stays behind: `announced` bytes are said to come, and `sent` of them do.
pub fn half_sent(host: &str, head: &str, announced: usize, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "{head}Host: firn\r\nContent-Length: {announced}\r\n\r\n"
    )
    .unwrap();
    stream.write_all(sent).unwrap();
    stream
}

/// The status line of an answer that has to come within some time.
pub fn status(stream: &mut TcpStream, within: Duration) -> Option<String> {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).ok()?;
    Some(String::from_utf8_lossy(&first).into_owned())
}

#[test]
fn s7_who_waits_for_an_upload_of_its_own_takes_no_place() {
    let server = TestServer::start_with(|config| config.limits.uploads_max = 4);
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    admin
        .post_json("/api/v1/caches", &serde_json::json!({"name": "other"}))
        .expect(200);
    let token = server.token(&["main"], &[firn_formats::admin::Right::Create]);
    let begun = Client::new(&server.url(), Some(&token))
        .send("POST", "/v2/main/app/blobs/uploads/", &[], b"")
        .expect(202);
    let head = format!(
        "PATCH {} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n",
        begun.header("location").unwrap()
    );
    // One that is slow, but not so slow that it is ended, and many that wait for it.
    let mut slow = half_sent(&server.host(), &head, 20_000_000, &[7; 100_000]);
    std::thread::sleep(Duration::from_millis(500));
    let mut waiting: Vec<TcpStream> = (0..20)
        .map(|_| half_sent(&server.host(), &head, 1, b"x"))
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    let digest = firn_formats::Sha256::of(b"abcdef").hex();
    for cache in ["other", "main"] {
        let path = format!("/v2/{cache}/app/blobs/uploads/?digest=sha256:{digest}");
        admin.send("POST", &path, &[], b"abcdef").expect(201);
    }
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    // Those who waited have their turns.
    slow.write_all(&vec![7; 19_900_000]).unwrap();
    let patience = Duration::from_secs(30);
    assert_eq!(status(&mut slow, patience).unwrap(), "HTTP/1.1 202");
    for stream in &mut waiting {
        assert_eq!(status(stream, patience).unwrap(), "HTTP/1.1 202");
    }
}

#[test]
fn s7_who_finishes_an_actions_upload_twice_or_appends_beside_itself_takes_no_place() {
    let server = TestServer::start_with(|config| config.limits.uploads_max = 1);
    let scope = firn_formats::actions::Scope::write("refs/heads/main");
    let token = server.actions_token("main", "acme/web", &[scope]);
    let job = Client::new(&server.url(), Some(&token));
    let reserve = |key: &str| {
        let request = serde_json::json!({"key": key, "version": "v"});
        let path = "/twirp/github.actions.results.api.v1.CacheService/CreateCacheEntry";
        let answer = job.post_json(path, &request).expect(200).json();
        let url = answer["signed_upload_url"].as_str().unwrap().to_owned();
        let at = url.find("/devstore").unwrap();
        url[at..].to_owned()
    };
    let (one, other) = (reserve("one"), reserve("other"));
    let head = format!("PUT {one}&comp=appendblock HTTP/1.1\r\n");
    let _slow = half_sent(&server.host(), &head, 20_000_000, &[7; 100_000]);
    std::thread::sleep(Duration::from_millis(500));
    let waiting: Vec<TcpStream> = (0..20)
        .map(|_| half_sent(&server.host(), &head, 1, b"x"))
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    let path = format!("{other}&comp=block&blockid=YQ%3D%3D");
    job.send("PUT", &path, &[], b"abcdef").expect(201);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    drop(waiting);
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn s8_anonymous_bodies_are_read_after_they_are_allowed_and_hold_up_nobody_else() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    // Nobody: told at once, before the body came.
    for (path, expected) in [
        ("/api/v1/caches", "HTTP/1.1 401"),
        ("/api/v1/tokens", "HTTP/1.1 401"),
        ("/api/v1/tokens/rotate", "HTTP/1.1 401"),
    ] {
        let head = format!("POST {path} HTTP/1.1\r\n{JSON}");
        let mut stream = half_sent(&server.host(), &head, 60_000, b"{");
        let said = status(&mut stream, Duration::from_secs(5));
        assert_eq!(said.as_deref(), Some(expected), "{path}");
    }
    // A token that administers nothing hears so as soon.
    let token = server.token(&["main"], &[firn_formats::admin::Right::Push]);
    let head = format!("POST /api/v1/caches HTTP/1.1\r\nAuthorization: Bearer {token}\r\n{JSON}");
    let mut stream = half_sent(&server.host(), &head, 60_000, b"{");
    let said = status(&mut stream, Duration::from_secs(5));
    assert_eq!(said.as_deref(), Some("HTTP/1.1 403"));
    // As many as took all there was, each with the largest list that anybody may send.
    let head = "POST /api/v1/status HTTP/1.1\r\n";
    let held: Vec<TcpStream> = (0..40)
        .map(|_| half_sent(&server.host(), head, 8 << 20, &[b' '; 100_000]))
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    let padding = " ".repeat(100_000);
    let manifest = format!(
        r#"{{"schemaVersion":2,"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json"{padding}}}"#
    );
    let media_type = [("content-type", "application/vnd.oci.image.index.v1+json")];
    admin
        .send(
            "PUT",
            "/v2/main/app/manifests/latest",
            &media_type,
            manifest.as_bytes(),
        )
        .expect(201);
    let begin = format!(r#"{{"paths":[]{padding}}}"#);
    admin
        .send(
            "POST",
            "/api/v1/push/begin?cache=main",
            &[],
            begin.as_bytes(),
        )
        .expect(200);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    drop(held);
    // A list of nothing in very many parts is not made much of.
    let many = format!(
        r#"{{"cache":"main","paths":[{}""]}}"#,
        r#""","#.repeat(100_000)
    );
    let anonymous = Client::new(&server.url(), None);
    anonymous
        .send("POST", "/api/v1/status", &[], many.as_bytes())
        .expect(400);
    // Where nobody may read anything without a token, nobody is listened to.
    admin.delete("/api/v1/caches/main").expect(204);
    admin
        .post_json("/api/v1/caches", &serde_json::json!({"name": "hidden"}))
        .expect(200);
    let mut stream = half_sent(&server.host(), head, 8 << 20, b"{");
    let said = status(&mut stream, Duration::from_secs(5));
    assert_eq!(said.as_deref(), Some("HTTP/1.1 401"));
}

/// A connection of HTTP/2 that answers pings and asks for nothing more; how long the server keeps it.
fn idle_http2(host: &str, with_a_request: bool) -> Option<Duration> {
    const FRAME_HEAD: usize = 9;
    let mut stream = TcpStream::connect(host).unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
    if with_a_request {
        // GET /healthz: two fields of the static table, two literals.
        let mut block = vec![0x82, 0x86, 0x04, 8];
        block.extend(b"/healthz");
        block.extend([0x01, 4]);
        block.extend(b"firn");
        let mut frame = vec![0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1];
        frame.extend(block);
        stream.write_all(&frame).unwrap();
    }
    let began = Instant::now();
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    let mut answered = false;
    loop {
        let mut head = [0; FRAME_HEAD];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(_) => {
                assert_eq!(answered, with_a_request);
                return Some(began.elapsed());
            }
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).unwrap();
        answered |= head[3] == 1;
        let is_ping = head[3] == 6 && head[4] & 1 == 0;
        let is_settings = head[3] == 4 && head[4] & 1 == 0;
        if is_ping {
            let mut pong = head;
            pong[4] = 1;
            let _ = stream.write_all(&[&pong[..], &rest].concat());
        } else if is_settings {
            let _ = stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]);
        }
    }
}

#[test]
fn s10_idle_connections_of_http2_are_closed() {
    let server = TestServer::start_with(|config| config.limits.head_seconds_max = 1);
    for with_a_request in [false, true] {
        let kept = idle_http2(&server.host(), with_a_request);
        let kept = kept.unwrap_or_else(|| panic!("still open ({with_a_request})"));
        assert!(kept < Duration::from_secs(8), "{kept:?}");
    }
}
