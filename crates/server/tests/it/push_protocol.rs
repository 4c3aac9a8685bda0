//! The push protocol, message by message.

use crate::http::{Answer, Client};
use crate::samples::{Upload, noise};
use firn_chunks::{Encoder, Format, FormatChunker, VerifiedFrame, boundaries};
use firn_formats::nix::nar::Writer;
use firn_formats::nix::{Compression, NarInfo};
use firn_formats::pull::NarLayout;
use firn_formats::push::{
    Begin, Begun, BlobKind, FramesAccepted, Proposal, ProposalAnswer, Publish, PublishLayer,
    PublishPath, Published, decode_answers, decode_proposals, encode_frame, encode_proposals,
};
use firn_formats::tar;
use firn_testkit::TestServer;
use std::collections::HashSet;

fn chunked(bytes: &[u8]) -> (Proposal, Vec<VerifiedFrame>) {
    let mut encoder = Encoder::new(boundaries::V1.zstd_level);
    let mut frames = Vec::new();
    let mut chunker = FormatChunker::new(Format::Nar, boundaries::V1);
    let mut sink = |chunk: &[u8]| frames.push(encoder.encode(chunk));
    chunker.push(bytes, &mut sink).unwrap();
    chunker.finish(&mut sink).unwrap();
    let chunks = frames
        .iter()
        .map(|frame| (frame.record().id.0, frame.record().raw_length))
        .collect();
    (
        Proposal {
            kind: BlobKind::Nar,
            chunks,
        },
        frames,
    )
}

fn body_of<'a>(frames: impl IntoIterator<Item = &'a VerifiedFrame>) -> Vec<u8> {
    let mut body = Vec::new();
    for frame in frames {
        encode_frame(&frame.record().id.0, frame.frame(), &mut body);
    }
    body
}

fn begin(client: &Client, request: &Begin) -> Begun {
    let answer = client
        .post_json("/api/v1/push/begin?cache=main", request)
        .expect(200);
    serde_json::from_slice(&answer.body).unwrap()
}

fn propose(client: &Client, session: &str, proposals: &[Proposal]) -> Vec<ProposalAnswer> {
    let path = format!("/api/v1/push/{session}/blobs");
    let answer = client
        .send("POST", &path, &[], &encode_proposals(proposals))
        .expect(200);
    decode_answers(&answer.body).unwrap()
}

fn send(client: &Client, session: &str, body: &[u8]) -> Answer {
    client.send("POST", &format!("/api/v1/push/{session}/frames"), &[], body)
}

fn publish(client: &Client, session: &str, request: &Publish) -> Answer {
    client.post_json(&format!("/api/v1/push/{session}/publish"), request)
}

fn publish_path(upload: &Upload, blob: u32) -> PublishPath {
    PublishPath {
        path: upload.path.to_string(),
        nar_hash: upload.narinfo.nar_hash.base32(),
        nar_size: upload.narinfo.nar_size,
        references: upload
            .narinfo
            .references
            .iter()
            .map(ToString::to_string)
            .collect(),
        deriver: None,
        signatures: Vec::new(),
        ca: None,
        blob,
    }
}

