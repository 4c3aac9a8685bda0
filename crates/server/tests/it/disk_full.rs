//! A disk that is full: writers are told so, readers notice nothing, and room is enough to go on.

use crate::http::Client;
use crate::samples::{Upload, noise};
use firn_chunks::Encoder;
use firn_formats::Sha256;
use firn_formats::nix::Compression;
use firn_formats::push::{Begin, encode_frame};
use firn_testkit::{SmallDisk, TestServer};
use std::io::Write as _;
use std::time::Duration;

/// A body of frames that nobody has sent yet.
fn pushed(seed: u64) -> Vec<u8> {
    let mut body = Vec::new();
    let mut encoder = Encoder::new(1);
    for piece in noise(seed, 6 << 20).chunks(200_000) {
        let frame = encoder.encode(piece);
        encode_frame(&frame.record().id.0, frame.frame(), &mut body);
    }
    body
}

const SESSION_SECONDS: u64 = 10;

/// What an administrator changes is small: with the last block taken it is refused too, and leaves nothing.
fn refused_to_administrators(server: &TestServer, disk: &SmallDisk) {
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let cache = serde_json::json!({"name": "late"});
    let rest = disk.path().join("rest");
    let mut file = std::fs::File::create(&rest).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    for _ in 0..3 {
        let refused = admin.post_json("/api/v1/caches", &cache).expect(507);
        assert_eq!(refused.json()["error"]["code"], "storage_full");
        admin.get("/api/v1/caches/late").expect(404);
        admin.get("/api/v1/caches/main").expect(200);
    }
    drop(file);
    std::fs::remove_file(&rest).unwrap();
    admin.post_json("/api/v1/caches", &cache).expect(200);
    admin.get("/late/public-key").expect(200);
}

#[test]
fn a_full_disk_is_507_and_room_is_enough_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&folder.path().join("disk"), "64m");
    let server = TestServer::start_with(|config| {
        config.data = disk.path().join("data");
        config.session_ttl_seconds = SESSION_SECONDS;
    });
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let small = Upload::new("small", &noise(1, 500_000), &[], Compression::Zstd);
    small.push(&admin).expect(201);
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 52 << 20]).unwrap();

    let large = Upload::new("large", &noise(2, 16 << 20), &[], Compression::None);
    let layer = noise(3, 16 << 20);
    let digest = Sha256::of(&layer).hex();
    let layer_path = format!("/v2/main/app/blobs/uploads/?digest=sha256:{digest}");
    let begin = Begin {
        paths: vec![large.path.hash().to_string()],
        ..Begin::default()
    };
    let begun = admin
        .post_json("/api/v1/push/begin?cache=main", &begin)
        .expect(200);
    let mut seed = 100;
    for _ in 0..3 {
        let full = admin.put(&large.nar_path(), &large.file).expect(507);
        assert!(full.text().contains("storage is full"), "{}", full.text());
        admin.head(&large.nar_path()).expect(404);
        admin.send("POST", &layer_path, &[], &layer).expect(507);
        admin
            .head(&format!("/v2/main/app/blobs/sha256:{digest}"))
            .expect(404);
        let session = begun.json()["session"].as_str().unwrap().to_owned();
        let frames = format!("/api/v1/push/{session}/frames");
        let full = loop {
            let answer = admin.send("POST", &frames, &[], &pushed(seed));
            seed += 1;
            if answer.status != 200 {
                break answer.expect(507);
            }
        };
        assert_eq!(full.json()["error"]["code"], "storage_full");
        let log = noise(4, 16 << 20);
        admin.put("/main/log/large.drv", &log).expect(507);
        admin.get("/main/log/large.drv").expect(404);
        let nar = admin.get(&small.nar_path()).expect(200);
        assert_eq!(zstd::stream::decode_all(&nar.body[..]).unwrap(), small.nar);
        admin.get("/readyz").expect(200);
    }
    refused_to_administrators(&server, &disk);

    // The collector needs no room to give some back: that of the frames that will not be published.
    let before = server.pack_bytes();
    let session = begun.json()["session"].as_str().unwrap().to_owned();
    admin.delete(&format!("/api/v1/push/{session}")).expect(204);
    // What failed uploads of other doors pinned is let go with the session that they shared.
    std::thread::sleep(Duration::from_secs(SESSION_SECONDS + 1));
    server.collect();
    assert!(server.pack_bytes() < before, "{before}");
    let nar = admin.get(&small.nar_path()).expect(200);
    assert_eq!(zstd::stream::decode_all(&nar.body[..]).unwrap(), small.nar);

    std::fs::remove_file(&ballast).unwrap();
    large.push(&admin).expect(201);
    assert_eq!(admin.get(&large.nar_path()).expect(200).body, large.nar);
    admin.send("POST", &layer_path, &[], &layer).expect(201);
    let url = format!("/v2/main/app/blobs/sha256:{digest}");
    assert!(admin.get(&url).expect(200).body == layer);
    // The server stops before its disk goes.
    drop(server);
    drop(disk);
}
