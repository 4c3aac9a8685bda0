//! Uploads that are cut, or that are not what they are said to be, at each sixty-fourth of their length and by
//! every door: a 4xx, and nothing of them is to be seen.

use crate::http::Client;
use crate::samples::{Upload, noise};
use firn_chunks::Encoder;
use firn_formats::Sha256;
use firn_formats::nix::Compression;
use firn_formats::push::{Begin, encode_frame};
use firn_testkit::TestServer;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const CUTS: usize = 64;

fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..CUTS).map(move |cut| length * cut / CUTS)
}

fn refused(answer: &crate::http::Answer, what: &str) {
    let status = answer.status;
    assert!(
        (400..500).contains(&status),
        "{what}: {status} {}",
        answer.text()
    );
}

/// A body that ends before its announced length; what is answered, if anything is.
fn broken_off(
    server: &TestServer,
    method: &str,
    path: &str,
    announced: usize,
    body: &[u8],
) -> String {
    let mut stream = TcpStream::connect(server.host()).unwrap();
    let token = server.admin_token();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: firn\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {announced}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream.write_all(body).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    // It may be closed without an answer.
    let _ = stream.read_to_string(&mut answer);
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Life of a session that nobody uses any more.
const SESSION_SECONDS: u64 = 5;

/// A server on which what was not published is garbage soon.
fn forgetful() -> TestServer {
    TestServer::start_with(|config| {
        config.lease_seconds = 0;
        config.session_ttl_seconds = SESSION_SECONDS;
        config.gc_interval_seconds = 0;
    })
}

/// Bytes of packs once all that was cut off is collected.
fn kept(server: &TestServer) -> u64 {
    std::thread::sleep(Duration::from_millis(SESSION_SECONDS * 1000 + 200));
    server.collect();
    server.pack_bytes()
}

/// What a server holds that can be seen: blobs that were made, and packs' bytes are the collector's.
fn blobs(server: &TestServer) -> u64 {
    server.running().services().store.stats().unwrap().blobs
}

#[test]
fn a_nar_that_is_cut_or_wrong() {
    let server = forgetful();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    for compression in [Compression::None, Compression::Zstd, Compression::Xz] {
        let name = format!("cut-{}", compression.name());
        let upload = Upload::new(&name, &noise(40, 300_000), &[], compression);
        let path = upload.nar_path();
        let ending = path.rsplit_once(".nar").unwrap().1;
        let before = kept(&server);
        for cut in cuts(upload.file.len()) {
            let part = &upload.file[..cut];
            // Under the whole's name, under its own, and broken off on the way.
            refused(&admin.put(&path, part), "cut");
            let own = format!("/main/nar/{}.nar{ending}", Sha256::of(part).base32());
            refused(&admin.put(&own, part), "cut, with its own name");
            admin.head(&own).expect(404);
            let line = broken_off(&server, "PUT", &path, upload.file.len(), part);
            assert!(line.is_empty() || line.contains(" 4"), "{line}");
            let mut wrong = upload.file.clone();
            wrong[cut] ^= 1;
            refused(&admin.put(&path, &wrong), "one wrong bit");
            let more = [&upload.file[..], &upload.file[..=cut]].concat();
            refused(&admin.put(&path, &more), "more than it is");
            admin.head(&path).expect(404);
            refused(
                &admin.put(
                    &upload.narinfo_path(),
                    upload.narinfo.to_string().as_bytes(),
                ),
                "no NAR",
            );
        }
        admin.get(&upload.narinfo_path()).expect(404);
        // So long that much of it was stored when it broke off.
        let long = Upload::new("long", &noise(43, 12_000_000), &[], compression);
        let part = &long.file[..11_000_000];
        broken_off(&server, "PUT", &long.nar_path(), long.file.len(), part);
        assert!(server.pack_bytes() > before + 1_000_000);
        // What is less than a percent of a pack stays in it.
        let kept = kept(&server);
        assert!(kept <= before + before / 100, "{name}: {kept}, {before}");
        upload.push(&admin).expect(201);
        // The narinfo lies by a bit or a byte.
        let text = upload.narinfo.to_string();
        let other = Upload::new("other", b"", &[], compression);
        let lie = |from: &str, to: &str| {
            text.replace(from, to)
                .replace(&upload.path.to_string(), &other.path.to_string())
        };
        let size = format!("NarSize: {}", upload.narinfo.nar_size);
        let longer = format!("NarSize: {}", upload.narinfo.nar_size + 1);
        let wrong_hash = Sha256::of(b"another").nix();
        for narinfo in [
            lie(&size, &longer),
            lie(&upload.narinfo.nar_hash.nix(), &wrong_hash),
        ] {
            refused(
                &admin.put(&other.narinfo_path(), narinfo.as_bytes()),
                "a lie",
            );
            admin.get(&other.narinfo_path()).expect(404);
        }
    }
}

#[test]
fn frames_that_are_cut_or_wrong() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let upload = Upload::new("frames", &noise(41, 200_000), &[], Compression::None);
    let request = Begin {
        paths: vec![upload.path.hash().to_string()],
        ..Begin::default()
    };
    let begun = admin
        .post_json("/api/v1/push/begin?cache=main", &request)
        .expect(200);
    let session = begun.json()["session"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/push/{session}/frames");
    let mut encoder = Encoder::new(1);
    let mut body = Vec::new();
    for piece in upload.nar.chunks(20_000) {
        let frame = encoder.encode(piece);
        encode_frame(&frame.record().id.0, frame.frame(), &mut body);
    }
    let held = || server.running().services().store.stats().unwrap().chunks;
    for cut in cuts(body.len()).skip(1) {
        refused(&admin.send("POST", &path, &[], &body[..cut]), "cut");
        let mut wrong = body.clone();
        wrong[cut] ^= 1;
        refused(&admin.send("POST", &path, &[], &wrong), "one wrong bit");
        let line = broken_off(&server, "POST", &path, body.len(), &body[..cut]);
        assert!(line.is_empty() || line.contains(" 4"), "{line}");
        // All of a body or nothing: not one frame of these was kept.
        assert_eq!(held(), 0, "cut at {cut}");
    }
    admin.send("POST", &path, &[], &body).expect(200);
    assert_eq!(held(), upload.nar.chunks(20_000).len() as u64);
    admin.get(&upload.narinfo_path()).expect(404);
}

#[test]
fn a_registry_blob_that_is_cut_or_wrong() {
    let server = forgetful();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let blob = noise(42, 200_000);
    let digest = format!("sha256:{}", Sha256::of(&blob).hex());
    let seen = format!("/v2/main/app/blobs/{digest}");
    let uploads = "/v2/main/app/blobs/uploads/";
    let whole = format!("{uploads}?digest={digest}");
    for cut in cuts(blob.len()) {
        refused(&admin.send("POST", &whole, &[], &blob[..cut]), "cut");
        let line = broken_off(&server, "POST", &whole, blob.len(), &blob[..cut]);
        assert!(line.is_empty() || line.contains(" 4"), "{line}");
        let mut wrong = blob.clone();
        wrong[cut] ^= 1;
        refused(&admin.send("POST", &whole, &[], &wrong), "one wrong bit");
        // In two pieces, of which the second is cut.
        let begun = admin.send("POST", uploads, &[], b"").expect(202);
        let place = begun.header("location").unwrap().to_owned();
        admin
            .send("PATCH", &place, &[], &blob[..cut / 2])
            .expect(202);
        let end = format!("{place}?digest={digest}");
        refused(&admin.send("PUT", &end, &[], &blob[cut / 2..cut]), "cut");
        admin.head(&seen).expect(404);
    }
    assert_eq!(blobs(&server), 0);
    assert!(server.pack_bytes() > 0, "nothing was taken in");
    assert_eq!(kept(&server), 0);
    admin.send("POST", &whole, &[], &blob).expect(201);
    assert!(admin.get(&seen).expect(200).body == blob);
}
