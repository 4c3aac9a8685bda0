//! Malformed requests to the registry: each is answered from the table of errors, and none with 5xx.

use crate::http::Client;
use firn_formats::Sha256;
use firn_formats::oci::ErrorCode;
use firn_formats::oci::media_type::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use firn_testkit::TestServer;

struct Case {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Any of these codes; a status where the answer has no body.
    codes: &'static [&'static str],
}

fn case(method: &'static str, path: impl Into<String>, codes: &'static [&'static str]) -> Case {
    Case {
        method,
        path: path.into(),
        headers: Vec::new(),
        body: Vec::new(),
        codes,
    }
}

fn zeros(count: usize) -> String {
    "0".repeat(count)
}

/// Names that no repository has.
fn bad_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "main/App",
        "main/-app",
        "main/app-",
        "main/.app",
        "main/app.",
        "main/a..b",
        "main/a___b",
        "main/_app",
        "main//app",
        "main/a%20b",
        "main/a%00b",
        "main/%C3%A4",
        "main/a+b",
        "main/a@b",
        "main/a:b",
        "main/a%2Fb",
        "main/..%2F..",
        "main/a,b",
        "main/a~b",
        "main/(a)",
        "main/a*",
        "main/a!b",
        "main/$a",
        "main/a&b",
        "main/a=b",
        "main/a'b",
        "MAIN/app",
        "main/app/",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push(format!("main/{}", "a".repeat(300)));
    names.push(format!("main/{}", "a/".repeat(200)));
    names
}

fn bad_digests() -> Vec<String> {
    let mut digests: Vec<String> = [
        "sha256:",
        "sha256",
        ":",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:xyz",
        "sha384:00",
        "SHA256:00",
        "sha256:00:00",
        "sha256%3A00",
        "..",
        "%00",
        "sha512:",
        "blake3:00",
    ]
    .map(str::to_owned)
    .to_vec();
    for length in [1, 63, 65, 128, 1000] {
        digests.push(format!("sha256:{}", zeros(length)));
    }
    for length in [64, 127, 129] {
        digests.push(format!("sha512:{}", zeros(length)));
    }
    digests.push(format!("sha256:{}", "G".repeat(64)));
    digests.push(format!("sha256:{}", "A".repeat(64)));
    digests
}

fn bad_manifests(config: &str) -> Vec<(&'static str, String)> {
    let good = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"{OCI_CONFIG}","digest":"{config}","size":2}},"layers":[]}}"#
    );
    let mut all: Vec<(&'static str, String)> = Vec::new();
    // Cut short anywhere.
    all.extend(
        (0..good.len())
            .step_by(7)
            .map(|end| (OCI_MANIFEST, good[..end].to_owned())),
    );
    for (from, to) in [
        ("\"schemaVersion\":2", "\"schemaVersion\":1"),
        ("\"schemaVersion\":2", "\"schemaVersion\":\"2\""),
        ("\"schemaVersion\":2", "\"schemaVersion\":-2"),
        ("\"schemaVersion\":2", "\"schemaVersion\":2e999"),
        ("\"schemaVersion\":2,", ""),
        ("\"size\":2", "\"size\":3"),
        ("\"size\":2", "\"size\":-1"),
        ("\"size\":2", "\"size\":\"2\""),
        ("\"size\":2", "\"size\":18446744073709551615"),
        ("\"size\":2", "\"size\":null"),
        ("\"layers\":[]", "\"layers\":{}"),
        ("\"layers\":[]", "\"layers\":[null]"),
        ("\"layers\":[]", "\"layers\":[[]]"),
        ("\"layers\":[]", "\"manifests\":[]"),
        ("\"layers\":[]", "\"layers\":[],\"manifests\":[]"),
        ("\"layers\":[]", "\"layers\":[],\"subject\":7"),
        (
            "\"layers\":[]",
            "\"layers\":[],\"subject\":{\"digest\":\"x\"}",
        ),
        ("\"layers\":[]", "\"layers\":[],\"annotations\":[]"),
        ("\"layers\":[]", "\"layers\":[],\"annotations\":{\"a\":1}"),
        ("sha256:", "sha256"),
        ("sha256:", "md5:"),
        ("image.manifest", "image.index"),
    ] {
        all.push((OCI_MANIFEST, good.replacen(from, to, 1)));
    }
    for text in [
        "",
        "null",
        "7",
        "[]",
        "\"\"",
        "{}",
        "\u{0}",
        "{\"a\":\u{0}}",
        "true",
        "<xml/>",
    ] {
        all.push((OCI_MANIFEST, text.to_owned()));
        all.push((OCI_INDEX, text.to_owned()));
    }
    all.push((OCI_MANIFEST, "[".repeat(100_000)));
    all.push((OCI_MANIFEST, "{\"a\":".repeat(50_000)));
    for media_type in [
        "",
        "text/plain",
        "application/json",
        "*/*",
        "application/vnd.docker.distribution.manifest.v1+json",
        OCI_CONFIG,
        "application/octet-stream",
        ";",
        "a/b;c=d",
        OCI_INDEX,
    ] {
        all.push((media_type, good.clone()));
    }
    all
}

