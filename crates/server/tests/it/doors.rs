//! What a pusher, a guest or a web page must not be able to do, door by door.

use crate::http::{Answer, Client};
use crate::registry::{manifest, push_blob, put_manifest};
use crate::samples::{Upload, file_nar, store_path};
use firn_chunks::{Encoder, boundaries};
use firn_formats::Sha256;
use firn_formats::actions::Scope;
use firn_formats::admin::{CacheCreate, Right};
use firn_formats::nix::nar::Writer;
use firn_formats::nix::{Compression, NarInfo, base32};
use firn_formats::oci::media_type::OCI_MANIFEST;
use firn_formats::push::{
    Begin, BlobKind, Proposal, Publish, PublishLayer, PublishPath, decode_answers, encode_frame,
    encode_proposals,
};
use firn_testkit::TestServer;
use firn_testkit::rigs::Release;
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::run;
use serde_json::{Value, json};
use std::io::Write as _;

/// A NAR of directories, one in another, with a file in the innermost.
fn nested(depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    for _ in 0..depth {
        writer.directory_begin(&mut out);
        writer.entry_begin(&mut out, b"d");
    }
    writer.file_begin(&mut out, false, 0);
    writer.file_end(&mut out, 0);
    for _ in 0..depth {
        writer.entry_end(&mut out);
        writer.directory_end(&mut out);
    }
    out
}

/// A NAR of empty files of these names, in this order.
fn named(names: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.directory_begin(&mut out);
    for name in names {
        writer.entry_begin(&mut out, name.as_bytes());
        writer.file_begin(&mut out, false, 0);
        writer.file_end(&mut out, 0);
        writer.entry_end(&mut out);
    }
    writer.directory_end(&mut out);
    out
}

struct Pushed {
    session: String,
    blob: u32,
}

/// Sends bytes by the push door, in one chunk, as a blob of some kind.
fn send(client: &Client, bytes: &[u8], kind: BlobKind) -> Pushed {
    let begin = Begin {
        paths: vec![store_path("nobody has it", "x").hash().to_string()],
        ..Begin::default()
    };
    let begun = client.post_json("/api/v1/push/begin?cache=main", &begin);
    let session = begun.expect(200).json()["session"]
        .as_str()
        .unwrap()
        .to_owned();
    let frame = Encoder::new(boundaries::V1.zstd_level).encode(bytes);
    let id = frame.record().id.0;
    let proposal = Proposal {
        kind,
        chunks: vec![(id, frame.record().raw_length)],
    };
    let door = format!("/api/v1/push/{session}");
    let blobs = format!("{door}/blobs");
    let answer = client.send("POST", &blobs, &[], &encode_proposals(&[proposal]));
    let answers = decode_answers(&answer.expect(200).body).unwrap();
    let mut body = Vec::new();
    encode_frame(&id, frame.frame(), &mut body);
    client
        .send("POST", &format!("{door}/frames"), &[], &body)
        .expect(200);
    Pushed {
        session,
        blob: answers[0].handle,
    }
}

fn of_nar(name: &str, nar: &[u8], blob: u32) -> PublishPath {
    PublishPath {
        path: store_path(name, name).to_string(),
        nar_hash: Sha256::of(nar).base32(),
        nar_size: nar.len() as u64,
        references: Vec::new(),
        deriver: None,
        signatures: Vec::new(),
        ca: None,
        blob,
    }
}

fn publish(client: &Client, session: &str, path: PublishPath) -> Answer {
    let request = Publish {
        paths: vec![path],
        layers: Vec::new(),
    };
    client.post_json(&format!("/api/v1/push/{session}/publish"), &request)
}

fn push(client: &Client, name: &str, nar: &[u8]) -> Answer {
    let sent = send(client, nar, BlobKind::Nar);
    publish(client, &sent.session, of_nar(name, nar, sent.blob))
}

/// By `nix copy`'s door; the NAR's answer.
fn put(client: &Client, nar: &[u8]) -> Answer {
    let hash = Sha256::of(nar).base32();
    client.put(&format!("/main/nar/{hash}.nar"), nar)
}

