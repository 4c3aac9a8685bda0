//! The collector of a server that runs.

use crate::http::Client;
use crate::samples::Upload;
use firn_formats::nix::Compression;
use firn_testkit::TestServer;
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

fn pack_bytes(server: &TestServer) -> u64 {
    fn below(dir: &std::path::Path) -> u64 {
        let Ok(entries) = std::fs::read_dir(dir) else {
            return 0;
        };
        entries
            .map(|entry| {
                let entry = entry.unwrap();
                match entry.file_type().unwrap().is_dir() {
                    true => below(&entry.path()),
                    false => entry.metadata().unwrap().len(),
                }
            })
            .sum()
    }
    below(&server.data().join("packs"))
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
    let before = pack_bytes(&server);
    delete_narinfos(&server, &uploads()[1..]);
    // Until then the session of the uploads holds them.
    std::thread::sleep(Duration::from_millis(5100));
    let request = |dry_run| serde_json::json!({"dry_run": dry_run, "grace_seconds": 0});
    let plan = gc(&admin, request(true)).expect(200).json();
    assert_eq!(pack_bytes(&server), before);
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
    assert!(pack_bytes(&server) < before / 2);
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
    while pack_bytes(&server) > 0 {
        assert!(Instant::now() < end, "nothing was collected");
        std::thread::sleep(Duration::from_millis(50));
    }
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
}
