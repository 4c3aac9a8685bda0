//! How bytes come in and go out: blocks, ranges, appends; retries, restarts, killed clients.

use super::{Job, SERVICE, VERSION, staged};
use crate::samples::noise;
use base64::Engine as _;
use firn_formats::Sha256;
use firn_testkit::TestServer;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn list(ids: &[&str]) -> Vec<u8> {
    let ids: String = ids
        .iter()
        .map(|id| format!("<Latest>{id}</Latest>"))
        .collect();
    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{ids}</BlockList>").into_bytes()
}

fn block(job: &Job, upload: &str, id: &str, bytes: &[u8]) -> u16 {
    let id = id.replace('+', "%2B").replace('=', "%3D");
    let path = format!("{upload}&comp=block&blockid={id}");
    job.put(&path, bytes).status
}

#[test]
fn blocks_come_in_any_order_and_again_and_the_list_says_which_count() {
    let server = TestServer::start();
    let job = Job::on_main(&server);
    let bytes = noise(1, 900_000);
    let upload = job.reserve("key");
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let ids = [encode("c>>>?"), encode("a"), encode("b")];
    let parts = [
        &bytes[..300_000],
        &bytes[300_000..600_000],
        &bytes[600_000..],
    ];
    std::thread::scope(|scope| {
        for place in [2, 0, 1] {
            let (job, upload, ids) = (&job, &upload, &ids);
            scope.spawn(move || assert_eq!(block(job, upload, &ids[place], parts[place]), 201));
        }
    });
    // A retry with other bytes takes the first one's place; a block in no list does not count.
    assert_eq!(block(&job, &upload, &ids[1], b"half"), 201);
    assert_eq!(block(&job, &upload, &ids[1], parts[1]), 201);
    assert_eq!(block(&job, &upload, &encode("x"), b"not wanted"), 201);
    let wrong = list(&[&ids[0], &encode("never came")]);
    let refused = job.put(&format!("{upload}&comp=blocklist"), &wrong);
    assert_eq!(refused.status, 400);
    assert_eq!(refused.header("x-ms-error-code"), Some("InvalidBlockList"));
    job.put(&format!("{upload}&comp=blocklist"), b"<BlockList><Latest>")
        .expect(400);
    let right = list(&[&ids[0], &ids[1], &ids[2]]);
    for _ in 0..2 {
        let done = job
            .put(&format!("{upload}&comp=blocklist"), &right)
            .expect(201);
        for name in ["etag", "last-modified", "x-ms-request-id"] {
            assert!(done.header(name).is_some(), "{name}");
        }
    }
    let short = job.finalize("key", 899_999).expect(200).json();
    assert_eq!(short["ok"], false, "{short}");
    assert_eq!(
        job.finalize("key", bytes.len()).expect(200).json()["ok"],
        true
    );
    assert!(job.restore("key", &[]).unwrap().1 == bytes);
    assert_eq!(staged(&server), 0);
}

#[test]
fn append_blobs_are_written_piece_by_piece_and_sealed() {
    let server = TestServer::start();
    let job = Job::on_main(&server);
    let bytes = noise(2, 250_000);
    let upload = job.reserve("key");
    let append = [("x-ms-blob-type", "AppendBlob")];
    job.blob("PUT", &upload, &append, b"").expect(201);
    for piece in bytes.chunks(100_000) {
        job.put(&format!("{upload}&comp=appendblock"), piece)
            .expect(201);
    }
    // Where the client says where it is, a retry is told that it was heard.
    let at = [("x-ms-blob-condition-appendpos", "200000")];
    let path = format!("{upload}&comp=appendblock");
    job.blob("PUT", &path, &at, &bytes[200_000..]).expect(412);
    job.put(&format!("{upload}&comp=seal"), b"").expect(200);
    assert_eq!(
        job.finalize("key", bytes.len()).expect(200).json()["ok"],
        true
    );
    assert!(job.restore("key", &[]).unwrap().1 == bytes);
}

fn patch(job: &Job, id: &serde_json::Value, first: usize, bytes: &[u8]) -> u16 {
    let range = format!("bytes {first}-{}/*", first + bytes.len() - 1);
    let path = format!("/_apis/artifactcache/caches/{id}");
    job.http
        .send("PATCH", &path, &[("content-range", &range)], bytes)
        .status
}