fn narinfo_path(name: &str) -> String {
    format!("/main/{}.narinfo", store_path(name, name).hash())
}

fn create(client: &Client, name: &str, public: bool) -> Answer {
    let request = CacheCreate {
        name: name.to_owned(),
        public,
        priority: 40,
        domain: None,
        upstream_keys: Vec::new(),
        keep_for_seconds: None,
        quota_bytes: None,
        actions_shared: None,
    };
    client.post_json("/api/v1/caches", &request)
}

/// The six NARs of the audit and one that is cut off.
fn hostile_nars() -> Vec<(&'static str, Vec<u8>)> {
    let good = named(&["a"]);
    vec![
        ("twice", named(&["a", "a"])),
        ("dots", named(&[".."])),
        ("slashes", named(&["../../evil"])),
        ("unsorted", named(&["b", "a"])),
        ("no-nar", b"#!/bin/sh\n".to_vec()),
        ("deep", nested(5000)),
        ("cut", good[..good.len() - 8].to_vec()),
    ]
}

#[test]
fn s3_the_push_door_refuses_what_the_nix_door_refuses() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    for (name, nar) in hostile_nars() {
        put(&admin, &nar).expect(400);
        let refused = push(&admin, name, &nar).expect(400);
        assert!(refused.text().contains(name), "{}", refused.text());
        admin.get(&narinfo_path(name)).expect(404);
        admin
            .get(&format!("/main/{}.ls", store_path(name, name).hash()))
            .expect(404);
    }
    // And both take what is good; what one has parsed the other knows.
    for (name, nar) in [("push-good", named(&["a", "b"])), ("push-deep", nested(63))] {
        push(&admin, name, &nar).expect(200);
        let status = put(&admin, &nar).status;
        assert!(matches!(status, 200 | 201), "{status}");
        admin.get(&narinfo_path(name)).expect(200);
        admin
            .get(&format!("/main/{}.ls", store_path(name, name).hash()))
            .expect(200);
    }
}

/// A blob can be known before anyone says that it is a NAR.
#[test]
fn s3_bytes_that_came_as_something_else_are_parsed_before_they_are_signed() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let bad = named(&["b", "a"]);
    let sent = send(&admin, &bad, BlobKind::Layer);
    let as_layer = Publish {
        paths: Vec::new(),
        layers: vec![PublishLayer {
            key: "k".to_owned(),
            blob: sent.blob,
            gzip: false,
            recipe: None,
        }],
    };
    let door = format!("/api/v1/push/{}/publish", sent.session);
    admin.post_json(&door, &as_layer).expect(200);
    publish(&admin, &sent.session, of_nar("first", &bad, sent.blob)).expect(400);
    // In another session, by a list that is known.
    push(&admin, "second", &bad).expect(400);
    push(&admin, "second", &bad).expect(400);
    let digest = push_blob(&admin, "main/app", &named(&["c", "a"]));
    assert!(digest.starts_with("sha256:"));
    push(&admin, "third", &named(&["c", "a"])).expect(400);
    for name in ["first", "second", "third"] {
        admin.get(&narinfo_path(name)).expect(404);
    }
    let good = named(&["x"]);
    push_blob(&admin, "main/app", &good);
    push(&admin, "fourth", &good).expect(200);
    push(&admin, "fifth", &good).expect(200);
}

#[test]
fn s3_both_doors_take_63_levels_and_the_names_that_nix_takes() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let hacked = named(&["x~nix~case~hack~1"]);
    let status = |answer: Answer| matches!(answer.status, 200 | 201);
    assert!(status(put(&admin, &nested(63))));
    assert!(status(put(&admin, &hacked)));
    push(&admin, "hacked", &hacked).expect(200);
    let refused = put(&admin, &nested(64)).expect(400);
    assert!(refused.text().contains("63"), "{}", refused.text());
    push(&admin, "n64", &nested(64)).expect(400);
}

fn signed_by_nobody(upload: &Upload, change: impl FnOnce(&mut NarInfo)) -> Vec<u8> {
    let mut narinfo = upload.narinfo.clone();
    change(&mut narinfo);
    narinfo.to_string().into_bytes()
}

