//! Retention of store paths: what goes, what stays, what is told of it.

use crate::support::{Fixture, Path};
use firn_formats::nix::StorePath;
use firn_services::ServiceError;
use firn_services::nix_cache::ExtraKind;
use firn_store::{EntryKind, EvictionReason};
use proptest::prelude::*;
use std::time::Duration;

/// A library, two applications on it, and a tool that only the first needs.
fn family(fixture: &Fixture) -> [Path; 4] {
    let lib = Path::new("lib", 40_000, &[]);
    let tool = Path::new("tool", 30_000, &[]);
    let first = Path::new("first", 20_000, &[&lib.path, &tool.path]);
    let second = Path::new("second", 20_000, &[&lib.path]);
    let family = [lib, tool, first, second];
    for path in &family {
        fixture.push(path).unwrap();
    }
    family
}

/// Uses have milliseconds.
fn later() {
    std::thread::sleep(Duration::from_millis(1100));
}

#[test]
fn the_least_recently_used_closure_goes_and_the_rest_is_whole() {
    let fixture = Fixture::new();
    let all = family(&fixture);
    let [lib, tool, first, second] = &all;
    later();
    assert!(fixture.pull(second));
    fixture.configure(None, Some(100_000));
    let preview = fixture
        .services
        .retention
        .preview(&fixture.cache())
        .unwrap();
    assert!(fixture.has(first), "a preview takes nothing away");
    let evicted = fixture.services.retention.evict(&fixture.cache()).unwrap();
    assert_eq!(preview.evicted, evicted.evicted);
    assert_eq!((evicted.paths, evicted.stayed), (2, 0));
    assert!(!fixture.has(first) && !fixture.has(tool));
    assert!(fixture.has(second) && fixture.has(lib));
    assert!(!fixture.pull(first), "nor is it in memory");
    fixture.check_whole(&all);
    // Names of NARs went with their paths.
    assert_eq!(fixture.keys(EntryKind::NarAlias).len(), 2);
    assert_eq!(fixture.keys(EntryKind::NarFile).len(), 4);
    let hash = first.path.hash().to_string();
    let why = fixture
        .services
        .retention
        .evicted_path(&fixture.cache(), &hash);
    let why = why.unwrap().unwrap();
    assert_eq!(
        (why.reason, why.name.as_str()),
        (EvictionReason::Quota, first.path.to_string().as_str())
    );
    assert!(why.bytes >= 20_000 && why.at > 0 && why.used_at > 0);
    let view = fixture
        .services
        .access
        .cache_view(&fixture.cache())
        .unwrap();
    assert_eq!(view.evicted.paths, 2);
    // It may come again.
    fixture.configure(None, Some(0));
    fixture.push(tool).unwrap();
    fixture.push(first).unwrap();
    fixture.check_whole(&all);
}

