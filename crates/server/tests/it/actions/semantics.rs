//! GitHub's semantics, a test for each row of their table, and where Firn does better.

use super::Job;
use crate::connections::{half_sent, status};
use crate::http::Client;
use crate::samples::noise;
use firn_formats::actions::Scope;
use firn_testkit::TestServer;
use std::io::Write as _;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(30);

#[test]
fn order_per_scope_exact_then_prefix_then_restore_keys_newest_first_then_the_next_scope() {
    let server = TestServer::start();
    let main = Job::on_main(&server);
    main.save("npm-linux-old", b"1");
    main.save("npm-linux-new", b"2");
    main.save("npm-linux", b"3");
    main.save("other-1", b"4");
    // Exact before a prefix, though the others are as new.
    assert_eq!(main.matched("npm-linux", &[]).unwrap(), "npm-linux");
    // The key as a prefix, before any restore key; the newest of several.
    assert_eq!(
        main.matched("npm-linux-", &["other-1"]).unwrap(),
        "npm-linux-new"
    );
    // Restore keys in their order, each exact and then as a prefix.
    let found = main.matched("absent", &["npm-l", "other-1"]).unwrap();
    assert_eq!(found, "npm-linux");
    assert_eq!(main.matched("absent", &["none", "oth"]).unwrap(), "other-1");
    // All of that in one scope before any of it in the next.
    let branch = Job::on_branch(&server, "feature");
    branch.save("other-branch", b"5");
    let found = branch.matched("npm-linux", &["other-"]).unwrap();
    assert_eq!(found, "other-branch");
    assert_eq!(branch.matched("npm-linux", &[]).unwrap(), "npm-linux");
    // BuildKit repeats the key among the restore keys, OpenDAL sends none.
    assert_eq!(main.matched("other-1", &["other-1"]).unwrap(), "other-1");
    assert_eq!(main.matched("zzz", &[]), None);
}

#[test]
fn scopes_are_the_ref_the_base_and_the_default_branch_never_siblings_or_children() {
    let server = TestServer::start();
    let main = Job::on_main(&server);
    let feature = Job::on_branch(&server, "feature");
    let sibling = Job::on_branch(&server, "sibling");
    let child = Job::on_branch(&server, "feature/child");
    main.save("main", b"m");
    feature.save("feature", b"f");
    child.save("child", b"c");
    for job in [&feature, &sibling, &child] {
        assert_eq!(job.matched("main", &[]).unwrap(), "main");
    }
    assert_eq!(main.matched("feature", &[]), None);
    assert_eq!(sibling.matched("feature", &["f", "c"]), None);
    assert_eq!(feature.matched("child", &["chi"]), None);
    // A pull request reads its base as well.
    let scopes = [
        Scope::write("refs/pull/5/merge"),
        Scope::read("refs/heads/feature"),
        Scope::read("refs/heads/main"),
    ];
    let pull = Job::new(&server, "acme/web", &scopes);
    assert_eq!(pull.matched("feature", &[]).unwrap(), "feature");
    assert_eq!(pull.matched("main", &[]).unwrap(), "main");
    assert_eq!(pull.matched("child", &[]), None);
    // Another repository, and the same in another cache, have nothing of it.
    let other = Job::new(&server, "acme/other", &[Scope::write("refs/heads/main")]);
    assert_eq!(other.matched("main", &["m"]), None);
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let made = serde_json::json!({"name": "second", "public": true});
    admin.post_json("/api/v1/caches", &made).expect(200);
    let token = server.actions_token("second", "acme/web", &[Scope::write("refs/heads/main")]);
    let elsewhere = Job::with_token(&server, Some(&token));
    assert_eq!(elsewhere.matched("main", &["m"]), None);
}

#[test]
fn pull_requests_write_only_into_their_own_scope_and_untrusted_triggers_are_read_only() {
    let server = TestServer::start();
    let main = Job::on_main(&server);
    let pull = |number: u32| {
        let scopes = [
            Scope::write(&format!("refs/pull/{number}/merge")),
            Scope::read("refs/heads/main"),
        ];
        Job::new(&server, "acme/web", &scopes)
    };
    pull(1).save("key", b"poison");
    assert_eq!(
        main.matched("key", &[]),
        None,
        "the default branch reads it"
    );
    assert_eq!(
        pull(2).matched("key", &[]),
        None,
        "another request reads it"
    );
    // It takes nobody's key away either.
    main.save("key", b"good");
    assert_eq!(main.restore("key", &[]).unwrap().1, b"good");
    assert_eq!(pull(1).restore("key", &[]).unwrap().1, b"poison");
    let untrusted = Job::new(&server, "acme/web", &[Scope::read("refs/heads/main")]);
    assert_eq!(untrusted.restore("key", &[]).unwrap().1, b"good");
    let refused = untrusted.create("new").expect(200).json();
    assert_eq!(refused["ok"], false);
    let message = refused["message"].as_str().unwrap();
    assert!(message.starts_with("cache write denied:"), "{message}");
}