#[test]
fn s4_a_second_pusher_adds_signatures_and_changes_nothing_else() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let pusher = Client::new(
        &server.url(),
        Some(&server.token(&["main"], &[Right::Push])),
    );
    let upload = Upload::new("s4", b"content", &[], Compression::Zstd);
    upload.push(&admin).expect(201);
    let before = admin.get(&upload.narinfo_path()).expect(200).text();
    let deriver = store_path("evil", "evil.drv");
    let hash = upload.narinfo.nar_hash.base32();
    let body = signed_by_nobody(&upload, |narinfo| {
        narinfo.deriver = Some(deriver.clone());
        narinfo.ca = Some(format!("fixed:r:sha256:{hash}"));
    });
    pusher.put(&upload.nar_path(), &upload.file);
    let answer = pusher.put(&upload.narinfo_path(), &body);
    assert!(matches!(answer.status, 200 | 422), "{}", answer.text());
    assert_eq!(admin.get(&upload.narinfo_path()).text(), before);
    // By the other door, with a signature: that is all that is new.
    let signature = format!("other-1:{}", "A".repeat(86) + "==");
    let sent = send(&pusher, &upload.nar, BlobKind::Nar);
    let mut path = of_nar("s4", &upload.nar, sent.blob);
    path.path = upload.path.to_string();
    path.deriver = Some(deriver.to_string());
    path.signatures = vec![signature.clone()];
    publish(&pusher, &sent.session, path).expect(200);
    let after = admin.get(&upload.narinfo_path()).expect(200).text();
    assert!(after.contains(&signature), "{after}");
    let without = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("other-1:"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(without(&after), without(&before));
}

/// The path that Nix gives to content of a kind.
fn addressed(kind: &str, hash: &Sha256, name: &str) -> firn_formats::nix::StorePath {
    let text = format!("{kind}:sha256:{}:/nix/store:{name}", hash.hex());
    let digest = Sha256::of(text.as_bytes()).0;
    let mut folded = [0_u8; 20];
    for (index, byte) in digest.iter().enumerate() {
        folded[index % 20] ^= byte;
    }
    let hash = base32::encode(&folded);
    firn_formats::nix::StorePath::parse_base_name(&format!("{hash}-{name}")).unwrap()
}

fn flat_nar(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.file_begin(&mut out, false, content.len() as u64);
    out.extend_from_slice(content);
    writer.file_end(&mut out, content.len() as u64);
    out
}

#[test]
fn s4_a_content_address_must_be_the_contents() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let content = b"of a file";
    let flat = flat_nar(content);
    let nar = file_nar(content);
    let (of_content, of_nar_bytes) = (Sha256::of(content), Sha256::of(&nar));
    let fixed_flat = Sha256::of(format!("fixed:out:sha256:{}:", of_content.hex()).as_bytes());
    let other = Sha256::of(b"other");
    let push_ca = |path: firn_formats::nix::StorePath, nar: &[u8], ca: String| {
        let sent = send(&admin, nar, BlobKind::Nar);
        let mut request = of_nar("unused", nar, sent.blob);
        request.path = path.to_string();
        request.ca = Some(ca);
        publish(&admin, &sent.session, request)
    };
    let served = |path: &firn_formats::nix::StorePath| {
        admin.get(&format!("/main/{}.narinfo", path.hash())).text()
    };
    let (text, fixed, recursive) = (
        format!("text:sha256:{}", of_content.base32()),
        format!("fixed:sha256:{}", of_content.base32()),
        format!("fixed:r:sha256:{}", of_nar_bytes.base32()),
    );
    for (path, nar, ca) in [
        (addressed("text", &of_content, "t"), &flat, &text),
        (addressed("output:out", &fixed_flat, "f"), &flat, &fixed),
        (addressed("source", &of_nar_bytes, "r"), &nar, &recursive),
    ] {
        push_ca(path.clone(), nar, ca.clone()).expect(200);
        assert!(served(&path).contains(&format!("CA: {ca}\n")), "{ca}");
    }
    // Another content, another path, a file's address for a tree.
    for (path, nar, ca) in [
        (
            addressed("text", &other, "t2"),
            &flat,
            format!("text:sha256:{}", other.base32()),
        ),
        (store_path("elsewhere", "t3"), &flat, text),
        (
            addressed("source", &other, "r2"),
            &nar,
            format!("fixed:r:sha256:{}", other.base32()),
        ),
        (addressed("output:out", &fixed_flat, "f2"), &nar, fixed),
    ] {
        push_ca(path.clone(), nar, ca).expect(422);
        assert!(!served(&path).contains("CA:"));
    }
    // What cannot be checked is not repeated.
    let path = store_path("git", "git");
    let ca = "fixed:git:sha1:mvkvvddg5lzkcqjqkgxqjzfpqdkrg4ds".to_owned();
    push_ca(path.clone(), &nar, ca).expect(200);
    let narinfo = served(&path);
    assert!(
        narinfo.contains("Sig:") && !narinfo.contains("CA:"),
        "{narinfo}"
    );
}