#[test]
fn version_1_takes_ranges_in_any_order_and_finishing_twice_is_finishing_once() {
    let mut server = TestServer::start();
    let job = Job::on_main(&server);
    for base in ["/_apis/artifactcache", "/main/_apis/artifactcache"] {
        let bytes = noise(base.len() as u64, 500_000);
        let reserve =
            serde_json::json!({"key": base, "version": VERSION, "cacheSize": bytes.len()});
        let made = job
            .http
            .post_json(&format!("{base}/caches"), &reserve)
            .expect(201)
            .json();
        let id = &made["cacheId"];
        assert!(id.as_u64().unwrap() > 0);
        let again = job
            .http
            .post_json(&format!("{base}/caches"), &reserve)
            .expect(409)
            .json();
        assert_eq!(again["typeKey"], "ArtifactCacheItemAlreadyExistsException");
        assert_eq!(patch(&job, id, 300_000, &bytes[300_000..]), 204);
        let commit = serde_json::json!({"size": bytes.len()});
        let path = format!("{base}/caches/{id}");
        job.http.post_json(&path, &commit).expect(400);
        assert_eq!(patch(&job, id, 0, &bytes[..300_000]), 204);
        assert_eq!(patch(&job, id, 0, &bytes[..300_000]), 204);
        for _ in 0..2 {
            job.http.post_json(&path, &commit).expect(204);
        }
        // Nor does a client that did not hear the answer before a restart.
        server.restart();
        job.http.post_json(&path, &commit).expect(204);
        let shorter = serde_json::json!({"size": bytes.len() - 1});
        job.http.post_json(&path, &shorter).expect(404);
        let query = format!("{base}/cache?keys={base},other&version={VERSION}");
        let found = job.http.get(&query).expect(200).json();
        assert_eq!(found["cacheKey"], base);
        assert_eq!(found["scope"], "refs/heads/main");
        let url = job.path(found["archiveLocation"].as_str().unwrap());
        assert!(job.blob("GET", &url, &[], b"").expect(200).body == bytes);
        job.http
            .get(&format!("{base}/cache?keys=none&version={VERSION}"))
            .expect(204);
        let listed = job
            .http
            .get(&format!("{base}/caches?key={base}"))
            .expect(200)
            .json();
        assert_eq!(listed["totalCount"], 1);
    }
    assert_eq!(staged(&server), 0);
}

#[test]
fn downloads_are_whole_or_in_ranges_as_azures_clients_ask() {
    let server = TestServer::start();
    let job = Job::on_main(&server);
    let bytes = noise(3, 400_000);
    job.save("key", &bytes);
    job.save("empty", b"");
    assert_eq!(job.restore("empty", &[]).unwrap().1, b"");
    let url = job.download("key").unwrap();
    let head = job.blob("HEAD", &url, &[], b"").expect(200);
    assert_eq!(head.header("content-length"), Some("400000"));
    assert_eq!(head.header("accept-ranges"), Some("bytes"));
    let etag = head.header("etag").unwrap().to_owned();
    for (name, value, from, to) in [
        ("range", "bytes=0-0", 0, 1),
        ("x-ms-range", "bytes=100-200099", 100, 200_100),
        ("range", "bytes=399999-", 399_999, 400_000),
    ] {
        let part = job.blob("GET", &url, &[(name, value)], b"").expect(206);
        assert!(part.body == bytes[from..to], "{value}");
        assert_eq!(part.header("etag"), Some(&*etag));
        let range = format!("bytes {from}-{}/400000", to - 1);
        assert_eq!(part.header("content-range"), Some(&*range));
    }
    job.blob("GET", &url, &[("range", "bytes=400000-")], b"")
        .expect(416);
}

