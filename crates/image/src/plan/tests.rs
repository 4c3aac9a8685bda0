use super::*;
use crate::closure::{ClosureError, PathInfo};
use firn_formats::{Sha256, nix::StorePath};
use proptest::prelude::*;

/// A path whose hash part is made from its name.
fn store_path(name: &str) -> StorePath {
    let letters = b"0123456789abcdfghijklmnpqrsvwxyz";
    let digest = Sha256::of(name.as_bytes()).0;
    let hash: String = digest
        .iter()
        .map(|byte| char::from(letters[usize::from(byte % 32)]))
        .collect();
    StorePath::parse_base_name(&format!("{hash}-{name}")).unwrap()
}

fn info(name: &str, size: u64, references: &[&str]) -> PathInfo {
    PathInfo {
        path: store_path(name),
        nar_hash: Sha256::of(name.as_bytes()),
        nar_size: size,
        references: references.iter().map(|name| store_path(name)).collect(),
        deriver: None,
        signatures: Vec::new(),
        ca: None,
    }
}

fn closure(roots: &[&str], paths: Vec<PathInfo>) -> Closure {
    let roots = roots.iter().map(|name| store_path(name)).collect();
    Closure::new(paths, roots).unwrap()
}

fn names(closure: &Closure, layers: &[Vec<usize>]) -> Vec<Vec<String>> {
    let name = |&i: &usize| closure.paths[i].path.name().to_owned();
    layers
        .iter()
        .map(|layer| layer.iter().map(name).collect())
        .collect()
}

fn planned(closure: &Closure, algorithm: Algorithm, limit: usize) -> Vec<Vec<String>> {
    names(
        closure,
        &plan(closure, algorithm, limit, &History::default()),
    )
}

/// app → {python → {zlib, glibc}, ffmpeg → {x264, zlib, glibc}}, x264 → glibc.
fn diamond() -> Closure {
    closure(
        &["app"],
        vec![
            info("app", 10, &["python", "ffmpeg"]),
            info("python", 500, &["zlib", "glibc", "python"]),
            info("ffmpeg", 800, &["x264", "zlib", "glibc"]),
            info("x264", 100, &["glibc"]),
            info("zlib", 50, &["glibc"]),
            info("glibc", 300, &["glibc"]),
        ],
    )
}

#[test]
fn references_come_first() {
    let closure = diamond();
    let order: Vec<_> = closure.paths.iter().map(|info| info.path.name()).collect();
    assert_eq!(order, ["glibc", "x264", "zlib", "ffmpeg", "python", "app"]);
    let users: Vec<_> = closure.referrers()[0].iter().map(|&i| order[i]).collect();
    assert_eq!(users, ["x264", "zlib", "ffmpeg", "python"]);
}

#[test]
fn cycles_are_borne() {
    let paths = vec![
        info("a", 1, &["b"]),
        info("b", 2, &["a"]),
        info("c", 3, &["b"]),
    ];
    let closure = closure(&["c"], paths);
    let order: Vec<_> = closure.paths.iter().map(|info| info.path.name()).collect();
    assert_eq!(order, ["a", "b", "c"]);
    assert_eq!(
        plan(&closure, Algorithm::Auto, 9, &History::default())
            .concat()
            .len(),
        3
    );
}

#[test]
fn what_is_not_closed_is_refused() {
    let open = Closure::new(vec![info("a", 1, &["b"])], vec![store_path("a")]);
    assert!(matches!(open, Err(ClosureError::MissingReference { .. })));
    let rootless = Closure::new(vec![info("a", 1, &[])], vec![store_path("b")]);
    assert_eq!(
        rootless.unwrap_err(),
        ClosureError::MissingRoot(store_path("b"))
    );
}

