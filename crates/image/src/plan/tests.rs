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
    names(closure, &plan(closure, algorithm, limit))
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
    assert_eq!(plan(&closure, Algorithm::Auto, 9).concat().len(), 3);
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

#[test]
fn two_thousand_paths_are_planned_in_a_moment() {
    let (paths, roots) = random_graph(2_000, 7);
    let closure = Closure::new(paths, roots).unwrap();
    for algorithm in [Algorithm::Auto, Algorithm::Popularity] {
        let start = std::time::Instant::now();
        let layers = plan(&closure, algorithm, 100);
        assert!(layers.len() <= 100);
        assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    }
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
        count in 1_usize..60, seed: u64, limit in 1_usize..40, rotate in 0_usize..60, popular: bool,
    ) {
        let algorithm = if popular { Algorithm::Popularity } else { Algorithm::Auto };
        let (paths, roots) = random_graph(count, seed);
        let mut turned = paths.clone();
        turned.rotate_left(rotate % count);
        turned.reverse();
        let closure = Closure::new(paths, roots.clone()).unwrap();
        let layers = plan(&closure, algorithm, limit);
        prop_assert!(layers.len() <= limit);
        prop_assert!(layers.iter().all(|layer| !layer.is_empty()));
        let mut all = layers.concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..closure.paths.len()).collect::<Vec<_>>());
        let turned = Closure::new(turned, roots).unwrap();
        let again = plan(&turned, algorithm, limit);
        prop_assert_eq!(names(&closure, &layers), names(&turned, &again));
    }
}
