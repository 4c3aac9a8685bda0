//! Malformed or lying uploads: a clear 4xx, and nothing visible.

use crate::http::Client;
use crate::samples::{Upload, noise};
use firn_formats::Sha256;
use firn_formats::nix::Compression;
use firn_testkit::TestServer;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

#[test]
fn a_body_that_is_no_nar_of_its_name_is_refused() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let good = Upload::new("good", &noise(5, 100_000), &[], Compression::Zstd);
    let named =
        |body: &[u8], ending: &str| format!("/main/nar/{}.nar{ending}", Sha256::of(body).base32());
    let mut trailing = good.nar.clone();
    trailing.extend_from_slice(&[0; 8]);
    let cut = &good.nar[..good.nar.len() - 8];
    for (path, body) in [
        // The right name, but not these bytes.
        (good.nar_path(), &good.file[..good.file.len() / 2]),
        (good.nar_path(), b"".as_slice()),
        // The right hash, but no NAR.
        (named(b"garbage", ""), b"garbage"),
        (named(b"garbage", ".zst"), b"garbage"),
        (named(b"garbage", ".xz"), b"garbage"),
        (named(b"garbage", ".br"), b"garbage"),
        (named(cut, ""), cut),
        (named(&trailing, ""), &trailing),
        ("/main/nar/short.nar".to_owned(), &good.nar),
    ] {
        let answer = admin.put(&path, body);
        assert!(
            (400..500).contains(&answer.status),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
        admin.head(&path).expect(404);
    }
    good.push(&admin).expect(201);
}

#[test]
fn a_narinfo_that_lies_is_refused() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let upload = Upload::new("lying", &noise(6, 40_000), &[], Compression::Xz);
    admin.put(&upload.nar_path(), &upload.file).expect(201);
    let text = upload.narinfo.to_string();
    let other = Upload::new("other", b"other", &[], Compression::Xz);
    let hash = Sha256::of(b"something else").nix();
    let size = format!("NarSize: {}", upload.narinfo.nar_size);
    for (what, narinfo, status) in [
        (
            "hash",
            text.replace(&upload.narinfo.nar_hash.nix(), &hash),
            422,
        ),
        ("size", text.replace(&size, "NarSize: 12"), 422),
        ("zero size", text.replace(&size, "NarSize: 0"), 400),
        (
            "path",
            text.replace(&upload.path.to_string(), &other.path.to_string()),
            400,
        ),
        (
            "no NAR",
            other
                .narinfo
                .to_string()
                .replace(&other.path.to_string(), &upload.path.to_string()),
            400,
        ),
        ("URL", text.replace("URL: nar/", "URL: ../nar/"), 400),
        (
            "compression",
            text.replace("Compression: xz", "Compression: zstd"),
            400,
        ),
        (
            "forged line",
            text.replace("NarSize", "Deriver: x\rNarSize"),
            400,
        ),
        ("empty", String::new(), 400),
    ] {
        let answer = admin.put(&upload.narinfo_path(), narinfo.as_bytes());
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        admin.get(&upload.narinfo_path()).expect(404);
    }
    upload.push(&admin).expect(201);
}

/// Everything a bare connection answers to one GET.
fn raw_get(host: &str, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(host).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut out = Vec::new();
    // A reset is an error, and what we are here for.
    let _ = stream.read_to_end(&mut out);
    out
}

#[test]
fn rotten_bytes_never_end_cleanly() {
    let mut server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let upload = Upload::new("rotten", &noise(9, 3_000_000), &[], Compression::Zstd);
    upload.push(&admin).expect(201);
    let path = format!("/main/nar/{}.nar", upload.narinfo.nar_hash.base32());
    let whole = raw_get(&server.host(), &path);
    assert!(whole.ends_with(&upload.nar), "served whole before");
    // Asked for before: a chunk that a reader found rotten hides its path.
    let zstd = admin.get(&upload.narinfo_path()).expect(200).text();
    let url = zstd
        .lines()
        .find_map(|line| line.strip_prefix("URL: "))
        .unwrap();
    server.stop();
    let mut largest = (0, std::path::PathBuf::new());
    let mut folders = vec![server.data().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.len() > largest.0 {
                largest = (metadata.len(), entry.path());
            }
        }
    }
    let mut pack = std::fs::read(&largest.1).unwrap();
    let middle = pack.len() / 2;
    pack[middle] ^= 1;
    std::fs::write(&largest.1, pack).unwrap();
    server.start_again();
    let answer = raw_get(&server.host(), &path);
    assert!(
        answer.len() < whole.len(),
        "{} of {}",
        answer.len(),
        whole.len()
    );
    let answer = raw_get(&server.host(), &format!("/main/{url}"));
    assert!(answer.len() < 3_000_000, "{} bytes", answer.len());
}
