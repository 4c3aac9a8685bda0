//! The Actions cache as people look at it, through `gh` and through `firn actions`; and clients of others.

use firn_testkit::rigs::docker::Docker;
use firn_testkit::rigs::gh::Gh;
use firn_testkit::rigs::job::{Job, Protocol};
use firn_testkit::rigs::program::{command, limited, run, tool};
use firn_testkit::rigs::serve::{Server, User};
use firn_testkit::rigs::tls::Tls;
use serde_json::Value;
use std::path::Path;

const REPOSITORY: &str = "acme/app";

fn keys(list: &Value) -> Vec<&str> {
    let entries = list.as_array().expect("a list");
    entries
        .iter()
        .map(|entry| entry["key"].as_str().unwrap())
        .collect()
}

/// `gh` says nothing of a list that is empty.
fn parsed(text: &str) -> Value {
    let text = if text.is_empty() { "[]" } else { text };
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

#[test]
fn gh_lists_and_deletes_caches() {
    let server = crate::server();
    let tls = Tls::before(server.address());
    let main = Job::new(&server, REPOSITORY, &["main"]);
    let dev = Job::new(&server, REPOSITORY, &["dev", "main"]);
    for number in 0..104 {
        let content = vec![7; 10 + number];
        assert_eq!(
            main.save(&format!("many-{number:03}"), &content, false),
            204
        );
    }
    assert_eq!(dev.save("few", &[1; 5000], false), 204);
    assert_eq!(dev.look_up("many-000"), Some("many-000".to_owned()));
    let gh = Gh::new(&tls, &server.token());
    let list = |arguments: &[&str]| {
        let fields = [
            "--json",
            "id,key,ref,version,sizeInBytes,createdAt,lastAccessedAt",
        ];
        parsed(
            &gh.run(
                REPOSITORY,
                &[&["cache", "list"], arguments, &fields].concat(),
            )
            .ok(),
        )
    };
    // More than a page, by the Link header.
    assert_eq!(keys(&list(&["--limit", "200"])).len(), 105);
    let largest = list(&["--sort", "size_in_bytes", "--limit", "2"]);
    assert_eq!(keys(&largest), ["few", "many-103"]);
    assert_eq!(largest[0]["ref"], "refs/heads/dev");
    assert_eq!(largest[0]["sizeInBytes"], 5000);
    let oldest = list(&["--sort", "created_at", "--order", "asc", "--limit", "1"]);
    assert_eq!(keys(&oldest), ["many-000"]);
    assert_eq!(keys(&list(&["--key", "many-00"])).len(), 10);
    assert_eq!(keys(&list(&["--ref", "refs/heads/dev"])), ["few"]);
    assert_eq!(keys(&list(&["--ref", "refs/heads/other"])), [""; 0]);

    let id = largest[1]["id"].to_string();
    gh.run(REPOSITORY, &["cache", "delete", &id]).ok();
    gh.run(REPOSITORY, &["cache", "delete", "few"]).ok();
    let said = gh.run(REPOSITORY, &["cache", "delete", "few"]).refused();
    assert!(
        said.contains("Could not find a cache matching few"),
        "{said}"
    );
    assert_eq!(keys(&list(&["--limit", "200"])).len(), 103);
    gh.run(REPOSITORY, &["cache", "delete", "--all"]).ok();
    assert_eq!(keys(&list(&[])), [""; 0]);
}

/// What a token may not see is not there; what it may see it need not be allowed to delete.
#[test]
fn gh_is_let_in_by_the_rights_of_its_token() {
    let server = crate::server();
    let tls = Tls::before(server.address());
    let job = Job::new(&server, REPOSITORY, &["main"]);
    assert_eq!(job.save("k", b"content", false), 204);
    let admin = User::admin(&server);
    let token = |cache: &str, allow: &str| {
        let made = admin.json(&["token", "create", "--cache", cache, "--allow", allow]);
        made["token"].as_str().unwrap().to_owned()
    };
    let list = ["cache", "list", "--json", "key"];
    let reader = Gh::new(&tls, &token("main", "pull"));
    assert_eq!(keys(&parsed(&reader.run(REPOSITORY, &list).ok())), ["k"]);
    let said = reader.run(REPOSITORY, &["cache", "delete", "k"]).refused();
    assert!(
        said.contains("may list caches, and not delete them"),
        "{said}"
    );
    let stranger = Gh::new(&tls, &token("other", "pull"));
    let said = stranger.run(REPOSITORY, &list).refused();
    assert!(said.contains("404"), "{said}");
    let said = Gh::new(&tls, "nobody's").run(REPOSITORY, &list).refused();
    assert!(said.contains("401"), "{said}");
    // A job's token is for its own repository, wherever it asks.
    let own = Gh::new(&tls, job.token());
    assert_eq!(keys(&parsed(&own.run(REPOSITORY, &list).ok())), ["k"]);
    assert!(own.run("acme/other", &list).refused().contains("404"));
    own.run(REPOSITORY, &["cache", "delete", "k"]).ok();
    let anonymous = "/repos/acme/app/actions/caches";
    assert_eq!(server.status_of(anonymous), "401");
    for path in ["/main", "/api/v3", "/main/api/v3"] {
        server.get(&format!("{path}{anonymous}")).ok();
    }
    server
        .get("/repos/acme/app/actions/cache/retention-limit")
        .ok();
    let limit = server
        .get("/repos/acme/app/actions/cache/storage-limit")
        .ok();
    assert_eq!(limit, r#"{"max_cache_size_gb":10}"#);
}

#[test]
fn firn_actions_lists_replaces_and_deletes() {
    let server = crate::server();
    let job = Job::new(&server, REPOSITORY, &["main"]);
    let admin = User::admin(&server);
    let firn = |arguments: &[&str]| admin.json(&[arguments, &["--repo", REPOSITORY]].concat());
    assert_eq!(job.save("nix-1", &[1; 1000], false), 204);
    assert_eq!(job.save("nix-2", &[2; 1000], false), 204);
    let listed = firn(&["actions", "list", "--ref", "main", "--key", "nix-"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["form"], "exact");
    assert_eq!(job.save("nix-1", &[3; 1500], false), 409);

    // On request: by a command, once; by a header.
    let replaced = firn(&["actions", "replace", "nix-1"]);
    assert_eq!(replaced["entries"], 1);
    assert_eq!(job.look_up("nix-1"), Some("nix-1".to_owned()));
    assert_eq!(job.save("nix-1", &[3; 1500], false), 204);
    assert_eq!(job.save("nix-1", &[4; 1600], false), 409);
    assert_eq!(job.save("nix-1", &[4; 1700], true), 204);
    let now = firn(&["actions", "list", "--key", "nix-1"]);
    assert_eq!(now[0]["size_in_bytes"], 1700);
    let story = firn(&["actions", "why", "nix-1"]);
    let gone = story["gone"].as_array().unwrap();
    let went: Vec<(&str, u64)> = gone
        .iter()
        .map(|gone| {
            (
                gone["reason"].as_str().unwrap(),
                gone["size"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(went, [("replaced", 1500), ("replaced", 1000)]);

    let usage = firn(&["actions", "usage"]);
    assert_eq!(usage["active_caches_count"], 2);
    assert_eq!(usage["active_caches_size_in_bytes"], 2700);
    let all = admin.json(&["actions", "usage"]);
    assert_eq!(all[0]["repository"], REPOSITORY);
    // Deleted, it can be saved again.
    assert_eq!(
        firn(&["actions", "delete", "nix-1"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(job.save("nix-1", &[5; 10], false), 204);
    let unknown = ["actions", "delete", "nix-3", "--repo", REPOSITORY];
    let said = admin.firn(&unknown).refused();
    assert!(said.contains("no entry with the key nix-3"), "{said}");
    firn(&["actions", "delete", "--all"]);
    assert_eq!(firn(&["actions", "list"]).as_array().unwrap().len(), 0);
}

#[test]
fn hits_and_misses_have_their_reasons_and_a_summary() {
    let server = crate::server();
    let main = Job::new(&server, REPOSITORY, &["main"]);
    let dev = Job::new(&server, REPOSITORY, &["dev", "main"]);
    let admin = User::admin(&server);
    let firn = |arguments: &[&str]| admin.json(&[arguments, &["--repo", REPOSITORY]].concat());
    assert_eq!(main.look_up("nix-1"), None);
    assert_eq!(main.save("nix-1", &[1; 1000], false), 204);
    assert_eq!(dev.save("only-dev", &[2; 100], false), 204);
    let restored = main.restore("nix-1", 1000).unwrap();
    assert_eq!(restored, "\u{1}".repeat(1000));
    assert_eq!(main.look_up("nix-2,nix-").as_deref(), Some("nix-1"));
    assert_eq!(main.look_up("only-dev"), None);
    assert_eq!(main.look_up("cargo-1"), None);
    firn(&["actions", "delete", "only-dev"]);
    assert_eq!(dev.look_up("only-dev"), None);
    let history = firn(&["actions", "history"]);
    let of = |key: &str| {
        let found = history["keys"].as_array().unwrap().iter();
        found.clone().find(|of| of["key"] == key).unwrap().clone()
    };
    assert_eq!(of("nix-1")["hits"], 1);
    assert_eq!(of("nix-1")["miss_reasons"]["never saved"], 1);
    assert_eq!(of("nix-2")["partial_hits"], 1);
    assert_eq!(of("only-dev")["miss_reasons"]["scope"], 1);
    assert_eq!(of("only-dev")["miss_reasons"]["deleted"], 1);
    assert_eq!(of("only-dev")["eviction_reasons"]["deleted"], 1);
    assert_eq!(of("cargo-1")["miss_reasons"]["key changed"], 1);
    let told = ["actions", "why", "only-dev", "--repo", REPOSITORY];
    let told = admin.firn(&told).ok();
    assert!(
        told.contains("saved in refs/heads/dev, which the job does not read"),
        "{told}"
    );

    // In the job itself, with its own token.
    let user = User::new(&server, None);
    let page = user.home().join("summary.md");
    let mut summary = user.command();
    summary.args(["actions", "summary", "--key", "nix-"]);
    summary
        .env("ACTIONS_RUNTIME_TOKEN", main.token())
        .env("GITHUB_REPOSITORY", REPOSITORY)
        .env("GITHUB_REF", "refs/heads/main")
        .env("GITHUB_STEP_SUMMARY", &page);
    let said = run(&mut summary).ok();
    assert!(said.contains("✅ Cache hit: nix-1 (1.0 kB in 0."), "{said}");
    // It was found and never downloaded.
    assert!(
        said.contains("◐ Cache partial: nix-2 matched nix-1 (1.0 kB)"),
        "{said}"
    );
    assert!(!said.contains("cargo-1"), "{said}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("### ✅ Cache hit: nix-1"), "{page}");
    assert!(
        page.contains("| nix-1 | hit | nix-1 | 1.0 kB | restored in 0."),
        "{page}"
    );
}

#[test]
fn repositories_share_only_where_their_cache_says_so() {
    let server = crate::server();
    let admin = User::admin(&server);
    admin.json(&["cache", "create", "together", "--actions-shared"]);
    for (cache, shares) in [("main", false), ("together", true)] {
        let job = |repository, scopes: &[&str]| Job::in_cache(&server, cache, repository, scopes);
        let base = job("acme/base", &["main"]);
        assert_eq!(base.save("tools-1", &[1; 100], false), 204);
        let side = job("acme/base", &["dev", "main"]);
        assert_eq!(side.save("tools-2", &[2; 100], false), 204);
        let other = job("acme/app", &["main"]);
        let found = other.look_up("tools-2,tools-");
        assert_eq!(found.as_deref(), shares.then_some("tools-1"), "{cache}");
        // It reads there, and writes at home.
        assert_eq!(other.save("tools-1", &[3; 100], false), 204);
    }
    admin.json(&["cache", "configure", "together", "--actions-shared=false"]);
    let third = Job::in_cache(&server, "together", "acme/third", &["main"]);
    assert_eq!(third.look_up("tools-1"), None);
}

/// A folder like a store: ten paths, of which `changed` are of a revision.
fn folder(at: &Path, revision: u32, changed: usize) {
    for path in 0..10 {
        let revision = if path < changed { revision } else { 0 };
        let folder = at.join(format!("store/{path}-{revision}"));
        std::fs::create_dir_all(&folder).unwrap();
        for file in 0..5 {
            let seed = format!("{path} {revision} {file}");
            let mut content = vec![0; 300_000];
            incompressible(&seed, &mut content);
            std::fs::write(folder.join(format!("file-{file}")), content).unwrap();
        }
    }
}

/// Bytes that no compressor shrinks, the same for the same seed.
fn incompressible(seed: &str, out: &mut [u8]) {
    let mut block = firn_formats::Sha256::of(seed.as_bytes());
    for piece in out.chunks_mut(32) {
        piece.copy_from_slice(&block.0[..piece.len()]);
        block = firn_formats::Sha256::of(&block.0);
    }
}

#[test]
fn the_librarys_tars_are_stored_decoded_and_a_second_costs_little() {
    for protocol in Protocol::ALL {
        let server = crate::server();
        let job = Job::new(&server, REPOSITORY, &["main"]);
        let admin = User::admin(&server);
        let stored = || {
            let usage = admin.json(&["actions", "usage", "--repo", REPOSITORY]);
            usage["stored_bytes"].as_u64().unwrap()
        };
        let work = tempfile::tempdir().unwrap();
        let packed = || {
            admin.json(&["stats"])["chunk_stored_bytes"]
                .as_u64()
                .unwrap()
        };
        let mut before = vec![packed()];
        for revision in 1..3 {
            let at = work.path().join(format!("work-{revision}"));
            folder(&at, revision, 1);
            let key = format!("nix-{revision}");
            job.library(protocol, &at, &["save", &key, "", "store"])
                .ok();
            before.push(packed());
        }
        let listed = admin.json(&["actions", "list", "--repo", REPOSITORY]);
        assert_eq!(listed[0]["form"], "decoded", "{protocol:?}: {listed}");
        assert_eq!(listed[1]["form"], "decoded", "{protocol:?}: {listed}");
        let (first, second) = (before[1] - before[0], before[2] - before[1]);
        assert!(
            second * 100 < first * 15,
            "{protocol:?}: {first}, then {second}"
        );
        assert!(stored() > first);

        let other = work.path().join("other");
        std::fs::create_dir(&other).unwrap();
        // The version is of the paths as they are written, so that another folder finds them.
        let said = job.library(protocol, &other, &["restore", "nix-3", "nix-", "store"]);
        assert!(said.stderr.contains("\"nix-2\""), "{said}");
        run(command("diff")
            .arg("-r")
            .arg(work.path().join("work-2"))
            .arg(&other))
        .ok();
    }
}

/// The suite of BuildKit's client, as it comes; its three tests of GitHub's own host are not asked.
fn go_suite(server: &Server, protocol: Protocol) -> String {
    let job = Job::new(server, REPOSITORY, &["main"]);
    let mut suite = limited(&tool("go-actions-cache"));
    suite.args(["-test.v", "-test.count=1"]);
    job.runner(&mut suite, protocol);
    suite.env_remove("GITHUB_TOKEN");
    run(&mut suite).ok()
}

#[test]
fn the_suite_of_go_actions_cache_passes() {
    for protocol in Protocol::ALL {
        let server = crate::server();
        let said = go_suite(&server, protocol);
        let passed = said.matches("--- PASS: Test").count();
        let skipped: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("--- SKIP: "))
            .collect();
        println!("go-actions-cache {protocol:?}: {passed} passed, {skipped:?} skipped");
        for name in [
            "SaveLoad",
            "ExistingKey",
            "ChunkedSave",
            "PartialKeyOrder",
            "Mutable",
            "MutableRace",
            "MutableCrash",
        ] {
            assert!(
                said.contains(&format!("--- PASS: Test{name} ")),
                "{name}: {said}"
            );
        }
        // It asks api.github.com.
        assert!(
            skipped.iter().all(|name| name.starts_with("TestAllKeys")),
            "{skipped:?}"
        );
        let entries = User::admin(&server).json(&["actions", "list", "--repo", REPOSITORY]);
        let exact = entries
            .as_array()
            .unwrap()
            .iter()
            .all(|entry| entry["form"] == "exact");
        assert!(exact, "{entries}");
    }
}

/// How many steps a build took from a cache: those of which it says so, and those whose layers it fetched.
fn steps_from_a_cache(said: &str) -> usize {
    let steps = said.lines().filter_map(|line| {
        let (number, what) = line.split_once(' ')?;
        what.contains("] COPY ").then_some(number)
    });
    let begins = |number: &str, what: &str| {
        let begin = format!("{number} {what}");
        said.lines().any(|line| line.starts_with(&begin))
    };
    let steps: std::collections::BTreeSet<&str> = steps.collect();
    let cached = steps
        .iter()
        .filter(|number| begins(number, "CACHED") || begins(number, "sha256:"));
    cached.count()
}

/// BuildKit keeps the steps of its builds in the cache: on another machine none is done again.
#[test]
fn buildx_takes_its_steps_from_another_machine() {
    let server = crate::server();
    let job = Job::new(&server, REPOSITORY, &["main"]);
    let folder = tempfile::tempdir().unwrap();
    let context = folder.path().join("context");
    std::fs::create_dir(&context).unwrap();
    let large: Vec<u8> = (0..1_500_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(context.join("large"), &large).unwrap();
    let steps = "FROM scratch\nCOPY large /large\nCOPY Dockerfile /second\n";
    std::fs::write(context.join("Dockerfile"), steps).unwrap();
    let mut digests = Vec::new();
    for cached in [0, 2] {
        let machine = Docker::with_exporters();
        let set = |command: &mut _| job.runner(command, Protocol::V1);
        let built = machine.build_cached("app", &context, set);
        assert!(built.status.success(), "{built}");
        let said = built.stderr;
        assert_eq!(steps_from_a_cache(&said), cached, "{said}");
        let copy = folder.path().join(format!("copy-{cached}"));
        machine.copy_out("app", "/large", &copy).ok();
        assert!(std::fs::read(copy).unwrap() == large, "bytes differ");
        let digest = |line: &str| Some(line.split_once("exporting manifest ")?.1[..71].to_owned());
        digests.push(said.lines().find_map(digest).expect("a digest"));
    }
    assert_eq!(digests[0], digests[1]);
    let entries = User::admin(&server).json(&["actions", "list", "--repo", REPOSITORY]);
    assert!(keys(&entries).len() >= 3, "{entries}");
}
