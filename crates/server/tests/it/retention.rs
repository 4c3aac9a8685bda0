//! What caches keep, as clients ask for it and are told of it.

use crate::http::Client;
use crate::samples::{Upload, noise};
use firn_formats::nix::Compression;
use firn_testkit::TestServer;

fn server() -> TestServer {
    // What was pushed may go at once.
    TestServer::start_with(|config| config.lease_seconds = 0)
}

#[test]
fn limits_are_set_shown_and_taken_back() {
    let server = server();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let patch = |body: &str| {
        admin.send(
            "PATCH",
            "/api/v1/caches/main",
            &[("content-type", "application/json")],
            body.as_bytes(),
        )
    };
    let view = patch(r#"{"keep_for_seconds":86400,"quota_bytes":1000000}"#)
        .expect(200)
        .json();
    assert_eq!(view["quota_bytes"], 1_000_000);
    let view = patch(r#"{"quota_bytes":0,"priority":30}"#)
        .expect(200)
        .json();
    assert_eq!(
        (&view["keep_for_seconds"], &view["priority"]),
        (&86400.into(), &30.into())
    );
    assert!(view.get("quota_bytes").is_none());
    let info = admin.get("/main/nix-cache-info").text();
    assert!(info.contains("Priority: 30"), "{info}");
    patch(r#"{"quota_bytes":-1}"#).expect(400);
    let made = serde_json::json!({"name": "small", "quota_bytes": 5});
    let view = admin.post_json("/api/v1/caches", &made).expect(200).json();
    assert_eq!(view["quota_bytes"], 5);
}

#[test]
fn what_went_is_said_with_its_reason() {
    let server = server();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let old = Upload::new("old", &noise(1, 30_000), &[], Compression::Zstd);
    let new = Upload::new("new", &noise(2, 30_000), &[], Compression::Zstd);
    old.push(&admin).expect(201);
    new.push(&admin).expect(201);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    admin.get(&new.narinfo_path()).expect(200);
    let body = br#"{"quota_bytes":50000}"#;
    admin
        .send(
            "PATCH",
            "/api/v1/caches/main",
            &[("content-type", "application/json")],
            body,
        )
        .expect(200);
    let evict = |dry_run: bool| {
        let request = serde_json::json!({ "dry_run": dry_run });
        admin
            .post_json("/api/v1/evict?cache=main", &request)
            .expect(200)
            .json()
    };
    let would = evict(true);
    assert_eq!(
        (&would["paths"], &would["dry_run"]),
        (&1.into(), &true.into())
    );
    admin.get(&old.narinfo_path()).expect(200);
    // That was a use, of the one and not of the other.
    std::thread::sleep(std::time::Duration::from_millis(20));
    admin.get(&new.narinfo_path()).expect(200);
    let did = evict(false);
    assert_eq!(did["evicted"][0]["name"], old.path.to_string());
    admin.get(&old.narinfo_path()).expect(404);
    admin.get(&old.nar_path()).expect(404);
    admin.get(&new.narinfo_path()).expect(200);
    let path = old.path.to_string();
    let query = serde_json::json!({"cache": "main", "paths": [path, new.path.to_string()]});
    let status = admin.post_json("/api/v1/status", &query).expect(200).json();
    assert_eq!(status["present"].as_object().unwrap().len(), 1);
    let evicted = &status["evicted"][&path];
    assert_eq!(evicted["reason"], "quota");
    assert!(evicted["at"].as_i64() >= evicted["used_at"].as_i64());
    let log = admin.get("/api/v1/evictions?cache=main").expect(200).json();
    assert_eq!(log.as_array().unwrap().len(), 1);
    let view = admin.get("/api/v1/caches/main").expect(200).json();
    assert_eq!(view["evicted"]["paths"], 1);
    assert_eq!(evict(false)["paths"], 0);
}

#[test]
fn a_push_larger_than_the_quota_is_told_so() {
    let server = server();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let body = br#"{"quota_bytes":20000}"#;
    admin
        .send(
            "PATCH",
            "/api/v1/caches/main",
            &[("content-type", "application/json")],
            body,
        )
        .expect(200);
    let upload = Upload::new("large", &noise(3, 30_000), &[], Compression::Zstd);
    let refused = admin.put(&upload.nar_path(), &upload.file).expect(403);
    assert!(
        refused.text().contains("quota of 20000 bytes"),
        "{}",
        refused.text()
    );
    let blob = noise(4, 30_000);
    let digest = firn_formats::Sha256::of(&blob).hex();
    let started = admin
        .send("POST", "/v2/main/app/blobs/uploads/", &[], b"")
        .expect(202);
    let location = started.header("location").unwrap().to_owned();
    let sign = if location.contains('?') { '&' } else { '?' };
    let path = location.strip_prefix(&server.url()).unwrap_or(&location);
    let refused = admin
        .put(&format!("{path}{sign}digest=sha256:{digest}"), &blob)
        .expect(403);
    assert_eq!(refused.json()["errors"][0]["code"], "DENIED");
}

#[test]
fn uses_outlive_a_restart() {
    let mut server = server();
    let url = server.url();
    let token = server.admin_token().to_owned();
    let admin = || Client::new(&url, Some(&token));
    let used = Upload::new("used", &noise(5, 30_000), &[], Compression::Zstd);
    let unused = Upload::new("unused", &noise(6, 30_000), &[], Compression::Zstd);
    used.push(&admin()).expect(201);
    unused.push(&admin()).expect(201);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    admin().get(&used.narinfo_path()).expect(200);
    server.restart();
    let body = br#"{"quota_bytes":50000}"#;
    admin()
        .send(
            "PATCH",
            "/api/v1/caches/main",
            &[("content-type", "application/json")],
            body,
        )
        .expect(200);
    admin()
        .post_json("/api/v1/evict?cache=main", &serde_json::json!({}))
        .expect(200);
    admin().get(&used.narinfo_path()).expect(200);
    admin().get(&unused.narinfo_path()).expect(404);
}
