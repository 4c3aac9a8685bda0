use super::*;
use proptest::prelude::*;

const DAY: i64 = 86_400_000;

/// Nodes as (last use, stays, blob), edges, limits.
type Sample = (Vec<(i64, bool, u32)>, Vec<(u32, u32)>, Limits);

fn sample() -> impl Strategy<Value = Sample> {
    let node = (0..20 * DAY, prop::bool::weighted(0.05), 0..30_u32);
    prop::collection::vec(node, 1..40).prop_flat_map(|nodes| {
        let count = nodes.len() as u32;
        let edges = prop::collection::vec((0..count, 0..count), 0..80);
        let limits = (
            prop::option::of(0..20 * DAY),
            prop::option::of((0..400_u64, 0..=100_u64)),
        );
        (Just(nodes), edges, limits).prop_map(|(nodes, edges, (unused, bytes))| {
            let limits = Limits {
                unused_since_ms: unused,
                bytes: bytes.map(|(most, percent)| (most, most * percent / 100)),
            };
            (nodes, edges, limits)
        })
    })
}

fn build(nodes: &[(i64, bool, u32)], edges: &[(u32, u32)]) -> Graph {
    let mut graph = Graph::default();
    for bytes in 0..30 {
        graph.add_blob(bytes);
    }
    for (used, stays, blob) in nodes {
        let node = graph.add(*used, *stays);
        graph.names(node, *blob);
    }
    for (from, to) in edges {
        graph.needs(*from, *to);
    }
    graph
}

/// What must hold of each node with regard to those that it leads to, found the slow way.
fn reachable(count: usize, edges: &[(u32, u32)], from: u32) -> Vec<bool> {
    let mut seen = vec![false; count];
    let mut todo = vec![from];
    while let Some(node) = todo.pop() {
        if !std::mem::replace(&mut seen[node as usize], true) {
            let next = edges.iter().filter(|(from, _)| *from == node);
            todo.extend(next.map(|(_, to)| *to));
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn what_goes_leaves_no_hole_and_keeps_the_limits((nodes, edges, limits) in sample()) {
        let graph = build(&nodes, &edges);
        let groups = graph.groups();
        let chosen = groups.choose(limits);
        let mut gone = vec![false; nodes.len()];
        for choice in &chosen.choices {
            for node in groups.members(choice.group) {
                prop_assert!(!std::mem::replace(&mut gone[*node as usize], true), "twice");
            }
            // After each step, wherever it is cut off.
            for (from, to) in &edges {
                prop_assert!(gone[*from as usize] || !gone[*to as usize], "{from} needs {to}");
            }
        }
        let mut must_stay = vec![false; nodes.len()];
        let mut used = nodes.iter().map(|node| node.0).collect::<Vec<_>>();
        for (index, (own, stays, _)) in nodes.iter().enumerate() {
            for (node, seen) in reachable(nodes.len(), &edges, index as u32).iter().enumerate() {
                if *seen {
                    must_stay[node] |= stays;
                    used[node] = used[node].max(*own);
                }
            }
        }
        let mut left: Vec<u32> = (0..nodes.len()).filter(|node| !gone[*node]).map(|node| nodes[node].2).collect();
        left.sort_unstable();
        left.dedup();
        let named: std::collections::HashSet<u32> = nodes.iter().map(|node| node.2).collect();
        let never_named: u64 = (0..30).filter(|blob| !named.contains(blob)).map(u64::from).sum();
        let bytes: u64 = left.iter().map(|blob| u64::from(*blob)).sum::<u64>() + never_named;
        prop_assert_eq!(chosen.bytes_left, bytes);
        for node in 0..nodes.len() {
            prop_assert!(!(gone[node] && must_stay[node]), "{} has to stay", node);
            let old = limits.unused_since_ms.is_some_and(|since| used[node] < since);
            prop_assert!(!old || must_stay[node] || gone[node], "{} is unused", node);
        }
        if let Some((most, _)) = limits.bytes {
            let all_stay = (0..nodes.len()).all(|node| gone[node] || must_stay[node]);
            prop_assert!(bytes <= most || all_stay, "{bytes} of {most}");
        }
    }
}

#[test]
fn the_least_recently_used_closure_goes_whole_and_what_others_use_stays() {
    // old needs lib and shared, new needs shared; lib was last used when old was.
    let mut graph = Graph::default();
    let sizes = [10, 20, 40, 30].map(|bytes| graph.add_blob(bytes));
    let [old, lib, shared, new] =
        [DAY, DAY + 5000, DAY, 2 * DAY].map(|used| graph.add(used, false));
    for (node, blob) in [old, lib, shared, new].into_iter().zip(sizes) {
        graph.names(node, blob);
    }
    for (from, to) in [(old, lib), (old, shared), (new, shared)] {
        graph.needs(from, to);
    }
    let groups = graph.groups();
    let chosen = groups.choose(Limits {
        unused_since_ms: None,
        bytes: Some((99, 95)),
    });
    let gone: Vec<NodeId> = chosen
        .choices
        .iter()
        .map(|choice| groups.members(choice.group)[0])
        .collect();
    // The 10 bytes of `old` were enough; `lib` goes since nothing else needs it.
    assert_eq!(gone, [old, lib]);
    assert_eq!(chosen.bytes_left, 70);
}

#[test]
fn what_was_used_by_itself_later_outlives_what_needed_it() {
    let mut graph = Graph::default();
    let blob = graph.add_blob(10);
    let app = graph.add(DAY, false);
    graph.names(app, blob);
    let tool = graph.add(DAY + TOGETHER_MS + 1, false);
    graph.needs(app, tool);
    let groups = graph.groups();
    let chosen = groups.choose(Limits {
        unused_since_ms: None,
        bytes: Some((9, 9)),
    });
    assert_eq!(chosen.choices.len(), 1);
    assert_eq!(groups.members(chosen.choices[0].group), [app]);
}

#[test]
fn a_hundred_thousand_paths_are_chosen_from_in_a_moment() {
    let count = 100_000_u32;
    let mut graph = Graph::default();
    for node in 0..count {
        let blob = graph.add_blob(1000);
        graph.add(i64::from(node) * 1000, false);
        graph.names(node, blob);
        for step in 1..=10 {
            graph.needs(
                node,
                node.wrapping_mul(2_654_435_761).wrapping_add(step * 7919) % (node + 1),
            );
        }
    }
    let began = std::time::Instant::now();
    let groups = graph.groups();
    let chosen = groups.choose(Limits {
        unused_since_ms: None,
        bytes: Some((50_000_000, 45_000_000)),
    });
    assert!(chosen.bytes_left <= 45_000_000);
    let took = began.elapsed();
    println!("{count} paths with 10 references each: {took:?}");
    assert!(took.as_secs() < 5, "{took:?}");
}

/// A chain longer than any stack that recursion would have.
#[test]
fn depth_does_not_matter() {
    let count = 300_000;
    let mut graph = Graph::default();
    for node in 0..count {
        graph.add(0, node == 0);
    }
    for node in 1..count {
        graph.needs(node - 1, node);
    }
    let groups = graph.groups();
    assert!((0..count).all(|node| groups.has_to_stay(groups.group_of(node))));
}
