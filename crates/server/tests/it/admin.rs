//! Caches, tokens, status, health, metrics, first start.

use crate::http::Client;
use crate::samples::Upload;
use firn_formats::nix::Compression;
use firn_testkit::TestServer;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn the_first_start_makes_what_is_needed_and_the_second_keeps_it() {
    let mut server = TestServer::start();
    for secret in ["admin.token", "token.key", "keys/main.secret"] {
        let mode = std::fs::metadata(server.data().join(secret))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let url = server.url();
    let key = Client::new(&url, None)
        .get("/main/public-key")
        .expect(200)
        .text();
    let welcome = firn_server::welcome(server.running());
    assert!(
        welcome.contains(key.trim()) && welcome.contains(&format!("{url}/main")),
        "{welcome}"
    );
    let token = server.admin_token().to_owned();
    assert!(!welcome.contains(&token));
    let login = format!(
        "firn login {url} --token-stdin < {}",
        server.data().join("admin.token").display()
    );
    assert!(welcome.contains(&login), "{welcome}");
    server.restart();
    assert_eq!(Client::new(&url, None).get("/main/public-key").text(), key);
    let who = Client::new(&url, Some(&token))
        .get("/api/v1/whoami")
        .expect(200)
        .json();
    assert_eq!(who["anonymous"], false);
}

#[test]
fn caches_come_and_go() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let create = |name: &str| {
        admin.post_json(
            "/api/v1/caches",
            &serde_json::json!({"name": name, "public": true}),
        )
    };
    let made = create("acme/web").expect(200).json();
    let key = made["public_keys"][0].as_str().unwrap();
    assert!(key.starts_with("firn-acme-web-"), "{key}");
    create("acme/web").expect(409);
    for name in [
        "v2",
        "api",
        "nar",
        "a/b/c",
        "A",
        "_system",
        "x/nar",
        "a.narinfo",
        "",
        "../x",
        "a/log",
    ] {
        create(name).expect(400);
    }
    let names: Vec<String> = admin
        .get("/api/v1/caches")
        .expect(200)
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|cache| cache["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["acme/web", "main"]);
    admin.delete("/api/v1/caches/acme/web").expect(204);
    admin.get("/api/v1/caches/acme/web").expect(404);
    admin.get("/acme/web/nix-cache-info").expect(404);
}

#[test]
fn status_and_figures() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let upload = Upload::new("counted", b"counted", &[], Compression::Zstd);
    upload.push(&admin).expect(201);
    let path = upload.path.to_string();
    let query = serde_json::json!({"cache": "main", "paths": [path, "x", "../../etc"]});
    let answer = admin.post_json("/api/v1/status", &query).expect(200).json();
    assert_eq!(answer["present"].as_object().unwrap().len(), 1);
    assert_eq!(answer["present"][&path]["nar_size"], upload.nar.len());
    let stats = admin.get("/api/v1/stats").expect(200).json();
    assert!(stats["chunks"].as_u64().unwrap() > 0);
    let view = admin.get("/api/v1/caches/main").expect(200).json();
    assert_eq!(view["store_paths"], 1);

    let anyone = Client::new(&server.url(), None);
    anyone.get("/healthz").expect(200);
    anyone.get("/readyz").expect(200);
    assert!(
        anyone
            .get("/")
            .expect(200)
            .text()
            .contains("extra-substituters")
    );
    anyone.get(&upload.narinfo_path()).expect(200);
    anyone.get("/metrics").expect(401);
    let metrics = admin.get("/metrics").expect(200).text();
    for line in [
        "firn_requests_total{door=\"Nix\",status=\"200\"}",
        "firn_lookups_total",
        "firn_sent_bytes_total",
        "firn_cache_info{cache=",
        "firn_chunks_new_since_start",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn malformed_requests_are_4xx_and_say_why() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    for (method, path, body) in [
        ("POST", "/api/v1/caches", "{"),
        (
            "POST",
            "/api/v1/tokens",
            r#"{"caches":[],"allow":["pull"]}"#,
        ),
        (
            "POST",
            "/api/v1/tokens",
            r#"{"caches":["a\nb"],"allow":["pull"]}"#,
        ),
        (
            "POST",
            "/api/v1/tokens",
            r#"{"caches":["a"],"allow":["fly"]}"#,
        ),
        (
            "POST",
            "/api/v1/push/begin?cache=main",
            r#"{"paths":["short"]}"#,
        ),
        ("POST", "/api/v1/push/nosuch/frames", ""),
        ("POST", "/api/v1/nosuch", ""),
        ("DELETE", "/api/v1/tokens/nosuch", ""),
    ] {
        let json = [("content-type", "application/json")];
        let answer = admin.send(method, path, &json, body.as_bytes());
        assert!(
            (400..500).contains(&answer.status),
            "{path} {body}: {}",
            answer.status
        );
        assert!(
            answer.json()["error"]["message"].is_string(),
            "{path}: {}",
            answer.text()
        );
    }
}
