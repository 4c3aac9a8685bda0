//! What `nix copy` and a substituting Nix do.

use crate::http::Client;
use crate::samples::{Upload, noise};
use firn_formats::Sha256;
use firn_formats::nix::{Compression, NarInfo};
use firn_testkit::TestServer;
use std::io::Read as _;

fn decompress(file: &[u8], compression: Compression) -> Vec<u8> {
    let mut out = Vec::new();
    match compression {
        Compression::Zstd => out = zstd::stream::decode_all(file).unwrap(),
        Compression::Xz => {
            liblzma::read::XzDecoder::new(file)
                .read_to_end(&mut out)
                .unwrap();
        }
        Compression::Gzip => {
            flate2::read::GzDecoder::new(file)
                .read_to_end(&mut out)
                .unwrap();
        }
        Compression::Bzip2 => {
            bzip2::read::BzDecoder::new(file)
                .read_to_end(&mut out)
                .unwrap();
        }
        Compression::Brotli => {
            brotli_decompressor::Decompressor::new(file, 4096)
                .read_to_end(&mut out)
                .unwrap();
        }
        Compression::None => out.extend_from_slice(file),
        Compression::Lz4 => panic!("no NAR is served in lz4"),
    }
    out
}

#[test]
fn an_uploaded_path_comes_back_in_every_form() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let anyone = Client::new(&server.url(), None);
    let formats = [
        Compression::Xz,
        Compression::Zstd,
        Compression::None,
        Compression::Gzip,
        Compression::Bzip2,
        Compression::Brotli,
    ];
    for (seed, compression) in (20..).zip(formats) {
        let name = format!("sample-{}", compression.name());
        let upload = Upload::new(&name, &noise(seed, 300_000), &[], compression);
        admin.head(&upload.nar_path()).expect(404);
        admin.head(&upload.narinfo_path()).expect(404);
        upload.push(&admin).expect(201);
        admin.head(&upload.nar_path()).expect(200);

        let served = anyone.get(&upload.narinfo_path()).expect(200);
        assert_eq!(served.header("content-type"), Some("text/x-nix-narinfo"));
        let again = anyone.get(&upload.narinfo_path()).expect(200);
        assert_eq!(served.body, again.body);
        let narinfo = NarInfo::parse(&served.text()).unwrap();
        assert_eq!(narinfo.compression, Compression::Zstd);
        let nar = anyone.get(&format!("/main/{}", narinfo.url)).expect(200);
        assert_eq!(nar.header("content-type"), Some("application/x-nix-nar"));
        assert_eq!(Some(nar.body.len() as u64), narinfo.file_size);
        assert_eq!(
            Some(Sha256::of(&nar.body)),
            narinfo.file_hash.unwrap().as_sha256()
        );
        assert_eq!(zstd::stream::decode_all(&nar.body[..]).unwrap(), upload.nar);
        // Under the name its pusher remembers, in that format.
        let alias = anyone.get(&upload.nar_path()).expect(200);
        assert_eq!(decompress(&alias.body, compression), upload.nar);
        // Only of bzip2 is the length unknown before it is made.
        if compression != Compression::Bzip2 {
            assert_eq!(
                alias.header("content-length"),
                Some(alias.body.len().to_string().as_str())
            );
        }
        let plain = format!("/main/nar/{}.nar", narinfo.nar_hash.base32());
        assert_eq!(anyone.get(&plain).expect(200).body, upload.nar);
    }
}

#[test]
fn names_survive_a_restart() {
    let mut server = TestServer::start();
    let upload = Upload::new("durable", &noise(3, 50_000), &[], Compression::Xz);
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    admin.put(&upload.nar_path(), &upload.file).expect(201);
    server.restart();
    let narinfo = upload.narinfo.to_string();
    admin
        .put(&upload.narinfo_path(), narinfo.as_bytes())
        .expect(201);
    server.restart();
    let file = Client::new(&url, None).get(&upload.nar_path()).expect(200);
    assert_eq!(decompress(&file.body, Compression::Xz), upload.nar);
}

