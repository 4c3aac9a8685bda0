//! Every door with every kind of token, on a private and on a public cache.

use crate::http::Client;
use crate::samples::Upload;
use firn_formats::admin::{CacheCreate, Right};
use firn_formats::nix::Compression;
use firn_testkit::TestServer;

fn private(name: &str) -> CacheCreate {
    CacheCreate {
        name: name.to_owned(),
        public: false,
        priority: 40,
        domain: None,
        upstream_keys: Vec::new(),
        keep_for_seconds: None,
        quota_bytes: None,
        actions_shared: None,
    }
}

#[test]
fn the_matrix() {
    let server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    admin
        .post_json("/api/v1/caches", &private("acme/web"))
        .expect(200);
    let pull = server.token(&["acme/*"], &[Right::Pull]);
    let push = server.token(&["acme/web"], &[Right::Push]);
    let other = server.token(&["main"], &[Right::Pull, Right::Push, Right::Delete]);
    let clients = [
        ("none", Client::new(&url, None)),
        ("bad", Client::new(&url, Some("eyJ.bad.token"))),
        ("other", Client::new(&url, Some(&other))),
        ("pull", Client::new(&url, Some(&pull))),
        ("push", Client::new(&url, Some(&push))),
        ("admin", Client::new(&url, Some(server.admin_token()))),
    ];
    let ls = "/acme/web/log/x.drv";
    let digest = format!("sha256:{}", "0".repeat(64));
    let blob = format!("/v2/acme/web/app/blobs/{digest}");
    let uploads = "/v2/acme/web/app/blobs/uploads/";
    let begin = "/api/v1/push/begin?cache=acme/web";
    let status = r#"{"cache":"acme/web","paths":[]}"#;
    type Row<'a> = (&'a str, &'a str, &'a [u8], [u16; 6]);
    let nar = "/api/v1/nars/0123456789abcdfghijklmnpqrsvwxyz?cache=acme/web";
    let rows: [Row<'_>; 22] = [
        (
            "GET",
            "/acme/web/nix-cache-info",
            b"",
            [401, 401, 401, 200, 401, 200],
        ),
        ("GET", ls, b"", [401, 401, 401, 404, 401, 404]),
        (
            "PUT",
            "/acme/web/log/y.drv",
            b"log",
            [401, 401, 403, 403, 201, 200],
        ),
        ("GET", &blob, b"", [401, 401, 403, 404, 403, 404]),
        ("POST", uploads, b"", [401, 401, 403, 403, 202, 202]),
        ("DELETE", &blob, b"", [401, 401, 403, 403, 403, 404]),
        ("POST", begin, b"{}", [401, 401, 403, 403, 200, 200]),
        (
            "POST",
            "/api/v1/status",
            status.as_bytes(),
            [401, 401, 403, 200, 403, 200],
        ),
        (
            "GET",
            "/api/v1/caches/acme/web",
            b"",
            [401, 401, 403, 200, 403, 200],
        ),
        (
            "GET",
            "/api/v1/images?cache=acme/web",
            b"",
            [401, 401, 403, 200, 403, 200],
        ),
        ("GET", nar, b"", [401, 401, 403, 404, 403, 404]),
        ("GET", "/api/v1/stats", b"", [401, 401, 403, 403, 403, 200]),
        (
            "GET",
            "/api/v1/roots?cache=acme/web",
            b"",
            [401, 401, 403, 200, 403, 200],
        ),
        (
            "POST",
            "/api/v1/roots?cache=acme/web",
            br#"{"name":"x","path":"00000000000000000000000000000000-x"}"#,
            [401, 401, 403, 403, 404, 404],
        ),
        (
            "DELETE",
            "/api/v1/roots?cache=acme/web&name=x",
            b"",
            [401, 401, 403, 403, 403, 404],
        ),
        (
            "GET",
            "/api/v1/evictions?cache=acme/web",
            b"",
            [401, 401, 403, 200, 403, 200],
        ),
        (
            "POST",
            "/api/v1/evict?cache=acme/web",
            b"{}",
            [401, 401, 403, 403, 403, 200],
        ),
        (
            "PATCH",
            "/api/v1/caches/acme/web",
            br#"{"priority":41}"#,
            [401, 401, 403, 403, 403, 200],
        ),
        (
            "POST",
            "/api/v1/keys/rotate?cache=acme/web",
            br#"{"overlap_seconds":60}"#,
            [401, 401, 403, 403, 403, 200],
        ),
        (
            "POST",
            "/api/v1/tokens/rotate",
            br#"{"overlap_seconds":60}"#,
            [401, 401, 403, 403, 403, 200],
        ),
        (
            "POST",
            "/api/v1/caches",
            br#"{"name":"acme/x"}"#,
            [401, 401, 403, 403, 403, 200],
        ),
        (
            "GET",
            "/main/nix-cache-info",
            b"",
            [200, 200, 200, 200, 200, 200],
        ),
    ];
    for (method, path, body, expected) in rows {
        for ((who, client), expected) in clients.iter().zip(expected) {
            let json = [("content-type", "application/json")];
            let answer = client.send(method, path, &json, body);
            assert_eq!(
                answer.status,
                expected,
                "{who} {method} {path}: {}",
                answer.text()
            );
        }
    }
}

