//! Signed URLs, and tokens from GitHub.

use super::{Job, staged};
use crate::http::Client;
use firn_services::access::UrlClaims;
use firn_testkit::TestServer;
use firn_testkit::rigs::program::command;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The query's signature.
fn signature(path: &str) -> (&str, &str) {
    path.split_once("?sig=").unwrap()
}

#[test]
fn a_signature_is_bound_to_entry_method_and_size_and_its_time() {
    let server = TestServer::start();
    let job = Job::on_main(&server);
    job.save("one", b"first");
    job.save("two", b"second");
    let (one, two) = (job.download("one").unwrap(), job.download("two").unwrap());
    let upload = job.reserve("three");
    let (path_one, sig_one) = signature(&one);
    let (path_two, sig_two) = signature(&two);
    let (path_up, sig_up) = signature(&upload);
    let altered = |sig: &str| {
        let middle = sig.len() / 2;
        let other = if &sig[middle..=middle] == "A" {
            "B"
        } else {
            "A"
        };
        format!("{}{other}{}", &sig[..middle], &sig[middle + 1..])
    };
    let token = server.actions_token(
        "main",
        "acme/web",
        &[firn_formats::actions::Scope::write("refs/heads/main")],
    );
    for (method, path) in [
        ("GET", path_one.to_owned()),
        ("GET", format!("{path_one}?sig=")),
        ("GET", format!("{path_one}?sig={sig_two}")),
        ("GET", format!("{path_two}?sig={sig_one}")),
        ("GET", format!("{path_one}?sig={}", altered(sig_one))),
        ("GET", format!("{path_one}?sig={sig_up}")),
        ("GET", format!("{path_up}?sig={sig_up}")),
        ("GET", format!("{path_one}?sig={token}")),
        ("PUT", format!("{path_one}?sig={sig_one}")),
        ("PUT", format!("{path_up}?sig={sig_one}")),
        ("PUT", format!("{path_up}?sig={}", altered(sig_up))),
        ("DELETE", format!("{path_up}?sig={sig_up}")),
        ("POST", format!("{path_one}?sig={sig_one}")),
    ] {
        let refused = job.blob(method, &path, &[], b"x");
        assert_eq!(refused.status, 403, "{method} {path}");
    }
    // A URL's signature is no token, either.
    Job::with_token(&server, Some(sig_one))
        .create("four")
        .expect(401);
    let tokens = server.running().services().access.tokens();
    let mut claims: UrlClaims = tokens.verify_url(sig_one).unwrap();
    let signed = |claims: &UrlClaims| {
        let path = format!("{path_one}?sig={}", tokens.sign_url(claims).unwrap());
        job.blob("GET", &path, &[], b"").status
    };
    assert_eq!(signed(&claims), 200);
    claims.size += 1;
    assert_eq!(signed(&claims), 404);
    claims.size -= 1;
    claims.exp = 1;
    assert_eq!(signed(&claims), 403);
    assert_eq!(staged(&server), 0);
}

#[test]
fn a_token_ends_with_its_revocation_and_a_url_with_its_entry() {
    let server = TestServer::start();
    let job = Job::on_main(&server);
    job.save("key", b"bytes");
    let url = job.download("key").unwrap();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let listed = admin.get("/api/v1/tokens").expect(200).json();
    let own = |token: &&Value| token["allow"] == json!([]);
    let own = listed.as_array().unwrap().iter().find(own).unwrap();
    admin.delete(&format!("/api/v1/tokens/{}", own["id"].as_str().unwrap()));
    job.create("other").expect(401);
    let services = server.running().services();
    let cache = services
        .access
        .split_repository(&firn_services::Identity::Anonymous, "main/x")
        .unwrap()
        .0;
    let repository = firn_services::actions::Repository {
        cache,
        name: firn_formats::actions::RepositoryName::parse("acme/web").unwrap(),
    };
    let entries = services.actions.list(&repository).unwrap();
    services
        .actions
        .delete(&repository, &[entries[0].id])
        .unwrap();
    job.blob("GET", &url, &[], b"").expect(404);
}

fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer of its own: a key made by openssl, and a server of its public half.
struct Issuer {
    folder: tempfile::TempDir,
    url: String,
    name: String,
}

fn openssl(folder: &Path, args: &[&str]) -> Vec<u8> {
    let mut command = command("openssl");
    let done = command.args(args).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "openssl {args:?}: {said}");
    done.stdout
}