#[test]
fn what_nobody_used_for_long_goes_with_all_that_belongs_to_it() {
    let fixture = Fixture::new();
    let [lib, tool, mut first, second] = family(&fixture);
    first.narinfo.deriver =
        Some(StorePath::parse_base_name("0123456789abcdfghijklmnpqrsvwxyz-first.drv").unwrap());
    let signer = firn_formats::nix::SecretKey::from_seed("pusher-1", [7; 32]);
    first.narinfo.signatures = vec![signer.sign(&first.narinfo.fingerprint())];
    fixture.push(&first).unwrap();
    let nix = &fixture.services.nix_cache;
    let cache = fixture.cache();
    let hash = first.path.hash().to_string();
    let drv = first.narinfo.deriver.as_ref().unwrap().to_string();
    nix.put_extra(&cache, ExtraKind::Log, &drv, None, &mut &b"a log"[..])
        .unwrap();
    nix.made_listing(&cache, &hash).unwrap().unwrap();
    let trace = format!(r#"{{"outPath":"{}"}}"#, first.path);
    nix.put_extra(
        &cache,
        ExtraKind::BuildTrace,
        "x.drv/out.doi",
        None,
        &mut trace.as_bytes(),
    )
    .unwrap();
    let debug = format!(r#"{{"archive":"../{}","member":"x"}}"#, first.narinfo.url);
    nix.put_extra(
        &cache,
        ExtraKind::DebugInfo,
        "ab.debug",
        None,
        &mut debug.as_bytes(),
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    assert!(fixture.pull(&second));
    fixture.configure(Some(1), None);
    let evicted = fixture.services.retention.keep().unwrap();
    assert_eq!(evicted.paths, 2);
    assert!(!fixture.has(&first) && !fixture.has(&tool));
    assert!(fixture.has(&lib), "its user was used");
    for kind in [
        EntryKind::Log,
        EntryKind::Listing,
        EntryKind::BuildTrace,
        EntryKind::DebugInfo,
    ] {
        assert!(fixture.keys(kind).is_empty(), "{kind:?}");
    }
    let why = fixture
        .services
        .retention
        .evicted_path(&cache, &hash)
        .unwrap()
        .unwrap();
    assert_eq!(why.reason, EvictionReason::Unused);
}

#[test]
fn a_nar_that_is_read_alone_is_a_use_of_its_path() {
    let fixture = Fixture::new();
    let [_, _, first, second] = family(&fixture);
    later();
    let name = first.narinfo.url.strip_prefix("nar/").unwrap();
    fixture
        .services
        .nix_cache
        .nar(&fixture.cache(), name)
        .unwrap()
        .unwrap();
    fixture.configure(None, Some(105_000));
    fixture.services.retention.evict(&fixture.cache()).unwrap();
    assert!(fixture.has(&first) && !fixture.has(&second));
}

#[test]
fn a_root_keeps_its_closure_and_its_history_and_outlives_the_database() {
    let fixture = Fixture::new();
    let lib = Path::new("lib", 1000, &[]);
    fixture.push(&lib).unwrap();
    let versions: Vec<Path> = (0..4)
        .map(|version| Path::new(&format!("app-{version}"), 1000, &[&lib.path]))
        .collect();
    assert!(matches!(
        fixture.pin("main", &versions[0], None),
        Err(ServiceError::NotFound(_))
    ));
    for version in &versions {
        fixture.push(version).unwrap();
        fixture.pin("main", version, Some(2)).unwrap();
    }
    let fixture = fixture.rebuilt();
    fixture.configure(None, Some(1));
    fixture.services.retention.evict(&fixture.cache()).unwrap();
    let here: Vec<bool> = versions
        .iter()
        .map(|version| fixture.has(version))
        .collect();
    assert_eq!(here, [false, false, true, true]);
    fixture.check_whole(&versions.iter().chain([&lib]).cloned().collect::<Vec<_>>());
    let roots = fixture.services.retention.roots(&fixture.cache()).unwrap();
    assert_eq!(
        (roots.len(), roots[0].pinned.len(), roots[0].keep),
        (1, 2, 2)
    );
    fixture
        .services
        .retention
        .unpin(&fixture.cache(), "main")
        .unwrap();
    fixture.services.retention.evict(&fixture.cache()).unwrap();
    assert!(!fixture.has(&lib));
}

#[test]
fn rule_5_what_a_pusher_was_told_is_here_stays() {
    let fixture = Fixture::with_lease(Duration::from_secs(2));
    let [lib, _, _, second] = family(&fixture);
    std::thread::sleep(Duration::from_millis(2100));
    let hash = second.path.hash().to_string();
    let present = fixture
        .services
        .nix_cache
        .present_for_pusher(&fixture.cache(), &[&hash]);
    assert_eq!(present.unwrap(), [true]);
    fixture.configure(None, Some(1));
    fixture.services.retention.evict(&fixture.cache()).unwrap();
    assert!(fixture.has(&second) && fixture.has(&lib));
    assert_eq!(fixture.keys(EntryKind::Narinfo).len(), 2);
}

#[test]
fn a_push_that_exceeds_the_quota_makes_room_for_itself() {
    let fixture = Fixture::new();
    fixture.configure(None, Some(100_000));
    for version in 0..30 {
        let path = Path::new(&format!("app-{version}"), 20_000, &[]);
        fixture.push(&path).unwrap();
        assert!(fixture.has(&path));
        assert!(
            fixture.stored_bytes() <= 100_000,
            "{}",
            fixture.stored_bytes()
        );
    }
    let refused = fixture.push(&Path::new("huge", 120_000, &[])).unwrap_err();
    assert!(
        matches!(refused, ServiceError::QuotaExceeded(_)),
        "{refused}"
    );
}

#[test]
fn what_cannot_go_yet_may_double_the_quota_and_no_more() {
    let fixture = Fixture::with_lease(Duration::from_secs(3600));
    fixture.configure(None, Some(100_000));
    let mut accepted = 0;
    let refused = loop {
        match fixture.push(&Path::new(&format!("app-{accepted}"), 30_000, &[])) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, ServiceError::QuotaExceeded(_)),
        "{refused}"
    );
    assert_eq!(accepted, 6);
    assert_eq!(fixture.keys(EntryKind::Narinfo).len(), 6);
}

/// What a random run does.
#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Pull(usize),
    Nar(usize),
    Pin(usize),
    Unpin,
    Quota(u64),
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..24_usize).prop_map(Step::Push),
        5 => (0..24_usize).prop_map(Step::Pull),
        2 => (0..24_usize).prop_map(Step::Nar),
        2 => (0..24_usize).prop_map(Step::Pin),
        1 => Just(Step::Unpin),
        2 => (2_000..40_000_u64).prop_map(Step::Quota),
        3 => Just(Step::Evict),
    ]
}

