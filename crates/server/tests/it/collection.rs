//! The collector of a server that runs.

use crate::http::Client;
use crate::samples::Upload;
use firn_formats::nix::Compression;
use firn_store::CollectionOptions;
use firn_testkit::TestServer;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

fn uploads() -> Vec<Upload> {
    ["one", "two", "three"]
        .map(|seed| {
            Upload::new(
                seed,
                &crate::samples::noise(u64::from(seed.as_bytes()[1]), 300_000),
                &[],
                Compression::Zstd,
            )
        })
        .into()
}

#[test]
fn what_was_deleted_gives_its_room_back_when_asked_to_and_the_rest_stays() {
    let server = TestServer::start_with(|config| {
        config.lease_seconds = 0;
        config.gc_interval_seconds = 0;
        config.session_ttl_seconds = 5;
    });
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let kept = &uploads()[0];
    kept.push(&admin).expect(201);
    let token = server.token(&["main"], &[firn_formats::admin::Right::Admin]);
    let gc = |client: &Client, body: serde_json::Value| client.post_json("/api/v1/gc", &body);
    // All caches are concerned, so the right on one is not enough.
    gc(
        &Client::new(&server.url(), Some(&token)),
        serde_json::json!({}),
    )
    .expect(403);
    gc(&Client::new(&server.url(), None), serde_json::json!({})).expect(401);
    gc(&admin, serde_json::json!({"unknown": 1})).expect(400);
    let nothing = gc(&admin, serde_json::json!({"grace_seconds": 0}))
        .expect(200)
        .json();
    assert_eq!(nothing["packs_deleted"], 0, "{nothing}");
    for upload in &uploads()[1..] {
        upload.push(&admin).expect(201);
    }
    let before = server.pack_bytes();
    delete_narinfos(&server, &uploads()[1..]);
    // Until then the session of the uploads holds them.
    std::thread::sleep(Duration::from_millis(5100));
    let request = |dry_run| serde_json::json!({"dry_run": dry_run, "grace_seconds": 0});
    let plan = gc(&admin, request(true)).expect(200).json();
    assert_eq!(server.pack_bytes(), before);
    assert!(plan["chunks_condemned"].as_u64() > Some(0), "{plan}");
    let done = gc(&admin, request(false)).expect(200).json();
    for figure in [
        "blobs_dropped",
        "chunks_condemned",
        "packs_rewritten",
        "packs_deleted",
    ] {
        assert_eq!(plan[figure], done[figure], "{figure}");
    }
    assert!(server.pack_bytes() < before / 2);
    admin.get(&kept.nar_path()).expect(200);
    let metrics = admin.get("/metrics").expect(200).text();
    assert!(metrics.contains("firn_collections_total 2"), "{metrics}");
    assert!(metrics.contains("firn_reclaimed_bytes_total"), "{metrics}");
}

/// Takes paths away below the doors: no door of today does.
fn delete_narinfos(server: &TestServer, uploads: &[Upload]) {
    use firn_store::{EntryKind, Publication};
    let store = &server.running().services().store;
    let cache = store.cache("main").unwrap().unwrap();
    for upload in uploads {
        let narinfo = upload.narinfo_path();
        let hash = narinfo
            .trim_start_matches("/main/")
            .trim_end_matches(".narinfo");
        let blob = store
            .entry(cache.id, EntryKind::Narinfo, hash)
            .unwrap()
            .unwrap()
            .blobs[0];
        let mut deletions = vec![(EntryKind::Narinfo, hash.to_owned())];
        for kind in [EntryKind::NarFile, EntryKind::NarAlias] {
            let entries = store.entries(cache.id, kind, "", None, 1000).unwrap();
            let of_blob = entries.into_iter().filter(|entry| entry.blobs == [blob]);
            deletions.extend(of_blob.map(|entry| (kind, entry.key)));
        }
        let publication = Publication {
            entries: Vec::new(),
            deletions,
        };
        store.publish(None, cache.id, publication).unwrap();
    }
}

#[test]
fn a_server_collects_by_itself_and_stops_at_once() {
    let mut server = TestServer::start_with(|config| {
        config.lease_seconds = 0;
        config.gc_interval_seconds = 1;
        config.gc_grace_seconds = 0;
        config.session_ttl_seconds = 2;
    });
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let upload = &uploads()[2];
    upload.push(&admin).expect(201);
    delete_narinfos(&server, &uploads()[2..]);
    let end = Instant::now() + Duration::from_secs(60);
    while server.pack_bytes() > 0 {
        assert!(Instant::now() < end, "nothing was collected");
        std::thread::sleep(Duration::from_millis(50));
    }
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Reads from a connection up to and with these bytes.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(end) {
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    read
}

#[test]
fn a_long_collection_says_every_ten_seconds_that_it_goes_on() {
    let server = TestServer::start_with(|config| config.gc_interval_seconds = 0);
    let (store, hold) = (
        server.running().services().store.clone(),
        Arc::new(AtomicBool::new(true)),
    );
    // There is one collection at a time, and this one does not get anywhere.
    let (held, begun) = (hold.clone(), channel());
    let first = std::thread::spawn(move || {
        let outcome = store.collect(&CollectionOptions::default(), &|_| {
            begun.0.send(()).unwrap_or_default();
            while held.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            true
        });
        outcome.unwrap();
    });
    begun.1.recv().unwrap();
    let mut stream = TcpStream::connect(server.host()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let token = server.admin_token();
    write!(
        stream,
        "POST /api/v1/gc HTTP/1.1\r\nHost: firn\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    )
    .unwrap();
    let asked = Instant::now();
    let head = String::from_utf8(read_until(&mut stream, b"\r\n\r\n")).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // A chunk of one empty line.
    read_until(&mut stream, b"1\r\n\n\r\n");
    assert!(asked.elapsed() >= Duration::from_secs(9));
    hold.store(false, Ordering::Relaxed);
    first.join().unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    let report = rest.lines().find(|line| line.starts_with('{')).unwrap();
    let report: serde_json::Value = serde_json::from_str(report).unwrap();
    assert_eq!(report["stopped"], false, "{report}");
    assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
}
