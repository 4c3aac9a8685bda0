//! The registry door, as docker and skopeo use it.

use crate::http::Client;
use crate::samples::noise;
use firn_formats::Sha256;
use firn_formats::oci::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_ZSTD, OCI_MANIFEST};
use firn_testkit::TestServer;
use serde_json::json;

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::of(bytes).hex())
}

pub fn push_blob(client: &Client, repository: &str, bytes: &[u8]) -> String {
    let digest = digest(bytes);
    let begun = client
        .send(
            "POST",
            &format!("/v2/{repository}/blobs/uploads/"),
            &[],
            b"",
        )
        .expect(202);
    let location = begun.header("location").unwrap().to_owned();
    client
        .put(&format!("{location}?digest={digest}"), bytes)
        .expect(201);
    digest
}

pub fn manifest(config: (&str, usize), layers: &[(&str, usize)]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|(digest, size)| json!({"mediaType": OCI_LAYER_ZSTD, "digest": digest, "size": size}))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config.0, "size": config.1},
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}

pub fn put_manifest(
    client: &Client,
    path: &str,
    media_type: &str,
    bytes: &[u8],
) -> crate::http::Answer {
    client.send("PUT", path, &[("content-type", media_type)], bytes)
}

fn error_code(answer: &crate::http::Answer) -> String {
    answer.json()["errors"][0]["code"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Pushes an image of one layer; the manifest's bytes.
fn push_image(client: &Client, repository: &str, tag: &str) -> Vec<u8> {
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let layer = noise(11, 150_000);
    let config_digest = push_blob(client, repository, config);
    let layer_digest = push_blob(client, repository, &layer);
    let bytes = manifest(
        (&config_digest, config.len()),
        &[(&layer_digest, layer.len())],
    );
    put_manifest(
        client,
        &format!("/v2/{repository}/manifests/{tag}"),
        OCI_MANIFEST,
        &bytes,
    )
    .expect(201);
    bytes
}

#[test]
fn an_image_goes_in_and_comes_out_byte_for_byte() {
    let mut server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    let anyone = Client::new(&url, None);
    let bytes = push_image(&admin, "main/app", "latest");
    server.restart();
    for reference in ["latest".to_owned(), digest(&bytes)] {
        let path = format!("/v2/main/app/manifests/{reference}");
        let found = anyone.get(&path).expect(200);
        assert_eq!(found.body, bytes);
        assert_eq!(found.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(
            found.header("docker-content-digest"),
            Some(digest(&bytes).as_str())
        );
        let head = anyone.head(&path).expect(200);
        assert_eq!(
            head.header("content-length"),
            Some(bytes.len().to_string().as_str())
        );
    }
    let layer = noise(11, 150_000);
    let path = format!("/v2/main/app/blobs/{}", digest(&layer));
    assert_eq!(anyone.get(&path).expect(200).body, layer);
    let part = anyone
        .send("GET", &path, &[("range", "bytes=10-19")], b"")
        .expect(206);
    assert_eq!(part.body, layer[10..20]);
    assert_eq!(
        anyone.get("/v2/main/app/tags/list").expect(200).json(),
        json!({"name": "main/app", "tags": ["latest"]})
    );
    assert_eq!(
        anyone.get("/v2/_catalog").expect(200).json(),
        json!({"repositories": ["main/app"]})
    );
    anyone.get("/v2/").expect(401);
    admin.get("/v2/").expect(200);
}

#[test]
fn uploads_in_pieces_go_on_where_they_are() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let bytes = noise(12, 100_000);
    let begun = admin
        .send("POST", "/v2/main/app/blobs/uploads/", &[], b"")
        .expect(202);
    let location = begun.header("location").unwrap().to_owned();
    let patch = |range: &str, bytes: &[u8]| {
        admin.send("PATCH", &location, &[("content-range", range)], bytes)
    };
    let first = patch("0-39999", &bytes[..40_000]).expect(202);
    assert_eq!(first.header("range"), Some("0-39999"));
    patch("50000-99999", &bytes[50_000..]).expect(416);
    patch("0-39999", &bytes[..40_000]).expect(416);
    let status = admin.get(&location).expect(204);
    assert_eq!(status.header("range"), Some("0-39999"));
    patch("40000-99999", &bytes[40_000..]).expect(202);
    admin
        .put(&format!("{location}?digest={}", digest(&bytes)), b"")
        .expect(201);
    admin
        .head(&format!("/v2/main/app/blobs/{}", digest(&bytes)))
        .expect(200);
    admin.get(&location).expect(404);
    let begun = admin
        .send("POST", "/v2/main/app/blobs/uploads/", &[], b"")
        .expect(202);
    let cancelled = begun.header("location").unwrap();
    admin.delete(cancelled).expect(204);
    assert_eq!(
        error_code(&admin.get(cancelled).expect(404)),
        "BLOB_UPLOAD_UNKNOWN"
    );
}

#[test]
fn a_blob_that_is_not_its_digest_is_refused_and_invisible() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let wanted = digest(b"wanted");
    let uploads = "/v2/main/app/blobs/uploads/";
    let refused = admin
        .send("POST", &format!("{uploads}?digest={wanted}"), &[], b"other")
        .expect(400);
    assert_eq!(error_code(&refused), "DIGEST_INVALID");
    let begun = admin.send("POST", uploads, &[], b"").expect(202);
    let location = begun.header("location").unwrap();
    let refused = admin
        .put(&format!("{location}?digest={wanted}"), b"other")
        .expect(400);
    assert_eq!(error_code(&refused), "DIGEST_INVALID");
    admin
        .put(&format!("{location}?digest=nonsense"), b"other")
        .expect(400);
    for bytes in [&b"wanted"[..], b"other"] {
        admin
            .head(&format!("/v2/main/app/blobs/{}", digest(bytes)))
            .expect(404);
    }
    let whole = admin.send(
        "POST",
        &format!("{uploads}?digest={wanted}"),
        &[],
        b"wanted",
    );
    whole.expect(201);
}

#[test]
fn a_manifest_needs_its_blobs_and_its_digest() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let config = push_blob(&admin, "main/app", b"{}");
    let absent = digest(b"absent");
    let path = "/v2/main/app/manifests/latest";
    let lacking = manifest((&config, 2), &[(&absent, 6)]);
    let refused = put_manifest(&admin, path, OCI_MANIFEST, &lacking).expect(400);
    assert_eq!(error_code(&refused), "MANIFEST_BLOB_UNKNOWN");
    let wrong_size = manifest((&config, 3), &[]);
    let refused = put_manifest(&admin, path, OCI_MANIFEST, &wrong_size).expect(400);
    assert_eq!(error_code(&refused), "MANIFEST_INVALID");
    put_manifest(&admin, path, OCI_MANIFEST, b"{").expect(400);
    put_manifest(&admin, path, "text/plain", &manifest((&config, 2), &[])).expect(400);
    let wrong = format!("/v2/main/app/manifests/{absent}");
    let refused =
        put_manifest(&admin, &wrong, OCI_MANIFEST, &manifest((&config, 2), &[])).expect(400);
    assert_eq!(error_code(&refused), "DIGEST_INVALID");
    assert_eq!(error_code(&admin.get(path).expect(404)), "MANIFEST_UNKNOWN");
    assert_eq!(
        error_code(&admin.get("/v2/main/app/tags/list").expect(404)),
        "NAME_UNKNOWN"
    );
}