impl Issuer {
    fn start(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        openssl(folder.path(), &["genrsa", "-out", "key.pem", "2048"]);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let modulus = openssl(
            folder.path(),
            &["rsa", "-in", "key.pem", "-noout", "-modulus"],
        );
        let modulus = String::from_utf8(modulus).unwrap();
        let hex = modulus.trim().strip_prefix("Modulus=").unwrap().as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
        let n: Vec<u8> = hex
            .chunks(2)
            .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
            .collect();
        let keys = json!({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1",
            "n": base64url(&n), "e": "AQAB"}]})
        .to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = [0; 4096];
                let _ = stream.read(&mut head);
                let length = keys.len();
                let _ = stream.write_all(
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{keys}")
                        .as_bytes(),
                );
            }
        });
        Self {
            folder,
            url,
            name: name.to_owned(),
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            base64url(header.to_string().as_bytes()),
            base64url(claims.to_string().as_bytes())
        );
        std::fs::write(self.folder.path().join("signed"), &signed).unwrap();
        let args = ["dgst", "-sha256", "-sign", "key.pem", "signed"];
        format!(
            "{signed}.{}",
            base64url(&openssl(self.folder.path(), &args))
        )
    }

    /// What GitHub says of a job.
    fn claims(&self, event: &str, reference: &str) -> Value {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        json!({"iss": self.name, "aud": "firn", "iat": now, "nbf": now - 5, "exp": now + 300,
            "sub": "repo:Acme/web:x", "repository": "Acme/web", "ref": reference, "event_name": event,
            "base_ref": if event == "pull_request" { "main" } else { "" }})
    }
}

#[test]
fn tokens_from_github_are_exchanged_by_rule() {
    let issuer = Issuer::start("https://issuer.example");
    let server = TestServer::start_with(|config| {
        let configured = json!([{"issuer": issuer.name, "keys": issuer.url, "audience": "firn",
            "rules": [{"repository": "acme/*", "cache": "main"}]}]);
        config.actions_oidc = serde_json::from_value(configured).unwrap();
    });
    let anonymous = Client::new(&server.url(), None);
    let exchange =
        |token: &str| anonymous.post_json("/api/v1/actions/oidc", &json!({ "token": token }));
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "1"});
    let job = |event: &str, reference: &str| {
        let token = issuer.token(&header, &issuer.claims(event, reference));
        let made = exchange(&token).expect(200).json();
        assert!(made["expires"].is_string());
        Job::with_token(&server, made["token"].as_str())
    };
    let main = job("push", "refs/heads/main");
    main.save("key", b"main");
    let pull = job("pull_request", "refs/pull/1/merge");
    assert_eq!(pull.matched("key", &[]).unwrap(), "key");
    pull.save("of the request", b"pull");
    assert_eq!(main.matched("of the request", &[]), None);
    let target = job("pull_request_target", "refs/heads/main");
    assert_eq!(target.matched("key", &[]).unwrap(), "key");
    assert_eq!(target.create("new").expect(200).json()["ok"], false);
    // What is not to be believed.
    let good = issuer.claims("push", "refs/heads/main");
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        issuer.token(&header, &claims)
    };
    let stranger = Issuer::start(&issuer.name);
    let unsigned = issuer.token(&json!({"alg": "none", "kid": "1"}), &good);
    let hmac = issuer.token(&json!({"alg": "HS256", "kid": "1"}), &good);
    for (why, token, status) in [
        ("expired", with("exp", json!(1000)), 401),
        ("not yet", with("nbf", json!(9_999_999_999_u64)), 401),
        ("audience", with("aud", json!("other")), 401),
        ("issuer", with("iss", json!("https://other.example")), 401),
        ("repository", with("repository", json!("evil/web")), 403),
        ("no repository", with("repository", json!("evil")), 401),
        ("no expiry", with("exp", Value::Null), 401),
        ("another key", stranger.token(&header, &good), 401),
        (
            "unknown key",
            issuer.token(&json!({"alg": "RS256", "kid": "9"}), &good),
            401,
        ),
        ("no signature", unsigned, 401),
        ("another algorithm", hmac, 401),
        ("nonsense", "a.b.c".to_owned(), 401),
        ("too long", "a".repeat(30_000), 401),
    ] {
        assert_eq!(exchange(&token).status, status, "{why}");
    }
    // Without issuers there is nothing to exchange.
    let plain = TestServer::start();
    let token = issuer.token(&header, &good);
    Client::new(&plain.url(), None)
        .post_json("/api/v1/actions/oidc", &json!({ "token": token }))
        .expect(404);
}