#[test]
fn s5_the_servers_listing_the_first_log_and_the_first_realisation_stay() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let pusher = Client::new(
        &server.url(),
        Some(&server.token(&["main"], &[Right::Push])),
    );
    let upload = Upload::new("s5", b"hello", &[], Compression::Zstd);
    let listing = format!("/main/{}.ls", upload.path.hash());
    let forged = br#"{"version":1,"root":{"type":"symlink","target":"/etc/passwd"}}"#;
    // Nix sends it before the NAR.
    assert!(matches!(pusher.put(&listing, forged).status, 200 | 201));
    upload.push(&admin).expect(201);
    let own = admin.get(&listing).expect(200);
    assert_eq!(own.json()["root"]["type"], "directory");
    assert!(matches!(pusher.put(&listing, forged).status, 200 | 201));
    assert_eq!(admin.get(&listing).expect(200).body, own.body);
    assert_eq!(own.header("content-type"), Some("application/json"));

    for path in ["/main/log/a.drv", "/main/debuginfo/abcd"] {
        pusher.put(path, b"[1]").expect(201);
        pusher.put(path, b"[2]").expect(200);
        assert_eq!(admin.get(path).expect(200).body, b"[1]");
    }

    let id = format!("sha256:{}!out", "0".repeat(64));
    let path = format!("/main/realisations/{}.doi", id.replace('!', "%21"));
    let realisation = |id: &str, out: &str, signatures: &[&str]| {
        json!({"id": id, "outPath": out, "signatures": signatures, "dependentRealisations": {}})
            .to_string()
            .into_bytes()
    };
    let other = format!("sha256:{}!out", "1".repeat(64));
    pusher
        .put(&path, &realisation(&other, "a", &[]))
        .expect(400);
    pusher.put(&path, b"{\"a\" : 1}").expect(400);
    let first = realisation(&id, "a", &["k:1"]);
    pusher.put(&path, &first).expect(201);
    assert_eq!(admin.get(&path).expect(200).body, first);
    pusher
        .put(&path, &realisation(&id, "evil", &["k:2"]))
        .expect(200);
    assert_eq!(admin.get(&path).expect(200).body, first);
    pusher
        .put(&path, &realisation(&id, "a", &["k:3"]))
        .expect(200);
    let merged = admin.get(&path).expect(200).json();
    assert_eq!(merged["signatures"], json!(["k:1", "k:3"]));
    assert_eq!(merged["outPath"], "a");
}