#[test]
fn indexes_referrers_tags_and_deletion() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let image = push_image(&admin, "main/app", "v1");
    for tag in ["v10", "v2", "alpha"] {
        put_manifest(
            &admin,
            &format!("/v2/main/app/manifests/{tag}"),
            OCI_MANIFEST,
            &image,
        )
        .expect(201);
    }
    let page = admin.get("/v2/main/app/tags/list?n=2").expect(200);
    assert_eq!(page.json()["tags"], json!(["alpha", "v1"]));
    let link = page.header("link").unwrap();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    assert_eq!(
        admin.get(next).expect(200).json()["tags"],
        json!(["v10", "v2"])
    );

    let subject = json!({"mediaType": OCI_MANIFEST, "digest": digest(&image), "size": image.len()});
    let index =
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [subject]}).to_string();
    put_manifest(
        &admin,
        "/v2/main/app/manifests/multi",
        OCI_INDEX,
        index.as_bytes(),
    )
    .expect(201);

    let config = push_blob(&admin, "main/app", b"{}");
    let signature = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/x.signature",
        "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 2}, "layers": [], "subject": subject,
        "annotations": {"a": "b"},
    }).to_string();
    let path = format!("/v2/main/app/manifests/{}", digest(signature.as_bytes()));
    let put = put_manifest(&admin, &path, OCI_MANIFEST, signature.as_bytes()).expect(201);
    assert_eq!(put.header("oci-subject"), Some(digest(&image).as_str()));
    let referrers = format!("/v2/main/app/referrers/{}", digest(&image));
    let found = admin.get(&referrers).expect(200).json();
    assert_eq!(
        found["manifests"][0]["artifactType"],
        "application/x.signature"
    );
    assert_eq!(found["manifests"][0]["annotations"]["a"], "b");
    let none = admin
        .get(&format!("{referrers}?artifactType=x"))
        .expect(200);
    assert_eq!(none.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(none.json()["manifests"], json!([]));
    let unknown = format!("/v2/main/app/referrers/{}", digest(b"nobody"));
    assert_eq!(
        admin.get(&unknown).expect(200).json()["manifests"],
        json!([])
    );

    admin.delete(&path).expect(202);
    assert_eq!(
        admin.get(&referrers).expect(200).json()["manifests"],
        json!([])
    );
    admin.delete("/v2/main/app/manifests/v2").expect(202);
    admin.get("/v2/main/app/manifests/v2").expect(404);
    let by_digest = format!("/v2/main/app/manifests/{}", digest(&image));
    let refused = admin.delete(&by_digest).expect(405);
    assert_eq!(error_code(&refused), "DENIED");
    let index = format!("/v2/main/app/manifests/{}", digest(index.as_bytes()));
    admin.delete(&index).expect(202);
    admin.delete(&by_digest).expect(202);
    admin.get("/v2/main/app/manifests/v1").expect(404);
}

