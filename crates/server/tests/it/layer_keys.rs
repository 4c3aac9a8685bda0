//! Layers by key: a key is answered only with the layer that it names.

use crate::http::Client;
use firn_chunks::Encoder;
use firn_formats::Sha256;
use firn_formats::admin::Right;
use firn_formats::push::{
    Begin, Begun, BlobKind, Proposal, decode_answers, encode_frame, encode_proposals,
};
use firn_formats::tar::{self, Entry, EntryKind};
use firn_testkit::TestServer;
use serde_json::{Value, json};

const PATH: &str = "00000000000000000000000000000000-tool";

/// The layer of one store path that is a file.
fn layer(content: &[u8], mode: u32) -> Vec<u8> {
    let mut tar = Vec::new();
    let mut put = |path: &str, kind, mode| {
        let entry = Entry {
            path: path.as_bytes().to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 1,
        };
        tar::header(&entry, &mut tar).unwrap();
    };
    put("nix", EntryKind::Directory, 0o755);
    put("nix/store", EntryKind::Directory, 0o755);
    let size = content.len() as u64;
    put(
        &format!("nix/store/{PATH}"),
        EntryKind::Regular { size },
        mode,
    );
    tar.extend_from_slice(content);
    tar.resize(tar.len() + tar::padding(size) + tar::TRAILER_BYTES, 0);
    tar
}

/// The key of that layer, from nothing but its path and NAR hash.
fn key(content: &[u8]) -> String {
    named(content, true, "")
}

fn named(content: &[u8], executable: bool, rules: &str) -> String {
    let mut nar = Vec::new();
    let mut writer = firn_formats::nix::nar::Writer::new(&mut nar);
    writer.file_begin(&mut nar, executable, content.len() as u64);
    nar.extend_from_slice(content);
    writer.file_end(&mut nar, content.len() as u64);
    let text = format!(
        "firn layer 1\nowner 0:0\nmtime 1\nmodes 0444 0555\n{rules}/nix/store/{PATH} {}\n",
        Sha256::of(&nar).nix()
    );
    Sha256::of(text.as_bytes()).hex()
}

fn begin(client: &Client, keys: &[&str]) -> Begun {
    let request = Begin {
        layers: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..Begin::default()
    };
    let answer = client
        .post_json("/api/v1/push/begin?cache=main", &request)
        .expect(200);
    serde_json::from_slice(&answer.body).unwrap()
}

/// Pushes `tar` under `key`, as any version of the client does; gives what the server says of it.
fn push(client: &Client, key: &str, tar: &[u8]) -> Value {
    push_with(client, key, tar, &Value::Null)
}

fn push_with(client: &Client, key: &str, tar: &[u8], recipe: &Value) -> Value {
    let session = begin(client, &[key]).session.unwrap();
    let frame = Encoder::new(3).encode(tar);
    let proposal = Proposal {
        kind: BlobKind::Layer,
        chunks: vec![(frame.record().id.0, frame.record().raw_length)],
    };
    let path = format!("/api/v1/push/{session}/blobs");
    let answer = client
        .send("POST", &path, &[], &encode_proposals(&[proposal]))
        .expect(200);
    let handle = decode_answers(&answer.body).unwrap()[0].handle;
    let mut body = Vec::new();
    encode_frame(&frame.record().id.0, frame.frame(), &mut body);
    let path = format!("/api/v1/push/{session}/frames");
    client.send("POST", &path, &[], &body).expect(200);
    let path = format!("/api/v1/push/{session}/publish");
    let request = json!({"layers": [{"key": key, "blob": handle, "gzip": true, "recipe": recipe}]});
    client.post_json(&path, &request).expect(200).json()["layers"][key].clone()
}

fn diff_id(tar: &[u8]) -> String {
    format!("sha256:{}", Sha256::of(tar).hex())
}

#[test]
fn s1_a_pusher_cannot_put_its_own_tar_under_the_key_of_another_layer() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let pusher = server.token(&["main"], &[Right::Push]);
    let pusher = Client::new(&server.url(), Some(&pusher));
    let (good, bad) = (b"#!/bin/sh\necho good\n", b"#!/bin/sh\necho evil\n");
    let key = self::key(good);

    // Its bytes are taken, and described to itself, but not under a key that is not theirs.
    let described = push(&pusher, &key, &layer(bad, 0o555));
    assert_eq!(described["diff_id"], diff_id(&layer(bad, 0o555)));
    for client in [&admin, &pusher] {
        assert!(begin(client, &[&key]).layers.is_empty(), "believed");
    }
    let described = push(&admin, &key, &layer(good, 0o555));
    assert_eq!(described["diff_id"], diff_id(&layer(good, 0o555)));
    // Now the key is proven: it is answered, and nothing takes it away.
    let known = begin(&admin, &[&key]);
    assert_eq!(known.session, None);
    assert_eq!(known.layers[&key].diff_id, diff_id(&layer(good, 0o555)));
    let other = self::key(b"another");
    let session = begin(&pusher, &[&other, &key]);
    assert_eq!(session.layers[&key].diff_id, diff_id(&layer(good, 0o555)));
    push(&pusher, &other, &layer(bad, 0o555));
    let known = begin(&admin, &[&key, &other]);
    assert_eq!(known.layers.len(), 1);
    assert_eq!(known.layers[&key].diff_id, diff_id(&layer(good, 0o555)));
}

/// What a client says of rules is a part of the key, or is shown by it.
#[test]
fn s1_a_recipe_that_lies_proves_nothing() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let content = b"#!/bin/sh\n";
    // The file is executable, and has the mode that a rule gives to all in the store.
    let rule = json!({"path": "/nix/store", "regex": "tool$", "mode": "0750"});
    let line = "rule 0750 - - \"/nix/store\" \"tool$\"\n";
    let tar = layer(content, 0o750);
    let named = |executable| named(content, executable, line);
    let file = format!("nix/store/{PATH}");
    let recipe = |executable: &[&String]| json!({"rules": [rule], "executable": executable});
    for (key, recipe, proven) in [
        (named(true), Value::Null, false),
        (named(true), recipe(&[]), false),
        (named(false), recipe(&[&file]), false),
        (named(true), recipe(&[&file]), true),
        (named(false), recipe(&[]), true),
    ] {
        let described = push_with(&admin, &key, &tar, &recipe);
        assert_eq!(described["diff_id"], diff_id(&tar));
        let known = begin(&admin, &[&key]);
        assert_eq!(known.layers.contains_key(&key), proven, "{recipe}");
    }
    // No sound rule: the layer is taken all the same.
    let unsound = json!({"rules": [{"regex": "("}]});
    let key = named(true).replace('0', "1");
    push_with(&admin, &key, &tar, &unsound);
    assert!(begin(&admin, &[&key]).layers.is_empty());
}

/// A layer whose chunks are all here, and one that is published again and again.
#[test]
fn s1_a_layer_that_is_here_is_proven_from_its_frames() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let tar = layer(b"content", 0o555);
    let (key, other) = (named(b"content", true, ""), named(b"other", true, ""));
    push(&admin, &other, &tar);
    push(&admin, &key, &tar);
    let known = begin(&admin, &[&key, &other]);
    assert_eq!(known.layers.keys().collect::<Vec<_>>(), [&key]);
    let gzip = known.layers[&key].gzip.clone();
    assert!(gzip.is_some());
    push(&admin, &self::key(b"third"), &tar);
    assert_eq!(begin(&admin, &[&key]).layers[&key].gzip, gzip);
}