/// What refers to itself is hashed in a way of its own; Nix makes such a path, and we must come to the same hash.
#[test]
fn s4_nix_makes_a_path_content_addressed_that_refers_to_itself() {
    for release in Release::ALL {
        let server = TestServer::start();
        let admin = Client::new(&server.url(), Some(server.admin_token()));
        let own = store_path("selfish", "selfish").absolute();
        let content = format!("{own} and {own}").repeat(5000);
        let mut upload = Upload::new("selfish", content.as_bytes(), &[], Compression::Zstd);
        upload.narinfo.references = vec![upload.path.clone()];
        upload.push(&admin).expect(201);
        let nix = Nix::new(release);
        nix.netrc("127.0.0.1", server.admin_token());
        let cache = format!("{}/main", server.url());
        let mut command = nix.command("nix");
        command.args(["store", "make-content-addressed", "--json"]);
        command.args(["--from", &cache, "--to", &cache, &own]);
        let made = run(&mut command);
        assert!(made.status.success(), "{made}");
        let made: Value = serde_json::from_str(&made.stdout).unwrap();
        let path = made["rewrites"][&own].as_str().unwrap();
        let path = firn_formats::nix::StorePath::parse(path).unwrap();
        assert_ne!(path, upload.path);
        let narinfo = admin.get(&format!("/main/{}.narinfo", path.hash()));
        let narinfo = narinfo.expect(200).text();
        assert!(narinfo.contains("\nCA: fixed:r:sha256:"), "{narinfo}");
        assert!(
            narinfo.contains(&format!("References: {path}\n")),
            "{narinfo}"
        );
    }
}

/// Pushes an image of nothing but a configuration.
fn push_image(client: &Client, repository: &str, text: &str) -> Answer {
    let config = format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"author\":\"{text}\"}}");
    let digest = push_blob(client, repository, config.as_bytes());
    let bytes = manifest((&digest, config.len()), &[]);
    let path = format!("/v2/{repository}/manifests/1");
    put_manifest(client, &path, OCI_MANIFEST, &bytes)
}

#[test]
fn s6_a_new_cache_takes_no_image_names_over() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    create(&admin, "acme", false).expect(200);
    push_image(&admin, "acme/web/app", "owner").expect(201);
    let below = Client::new(
        &server.url(),
        Some(&server.token(&["acme/*"], &[Right::Admin])),
    );
    create(&below, "acme/web", true).expect(403);
    let refused = create(&admin, "acme/web", true).expect(409);
    assert!(refused.text().contains("acme/web/"), "{}", refused.text());
    // `web` is no image's folder in the name `webs`.
    push_image(&admin, "acme/webs/app", "owner").expect(201);
    create(&admin, "acme/we", false).expect(200);
    // Where there is no cache above, the right on the names below is enough.
    let free = Client::new(
        &server.url(),
        Some(&server.token(&["free/*"], &[Right::Admin])),
    );
    create(&free, "free/web", true).expect(200);
}

#[test]
fn s27_a_right_on_a_cache_does_not_tell_of_caches_below_it() {
    let server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    create(&admin, "acme", true).expect(200);
    create(&admin, "acme/hidden", false).expect(200);
    push_image(&admin, "acme/hidden/app", "secret").expect(201);
    push_image(&admin, "acme/plain", "public").expect(201);
    let all = [Right::Pull, Right::Push, Right::Delete];
    let guests = [
        ("nobody", Client::new(&url, None)),
        ("refused", Client::new(&url, Some("eyJ.bad.token"))),
        (
            "pull",
            Client::new(&url, Some(&server.token(&["acme"], &[Right::Pull]))),
        ),
        (
            "push",
            Client::new(&url, Some(&server.token(&["acme"], &all))),
        ),
        (
            "other",
            Client::new(&url, Some(&server.token(&["main"], &all))),
        ),
    ];
    for (who, guest) in &guests {
        for (method, rest) in [
            ("GET", "manifests/1"),
            ("HEAD", "manifests/1"),
            ("GET", "tags/list"),
            ("POST", "blobs/uploads/"),
        ] {
            let ask = |name: &str| {
                let answer = guest.send(method, &format!("/v2/acme/{name}/app/{rest}"), &[], b"");
                (answer.status, answer.text().replace(name, "NAME"))
            };
            let (there, absent) = (ask("hidden"), ask("absent"));
            assert_eq!(there, absent, "{who} {method} {rest}");
        }
    }
    let owner = Client::new(&url, Some(&server.token(&["acme/hidden"], &[Right::Pull])));
    owner.get("/v2/acme/hidden/app/manifests/1").expect(200);
    guests[0].1.get("/v2/acme/plain/manifests/1").expect(200);
    // Who comes without credentials is asked for them where a name may lie deeper.
    let asked = guests[0]
        .1
        .get("/v2/acme/hidden/app/manifests/1")
        .expect(401);
    assert!(asked.header("www-authenticate").is_some());
}