/// The same bytes by protobuf, as OpenDAL and magic-nix-cache send them, under a path prefix.
#[test]
fn protobuf_under_a_prefix_does_what_json_does() {
    let server = TestServer::start();
    let job = Job::on_main(&server);
    let call = |method: &str, fields: &[(u8, &[u8])]| {
        let mut body = Vec::new();
        for (number, value) in fields {
            body.extend([number << 3 | 2, u8::try_from(value.len()).unwrap()]);
            body.extend_from_slice(value);
        }
        let path = format!("/main{SERVICE}{method}");
        let headers = [("content-type", "application/protobuf")];
        job.http.send("POST", &path, &headers, &body)
    };
    let created = call("CreateCacheEntry", &[(2, b"key"), (3, b"v1")]).expect(200);
    assert_eq!(created.header("content-type"), Some("application/protobuf"));
    let text = created.text();
    assert_eq!(&created.body[..3], [8, 1, 0x12]);
    let url = &text[text.find("http").unwrap()..];
    job.put(&job.path(url), b"bytes").expect(201);
    let mut body = vec![0x12, 3];
    body.extend_from_slice(b"key\x18\x05\x22\x02v1");
    let headers = [("content-type", "application/protobuf")];
    let path = format!("{SERVICE}FinalizeCacheEntryUpload");
    let done = job.http.send("POST", &path, &headers, &body).expect(200);
    assert_eq!(&done.body[..3], [8, 1, 0x10]);
    let found = call(
        "GetCacheEntryDownloadURL",
        &[(2, b"none"), (3, b"k"), (4, b"v1")],
    );
    assert!(found.expect(200).text().ends_with("\x1a\x03key"));
    let missed = call("GetCacheEntryDownloadURL", &[(2, b"none"), (4, b"v1")]);
    assert!(missed.expect(200).body.is_empty());
    // Its errors are JSON.
    let again = call("CreateCacheEntry", &[(2, b"key"), (3, b"v1")]).expect(409);
    assert_eq!(again.json()["code"], "already_exists");
}

#[test]
fn an_upload_survives_a_restart_of_the_server() {
    let mut server = TestServer::start();
    let job = Job::on_main(&server);
    let bytes = noise(4, 600_000);
    let upload = job.reserve("key");
    assert_eq!(block(&job, &upload, "Yg==", &bytes[300_000..]), 201);
    server.restart();
    assert_eq!(block(&job, &upload, "YQ==", &bytes[..300_000]), 201);
    let both = list(&["YQ==", "Yg=="]);
    job.put(&format!("{upload}&comp=blocklist"), &both)
        .expect(201);
    server.restart();
    assert_eq!(
        job.finalize("key", bytes.len()).expect(200).json()["ok"],
        true
    );
    server.restart();
    assert!(job.restore("key", &[]).unwrap().1 == bytes);
    // It is one of the server's own entries in every other way: it survives its database.
    server.stop();
    std::fs::remove_file(server.data().join("firn.db")).unwrap();
    let config = firn_server::Config {
        data: server.data().to_owned(),
        ..firn_server::Config::default()
    };
    assert_eq!(firn_server::rebuild(&config).unwrap().entries_dropped, 0);
    server.start_again();
    assert!(job.restore("key", &[]).unwrap().1 == bytes);
}

/// Sends a part's head and `sent` of its `length` bytes, and keeps the connection.
fn half_sent(server: &TestServer, path: &str, length: usize, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.host()).unwrap();
    let head = format!(
        "PUT {path}&comp=block&blockid=YQ%3D%3D HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n",
        server.host()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(sent).unwrap();
    stream
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_abandoned_reservation_frees_its_key_and_leaves_nothing() {
    let server = TestServer::start_with(|config| config.limits.actions_idle_seconds_max = 4);
    let job = Job::on_main(&server);
    let upload = job.reserve("key");
    assert_eq!(block(&job, &upload, "Yg==", &noise(5, 100_000)), 201);
    // A client that is killed in the middle of a block.
    drop(half_sent(&server, &upload, 200_000, &noise(6, 150_000)));
    job.create("key").expect(409);
    eventually("the key is not free", || job.create("key").status == 200);
    assert_eq!(block(&job, &upload, "Yg==", b"late"), 404);
    let store = &server.running().services().store;
    eventually("something is left", || {
        store.staged_reap().unwrap();
        staged(&server) == 0
    });
    assert_eq!(job.matched("key", &[]), None);
}

#[test]
fn a_slow_upload_that_moves_is_never_reaped() {
    let server = TestServer::start_with(|config| config.limits.actions_idle_seconds_max = 5);
    let job = Job::on_main(&server);
    let bytes = noise(7, 400_000);
    let upload = job.reserve("key");
    let mut stream = half_sent(&server, &upload, bytes.len(), &bytes[..200_000]);
    let store = &server.running().services().store;
    for piece in bytes[200_000..].chunks(12_500) {
        std::thread::sleep(Duration::from_millis(500));
        stream.write_all(piece).unwrap();
        store.staged_reap().unwrap();
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    job.put(&format!("{upload}&comp=blocklist"), &list(&["YQ=="]))
        .expect(201);
    assert_eq!(
        job.finalize("key", bytes.len()).expect(200).json()["ok"],
        true
    );
    assert_eq!(
        Sha256::of(&job.restore("key", &[]).unwrap().1),
        Sha256::of(&bytes)
    );
}