#[test]
fn auto_separates_by_large_users() {
    let closure = diamond();
    // ffmpeg (800), python (500), glibc (300), x264 (100), zlib (50), app (10) in turn:
    // after ffmpeg: {ffmpeg, x264, zlib, glibc}, {python, app}.
    assert_eq!(
        planned(&closure, Algorithm::Auto, 2),
        [
            vec!["ffmpeg", "glibc", "x264", "zlib"],
            vec!["app", "python"]
        ]
    );
    // after python: zlib and glibc serve both, x264 only ffmpeg, and app none.
    assert_eq!(
        planned(&closure, Algorithm::Auto, 4),
        [
            vec!["glibc", "zlib"],
            vec!["python"],
            vec!["ffmpeg", "x264"],
            vec!["app"]
        ]
    );
    // python's step would make four sets: three is as good as two.
    assert_eq!(
        planned(&closure, Algorithm::Auto, 3),
        planned(&closure, Algorithm::Auto, 2)
    );
    // after glibc it stands alone.
    assert_eq!(
        planned(&closure, Algorithm::Auto, 5),
        [
            vec!["glibc"],
            vec!["zlib"],
            vec!["python"],
            vec!["ffmpeg", "x264"],
            vec!["app"]
        ]
    );
}

#[test]
fn auto_drops_farther_users() {
    // top (large) → middle → base: base belongs to middle once middle is taken,
    // though top was taken first.
    let closure = closure(
        &["top"],
        vec![
            info("top", 100, &["middle"]),
            info("middle", 50, &["base"]),
            info("base", 1, &[]),
        ],
    );
    assert_eq!(
        planned(&closure, Algorithm::Auto, 2),
        [vec!["base", "middle"], vec!["top"]]
    );
}

#[test]
fn popularity_counts_ways() {
    let closure = diamond();
    let graph = Graph::new(&closure);
    let counts = popularity::popularity(&graph.references, &[5]);
    // C(zlib)[glibc] = 1, C(x264)[glibc] = 1;
    // C(python)[glibc] = 1 + 2, C(ffmpeg)[glibc] = 1 + 2 + 2; C(app)[glibc] = 4 + 6;
    // below the node above app: 11. zlib: 1 + 1 → (1+1) + (1+1) → 5. x264: 1 → 2 → 3.
    assert_eq!(counts, [11, 3, 5, 2, 2, 1]);
    assert_eq!(
        planned(&closure, Algorithm::Popularity, 3),
        [
            vec!["glibc"],
            vec!["zlib"],
            vec!["app", "ffmpeg", "python", "x264"]
        ]
    );
    assert_eq!(planned(&closure, Algorithm::Popularity, 6).len(), 6);
    assert_eq!(planned(&closure, Algorithm::Popularity, 1).len(), 1);
}

/// A history of this plan, as of so many revisions.
fn grown(closure: &Closure, layers: &[Vec<usize>], revisions: u32) -> History {
    let mut history = History::default();
    history.record(closure, layers);
    history.revisions = u64::from(revisions);
    for (place, name) in history.names.values_mut().enumerate() {
        name.seen = revisions - 1;
        name.changed = place as u32 % revisions / 4;
    }
    let changed: Vec<String> = history.names.keys().take(12).cloned().collect();
    let step = |_| Revision {
        changed: changed.clone(),
        paths: 100,
        bytes: 1_000_000,
    };
    history.recent = (1..revisions).map(step).collect();
    history
}

#[test]
fn two_thousand_paths_are_planned_in_a_moment() {
    let (paths, roots) = random_graph(2_000, 7);
    let closure = Closure::new(paths, roots).unwrap();
    let first = plan(&closure, Algorithm::default(), 100, &History::default());
    let known = grown(&closure, &first, 201);
    let next = changed(&closure, &["path-3", "path-700", "path-1900"], 1);
    for algorithm in Algorithm::ALL {
        let start = std::time::Instant::now();
        let layers = plan(&next, algorithm, 100, &known);
        assert!(layers.len() <= 100);
        // A debug build on a busy machine: `tools/bench --only system` measures.
        let taken = start.elapsed();
        assert!(taken.as_secs() < 60, "{algorithm} {taken:?}");
    }
}

#[test]
fn dominators_keep_what_one_path_alone_reaches() {
    // app is the only root; below it ffmpeg reaches x264 alone, glibc and zlib are reached by both.
    assert_eq!(
        planned(&diamond(), Algorithm::Dominators, 9),
        [
            vec!["glibc"],
            vec!["zlib"],
            vec!["python"],
            vec!["ffmpeg", "x264"],
            vec!["app"],
        ]
    );
    // Users and one, times bytes: glibc 6·300, zlib 4·50, python 2·500, ffmpeg 2·900, app 1·10.
    assert_eq!(
        planned(&diamond(), Algorithm::Dominators, 3),
        [
            vec!["glibc"],
            vec!["ffmpeg", "x264"],
            vec!["app", "python", "zlib"],
        ]
    );
    assert_eq!(planned(&diamond(), Algorithm::Dominators, 1).len(), 1);
    assert_eq!(planned(&diamond(), Algorithm::One, 9).len(), 1);
}