#[test]
fn s26_a_page_of_the_catalog_is_in_order_and_goes_on_where_the_last_ended() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    create(&admin, "main/x", true).expect(200);
    create(&admin, "aa", true).expect(200);
    let mut names: Vec<String> = [
        "main/app",
        "main/app-x",
        "main/app.y",
        "main/app/z",
        "main/app0",
        "main/apple",
        "main/a",
        "main/x/app",
        "main/xx",
        "aa/z",
        "main/app-x/deep",
        "main/b-1",
    ]
    .map(str::to_owned)
    .to_vec();
    for name in &names {
        push_image(&admin, name, name).expect(201);
    }
    names.sort();
    for count in [1, 2, 5, 12, 1000] {
        let mut found: Vec<String> = Vec::new();
        let mut next = Some(format!("/v2/_catalog?n={count}"));
        while let Some(path) = next {
            let page = admin.get(&path).expect(200);
            let listed = page.json()["repositories"].as_array().unwrap().clone();
            assert!(listed.len() <= count);
            found.extend(listed.iter().map(|name| name.as_str().unwrap().to_owned()));
            let link = page.header("link");
            next = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
        }
        assert_eq!(found, names, "n={count}");
    }
    admin.get("/v2/_catalog?n=1000000").expect(200);
}

#[test]
fn s26_a_page_of_one_costs_the_same_beside_a_thousand() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let config = b"{}";
    let digest = push_blob(&admin, "main/seed", config);
    let bytes = manifest((&digest, config.len()), &[]);
    for index in 0..1500 {
        let path = format!("/v2/main/r{index:04}/manifests/1");
        put_manifest(&admin, &path, OCI_MANIFEST, &bytes).expect(201);
    }
    let time = |path: &str| {
        let once = || {
            let began = std::time::Instant::now();
            admin.get(path).expect(200);
            began.elapsed()
        };
        (0..9).map(|_| once()).min().unwrap()
    };
    let (one, all) = (time("/v2/_catalog?n=1"), time("/v2/_catalog?n=1000"));
    assert!(one * 4 < all, "one {one:?}, a thousand {all:?}");
}

#[test]
fn s14_figures_are_for_those_who_may_read_all_caches() {
    let metrics_at = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = metrics_at.local_addr().unwrap();
    drop(metrics_at);
    let server = TestServer::start_with(|config| config.metrics_listen = Some(address));
    let url = server.url();
    let client = |token: &str| Client::new(&url, Some(token));
    Client::new(&url, None).get("/metrics").expect(401);
    let (one, all) = (
        server.token(&["main"], &[Right::Pull, Right::Admin]),
        server.token(&["*"], &[Right::Pull]),
    );
    client(&one).get("/metrics").expect(403);
    let seen = client(&all).get("/metrics").expect(200).text();
    assert!(seen.contains("firn_requests_total"), "{seen}");
    client(server.admin_token()).get("/metrics").expect(200);
    // The other listener has the figures, and nothing else.
    let aside = Client::new(&format!("http://{address}"), None);
    let seen = aside.get("/metrics").expect(200).text();
    assert!(seen.contains("firn_requests_total"), "{seen}");
    aside.get("/main/nix-cache-info").expect(404);
    aside.get("/api/v1/caches").expect(404);
}