fn of_paths(paths: Vec<PublishPath>) -> Publish {
    Publish {
        paths,
        layers: Vec::new(),
    }
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_closure_goes_in_and_the_second_push_sends_nothing() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let base = Upload::new("push-base", &noise(1, 900_000), &[], Compression::None);
    let above = Upload::new(
        "push-above",
        &noise(2, 400_000),
        &[&base.path],
        Compression::None,
    );
    let uploads = [&above, &base];
    let request = Begin {
        paths: uploads
            .iter()
            .map(|upload| upload.path.hash().to_string())
            .collect(),
        ..Begin::default()
    };
    let begun = begin(&admin, &request);
    assert_eq!(begun.missing, [0, 1]);
    let session = begun.session.unwrap();
    assert!(begun.expires_in > 0);

    let (proposals, frames): (Vec<_>, Vec<_>) =
        uploads.iter().map(|upload| chunked(&upload.nar)).unzip();
    let answers = propose(&admin, &session, &proposals);
    // A chunk that both have is asked for once.
    let distinct: HashSet<[u8; 32]> = proposals
        .iter()
        .flat_map(|proposal| proposal.chunks.iter().map(|(id, _)| *id))
        .collect();
    let asked = answers
        .iter()
        .flat_map(|answer| &answer.missing)
        .filter(|missing| **missing);
    assert_eq!(asked.count(), distinct.len());
    // Out of order, in two bodies, one of them twice: a retry does no harm.
    let (first, second) = frames[0].split_at(frames[0].len() / 2);
    let accepted = send(&admin, &session, &body_of(second)).expect(200);
    let accepted: FramesAccepted = serde_json::from_slice(&accepted.body).unwrap();
    assert_eq!(accepted.new as usize, second.len());
    let again = send(&admin, &session, &body_of(second)).expect(200);
    let again: FramesAccepted = serde_json::from_slice(&again.body).unwrap();
    assert_eq!((again.new, again.known as usize), (0, second.len()));
    send(&admin, &session, &body_of(first)).expect(200);

    let paths = vec![
        publish_path(&above, answers[0].handle),
        publish_path(&base, answers[1].handle),
    ];
    let early = publish(&admin, &session, &of_paths(paths.clone())).expect(409);
    assert_eq!(code(&early), "missing_chunks");
    admin.get(&above.narinfo_path()).expect(404);
    send(&admin, &session, &body_of(&frames[1])).expect(200);
    let stale = publish(&admin, &session, &of_paths(paths)).expect(409);
    assert_eq!(code(&stale), "stale_blob");
    let answers = propose(&admin, &session, &proposals);
    assert!(
        !answers
            .iter()
            .flat_map(|answer| &answer.missing)
            .any(|missing| *missing)
    );
    let paths = vec![
        publish_path(&above, answers[0].handle),
        publish_path(&base, answers[1].handle),
    ];
    let alone = publish(&admin, &session, &of_paths(paths[..1].to_vec())).expect(422);
    assert_eq!(code(&alone), "missing_reference");
    let published = publish(&admin, &session, &of_paths(paths)).expect(200);
    let published: Published = serde_json::from_slice(&published.body).unwrap();
    assert_eq!(published.paths, 2);

    for upload in uploads {
        let narinfo =
            NarInfo::parse(&admin.get(&upload.narinfo_path()).expect(200).text()).unwrap();
        let nar = admin.get(&format!("/main/{}", narinfo.url)).expect(200);
        assert_eq!(zstd::stream::decode_all(&nar.body[..]).unwrap(), upload.nar);
        let list = admin
            .get(&format!("/api/v1/chunks/{}?cache=main", upload.path.hash()))
            .expect(200);
        let proposal = chunked(&upload.nar).0;
        assert_eq!(
            decode_proposals(&list.body).unwrap(),
            std::slice::from_ref(&proposal)
        );
        let layout = admin
            .get(&format!("/api/v1/nars/{}?cache=main", upload.path.hash()))
            .expect(200);
        let layout = NarLayout::decode(&layout.body).unwrap();
        let url = format!("nar/{}.nar.zst", layout.zstd_sha256.base32());
        assert_eq!(url, narinfo.url);
        let chunks: Vec<_> = layout
            .frames
            .iter()
            .map(|frame| (frame.id, frame.raw_length))
            .collect();
        assert_eq!(chunks, proposal.chunks);
        let lengths = layout
            .frames
            .iter()
            .map(|frame| frame.frame_length as usize);
        assert_eq!(lengths.sum::<usize>(), nar.body.len());
        let first = layout.frames[0];
        let frame = &nar.body[..first.frame_length as usize];
        let raw = zstd::stream::decode_all(frame).unwrap();
        assert_eq!(raw, upload.nar[..first.raw_length as usize]);
    }
    admin.delete(&format!("/api/v1/push/{session}")).expect(204);
    let begun = begin(&admin, &request);
    assert_eq!((begun.missing, begun.session), (Vec::new(), None));
}