/// The diamond, with other hashes for what is named and all that depends on it.
fn changed(closure: &Closure, names: &[&str], revision: usize) -> Closure {
    let dependencies = closure.dependencies();
    let mut renamed: Vec<StorePath> = Vec::new();
    let mut paths = closure.paths.clone();
    for (i, info) in paths.iter_mut().enumerate() {
        let carried = |&d: &usize| renamed[d] != closure.paths[d].path;
        let path = if names.contains(&info.path.name()) || dependencies[i].iter().any(carried) {
            let text = format!("{}{revision}", info.path);
            let hash = store_path(&text).hash();
            StorePath::parse_base_name(&format!("{hash}-{}", info.path.name())).unwrap()
        } else {
            info.path.clone()
        };
        info.path = path.clone();
        info.references = dependencies[i]
            .iter()
            .map(|&d| renamed[d].clone())
            .collect();
        renamed.push(path);
    }
    let root = renamed.last().unwrap().clone();
    Closure::new(paths, vec![root]).unwrap()
}

#[test]
fn without_history_the_root_is_apart_and_the_base_lowest() {
    let closure = diamond();
    let history = History::default();
    let layers = names(&closure, &plan(&closure, Algorithm::History, 3, &history));
    assert_eq!(layers.last().unwrap(), &["app"]);
    assert!(layers[0].contains(&"glibc".to_owned()), "{layers:?}");
    let alone = plan(&closure, Algorithm::History, 9, &history);
    assert_eq!(alone.len(), 6, "there is room for a layer each");
}

#[test]
fn what_keeps_changing_is_set_apart_and_what_does_not_is_left_alone() {
    let mut closure = diamond();
    let mut history = History::default();
    let mut before = Vec::new();
    for revision in 0..12 {
        let layers = plan(&closure, Algorithm::History, 3, &history);
        history.record(&closure, &layers);
        before = names(&closure, &layers);
        closure = changed(&closure, &["x264"], revision);
    }
    // ffmpeg and the app change with x264; python, zlib and glibc never did.
    assert_eq!(before[0], ["glibc", "python", "zlib"]);
    assert_eq!(history.names["x264"].changed, 11);
    assert_eq!(history.names["x264"].seen, 11);
    // Whether ffmpeg changed too cannot be told.
    assert_eq!(history.names["ffmpeg"].seen, 0);
    assert_eq!(history.revisions, 12);
    let last = history.recent.back().unwrap();
    assert_eq!(
        (last.changed.as_slice(), last.paths, last.bytes),
        (["x264".to_owned()].as_slice(), 3, 910)
    );
    // The same again is no revision.
    let again = changed(&closure, &[], 99);
    history.record(&again, &plan(&again, Algorithm::History, 3, &history));
    let known = history.clone();
    history.record(&again, &plan(&again, Algorithm::History, 3, &history));
    assert_eq!(history, known);
}