#[test]
fn s15_a_job_does_not_read_the_names_of_other_scopes() {
    let server = TestServer::start();
    let job = |scopes: &[Scope]| {
        let token = server.actions_token("main", "acme/web", scopes);
        Client::new(&server.url(), Some(&token))
    };
    let twirp = |client: &Client, method: &str, body: &Value| {
        let service = "/twirp/github.actions.results.api.v1.CacheService/";
        client.post_json(&format!("{service}{method}"), body)
    };
    let secret = job(&[Scope::write("refs/heads/secret-takeover")]);
    let created = twirp(
        &secret,
        "CreateCacheEntry",
        &json!({"key": "k", "version": "v"}),
    );
    let created = created.expect(200).json();
    let url = created["signed_upload_url"].as_str().unwrap();
    let path = url.strip_prefix(&server.url()).unwrap();
    let block = [("x-ms-blob-type", "BlockBlob")];
    Client::new(&server.url(), None)
        .send("PUT", path, &block, b"bytes")
        .expect(201);
    let done = json!({"key": "k", "version": "v", "size_bytes": 5});
    twirp(&secret, "FinalizeCacheEntryUpload", &done).expect(200);
    let guest = job(&[Scope::write("refs/heads/main")]);
    let missed = json!({"key": "k", "version": "v", "restore_keys": []});
    twirp(&guest, "GetCacheEntryDownloadURL", &missed).expect(200);
    let history = "/api/v1/actions/history?cache=main&repository=acme/web";
    let seen = guest.get(history).expect(200).text();
    assert!(seen.contains("other_scope"), "{seen}");
    assert!(!seen.contains("secret-takeover"), "{seen}");
    // Who may read the whole cache sees where it is.
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    assert!(
        admin
            .get(history)
            .expect(200)
            .text()
            .contains("secret-takeover")
    );
}

#[test]
fn s19_a_page_of_another_site_changes_nothing() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let body = br#"{"name":"made-by-a-page","public":true}"#;
    let json = ("content-type", "application/json");
    let send = |headers: &[(&str, &str)]| admin.send("POST", "/api/v1/caches", headers, body);
    for headers in [
        &[
            ("content-type", "text/plain"),
            ("origin", "https://evil.example"),
        ][..],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/json-no")],
        &[],
    ] {
        let refused = send(headers).expect(415);
        assert!(
            refused.text().contains("application/json"),
            "{}",
            refused.text()
        );
    }
    for site in ["cross-site", "same-site"] {
        send(&[json, ("sec-fetch-site", site)]).expect(403);
        let headers = [("sec-fetch-site", site)];
        admin.send("POST", "/api/v1/gc", &headers, b"").expect(403);
        admin
            .send("DELETE", "/api/v1/caches/main", &headers, b"")
            .expect(403);
    }
    admin.get("/api/v1/caches/made-by-a-page").expect(404);
    admin.get("/api/v1/caches/main").expect(200);
    send(&[("content-type", "application/json; charset=utf-8")]).expect(200);
    let same = [json, ("sec-fetch-site", "same-origin")];
    let other = br#"{"name":"second","public":true}"#;
    admin
        .send("POST", "/api/v1/caches", &same, other)
        .expect(200);
}

/// 1 GiB of zeros as `nix copy` sends them with its default compression.
#[test]
fn n6_a_sparse_file_comes_in_by_xz() {
    const SIZE: u64 = 1 << 30;
    let mut head = Vec::new();
    let mut writer = Writer::new(&mut head);
    writer.file_begin(&mut head, false, SIZE);
    let mut tail = Vec::new();
    writer.file_end(&mut tail, SIZE);
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    let mut hasher = firn_formats::sha256::Sha256Hasher::new();
    let zeros = vec![0_u8; 1 << 20];
    let mut add = |bytes: &[u8]| {
        hasher.update(bytes);
        encoder.write_all(bytes).unwrap();
    };
    add(&head);
    (0..SIZE >> 20).for_each(|_| add(&zeros));
    add(&tail);
    let file = encoder.finish().unwrap();
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let path = store_path("zeros", "zeros");
    let narinfo = NarInfo {
        store_path: path.clone(),
        url: format!("nar/{}.nar.xz", Sha256::of(&file).base32()),
        compression: Compression::Xz,
        file_hash: None,
        file_size: Some(file.len() as u64),
        nar_hash: hasher.finish(),
        nar_size: SIZE + (head.len() + tail.len()) as u64,
        references: Vec::new(),
        deriver: None,
        signatures: Vec::new(),
        ca: None,
    };
    admin
        .put(&format!("/main/{}", narinfo.url), &file)
        .expect(201);
    let place = format!("/main/{}.narinfo", path.hash());
    admin
        .put(&place, narinfo.to_string().as_bytes())
        .expect(201);
}