const DIGEST: &[&str] = &["DIGEST_INVALID"];
const NAME: &[&str] = &["NAME_INVALID"];
const UPLOAD: &[&str] = &["BLOB_UPLOAD_UNKNOWN"];
const MANIFEST: &[&str] = &["MANIFEST_INVALID"];

fn paths() -> Vec<Case> {
    let absent = format!("sha256:{}", zeros(64));
    let mut cases = Vec::new();
    for name in bad_names() {
        cases.push(case("GET", format!("/v2/{name}/tags/list"), NAME));
        cases.push(case("GET", format!("/v2/{name}/manifests/latest"), NAME));
        cases.push(case("HEAD", format!("/v2/{name}/blobs/{absent}"), &["400"]));
        cases.push(case("POST", format!("/v2/{name}/blobs/uploads/"), NAME));
        cases.push(case("PUT", format!("/v2/{name}/manifests/latest"), NAME));
        cases.push(case("GET", format!("/v2/{name}/referrers/{absent}"), NAME));
    }
    for digest in bad_digests() {
        cases.push(case("GET", format!("/v2/main/app/blobs/{digest}"), DIGEST));
        cases.push(case(
            "DELETE",
            format!("/v2/main/app/blobs/{digest}"),
            DIGEST,
        ));
        cases.push(case(
            "GET",
            format!("/v2/main/app/referrers/{digest}"),
            DIGEST,
        ));
        let post = format!("/v2/main/app/blobs/uploads/?digest={digest}");
        cases.push(case("POST", post, DIGEST));
        let mount = format!("/v2/main/app/blobs/uploads/?mount={digest}&from=main/app");
        cases.push(case("POST", mount, DIGEST));
    }
    for tag in [
        "-a", ".a", "a%20b", "a%00", "%2F", "a,b", "a+b", "%C3%A4", "a@b",
    ] {
        cases.push(case(
            "PUT",
            format!("/v2/main/app/manifests/{tag}"),
            MANIFEST,
        ));
        cases.push(case(
            "GET",
            format!("/v2/main/app/manifests/{tag}"),
            &["MANIFEST_UNKNOWN"],
        ));
    }
    for id in [
        "x",
        "00",
        "..",
        "%00",
        "a%2Fb",
        "'",
        "0;DROP",
        &zeros(32),
        &zeros(5000),
    ] {
        for method in ["GET", "PATCH", "DELETE"] {
            cases.push(case(
                method,
                format!("/v2/main/app/blobs/uploads/{id}"),
                UPLOAD,
            ));
        }
        let put = format!("/v2/main/app/blobs/uploads/{id}?digest={absent}");
        cases.push(case("PUT", put, UPLOAD));
        cases.push(case(
            "PUT",
            format!("/v2/main/app/blobs/uploads/{id}"),
            DIGEST,
        ));
    }
    for n in ["x", "-1", "1.5", "99999999999999999999", "1%00", "%", "+1x"] {
        cases.push(case(
            "GET",
            format!("/v2/main/app/tags/list?n={n}"),
            &["UNSUPPORTED"],
        ));
        cases.push(case("GET", format!("/v2/_catalog?n={n}"), &["UNSUPPORTED"]));
    }
    for path in [
        "/v2/x",
        "/v2/main/app",
        "/v2/main/app/blobs",
        "/v2/main/app/manifests",
        "/v2//",
        "/v2/a/b/c/d",
    ] {
        cases.push(case("GET", path, &["NAME_INVALID"]));
    }
    for (method, path) in [
        ("PUT", "/v2/"),
        ("DELETE", "/v2/_catalog"),
        ("PATCH", "/v2/main/app/manifests/latest"),
        ("POST", "/v2/main/app/manifests/latest"),
        ("PUT", "/v2/main/app/tags/list"),
        ("GET", "/v2/main/app/blobs/uploads/"),
        ("PUT", "/v2/main/app/blobs/uploads/"),
        ("BREW", "/v2/main/app/tags/list"),
        ("BREW", "/v2/main/app/blobs/uploads/x"),
    ] {
        cases.push(case(method, path, &["405"]));
    }
    cases
}

