//! What the planner promises, over series of revisions of real dependency graphs. `make bench-layers` does the
//! same with more of them.

use crate::series::{Graph, Mixture, Schedule};
use firn_image::{
    plan::{Algorithm, History, plan},
    replay::{RevisionError, Series, SeriesError, replay},
};
use std::collections::HashSet;

fn ratio(series: &Series, algorithm: Algorithm, max_layers: usize) -> f64 {
    let total = replay(series, algorithm, max_layers).unwrap().total;
    total.bytes_repushed as f64 / total.lower_bound as f64
}

#[test]
fn mixtures_cost_little_more_than_what_changes() {
    for (graph, seeds) in [(Graph::ffmpeg(), vec![1, 2]), (Graph::scipy(), vec![3])] {
        for seed in seeds {
            let series = graph.series(40, &Schedule::Mixture(Mixture { seed }));
            for (max_layers, bar) in [(100, 1.10), (40, 1.25)] {
                let found = ratio(&series, Algorithm::History, max_layers);
                let what = format!("{} paths, seed {seed}, K {max_layers}", graph.len());
                assert!(found <= bar, "{what}: {found}");
                let auto = ratio(&series, Algorithm::Auto, max_layers);
                assert!(found <= auto * 1.03, "{what}: {found}, auto {auto}");
            }
        }
    }
}

#[test]
fn an_app_that_changes_alone_moves_alone() {
    let series = Graph::scipy().series(8, &Schedule::App);
    for max_layers in [100, 40, 2] {
        let found = ratio(&series, Algorithm::History, max_layers);
        assert!(found <= 1.02, "K {max_layers}: {found}");
    }
}

#[test]
fn one_change_of_a_library_or_of_the_base_costs_no_more_than_with_auto() {
    for name in ["libavcodec59", "libc6"] {
        let series = Graph::ffmpeg().series(8, &Schedule::Once(name));
        let found = ratio(&series, Algorithm::History, 100);
        let auto = ratio(&series, Algorithm::Auto, 100);
        assert!(found <= auto * 1.03, "{name}: history {found}, auto {auto}");
    }
}

/// Two apps on the same packages, each pushed for itself.
#[test]
fn a_family_shares_what_it_has_in_common() {
    let graph = Graph::scipy();
    for max_layers in [100, 40] {
        let family = [("app", 10_000_000), ("other", 45_000_000)].map(|(name, size)| {
            graph
                .with_app(name, size)
                .series(12, &Schedule::Mixture(Mixture { seed: 5 }))
        });
        let mut histories = [History::default(), History::default()];
        for revision in 0..12 {
            let mut sets = Vec::new();
            let mut paths = Vec::new();
            for (series, history) in family.iter().zip(&mut histories) {
                let closure = &series.revisions[revision];
                let layers = plan(closure, Algorithm::History, max_layers, history);
                history.record(closure, &layers);
                paths.push(
                    closure
                        .paths
                        .iter()
                        .map(|info| (info.path.clone(), info.nar_size))
                        .collect::<HashSet<_>>(),
                );
                let set = |layer: &Vec<usize>| {
                    let mut set: Vec<_> = layer
                        .iter()
                        .map(|&i| closure.paths[i].path.to_string())
                        .collect();
                    set.sort_unstable();
                    (
                        set,
                        layer
                            .iter()
                            .map(|&i| closure.paths[i].nar_size)
                            .sum::<u64>(),
                    )
                };
                sets.push(layers.iter().map(set).collect::<HashSet<_>>());
            }
            let common: u64 = paths[0].intersection(&paths[1]).map(|(_, size)| size).sum();
            let shared: u64 = sets[0].intersection(&sets[1]).map(|(_, size)| size).sum();
            let share = shared as f64 / common as f64;
            assert!(
                share >= 0.95,
                "K {max_layers}, revision {revision}: {share}"
            );
        }
    }
}

fn error(json: &str) -> SeriesError {
    Series::parse(json.as_bytes()).unwrap_err()
}

#[test]
fn what_is_no_series_is_refused() {
    let path = |digit: &str, name: &str| format!("/nix/store/{}-{name}", digit.repeat(32));
    let (a, b) = (path("0", "a"), path("1", "b"));
    let entry = |path: &str, references: &[&str]| serde_json::json!({"path": path, "narSize": 1, "references": references});
    let of = |paths: &[serde_json::Value]| {
        error(&serde_json::json!({"revisions": [{"paths": paths}]}).to_string())
    };
    let revision = |error: SeriesError| match error {
        SeriesError::Revision {
            revision: 0,
            source,
        } => source,
        other => panic!("{other:?}"),
    };
    assert!(matches!(error("{"), SeriesError::Json(_)));
    assert!(matches!(error(r#"{"revisions":[]}"#), SeriesError::Empty));
    assert!(matches!(
        revision(of(&[entry(&a, &[]), entry(&a, &[])])),
        RevisionError::Duplicate { .. }
    ));
    assert!(matches!(
        revision(of(&[entry(&a, &[&b]), entry(&b, &[&a])])),
        RevisionError::Cycle { .. }
    ));
    assert!(matches!(
        revision(of(&[entry(&a, &[&b])])),
        RevisionError::Closure(_)
    ));
    assert!(matches!(
        revision(of(&[entry("/nix/store/x", &[])])),
        RevisionError::Path(_)
    ));
    let large = serde_json::json!({"path": a, "narSize": u64::MAX});
    assert!(matches!(
        revision(of(&[large])),
        RevisionError::TooLarge { .. }
    ));
    let negative = format!(r#"{{"revisions":[{{"paths":[{{"path":"{a}","narSize":-1}}]}}]}}"#);
    assert!(matches!(error(&negative), SeriesError::Json(_)));
}