/// Path `n` needs some of those before it.
fn closure(references: &[Vec<prop::sample::Index>]) -> Vec<Path> {
    let mut paths: Vec<Path> = Vec::new();
    for (index, references) in references.iter().enumerate() {
        let needed: Vec<StorePath> = references
            .iter()
            .filter(|_| index > 0)
            .map(|reference| paths[reference.index(index)].path.clone())
            .collect();
        let needed: Vec<&StorePath> = needed.iter().collect();
        // Some share their NAR.
        let mut path = Path::new(&format!("p-{index}"), 1000 + 100 * (index % 7), &needed);
        if index % 5 == 4 {
            let twin = paths[index - 1].clone();
            path.nar = twin.nar;
            path.narinfo.url = twin.narinfo.url;
            path.narinfo.nar_hash = twin.narinfo.nar_hash;
            path.narinfo.nar_size = twin.narinfo.nar_size;
        }
        paths.push(path);
    }
    paths
}

/// Pushes a path after what it needs.
fn push_closure(fixture: &Fixture, paths: &[Path], index: usize) {
    for reference in &paths[index].narinfo.references {
        let needed = paths.iter().position(|path| path.path == *reference);
        push_closure(fixture, paths, needed.unwrap());
    }
    fixture.push(&paths[index]).unwrap();
}

fn closure_of(paths: &[Path], index: usize, seen: &mut Vec<usize>) {
    if !seen.contains(&index) {
        seen.push(index);
        for reference in &paths[index].narinfo.references {
            let needed = paths.iter().position(|path| path.path == *reference);
            closure_of(paths, needed.unwrap(), seen);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn no_closure_has_a_hole_roots_are_complete_and_quotas_hold(
        references in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 24),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let fixture = Fixture::new();
        let paths = closure(&references);
        let mut pinned: Option<usize> = None;
        let mut quota = None;
        for step in steps {
            match step {
                Step::Push(index) => {
                    // A quota smaller than the closure, most of it pinned, may refuse; that is another test's.
                    if quota.is_none() {
                        push_closure(&fixture, &paths, index);
                    }
                }
                Step::Pull(index) => drop(fixture.pull(&paths[index])),
                Step::Nar(index) => {
                    let name = paths[index].narinfo.url.strip_prefix("nar/").unwrap();
                    fixture.services.nix_cache.nar(&fixture.cache(), name).unwrap();
                }
                Step::Pin(index) if fixture.has(&paths[index]) => {
                    fixture.pin("root", &paths[index], None).unwrap();
                    pinned = Some(index);
                }
                Step::Pin(_) => {}
                Step::Unpin => {
                    if pinned.take().is_some() {
                        fixture.services.retention.unpin(&fixture.cache(), "root").unwrap();
                    }
                }
                Step::Quota(bytes) => {
                    quota = Some(bytes);
                    fixture.configure(None, quota);
                }
                Step::Evict => {
                    fixture.services.retention.evict(&fixture.cache()).unwrap();
                    let mut kept = Vec::new();
                    if let Some(index) = pinned {
                        closure_of(&paths, index, &mut kept);
                        prop_assert!(kept.iter().all(|index| fixture.has(&paths[*index])));
                    }
                    let only_pinned = || (0..paths.len()).all(|index| kept.contains(&index) || !fixture.has(&paths[index]));
                    let bytes = fixture.stored_bytes();
                    prop_assert!(quota.is_none_or(|quota| bytes <= quota) || only_pinned(), "{} of {:?}", bytes, quota);
                }
            }
            fixture.check_whole(&paths);
            // So that pushes go on after a quota.
            if matches!(step, Step::Evict) {
                quota = None;
                fixture.configure(None, Some(0));
            }
        }
    }
}

/// Pushes, which need what is there, against evictions without an end.
#[test]
fn pushes_and_evictions_at_once_leave_no_hole() {
    let fixture = Fixture::new();
    fixture.configure(None, Some(30_000));
    let libs: Vec<Path> = (0..4)
        .map(|lib| Path::new(&format!("lib-{lib}"), 3000, &[]))
        .collect();
    let apps: Vec<Path> = (0..60)
        .map(|app| {
            let needed = [&libs[app % 4].path, &libs[(app / 4) % 4].path];
            Path::new(&format!("app-{app}"), 2000, &needed)
        })
        .collect();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let evictor = scope.spawn(|| {
            let mut evicted = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                evicted += fixture
                    .services
                    .retention
                    .evict(&fixture.cache())
                    .unwrap()
                    .paths;
            }
            evicted
        });
        let pushers: Vec<_> = apps
            .chunks(20)
            .map(|apps| {
                let (fixture, libs) = (&fixture, &libs);
                scope.spawn(move || {
                    let mut published = 0;
                    for app in apps {
                        for lib in libs {
                            fixture.push(lib).unwrap();
                        }
                        // A library that went meanwhile is refused, never forgotten.
                        match fixture.push(app) {
                            Ok(()) => published += 1,
                            Err(
                                ServiceError::MissingReference(_) | ServiceError::BadRequest(_),
                            ) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    published
                })
            })
            .collect();
        let published: u32 = pushers
            .into_iter()
            .map(|pusher| pusher.join().unwrap())
            .sum();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let evicted = evictor.join().unwrap();
        assert!(
            published > 10 && evicted > 10,
            "{published} published, {evicted} evicted"
        );
    });
    let all: Vec<Path> = libs.into_iter().chain(apps).collect();
    fixture.check_whole(&all);
}

