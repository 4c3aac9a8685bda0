//! Processes killed, and what they leave.

use crate::support::{entry, ingest, mixed, options, packs, publication, read_all};
use firn_formats::Sha256;
use firn_store::{EntryKind, Representation, Store, StoreError};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

const DIR: &str = "FIRN_TEST_CRASH_DIR";

/// Not a test by itself: the process that is killed. It prints the number of each publication that was
/// acknowledged.
#[test]
#[ignore = "run by the crash tests"]
fn pusher_to_be_killed() {
    let dir = std::env::var_os(DIR).unwrap();
    let mut options = options(dir.as_ref());
    options.pack_bytes_target = 2 << 20;
    options.segment_interval = Duration::from_millis(20);
    let store = Store::open(options).unwrap();
    let cache = match store.cache("main").unwrap() {
        Some(cache) => cache,
        None => store.cache_create("main", "public", b"").unwrap(),
    };
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let (store, cache) = (&store, &cache);
            scope.spawn(move || {
                let session = store.session_open(cache).unwrap();
                for round in 0.. {
                    let seed = thread * 1_000_000 + round % 50;
                    let content = content(seed);
                    let blob = ingest(store, &session, &content).unwrap();
                    let new = publication(vec![entry(&seed.to_string(), &[blob.id])]);
                    store.publish(Some(&session), cache.id, new).unwrap();
                    println!("acknowledged {seed}");
                }
            });
        }
    });
}

pub(crate) fn content(seed: u64) -> Vec<u8> {
    // Neighbours share their first half.
    [mixed(seed / 2, 200_000), mixed(seed + 7_000_000, 100_000)].concat()
}

/// Runs the pusher for a while, kills it, and gives what it acknowledged.
fn push_and_kill(dir: &std::path::Path, after: Duration) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::pusher_to_be_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        lines
            .filter_map(|line| line.split("acknowledged ").nth(1)?.trim().parse().ok())
            .collect::<Vec<u64>>()
    });
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

fn check(store: &Store, acknowledged: &[u64]) {
    let Some(cache) = store.cache("main").unwrap() else {
        assert!(acknowledged.is_empty(), "the cache is lost");
        return;
    };
    for seed in acknowledged {
        let found = store
            .entry(cache.id, EntryKind::Narinfo, &seed.to_string())
            .unwrap();
        let found = found.unwrap_or_else(|| panic!("publication {seed} is lost"));
        let blob = store.blob(found.blobs[0]).unwrap().unwrap();
        let read = read_all(store, blob.id, Representation::Identity, None).unwrap();
        assert!(read == content(*seed));
        assert_eq!(blob.identity_sha256, Sha256::of(&read));
    }
}

#[test]
fn rules_1_and_3_what_was_acknowledged_survives_kill_9_whenever_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let after = Duration::from_millis(300 + 97 * round);
        acknowledged.extend(push_and_kill(dir.path(), after));
        acknowledged.sort_unstable();
        acknowledged.dedup();
        if !dir.path().join("firn.db").exists() {
            continue;
        }
        let store = Store::open(options(dir.path())).unwrap();
        check(&store, &acknowledged);
        // Every entry there is can be read, acknowledged or not.
        let Some(cache) = store.cache("main").unwrap() else {
            continue;
        };
        let all = store.entries(cache.id, EntryKind::Narinfo, "", None, 10_000);
        let seeds: Vec<u64> = all
            .unwrap()
            .iter()
            .map(|entry| entry.key.parse().unwrap())
            .collect();
        check(&store, &seeds);
    }
    assert!(!acknowledged.is_empty(), "the pusher never got anywhere");
    // Packs a crash left open are sealed by now.
    for pack in packs(dir.path()) {
        assert!(std::fs::read(&pack).unwrap().ends_with(b"FIRNTAIL"));
    }
    // And the index beside the database tells the same.
    for name in ["firn.db", "firn.db-wal", "firn.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(name));
    }
    let report = Store::rebuild(&options(dir.path())).unwrap();
    assert_eq!(report.entries_dropped, 0, "{report:?}");
    check(&Store::open(options(dir.path())).unwrap(), &acknowledged);
}

#[test]
fn rule_1_bytes_after_the_durable_length_are_cut_off_when_the_store_opens() {
    let fixture = crate::support::Fixture::new();
    let content = mixed(1, 900_000);
    let blob = fixture.ingest(&content).unwrap();
    fixture.publish("1", &[blob.id]);
    let copy = tempfile::tempdir().unwrap();
    crate::rebuild::copy_store(fixture.dir.path(), copy.path());
    let pack = packs(copy.path()).remove(0);
    let durable = std::fs::read(&pack).unwrap();
    std::fs::write(&pack, [&durable[..], b"half a frame"].concat()).unwrap();
    let store = Store::open(options(copy.path())).unwrap();
    let sealed = std::fs::read(&pack).unwrap();
    assert!(sealed.starts_with(&durable) && sealed.ends_with(b"FIRNTAIL"));
    assert!(!sealed.windows(12).any(|window| window == b"half a frame"));
    let read = read_all(&store, blob.id, Representation::Identity, None);
    assert!(read.unwrap() == content);
}

#[test]
fn rules_1_3_and_4_a_power_cut_may_take_a_leased_name_but_whole_and_nothing_lasting_with_it() {
    let fixture = crate::support::Fixture::new();
    let kept = fixture.ingest(&content(1)).unwrap();
    fixture.publish("1", &[kept.id]);
    // What the disk is sure to hold: the database up to the last publication that lasts.
    let cut = tempfile::tempdir().unwrap();
    crate::rebuild::copy_store(fixture.dir.path(), cut.path());
    let blob = fixture.ingest(&content(2)).unwrap();
    let leased = |blob| {
        let mut name = entry("2.nar.xz", &[blob]);
        name.kind = EntryKind::NarAlias;
        name.lease = Some(Duration::from_secs(3600));
        publication(vec![name])
    };
    let (store, session) = (&fixture.store, &fixture.session);
    store
        .publish(Some(session), fixture.cache.id, leased(blob.id))
        .unwrap();
    // The packs are synced before their rows, so they may hold more than the database knows.
    for pack in packs(fixture.dir.path()) {
        let below = pack.strip_prefix(fixture.dir.path()).unwrap();
        std::fs::copy(&pack, cut.path().join(below)).unwrap();
    }
    let narinfo = |blob| {
        let mut narinfo = entry("2", &[blob]);
        narinfo.requires = vec![(EntryKind::NarAlias, "2.nar.xz".to_owned())];
        publication(vec![narinfo])
    };
    let reopened = Store::open(options(cut.path())).unwrap();
    check(&reopened, &[1]);
    let cache = reopened.cache("main").unwrap().unwrap();
    let name = || reopened.entry(cache.id, EntryKind::NarAlias, "2.nar.xz");
    assert!(name().unwrap().is_none());
    assert_eq!(reopened.blob(blob.id).unwrap(), None);
    let refused = reopened.publish(None, cache.id, narinfo(kept.id));
    assert!(
        matches!(refused, Err(StoreError::MissingEntry(_))),
        "{refused:?}"
    );
    // The pusher tries again, from the NAR on.
    let session = reopened.session_open(&cache).unwrap();
    let again = ingest(&reopened, &session, &content(2)).unwrap();
    reopened
        .publish(Some(&session), cache.id, leased(again.id))
        .unwrap();
    reopened
        .publish(Some(&session), cache.id, narinfo(again.id))
        .unwrap();
    check(&reopened, &[1, 2]);
    assert!(name().unwrap().is_some());
}
