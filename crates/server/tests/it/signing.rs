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