/// Nix names a gzip NAR `.nar`, as one that is not compressed.
#[test]
fn a_plain_name_is_what_its_bytes_say() {
    let mut server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    let gzip = Upload::new("gzip", &noise(4, 90_000), &[], Compression::Gzip);
    assert!(gzip.narinfo.url.ends_with(".nar"), "{}", gzip.narinfo.url);
    admin.put(&gzip.nar_path(), &gzip.file).expect(201);
    let mut wrong = gzip.narinfo.clone();
    for compression in [Compression::None, Compression::Zstd] {
        wrong.compression = compression;
        let refused = admin
            .put(&gzip.narinfo_path(), wrong.to_string().as_bytes())
            .expect(400);
        assert!(
            refused.text().contains("do not agree"),
            "{}",
            refused.text()
        );
    }
    server.restart();
    let narinfo = gzip.narinfo.to_string();
    admin
        .put(&gzip.narinfo_path(), narinfo.as_bytes())
        .expect(201);
    let file = Client::new(&url, None).get(&gzip.nar_path()).expect(200);
    assert_eq!(decompress(&file.body, Compression::Gzip), gzip.nar);

    let plain = Upload::new("plain", &noise(5, 90_000), &[], Compression::None);
    admin.put(&plain.nar_path(), &plain.file).expect(201);
    wrong = plain.narinfo.clone();
    wrong.compression = Compression::Gzip;
    admin
        .put(&plain.narinfo_path(), wrong.to_string().as_bytes())
        .expect(400);
    for nonsense in [&b""[..], b"\x1f", b"\x1f\x8b", b"\x1f\x8bxx"] {
        let name = Sha256::of(nonsense).base32();
        admin
            .put(&format!("/main/nar/{name}.nar"), nonsense)
            .expect(400);
    }
}

#[test]
fn listings_logs_and_realisations() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let upload = Upload::new("listed", b"hello", &[], Compression::Zstd);
    upload.push(&admin).expect(201);
    let listing = admin
        .get(&format!("/main/{}.ls", upload.path.hash()))
        .expect(200);
    assert_eq!(listing.header("content-type"), Some("application/json"));
    let json = listing.json();
    assert_eq!(json["version"], 1);
    assert_eq!(json["root"]["entries"]["data"]["size"], 5);
    let offset = json["root"]["entries"]["data"]["narOffset"]
        .as_u64()
        .unwrap() as usize;
    assert_eq!(&upload.nar[offset..offset + 5], b"hello");

    let large = noise(1, 200_000);
    for (path, body, media_type) in [
        ("/main/log/x.drv", &large[..], "text/plain; charset=utf-8"),
        (
            "/main/realisations/sha256:0000000000000000000000000000000000000000000000000000000000000000%21out.doi",
            b"{\"id\" : \"sha256:0000000000000000000000000000000000000000000000000000000000000000!out\"}",
            "application/json",
        ),
        (
            "/main/build-trace-v2/x.drv/out.doi",
            b"{}",
            "application/json",
        ),
        ("/main/debuginfo/abcd", b"{}", "application/json"),
    ] {
        admin.get(path).expect(404);
        admin.put(path, body).expect(201);
        let back = admin.get(path).expect(200);
        assert_eq!(back.body, body, "{path}");
        assert_eq!(back.header("content-type"), Some(media_type));
    }
    admin
        .put("/main/realisations/x.doi", b"not json")
        .expect(400);
    admin.get("/main/realisations/x.doi").expect(404);
}

#[test]
fn cache_info_is_the_servers_own() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let info = admin.get("/main/nix-cache-info").expect(200);
    assert_eq!(
        info.text(),
        "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"
    );
    admin
        .put("/main/nix-cache-info", b"StoreDir: /x\n")
        .expect(403);
    assert_eq!(admin.get("/main/nix-cache-info").body, info.body);
    let key = admin.get("/main/public-key").expect(200).text();
    assert!(key.starts_with("firn-main-"), "{key}");
}

#[test]
fn references_must_be_here() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let base = Upload::new("base", b"base", &[], Compression::Zstd);
    let above = Upload::new("above", b"above", &[&base.path], Compression::Zstd);
    let refused = above.push(&admin).expect(422);
    assert!(
        refused.text().contains(&base.path.hash().to_string()),
        "{}",
        refused.text()
    );
    admin.get(&above.narinfo_path()).expect(404);
    base.push(&admin).expect(201);
    above.push(&admin).expect(201);
    let mut selfish = Upload::new("selfish", b"me", &[], Compression::Zstd);
    selfish.narinfo.references = vec![selfish.path.clone()];
    selfish.push(&admin).expect(201);
}

/// The session that uploads share ends with its time, and the next upload gets another, however short that is.
#[test]
fn uploads_outlive_the_session_they_share() {
    let server = TestServer::start_with(|config| config.session_ttl_seconds = 1);
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    for name in ["first", "second"] {
        let upload = Upload::new(name, &noise(7, 50_000), &[], Compression::Zstd);
        upload.push(&admin).expect(201);
        std::thread::sleep(std::time::Duration::from_millis(1500));
    }
}
