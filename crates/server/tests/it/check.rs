//! Damage as clients see it, and backups while pushes go on.

use crate::http::Client;
use crate::samples::{Upload, noise};
use firn_formats::admin::{CheckEvent, CheckRequest, CheckView, ReadData, Right};
use firn_formats::nix::Compression;
use firn_server::Config;
use firn_testkit::TestServer;
use firn_testkit::damage::{flip_bit, frames, packs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn check(client: &Client) -> CheckView {
    let request = CheckRequest {
        read_data: Some(ReadData {
            part: (1, 1),
            rate: None,
            resume: false,
        }),
    };
    let answer = client
        .post_json("/api/v1/check", &request)
        .expect(200)
        .text();
    let last = answer.lines().rfind(|line| !line.is_empty()).unwrap();
    match serde_json::from_str(last).unwrap() {
        CheckEvent::Report(report) => report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rule_9_damage_is_not_found_and_a_second_upload_heals_it() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let anyone = Client::new(&server.url(), None);
    let upload = Upload::new("rotten", &noise(7, 400_000), &[], Compression::Xz);
    upload.push(&admin).expect(201);
    let narinfo = anyone.get(&upload.narinfo_path()).expect(200).text();
    let url = narinfo
        .lines()
        .find_map(|line| line.strip_prefix("URL: "))
        .unwrap()
        .to_owned();
    let nar = anyone.get(&format!("/main/{url}")).expect(200).body;
    let report = check(&admin);
    assert!(!report.damaged, "{report:?}");

    let pack = &packs(server.data())[0];
    let (offset, length) = frames(pack)[1];
    flip_bit(pack, offset + length / 2);
    let report = check(&admin);
    assert_eq!(report.chunks_quarantined, 1);
    let [finding] = report.findings.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(finding.what, "chunk-damaged");
    assert_eq!(
        finding.breaks,
        [format!("narinfo /nix/store/{} in main", upload.path)]
    );
    for client in [&anyone, &admin] {
        client.get(&upload.narinfo_path()).expect(404);
        client.head(&upload.narinfo_path()).expect(404);
        client.get(&format!("/main/{url}")).expect(404);
        client.head(&upload.nar_path()).expect(404);
    }

    upload.push(&admin);
    assert_eq!(
        anyone.get(&upload.narinfo_path()).expect(200).text(),
        narinfo
    );
    assert_eq!(anyone.get(&format!("/main/{url}")).expect(200).body, nar);
    assert!(!check(&admin).damaged);
}

#[test]
fn who_checks_administers_everything() {
    let server = TestServer::start();
    let request = CheckRequest::default();
    Client::new(&server.url(), None)
        .post_json("/api/v1/check", &request)
        .expect(401);
    let token = server.token(&["main"], &[Right::Admin]);
    let tenant = Client::new(&server.url(), Some(&token));
    tenant.post_json("/api/v1/check", &request).expect(403);
    tenant.get("/api/v1/damage").expect(403);
    tenant.send("POST", "/api/v1/heal", &[], b"").expect(403);
}

#[test]
fn a_backup_made_while_pushes_go_on_is_whole_and_can_be_served() {
    let server = TestServer::start_with(|config| config.pack_bytes_target = 1 << 20);
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("backup");
    let (stop, pushed) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = Upload::new("before", &noise(1, 700_000), &[], Compression::Zstd);
    before.push(&admin).expect(201);
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (stop, pushed, admin) = (&stop, &pushed, &admin);
            scope.spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("more-{thread}-{round}");
                    let content = noise(1000 * (thread + 1) + round, 300_000);
                    Upload::new(&name, &content, &[], Compression::Zstd)
                        .push(admin)
                        .expect(201);
                    pushed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..6 {
            let least = pushed.load(Ordering::Relaxed) + 3;
            while pushed.load(Ordering::Relaxed) < least {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let config = Config {
                data: server.data().to_owned(),
                ..Config::default()
            };
            let report = firn_server::backup(&config, &dest, round % 2 == 0).unwrap();
            assert_eq!(report.packs_lost, 0, "{report:?}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let config = Config {
        data: dest.clone(),
        listen: ([127, 0, 0, 1], 0).into(),
        ..Config::default()
    };
    let read = ReadData {
        part: (1, 1),
        rate: None,
        resume: false,
    };
    let report = firn_server::check(&config, Some(&read), &mut |_, _| {}).unwrap();
    assert!(!report.damaged, "{report:?}");
    assert!(report.entries > 10, "{report:?}");

    let copy = firn_server::start(config).unwrap();
    let anyone = Client::new(copy.url(), None);
    anyone.get(&before.narinfo_path()).expect(200);
    let token = std::fs::read_to_string(server.data().join("admin.token")).unwrap();
    let same = Client::new(copy.url(), Some(token.trim()));
    Upload::new("after", &noise(2, 100_000), &[], Compression::Zstd)
        .push(&same)
        .expect(201);
    copy.stop().unwrap();
    // What the copy does to its files is nothing to the server's.
    assert!(!check(&admin).damaged);
}
