//! Signatures: the cache's own, those of pushers, and what nobody may forge.

use crate::http::Client;
use crate::samples::Upload;
use firn_formats::nix::{Compression, NarInfo, PublicKey, SecretKey, Signature};
use firn_testkit::TestServer;

fn served(client: &Client, upload: &Upload) -> NarInfo {
    NarInfo::parse(&client.get(&upload.narinfo_path()).expect(200).text()).unwrap()
}

#[test]
fn the_caches_key_signs_and_pushers_signatures_are_added() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let key = PublicKey::parse(admin.get("/main/public-key").text().trim()).unwrap();
    let mut upload = Upload::new("signed", b"signed", &[], Compression::Zstd);
    upload.push(&admin).expect(201);
    let first = served(&admin, &upload);
    let signed_by = |narinfo: &NarInfo, key: &PublicKey| {
        let text = narinfo.fingerprint();
        narinfo
            .signatures
            .iter()
            .any(|signature| key.verify(&text, signature))
    };
    assert!(signed_by(&first, &key));
    assert_eq!(first.signatures.len(), 1);

    let pusher = SecretKey::from_seed("pusher-1", [9; 32]);
    upload.narinfo.signatures = vec![pusher.sign(&upload.narinfo.fingerprint())];
    upload.push(&admin).expect(200);
    let second = served(&admin, &upload);
    assert!(signed_by(&second, &key) && signed_by(&second, &pusher.public()));
    // What the cache serves may be pushed back to it.
    upload.narinfo = second.clone();
    let put = second.to_string();
    admin
        .put(&upload.narinfo_path(), put.as_bytes())
        .expect(200);
    assert_eq!(served(&admin, &upload), second);
}

#[test]
fn a_signature_in_the_caches_name_is_made_here_or_dropped() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let key = PublicKey::parse(admin.get("/main/public-key").text().trim()).unwrap();
    let mut upload = Upload::new("forged", b"forged", &[], Compression::Zstd);
    let forged = Signature {
        key_name: key.name.clone(),
        bytes: [7; 64],
    };
    upload.narinfo.signatures = vec![forged.clone()];
    upload.push(&admin).expect(201);
    let narinfo = served(&admin, &upload);
    assert!(!narinfo.signatures.contains(&forged));
    assert!(key.verify(&narinfo.fingerprint(), &narinfo.signatures[0]));
}

#[test]
fn a_path_that_is_here_stays_as_it_is() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let first = Upload::new("same-name", b"first", &[], Compression::Zstd);
    let second = Upload::new("same-name", b"second", &[], Compression::Zstd);
    first.push(&admin).expect(201);
    second.push(&admin).expect(200);
    assert_eq!(served(&admin, &first).nar_hash, first.narinfo.nar_hash);
}

fn rotate(admin: &Client, path: &str, overlap: u64) -> serde_json::Value {
    let request = serde_json::json!({ "overlap_seconds": overlap });
    admin.post_json(path, &request).expect(200).json()
}

fn public_keys(client: &Client) -> Vec<PublicKey> {
    let text = client.get("/main/public-key").expect(200).text();
    let lines = text.lines();
    lines.map(|line| PublicKey::parse(line).unwrap()).collect()
}

#[test]
fn both_keys_sign_while_they_overlap_what_was_pushed_before_and_after() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let old = public_keys(&admin).remove(0);
    let before = Upload::new("before", b"before", &[], Compression::Zstd);
    before.push(&admin).expect(201);
    let foreign = served(&admin, &before).signatures.len();
    assert_eq!(foreign, 1, "and now it is in memory");
    rotate(&admin, "/api/v1/keys/rotate?cache=main", 3600);
    let keys = public_keys(&admin);
    assert_eq!((keys.len(), &keys[0]), (2, &old));
    let base = old.name.strip_suffix('1').unwrap();
    let second = format!("{base}2");
    assert_eq!(keys[1].name, second);
    let after = Upload::new("after", b"after", &[], Compression::Zstd);
    after.push(&admin).expect(201);
    let signers = |upload: &Upload| {
        let narinfo = served(&admin, upload);
        let text = narinfo.fingerprint();
        let signatures = narinfo.signatures.iter();
        let mut names: Vec<String> = signatures
            .map(|signature| {
                let known = keys.iter().any(|key| key.verify(&text, signature));
                assert!(known, "{signature}");
                signature.key_name.clone()
            })
            .collect();
        names.sort();
        names
    };
    for upload in [&before, &after] {
        assert_eq!(signers(upload), [old.name.as_str(), &second]);
    }
    // Again: the second key ends at once, and the first has the time that it was given.
    rotate(&admin, "/api/v1/keys/rotate?cache=main", 0);
    let third = public_keys(&admin);
    assert_eq!((third.len(), &third[0]), (2, &old));
    assert_ne!(third[1].name, second);
    for upload in [&before, &after] {
        let narinfo = served(&admin, upload);
        assert_eq!(narinfo.signatures.len(), 2);
        for signature in &narinfo.signatures {
            let key = third.iter().find(|key| key.name == signature.key_name);
            assert!(key.unwrap().verify(&narinfo.fingerprint(), signature));
        }
    }
}

#[test]
fn an_overlap_ends_by_itself() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let upload = Upload::new("timed", b"timed", &[], Compression::Zstd);
    upload.push(&admin).expect(201);
    let first = public_keys(&admin).remove(0).name;
    let second = format!("{}2", first.strip_suffix('1').unwrap());
    rotate(&admin, "/api/v1/keys/rotate?cache=main", 1);
    assert_eq!(public_keys(&admin).len(), 2);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    server.running().services().sweep();
    assert_eq!(public_keys(&admin)[0].name, second);
    let names = served(&admin, &upload).signatures;
    assert_eq!(
        (names.len(), names[0].key_name.as_str()),
        (1, second.as_str())
    );
}

#[test]
fn tokens_outlive_their_key_for_the_overlap_only() {
    let mut server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    let old = server.token(&["main"], &[firn_formats::admin::Right::Pull]);
    let whoami = |token: &str| Client::new(&url, Some(token)).get("/api/v1/whoami").status;
    assert_eq!(whoami(&old), 200);
    let file = server.data().join("admin.token");
    let admin_token = || std::fs::read_to_string(&file).unwrap().trim().to_owned();
    let first = admin_token();
    let answer = rotate(&admin, "/api/v1/tokens/rotate", 3600);
    assert!(answer["old_tokens_until"].as_str().unwrap().ends_with('Z'));
    let second = admin_token();
    assert_ne!(first, second);
    for token in [&old, &first, &second] {
        assert_eq!(whoami(token), 200);
    }
    let admin = Client::new(&url, Some(&second));
    rotate(&admin, "/api/v1/tokens/rotate", 0);
    let third = admin_token();
    for (token, status) in [(&old, 401), (&first, 401), (&second, 401), (&third, 200)] {
        assert_eq!(whoami(token), status);
    }
    server.restart();
    for (token, status) in [(&old, 401), (&third, 200)] {
        assert_eq!(whoami(token), status);
    }
    let key = std::fs::read_to_string(server.data().join("token.key")).unwrap();
    assert_eq!(key.lines().count(), 1, "secrets that are over are gone");
}
