//! Malformed or lying uploads: a clear 4xx, and nothing visible.

use crate::http::Client;
use crate::samples::{Upload, noise};
use firn_formats::Sha256;
use firn_formats::nix::Compression;
use firn_testkit::TestServer;

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