#[test]
fn a_mount_needs_the_right_to_read() {
    let server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    admin
        .post_json("/api/v1/caches", &json!({"name": "open", "public": true}))
        .expect(200);
    admin
        .post_json("/api/v1/caches", &json!({"name": "secret"}))
        .expect(200);
    let open = push_blob(&admin, "open/app", b"open");
    let secret = push_blob(&admin, "secret/app", b"secret");
    let pusher = server.token(&["main"], &[firn_formats::admin::Right::Push]);
    let pusher = Client::new(&url, Some(&pusher));
    let mount = |digest: &str, from: &str| {
        let path = format!("/v2/main/app/blobs/uploads/?mount={digest}&from={from}");
        pusher.send("POST", &path, &[], b"").status
    };
    assert_eq!(mount(&open, "open/app"), 201);
    assert_eq!(mount(&secret, "secret/app"), 202);
    assert_eq!(mount(&digest(b"nothing"), "open/app"), 202);
    admin
        .head(&format!("/v2/main/app/blobs/{open}"))
        .expect(200);
    admin
        .head(&format!("/v2/main/app/blobs/{secret}"))
        .expect(404);
}

#[test]
fn an_old_docker_is_told_what_to_do() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    push_image(&admin, "main/app", "latest");
    let path = "/v2/main/app/manifests/latest";
    let old = admin
        .send(
            "GET",
            path,
            &[("user-agent", "docker/20.10.24 go/go1.19.8")],
            b"",
        )
        .expect(400);
    assert!(
        old.json()["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("--compression gzip")
    );
    admin
        .send(
            "GET",
            path,
            &[("user-agent", "docker/26.1.5 go/go1.22")],
            b"",
        )
        .expect(200);
}

/// Bytes that were acknowledged are there after a restart, whole chunks or not.
#[test]
fn uploads_survive_a_restart() {
    let mut server = TestServer::start();
    let url = server.url();
    let token = server.admin_token().to_owned();
    let admin = Client::new(&url, Some(&token));
    let bytes = noise(21, 1_500_000);
    let begun = admin
        .send("POST", "/v2/main/app/blobs/uploads/", &[], b"")
        .expect(202);
    let location = begun.header("location").unwrap().to_owned();
    let mut sent = 0;
    for length in [1, 70_000, 900_000, 3] {
        server.restart();
        let admin = Client::new(&url, Some(&token));
        let status = admin.get(&location).expect(204);
        let range = format!("0-{}", sent.max(1) - 1);
        assert_eq!(status.header("range"), Some(range.as_str()));
        let range = format!("{sent}-{}", sent + length - 1);
        admin
            .send(
                "PATCH",
                &location,
                &[("content-range", &range)],
                &bytes[sent..sent + length],
            )
            .expect(202);
        sent += length;
        // Another repository's client does not find it.
        let elsewhere = location.replace("main/app", "main/other");
        admin.get(&elsewhere).expect(404);
    }
    server.restart();
    let admin = Client::new(&url, Some(&token));
    let digest = digest(&bytes);
    admin
        .put(&format!("{location}?digest={digest}"), &bytes[sent..])
        .expect(201);
    let found = admin
        .get(&format!("/v2/main/app/blobs/{digest}"))
        .expect(200);
    assert_eq!(found.body, bytes);
    admin.get(&location).expect(404);
    server.restart();
    Client::new(&url, Some(&token)).get(&location).expect(404);
}