#[test]
fn lies_and_garbage_are_refused_and_nothing_is_visible() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let upload = Upload::new("push-lie", &noise(4, 200_000), &[], Compression::None);
    let request = Begin {
        paths: vec![upload.path.hash().to_string()],
        ..Begin::default()
    };
    let session = begin(&admin, &request).session.unwrap();
    let (proposal, frames) = chunked(&upload.nar);
    let answers = propose(&admin, &session, std::slice::from_ref(&proposal));

    let mut flipped = body_of(&frames[..1]);
    *flipped.last_mut().unwrap() ^= 1;
    send(&admin, &session, &flipped).expect(400);
    send(&admin, &session, b"short").expect(400);
    let mut misnamed = Vec::new();
    encode_frame(&[0; 32], frames[0].frame(), &mut misnamed);
    send(&admin, &session, &misnamed).expect(400);
    send(&admin, &session, &vec![0; 12 << 20]).expect(413);
    let blobs = format!("/api/v1/push/{session}/blobs");
    admin.send("POST", &blobs, &[], &[9, 9, 9]).expect(400);
    let empty_chunk = Proposal {
        kind: BlobKind::Nar,
        chunks: vec![([1; 32], 0)],
    };
    admin
        .send("POST", &blobs, &[], &encode_proposals(&[empty_chunk]))
        .expect(400);

    send(&admin, &session, &body_of(&frames)).expect(200);
    let mut wrong_hash = publish_path(&upload, answers[0].handle);
    wrong_hash.nar_hash = firn_formats::Sha256::of(b"x").base32();
    let refused = publish(&admin, &session, &of_paths(vec![wrong_hash])).expect(422);
    assert_eq!(code(&refused), "hash_mismatch");
    let mut wrong_size = publish_path(&upload, answers[0].handle);
    wrong_size.nar_size += 1;
    publish(&admin, &session, &of_paths(vec![wrong_size])).expect(422);
    let unknown = publish_path(&upload, answers[0].handle.wrapping_add(77));
    assert_eq!(
        code(&publish(&admin, &session, &of_paths(vec![unknown])).expect(409)),
        "stale_blob"
    );
    let mut forged = publish_path(&upload, answers[0].handle);
    forged.ca = Some("fixed:x\nSig: main-1:forged".to_owned());
    publish(&admin, &session, &of_paths(vec![forged])).expect(400);

    // A list whose lengths are not those of its chunks.
    let mut lying = proposal;
    lying.chunks[0].1 += 1;
    let answers = propose(&admin, &session, &[lying]);
    let lie = publish(
        &admin,
        &session,
        &of_paths(vec![publish_path(&upload, answers[0].handle)]),
    );
    assert!((400..500).contains(&lie.status), "{}", lie.text());
    admin.get(&upload.narinfo_path()).expect(404);
}

#[test]
fn a_restart_costs_no_chunk_that_arrived() {
    let mut server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    let upload = Upload::new("push-resume", &noise(5, 600_000), &[], Compression::None);
    let request = Begin {
        paths: vec![upload.path.hash().to_string()],
        ..Begin::default()
    };
    let session = begin(&admin, &request).session.unwrap();
    let (proposal, frames) = chunked(&upload.nar);
    let answers = propose(&admin, &session, std::slice::from_ref(&proposal));
    let half = frames.len() / 2;
    send(&admin, &session, &body_of(&frames[..half])).expect(200);
    server.restart();
    let stale = publish(
        &admin,
        &session,
        &of_paths(vec![publish_path(&upload, answers[0].handle)]),
    );
    assert_eq!(code(&stale.expect(409)), "stale_blob");
    let joined = begin(
        &admin,
        &Begin {
            session: Some(session.clone()),
            ..request
        },
    );
    assert_eq!(joined.session.as_deref(), Some(session.as_str()));
    let answers = propose(&admin, &session, std::slice::from_ref(&proposal));
    let missing = answers[0]
        .missing
        .iter()
        .filter(|missing| **missing)
        .count();
    assert_eq!(missing, frames.len() - half);
    send(&admin, &session, &body_of(&frames[half..])).expect(200);
    publish(
        &admin,
        &session,
        &of_paths(vec![publish_path(&upload, answers[0].handle)]),
    )
    .expect(200);
    admin.get(&upload.narinfo_path()).expect(200);
}

/// The tar of a layer with one root file.
fn root_files(content: &[u8]) -> Vec<u8> {
    let size = content.len() as u64;
    let entry = tar::Entry {
        path: b"etc/noise".to_vec(),
        kind: tar::EntryKind::Regular { size },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 1,
    };
    let mut layer = Vec::new();
    tar::header(&entry, &mut layer).unwrap();
    layer.extend_from_slice(content);
    layer.resize(layer.len() + tar::padding(size) + tar::TRAILER_BYTES, 0);
    layer
}