/// What this thread has used of a core.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000_000
}

/// `FIRN_TEST_PATHS=100000` for a large one; it prints figures.
#[test]
fn a_large_cache_is_planned_and_evicted_without_holding_others_up() {
    let count: usize = std::env::var("FIRN_TEST_PATHS").map_or(5000, |text| text.parse().unwrap());
    let fixture = Fixture::new();
    let nars: Vec<Path> = (0..20)
        .map(|nar| Path::new(&format!("nar-{nar}"), 1000, &[]))
        .collect();
    for nar in &nars {
        fixture.push(nar).unwrap();
    }
    let cache = fixture.cache().row.id;
    let store = &fixture.services.store;
    let paths: Vec<StorePath> = (0..count)
        .map(|path| Path::new(&format!("path-{path}"), 0, &[]).path)
        .collect();
    let entry = |kind, key: String, value: String, blob| firn_store::NewEntry {
        kind,
        key,
        value: value.into(),
        blobs: vec![blob],
        requires: Vec::new(),
        if_exists: firn_store::IfExists::Keep,
        lease: None,
    };
    let blob_of = |nar: &Path| {
        let key = nar.path.hash().to_string();
        store
            .entry(cache, EntryKind::Narinfo, &key)
            .unwrap()
            .unwrap()
            .blobs[0]
    };
    let blobs: Vec<_> = nars.iter().map(blob_of).collect();
    for first in (0..count).step_by(1000) {
        let mut entries = Vec::new();
        for index in first..count.min(first + 1000) {
            let mut narinfo = nars[index % 20].narinfo.clone();
            narinfo.store_path = paths[index].clone();
            let reference =
                |step: usize| paths[(index * 7919 + step * 104_729) % (index + 1)].clone();
            narinfo.references = (0..10).map(reference).collect();
            narinfo.references.sort();
            narinfo.references.dedup();
            let key = paths[index].hash().to_string();
            entries.push(entry(
                EntryKind::Narinfo,
                key,
                narinfo.to_string(),
                blobs[index % 20],
            ));
            for half in ["a", "b"] {
                let digest = firn_formats::Sha256::of(format!("{half}{index}").as_bytes());
                entries.push(entry(
                    EntryKind::NarFile,
                    digest.base32(),
                    String::new(),
                    blobs[index % 20],
                ));
            }
        }
        let publication = firn_store::Publication {
            entries,
            deletions: Vec::new(),
        };
        store.publish(None, cache, publication).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1100));
    fixture.configure(Some(1), None);
    let (began, cpu) = (std::time::Instant::now(), cpu_ms());
    let plan = fixture.services.retention.plan(&fixture.cache()).unwrap();
    let planned = (began.elapsed(), cpu_ms() - cpu);
    let memory = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = memory.lines().find(|line| line.starts_with("RssAnon"));
    println!(
        "planned in {planned:?} ms of a core; {}",
        memory.unwrap_or_default()
    );
    assert!(!plan.is_empty());
    drop(plan);
    let done = std::sync::atomic::AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let began = std::time::Instant::now();
                let session = store.session_open(&fixture.cache().row).unwrap();
                longest = longest.max(began.elapsed());
                store.session_close(&session.id).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            longest
        });
        let began = std::time::Instant::now();
        let evicted = fixture.services.retention.evict(&fixture.cache()).unwrap();
        println!(
            "{} paths of {count} evicted in {:?}",
            evicted.paths,
            began.elapsed()
        );
        assert!(evicted.paths as usize > count / 2);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        other.join().unwrap()
    });
    println!("others waited {longest:?} at most");
    assert!(longest < Duration::from_secs(2), "{longest:?}");

    let kept = Path::new("kept", 1000, &[]);
    fixture.push(&kept).unwrap();
    let current = fixture.cache();
    let (nix, hash) = (&fixture.services.nix_cache, kept.hash());
    assert!(fixture.pull(&kept));
    let began = cpu_ms();
    for _ in 0..1_000_000 {
        std::hint::black_box(nix.narinfo_in_memory(&current, &hash));
    }
    println!(
        "a narinfo from memory, its use noted: {} ns",
        cpu_ms() - began
    );
}