#[test]
fn entries_are_immutable_and_the_same_key_and_version_in_a_scope_already_exist() {
    let server = TestServer::start();
    let main = Job::on_main(&server);
    let id = main.save("key", b"first");
    let refused = main.create("key").expect(409).json();
    assert_eq!(refused["code"], "already_exists");
    assert!(
        refused["msg"]
            .as_str()
            .unwrap()
            .contains("Scope: refs/heads/main")
    );
    // While one job saves it, another hears the same; an upload that was there before does not get through.
    let upload = main.reserve("under way");
    main.create("under way").expect(409);
    main.put(&upload, b"x").expect(201);
    main.finalize("under way", 1).expect(200);
    // Finishing again is no new entry.
    let again = main.finalize("key", 5).expect(200).json();
    assert_eq!(again["entry_id"], id);
    main.finalize("key", 6).expect(404);
    assert_eq!(main.restore("key", &[]).unwrap().1, b"first");
    // Another scope, and another version, are other entries.
    Job::on_branch(&server, "feature").save("key", b"branch");
    let body = serde_json::json!({"key": "key", "version": "v2"});
    main.twirp("CreateCacheEntry", &body).expect(200);
    // On request it is replaced.
    let headers = [
        ("content-type", "application/json"),
        ("x-firn-replace", "true"),
    ];
    let body = serde_json::json!({"key": "key", "version": super::VERSION}).to_string();
    let path = format!("{}CreateCacheEntry", super::SERVICE);
    let created = main.http.send("POST", &path, &headers, body.as_bytes());
    let url = created.expect(200).json()["signed_upload_url"].clone();
    main.put(&main.path(url.as_str().unwrap()), b"second")
        .expect(201);
    let done = main.finalize("key", 6).expect(200).json();
    assert_ne!(done["entry_id"], id);
    assert_eq!(main.restore("key", &[]).unwrap().1, b"second");
}

#[test]
fn case_is_preserved() {
    let server = TestServer::start();
    let main = Job::on_main(&server);
    main.save("Linux-NPM-ä", b"1");
    assert_eq!(main.matched("Linux-NPM-ä", &[]).unwrap(), "Linux-NPM-ä");
    assert_eq!(main.matched("Linux-", &[]).unwrap(), "Linux-NPM-ä");
    // Repositories are compared as GitHub does.
    let same = Job::new(&server, "Acme/WEB", &[Scope::read("refs/heads/main")]);
    assert_eq!(same.matched("Linux-", &[]).unwrap(), "Linux-NPM-ä");
}

fn configure(server: &TestServer, change: &serde_json::Value) {
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let body = change.to_string();
    admin
        .send(
            "PATCH",
            "/api/v1/caches/main",
            &[("content-type", "application/json")],
            body.as_bytes(),
        )
        .expect(200);
}

/// Each alone fits, no two of them do: whoever comes later has to see those that are not there yet.
#[test]
fn quota_holds_when_many_save_at_once() {
    let server = TestServer::start();
    configure(
        &server,
        &serde_json::json!({"actions_quota_bytes": 150_000}),
    );
    for round in 0..15_u64 {
        std::thread::scope(|scope| {
            // What is on its way may be twice the quota: more at once would be refused.
            for other in 0..3 {
                let server = &server;
                scope.spawn(move || {
                    let seed = round * 3 + other;
                    Job::on_main(server).save(&format!("k-{seed:02}"), &noise(seed, 100_000));
                });
            }
        });
        let held = (0..(round + 1) * 3).filter(|seed| {
            Job::on_main(&server)
                .matched(&format!("k-{seed:02}"), &[])
                .is_some()
        });
        let held: Vec<u64> = held.collect();
        assert_eq!(held.len(), 1, "{held:?} in round {round}");
    }
}