#[test]
fn a_layer_is_answered_by_its_key_and_pulled_by_its_digest() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let content = root_files(&noise(6, 100_000));
    let mut key = firn_formats::layer::root_key();
    key.update(&content);
    let key = key.finish().hex();
    let frame = Encoder::new(3).encode(&content);
    let request = Begin {
        layers: vec![key.clone()],
        ..Begin::default()
    };
    let session = begin(&admin, &request).session.unwrap();
    let chunks = vec![(frame.record().id.0, frame.record().raw_length)];
    let proposal = Proposal {
        kind: BlobKind::Layer,
        chunks,
    };
    let answers = propose(&admin, &session, &[proposal]);
    send(&admin, &session, &body_of([&frame])).expect(200);
    let layer = PublishLayer {
        key: key.clone(),
        blob: answers[0].handle,
        gzip: true,
        recipe: None,
    };
    let answer = publish(
        &admin,
        &session,
        &Publish {
            paths: Vec::new(),
            layers: vec![layer],
        },
    )
    .expect(200);
    let published: Published = serde_json::from_slice(&answer.body).unwrap();
    let descriptor = published.layers[&key].clone();
    assert_eq!(
        descriptor.diff_id,
        format!("sha256:{}", firn_formats::Sha256::of(&content).hex())
    );
    let known = begin(&admin, &request);
    assert_eq!(known.layers[&key], descriptor);
    assert_eq!(known.session, None);
    let gzip = descriptor.gzip.unwrap();
    for (digest, size) in [
        (&descriptor.digest, descriptor.size),
        (&gzip.digest, gzip.size),
    ] {
        let blob = admin
            .get(&format!("/v2/main/app/blobs/{digest}"))
            .expect(200);
        assert_eq!(blob.body.len() as u64, size);
        assert_eq!(
            &format!("sha256:{}", firn_formats::Sha256::of(&blob.body).hex()),
            digest
        );
    }
}

#[test]
fn a_session_serves_its_own_cache_only() {
    let server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    admin
        .post_json("/api/v1/caches", &serde_json::json!({"name": "other"}))
        .expect(200);
    let request = Begin {
        paths: vec!["0".repeat(32)],
        ..Begin::default()
    };
    let session = begin(&admin, &request).session.unwrap();
    let stranger = server.token(&["other"], &[firn_formats::admin::Right::Push]);
    let stranger = Client::new(&url, Some(&stranger));
    let refused = send(&stranger, &session, b"").expect(404);
    assert_eq!(code(&refused), "session_gone");
    let heartbeat = format!("/api/v1/push/{session}/heartbeat");
    stranger.send("POST", &heartbeat, &[], b"").expect(404);
    admin.send("POST", &heartbeat, &[], b"").expect(204);
    let join = Begin {
        session: Some(session),
        ..request
    };
    stranger
        .post_json("/api/v1/push/begin?cache=other", &join)
        .expect(404);
}

/// A list that is too long for one body, as that of a NAR above 13 GB is: its chunks are small here.
#[test]
fn a_list_longer_than_a_body_goes_in_parts() {
    let mut server = TestServer::start();
    let url = server.url();
    let admin = Client::new(&url, Some(server.admin_token()));
    let mut encoder = Encoder::new(1);
    let mut frames: Vec<_> = (0..100u8).map(|byte| encoder.encode(&[byte])).collect();
    let length = 450_001;
    let (mut content, mut end) = (Vec::new(), Vec::new());
    let mut writer = Writer::new(&mut content);
    writer.file_begin(&mut content, false, length as u64);
    writer.file_end(&mut end, length as u64);
    frames.extend([encoder.encode(&content), encoder.encode(&end)]);
    content.extend((0..length).map(|index| (index % 100) as u8));
    content.extend(&end);
    let order = [100]
        .into_iter()
        .chain((0..length).map(|index| index % 100));
    let chunks: Vec<([u8; 32], u32)> = order
        .chain([101])
        .map(|index| frames[index].record())
        .map(|record| (record.id.0, record.raw_length))
        .collect();
    let count = chunks.len();
    let whole = |chunks: &[([u8; 32], u32)]| {
        encode_proposals(&[Proposal {
            kind: BlobKind::Nar,
            chunks: chunks.to_vec(),
        }])
    };
    let mut upload = Upload::new("long", b"", &[], Compression::None);
    upload.narinfo.nar_hash = firn_formats::Sha256::of(&content);
    upload.narinfo.nar_size = content.len() as u64;
    let request = Begin {
        paths: vec![upload.path.hash().to_string()],
        ..Begin::default()
    };
    let session = begin(&admin, &request).session.unwrap();
    let of = |what: &str| format!("/api/v1/push/{session}/{what}");
    let refused = admin.send("POST", &of("blobs"), &[], &whole(&chunks));
    assert_eq!(refused.expect(413).json()["error"]["code"], "too_large");

    let take = |part: &[([u8; 32], u32)]| {
        let taken = admin
            .send("POST", &of("parts"), &[], &whole(part))
            .expect(200);
        taken.json()["part"].to_string()
    };
    let (first, rest) = chunks.split_at(200_000);
    let (second, third) = rest.split_at(200_000);
    let join = |parts: &[String], body: &[u8]| {
        let path = of(&format!("blobs?parts={}", parts.join(",")));
        admin.send("POST", &path, &[], body)
    };
    let parts = [take(first), take(second)];
    // What is not known, or not a part, is refused; at once, so that a long body would not be read to its end.
    let short = whole(&third[..10]);
    assert_eq!(
        code(&join(&["77".to_owned()], &short).expect(409)),
        "stale_blob"
    );
    join(&["x".to_owned()], &short).expect(400);
    admin
        .send("POST", &of("parts"), &[], &whole(&[]))
        .expect(400);
    // A server that has restarted has forgotten them.
    server.restart();
    assert_eq!(code(&join(&parts, &whole(third)).expect(409)), "stale_blob");
    let parts = [take(first), take(second)];
    let answer = join(&parts, &whole(third)).expect(200);
    let answers = decode_answers(&answer.body).unwrap();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].missing.len(), count);
    assert_eq!(
        answers[0]
            .missing
            .iter()
            .filter(|missing| **missing)
            .count(),
        102
    );
    // The request can be repeated, and means the same blob.
    let again = decode_answers(&join(&parts, &whole(third)).expect(200).body).unwrap();
    assert_eq!(again[0].handle, answers[0].handle);

    send(&admin, &session, &body_of(&frames)).expect(200);
    let paths = vec![publish_path(&upload, answers[0].handle)];
    publish(&admin, &session, &of_paths(paths)).expect(200);
    let nar = format!("/main/nar/{}.nar", upload.narinfo.nar_hash.base32());
    assert!(admin.get(&nar).expect(200).body == content);
    let list = format!("/api/v1/chunks/{}?cache=main", upload.path.hash());
    let list = decode_proposals(&admin.get(&list).expect(200).body).unwrap();
    assert!(list[0].chunks == chunks);
}