#[test]
fn a_private_cache_and_none_answer_alike() {
    let server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    admin
        .post_json("/api/v1/caches", &private("secret"))
        .expect(200);
    let other = server.token(&["main"], &[Right::Pull, Right::Push]);
    for client in [Client::new(&url, None), Client::new(&url, Some(&other))] {
        for path in [
            "/X/nix-cache-info",
            "/v2/X/app/tags/list",
            "/api/v1/caches/X",
        ] {
            let there = client.get(&path.replace('X', "secret"));
            let not_there = client.get(&path.replace('X', "nothing"));
            assert_eq!(there.status, not_there.status, "{path}");
            let text = there.text().replace("secret", "nothing");
            assert_eq!(text, not_there.text(), "{path}");
            assert_ne!(there.status, 200);
        }
    }
}

#[test]
fn basic_credentials_carry_the_token_and_a_revoked_one_ends_at_once() {
    let server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    admin
        .post_json("/api/v1/caches", &private("team"))
        .expect(200);
    let created = admin
        .post_json(
            "/api/v1/tokens",
            &serde_json::json!({"caches": ["team"], "allow": ["pull"]}),
        )
        .expect(200)
        .json();
    let token = created["token"].as_str().unwrap();
    let netrc = ureq_basic(token);
    let get =
        |path: &str| Client::new(&url, None).send("GET", path, &[("authorization", &netrc)], &[]);
    get("/team/nix-cache-info").expect(200);
    get("/team/00000000000000000000000000000000.narinfo").expect(404);
    let anonymous = Client::new(&url, None)
        .get("/team/nix-cache-info")
        .expect(401);
    assert_eq!(
        anonymous.header("www-authenticate"),
        Some("Basic realm=\"Firn\"")
    );
    let exchanged = get("/v2/_token?scope=repository:team/app:pull,push")
        .expect(200)
        .json();
    let bearer = Client::new(&url, Some(exchanged["token"].as_str().unwrap()));
    bearer.get("/v2/team/app/tags/list").expect(404);
    bearer
        .send("POST", "/v2/team/app/blobs/uploads/", &[], b"")
        .expect(401);

    let id = created["id"].as_str().unwrap();
    admin.delete(&format!("/api/v1/tokens/{id}")).expect(204);
    get("/team/nix-cache-info").expect(401);
    bearer.get("/v2/team/app/tags/list").expect(401);
    let listed = admin.get("/api/v1/tokens").expect(200).json();
    let revoked = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["id"] == id)
        .unwrap();
    assert_eq!(revoked["revoked"], true);
}

fn ureq_basic(token: &str) -> String {
    use base64::Engine as _;
    let text = format!("anyone:{token}");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(text)
    )
}