#[test]
fn a_history_is_read_as_it_was_written_and_rubbish_is_not() {
    let mut closure = diamond();
    let mut history = History::default();
    for revision in 0..4 {
        history.record(&closure, &plan(&closure, Algorithm::History, 3, &history));
        closure = changed(&closure, &["app"], revision);
    }
    let json = history.to_json().unwrap();
    assert_eq!(History::parse(&json).unwrap(), history);
    let text = String::from_utf8(json).unwrap();
    assert!(
        text.starts_with(r#"{"version":1,"revisions":4,"names":[{"name":"app","hash":""#),
        "{text}"
    );
    for (from, to) in [
        (r#""version":1"#, r#""version":2"#),
        (r#""name":"zlib""#, r#""name":"app""#),
        (r#""name":"zlib""#, r#""name":"""#),
        (r#""layer":0"#, r#""layer":4294967295"#),
        (r#""seen":3"#, r#""seen":4000000000"#),
        (r#""size":50"#, r#""size":-1"#),
        (r#""hash":""#, r#""hash":"x"#),
        (r#"{"version""#, r#"["version""#),
    ] {
        let wrong = text.replacen(from, to, 1);
        assert_ne!(wrong, text, "{from}");
        assert!(History::parse(wrong.as_bytes()).is_err(), "{to}");
    }
    // What a later Firn may say besides is no error.
    let more = text.replacen('{', r#"{"more":[1],"#, 1);
    assert_eq!(History::parse(more.as_bytes()).unwrap(), history);
}

#[test]
fn things_of_one_name_are_known_by_their_hashes_first() {
    let source = |size: u64, hash: &str| PathInfo {
        path: StorePath::parse_base_name(&format!("{}-source", hash.repeat(32))).unwrap(),
        ..info("source", size, &[])
    };
    let old = vec![source(20, "1"), source(30, "2")];
    let closure = Closure::new(old.clone(), Vec::new()).unwrap();
    let mut history = History::default();
    history.record(&closure, &plan(&closure, Algorithm::History, 2, &history));
    // A third comes before them in the order, and takes the first one's number.
    let more = Closure::new([vec![source(10, "3")], old].concat(), Vec::new()).unwrap();
    history.record(&more, &plan(&more, Algorithm::History, 3, &history));
    let seen: Vec<(u64, u32)> = history.names.values().map(|n| (n.size, n.seen)).collect();
    assert_eq!(seen, [(10, 0), (20, 1), (30, 1)]);
}

/// A graph in which each path refers to a few earlier ones.
fn random_graph(count: usize, seed: u64) -> (Vec<PathInfo>, Vec<StorePath>) {
    let mut state = seed | 1;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let all: Vec<String> = (0..count).map(|i| format!("path-{i}")).collect();
    let paths = (0..count).map(|i| {
        let references: Vec<&str> = (0..random(6))
            .filter(|_| i > 0)
            .map(|_| all[random(i)].as_str())
            .collect();
        info(&all[i], random(1_000_000) as u64, &references)
    });
    let paths: Vec<_> = paths.collect();
    let roots = paths.last().map(|info| info.path.clone());
    (paths, roots.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn layers_are_a_partition_within_the_limit_and_blind_to_order(
        count in 1_usize..60, seed: u64, limit in 1_usize..40, rotate in 0_usize..60, which in 0_usize..5,
        steps in 0_usize..4,
    ) {
        let algorithm = Algorithm::ALL[which];
        let (paths, roots) = random_graph(count, seed);
        let mut closure = Closure::new(paths, roots).unwrap();
        let mut history = History::default();
        for step in 0..steps {
            history.record(&closure, &plan(&closure, algorithm, limit, &history));
            let name = format!("path-{}", (seed as usize).wrapping_add(step * 7) % count);
            closure = changed(&closure, &[&name], step);
        }
        let layers = plan(&closure, algorithm, limit, &history);
        prop_assert!(layers.len() <= limit);
        prop_assert!(layers.iter().all(|layer| !layer.is_empty()));
        let mut all = layers.concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..closure.paths.len()).collect::<Vec<_>>());
        let mut turned = closure.paths.clone();
        turned.rotate_left(rotate % count);
        turned.reverse();
        let turned = Closure::new(turned, closure.roots.clone()).unwrap();
        let again = plan(&turned, algorithm, limit, &history);
        prop_assert_eq!(names(&closure, &layers), names(&turned, &again));
    }

    #[test]
    fn hashes_decide_nothing(
        count in 1_usize..60, seed: u64, limit in 1_usize..40, which in 0_usize..5, salt in 0_usize..1000,
    ) {
        let (paths, roots) = random_graph(count, seed);
        let closure = Closure::new(paths, roots).unwrap();
        let all: Vec<&str> = closure.paths.iter().map(|info| info.path.name()).collect();
        let renamed = changed(&closure, &all, salt);
        let none = History::default();
        prop_assert_eq!(
            names(&closure, &plan(&closure, Algorithm::ALL[which], limit, &none)),
            names(&renamed, &plan(&renamed, Algorithm::ALL[which], limit, &none))
        );
    }
}