fn bodies(client: &Client, config: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for (media_type, body) in bad_manifests(config) {
        let mut bad = case(
            "PUT",
            "/v2/main/app/manifests/bad",
            &[
                "MANIFEST_INVALID",
                "DIGEST_INVALID",
                "MANIFEST_BLOB_UNKNOWN",
            ],
        );
        bad.headers.push(("content-type", media_type.to_owned()));
        bad.body = body.into_bytes();
        cases.push(bad);
    }
    let begun = client
        .send("POST", "/v2/main/app/blobs/uploads/", &[], b"")
        .expect(202);
    let location = begun.header("location").unwrap().to_owned();
    for range in [
        "",
        "-",
        "0",
        "a-b",
        "1-",
        "-1",
        "5-2",
        "0-9999",
        "1-4",
        "0-3,5-6",
        "bytes",
        "bytes=",
        "0--1",
        "99999999999999999999-1",
        "0-99999999999999999999",
        "0 - 3",
        "lines 0-3",
        "0-3-4",
        "+0-3",
        "4-7",
    ] {
        let mut bad = case("PATCH", location.clone(), &["RANGE_INVALID"]);
        bad.headers.push(("content-range", range.to_owned()));
        bad.body = b"abcd".to_vec();
        cases.push(bad);
    }
    for range in [
        "bytes=9-",
        "bytes=2-1",
        "bytes=-0",
        "bytes=99999999999999999999-",
    ] {
        let mut bad = case("GET", format!("/v2/main/app/blobs/{config}"), &["416"]);
        bad.headers.push(("range", range.to_owned()));
        cases.push(bad);
    }
    cases
}

#[test]
fn five_hundred_malformed_requests_are_answered_from_the_table() {
    let server = TestServer::start();
    let client = Client::new(&server.url(), Some(server.admin_token()));
    let config = format!("sha256:{}", Sha256::of(b"{}").hex());
    let path = format!("/v2/main/app/blobs/uploads/?digest={config}");
    client.send("POST", &path, &[], b"{}").expect(201);
    let mut cases = paths();
    cases.extend(bodies(&client, &config));
    let mut faults = Vec::new();
    for case in &cases {
        let headers: Vec<(&str, &str)> = case
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = client.send(case.method, &case.path, &headers, &case.body);
        let right = match case.codes {
            [status] if status.parse() == Ok(answer.status) => true,
            codes => serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok_and(|body| {
                let code = body["errors"][0]["code"].as_str().unwrap_or_default();
                let known = ErrorCode::from_code(code);
                codes.contains(&code)
                    && known.is_some_and(|known| {
                        // Where the table's status is not the endpoint's, the endpoint's is.
                        known.status() == answer.status || matches!(answer.status, 400 | 404 | 413)
                    })
            }),
        };
        if !right || answer.status >= 500 {
            let shown: String = case.path.chars().take(90).collect();
            let body: String = String::from_utf8_lossy(&case.body)
                .chars()
                .take(60)
                .collect();
            faults.push(format!(
                "{} {shown} {headers:?} {body:?}: {} {}, not {:?}",
                case.method,
                answer.status,
                answer.text().chars().take(100).collect::<String>(),
                case.codes
            ));
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    println!(
        "{} malformed requests, all answered from the table",
        cases.len()
    );
    assert!(cases.len() >= 500, "{} requests", cases.len());
    client.get("/v2/").expect(200);
}