#[test]
fn a_nar_is_read_only_through_a_cache_that_has_it() {
    let server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    let request = CacheCreate {
        public: true,
        ..private("open")
    };
    admin.post_json("/api/v1/caches", &request).expect(200);
    let upload = Upload::new("elsewhere", b"elsewhere", &[], Compression::Zstd);
    upload.push(&admin).expect(201);
    let name = format!("nar/{}.nar", upload.narinfo.nar_hash.base32());
    admin.get(&format!("/main/{name}")).expect(200);
    // Both share a domain, and still.
    admin.get(&format!("/open/{name}")).expect(404);
}

/// What each right lets a client of the registry do, with the token itself and with one exchanged for it.
#[test]
fn the_matrix_of_the_registry() {
    use firn_formats::oci::media_type::{OCI_CONFIG, OCI_MANIFEST};
    let server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    admin
        .post_json("/api/v1/caches", &private("team"))
        .expect(200);
    let config = format!("sha256:{}", firn_formats::Sha256::of(b"{}").hex());
    let blob = format!("/v2/team/app/blobs/uploads/?digest={config}");
    let manifest = |note: &str| {
        serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "annotations": {"note": note},
            "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 2},
        })
        .to_string()
    };
    let put = |client: &Client, tag: &str, note: &str| {
        let path = format!("/v2/team/app/manifests/{tag}");
        let headers = [("content-type", OCI_MANIFEST)];
        client
            .send("PUT", &path, &headers, manifest(note).as_bytes())
            .status
    };
    let rights = [
        ("pull", vec![Right::Pull], [200, 403, 403, 403, 403, 403]),
        (
            "create",
            vec![Right::Create],
            [403, 201, 201, 201, 403, 403],
        ),
        ("push", vec![Right::Push], [403, 201, 201, 201, 201, 403]),
        (
            "delete",
            vec![Right::Delete],
            [403, 403, 403, 403, 403, 202],
        ),
        (
            "pull and create",
            vec![Right::Pull, Right::Create],
            [200, 201, 201, 201, 403, 403],
        ),
        ("admin", vec![Right::Admin], [200, 201, 201, 201, 201, 202]),
    ];
    for (who, allow, expected) in rights {
        let token = server.token(&["team"], &allow);
        let basic = ureq_basic(&token);
        let asked =
            "/v2/_token?scope=repository:team/app:pull,push,delete&scope=repository:main/x:push";
        let exchanged = Client::new(&url, None)
            .send("GET", asked, &[("authorization", &basic)], &[])
            .expect(200)
            .json();
        let exchanged = exchanged["token"].as_str().unwrap().to_owned();
        for (kind, token) in [("own", &token), ("exchanged", &exchanged)] {
            admin.send("POST", &blob, &[], b"{}").expect(201);
            assert_eq!(put(&admin, "taken", "first"), 201);
            let client = Client::new(&url, Some(token));
            let new = format!("new-{}-{kind}", who.replace(' ', "-"));
            let did = [
                client.get("/v2/team/app/manifests/taken").status,
                client.send("POST", &blob, &[], b"{}").status,
                put(&client, &new, who),
                // The same again moves nothing.
                put(&client, &new, who),
                put(&client, "taken", who),
                client.delete("/v2/team/app/manifests/taken").status,
            ];
            // An exchanged token that lacks a right may ask for another: 401 says so.
            let expected = expected.map(|status| match (kind, status) {
                ("exchanged", 403) => 401,
                (_, status) => status,
            });
            let moving = did[4];
            assert!(
                did == expected
                    || (who.contains("create") && moving == 403 && {
                        let mut expected = expected;
                        expected[4] = 403;
                        did == expected
                    }),
                "{who}, {kind}: {did:?}, not {expected:?}"
            );
            let elsewhere = client
                .send("POST", "/v2/main/x/blobs/uploads/", &[], b"")
                .status;
            assert!(
                matches!(elsewhere, 401 | 403) || who == "admin",
                "{who} {kind}: {elsewhere}"
            );
        }
    }
}