#[test]
fn quota_the_least_recently_used_goes_first_and_the_default_branch_last() {
    let server = TestServer::start();
    configure(
        &server,
        &serde_json::json!({"actions_quota_bytes": 450_000}),
    );
    let main = Job::on_main(&server);
    let branch = Job::on_branch(&server, "feature");
    // The oldest of all, and on the default branch.
    main.save("main", &noise(1, 100_000));
    for (name, seed) in [("a", 2), ("b", 3), ("c", 4)] {
        std::thread::sleep(PAUSE);
        branch.save(name, &noise(seed, 100_000));
    }
    // A use counts more than age. Uses are told by the second of their entries.
    std::thread::sleep(Duration::from_millis(1100));
    branch.restore("a", &[]).unwrap();
    // The same bytes under another key cost nothing.
    branch.save("c again", &noise(4, 100_000));
    branch.restore("b", &[]).unwrap();
    branch.save("d", &noise(5, 100_000));
    assert_eq!(branch.matched("a", &[]).unwrap(), "a");
    assert_eq!(branch.matched("b", &[]).unwrap(), "b");
    assert_eq!(branch.matched("d", &[]).unwrap(), "d");
    assert_eq!(main.matched("main", &[]).unwrap(), "main");
    let services = server.running().services();
    let cache = services.access.caches(
        &firn_services::Identity::Anonymous,
        firn_formats::admin::Right::Pull,
    );
    let repository = firn_services::actions::Repository {
        cache: cache[0].clone(),
        name: firn_formats::actions::RepositoryName::parse("acme/web").unwrap(),
    };
    let gone = services.actions.gone(&repository, 10).unwrap();
    assert!(gone.iter().any(|gone| gone.key == "c"), "{gone:?}");
    assert!(
        gone.iter().all(|gone| gone.key.starts_with('c')),
        "{gone:?}"
    );
    // One that alone is too large is refused with its reason, and nothing goes for it.
    let upload = main.reserve("large");
    main.put(&upload, &noise(6, 500_000)).expect(413);
    assert_eq!(main.matched("main", &[]).unwrap(), "main");
    let usage = services.actions.usage(&repository).unwrap();
    assert!(usage.stored_bytes <= 450_000, "{usage:?}");
}

#[test]
fn retention_what_nobody_used_for_its_time_goes_and_a_use_keeps_it() {
    let server = TestServer::start();
    let main = Job::on_main(&server);
    main.save("idle", b"1");
    main.save("used", b"2");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(main.matched("used", &[]).unwrap(), "used");
    configure(&server, &serde_json::json!({"actions_keep_for_seconds": 2}));
    server.running().services().actions.keep().unwrap();
    assert_eq!(main.matched("used", &[]).unwrap(), "used");
    assert_eq!(main.matched("idle", &[]), None);
}

#[test]
fn rate_more_uploads_than_a_minute_allows_are_told_when_to_come_again() {
    let server = TestServer::start_with(|config| {
        config.limits.actions_uploads_per_minute_max = 3;
    });
    let main = Job::on_main(&server);
    for key in ["a", "b", "c"] {
        main.create(key).expect(200);
    }
    let refused = main.create("d").expect(429);
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(refused.json()["code"], "resource_exhausted");
    let other = Job::new(&server, "acme/other", &[Scope::write("refs/heads/main")]);
    other.create("d").expect(200);
    let v1 = serde_json::json!({"key": "d", "version": "v"});
    main.http
        .post_json("/_apis/artifactcache/caches", &v1)
        .expect(429);
}

#[test]
fn names_have_limits_with_clear_errors() {
    let server = TestServer::start();
    let main = Job::on_main(&server);
    for (key, why) in [("a,b", "comma"), ("", "empty"), (&*"k".repeat(513), "512")] {
        let refused = main.create(key).expect(200).json();
        assert_eq!(refused["ok"], false);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
        let body = serde_json::json!({"key": key, "version": "v"});
        let path = "/_apis/artifactcache/caches";
        let refused = main.http.post_json(path, &body).expect(400).json();
        assert!(refused["message"].as_str().unwrap().contains(why));
    }
    let many = vec!["r"; 11];
    let body = serde_json::json!({"key": "k", "restore_keys": many, "version": "v"});
    main.twirp("GetCacheEntryDownloadURL", &body).expect(400);
    main.save(&"k".repeat(512), b"long");
    assert!(main.matched(&"k".repeat(500), &[]).is_some());
}

/// Each part alone fits; all of them were let in because none saw the others.
#[test]
fn s16_parts_that_come_at_once_do_not_pass_the_limit_together() {
    const PART_BYTES: usize = 500_000;
    let server = TestServer::start();
    configure(
        &server,
        &serde_json::json!({"actions_quota_bytes": 1_000_000}),
    );
    let job = Job::on_main(&server);
    let upload = job.reserve("many");
    let mut parts: Vec<_> = (10..50)
        .map(|part| {
            let head = format!("PUT {upload}&comp=block&blockid=YQ{part} HTTP/1.1\r\n");
            half_sent(&server.host(), &head, PART_BYTES, &[part; 100_000])
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut taken = 0;
    for (part, stream) in (10..).zip(&mut parts) {
        // Who was refused may have been told and hung up on already.
        let _ = stream.write_all(&vec![part; PART_BYTES - 100_000]);
    }
    for stream in &mut parts {
        match status(stream, std::time::Duration::from_secs(20)).as_deref() {
            Some("HTTP/1.1 201") => taken += 1,
            Some("HTTP/1.1 413") => {}
            other => panic!("{other:?}"),
        }
    }
    // Twice the quota, and not a part more or less.
    assert_eq!(taken, 4);
}