/// One is finished, one goes on, one is cancelled.
#[test]
fn uploads_of_one_blob_do_not_disturb_each_other() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let bytes = noise(22, 800_000);
    let digest = digest(&bytes);
    let begin = || {
        let begun = admin
            .send("POST", "/v2/main/app/blobs/uploads/", &[], b"")
            .expect(202);
        begun.header("location").unwrap().to_owned()
    };
    let (first, second, third) = (begin(), begin(), begin());
    for location in [&first, &second, &third] {
        admin
            .send("PATCH", location, &[], &bytes[..500_000])
            .expect(202);
    }
    admin.delete(&third).expect(204);
    admin
        .put(&format!("{first}?digest={digest}"), &bytes[500_000..])
        .expect(201);
    admin
        .send("PATCH", &second, &[], &bytes[500_000..])
        .expect(202);
    admin
        .put(&format!("{second}?digest={digest}"), b"")
        .expect(201);
    let found = admin
        .get(&format!("/v2/main/app/blobs/{digest}"))
        .expect(200);
    assert_eq!(found.body, bytes);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let admin = Client::new(&server.url(), Some(server.admin_token()));
                let path = format!("/v2/main/app/blobs/uploads/?digest={digest}");
                admin.send("POST", &path, &[], &bytes).expect(201);
            });
        }
    });
}

#[test]
fn sha512_is_taken_kept_and_given() {
    use sha2::Digest as _;
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let sha512 = |bytes: &[u8]| {
        let hex: String = sha2::Sha512::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        format!("sha512:{hex}")
    };
    let layer = noise(23, 300_000);
    let digest = sha512(&layer);
    let uploads = "/v2/main/app/blobs/uploads/";
    let wrong = format!("{uploads}?digest={}", sha512(b"other"));
    admin.send("POST", &wrong, &[], &layer).expect(400);
    for _ in 0..2 {
        admin
            .send("POST", &format!("{uploads}?digest={digest}"), &[], &layer)
            .expect(201);
    }
    let path = format!("/v2/main/app/blobs/{digest}");
    assert_eq!(admin.get(&path).expect(200).body, layer);
    let part = admin
        .send("GET", &path, &[("range", "bytes=-5")], b"")
        .expect(206);
    assert_eq!(part.body, layer[layer.len() - 5..]);
    let config = push_blob(&admin, "main/app", b"{}");
    let bytes = manifest((&config, 2), &[(&digest, layer.len())]);
    let named = sha512(&bytes);
    let path = format!("/v2/main/app/manifests/{named}");
    let put =
        put_manifest(&admin, &format!("{path}?tag=a&tag=b"), OCI_MANIFEST, &bytes).expect(201);
    assert_eq!(put.header("docker-content-digest"), Some(named.as_str()));
    let tagged = admin.get("/v2/main/app/manifests/b").expect(200);
    assert_eq!(tagged.body, bytes);
    assert_eq!(tagged.header("docker-content-digest"), Some(named.as_str()));
    put_manifest(&admin, &format!("{path}?tag=-"), OCI_MANIFEST, &bytes).expect(400);
}

/// Beyond the 4 MiB that the specification asks for, and byte for byte: white space and unknown members too.
#[test]
fn large_manifests_come_back_byte_for_byte() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let config = push_blob(&admin, "main/app", b"{}");
    for mebibytes in [4, 9] {
        let small = String::from_utf8(manifest((&config, 2), &[])).unwrap();
        let padding = "x".repeat(mebibytes << 20);
        let bytes = small.replacen('{', &format!("{{ \n\t\"unknown\": \"{padding}\", "), 1);
        let path = format!("/v2/main/app/manifests/{mebibytes}");
        put_manifest(&admin, &path, OCI_MANIFEST, bytes.as_bytes()).expect(201);
        assert_eq!(admin.get(&path).expect(200).text(), bytes);
    }
    let path = "/v2/main/app/manifests/huge";
    let refused = put_manifest(&admin, path, OCI_MANIFEST, &vec![b' '; 17 << 20]).expect(413);
    assert_eq!(error_code(&refused), "SIZE_INVALID");
}