#[test]
fn a_cache_has_a_thousand_sessions_at_most() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let begin = |name: &str| {
        let path = crate::samples::store_path(name, name);
        let request = Begin {
            paths: vec![path.hash().to_string()],
            ..Begin::default()
        };
        admin.post_json("/api/v1/push/begin?cache=main", &request)
    };
    let mut last = String::new();
    for number in 0..1000 {
        let begun = begin(&format!("n{number}")).expect(200);
        last = begun.json()["session"].as_str().unwrap().to_owned();
    }
    let refused = begin("more").expect(429);
    assert_eq!(refused.json()["error"]["code"], "too_many");
    assert!(refused.header("retry-after").is_some());
    admin.delete(&format!("/api/v1/push/{last}")).expect(204);
    begin("more").expect(200);
}

/// Lists that nothing follows: a cache has so much memory for them, and another cache its own.
#[test]
fn s9_proposals_end_where_their_share_of_memory_does_and_others_go_on() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    admin
        .post_json("/api/v1/caches", &serde_json::json!({"name": "other"}))
        .expect(200);
    let session = |cache: &str, seed: &str| {
        let request = Begin {
            paths: vec![crate::samples::store_path(seed, "x").hash().to_string()],
            ..Begin::default()
        };
        let path = format!("/api/v1/push/begin?cache={cache}");
        let answer = admin.post_json(&path, &request).expect(200);
        let begun: Begun = serde_json::from_slice(&answer.body).unwrap();
        begun.session.unwrap()
    };
    let sessions = [session("main", "a"), session("main", "b")];
    let list = |seed: u64, chunks: u64| {
        let chunk = |index: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            id[8..16].copy_from_slice(&seed.to_le_bytes());
            (id, 60_000)
        };
        encode_proposals(&[Proposal {
            kind: BlobKind::Nar,
            chunks: (0..chunks).map(chunk).collect(),
        }])
    };
    let mut taken = 0;
    let refused = (0..20).find_map(|number| {
        let session = &sessions[number % 2];
        let path = format!("/api/v1/push/{session}/blobs");
        let answer = admin.send("POST", &path, &[], &list(number as u64, 200_000));
        match answer.status {
            200 => {
                taken += 1;
                None
            }
            _ => Some(answer),
        }
    });
    let refused = refused.expect("no end of memory").expect(503);
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(taken, 5);
    let held = server.running().services().budget.held();
    assert!(held < 112 << 20, "{held}");
    // Another cache has its own share.
    let other = session("other", "c");
    let path = format!("/api/v1/push/{other}/blobs");
    admin
        .send("POST", &path, &[], &list(100, 100_000))
        .expect(200);
    // What ends gives back.
    for session in sessions.iter().chain([&other]) {
        admin.delete(&format!("/api/v1/push/{session}")).expect(204);
    }
    assert_eq!(server.running().services().budget.held(), 0);
}
