//! Which entries to take away: pure, over numbers.
//!
//! A node is an entry, an edge says "needs". What a node that stays needs, stays; what a node needs was last used
//! when the node was. Nodes that need each other are one *group*. Groups go least recently used first, and since
//! a group's use is never older than that of what needs it, those that need go before what they need: wherever
//! the work is cut off, nothing is left with a hole.

use std::collections::HashMap;

/// What only a group that goes needed goes with it, unless it was used by itself so much later (a closure is not
/// read in one moment).
const TOGETHER_MS: i64 = 3_600_000;

/// A node's number.
pub(crate) type NodeId = u32;

#[derive(Debug, Clone, Copy)]
struct Node {
    used_at_ms: i64,
    stays: bool,
}

/// The graph, while it is made.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    edges: Vec<(NodeId, NodeId)>,
    /// (node, blob), both by number.
    blobs: Vec<(NodeId, u32)>,
    blob_bytes: Vec<u64>,
}

impl Graph {
    pub(crate) fn add(&mut self, used_at_ms: i64, stays: bool) -> NodeId {
        self.nodes.push(Node { used_at_ms, stays });
        (self.nodes.len() - 1) as NodeId
    }

    pub(crate) fn add_blob(&mut self, bytes: u64) -> u32 {
        self.blob_bytes.push(bytes);
        (self.blob_bytes.len() - 1) as u32
    }

    /// `node` names `blob`.
    pub(crate) fn names(&mut self, node: NodeId, blob: u32) {
        self.blobs.push((node, blob));
    }

    pub(crate) fn needs(&mut self, node: NodeId, needed: NodeId) {
        if node != needed {
            self.edges.push((node, needed));
        }
    }

    /// A node that was used, or must stay, for a reason found later than the node.
    pub(crate) fn used(&mut self, node: NodeId, at_ms: i64) {
        let node = &mut self.nodes[node as usize];
        node.used_at_ms = node.used_at_ms.max(at_ms);
    }

    /// It counts as used only by those that need it.
    pub(crate) fn owned(&mut self, node: NodeId) {
        self.nodes[node as usize].used_at_ms = i64::MIN;
    }

    pub(crate) fn stays(&mut self, node: NodeId) {
        self.nodes[node as usize].stays = true;
    }

    /// Bytes of all blobs.
    pub(crate) fn bytes(&self) -> u64 {
        self.blob_bytes.iter().sum()
    }

    /// Puts together what needs each other.
    pub(crate) fn groups(self) -> Groups {
        let edges = Lists::new(self.nodes.len(), self.edges);
        let of_node = components(&edges, self.nodes.len());
        let count = of_node.iter().max().map_or(0, |last| *last as usize + 1);
        let mut groups = vec![
            Group {
                own_use_ms: i64::MIN,
                used_at_ms: i64::MIN,
                stays: false,
            };
            count
        ];
        for (node, group) in self.nodes.iter().zip(&of_node) {
            let group = &mut groups[*group as usize];
            group.own_use_ms = group.own_use_ms.max(node.used_at_ms);
            group.used_at_ms = group.own_use_ms;
            group.stays |= node.stays;
        }
        let between = edges
            .pairs()
            .map(|(from, to)| (of_node[from as usize], of_node[to as usize]))
            .filter(|(from, to)| from != to)
            .collect();
        let needs = Lists::new(count, between);
        // Those that need have the greater numbers.
        for group in (0..count).rev() {
            let Group {
                used_at_ms, stays, ..
            } = groups[group];
            for needed in needs.of(group as u32) {
                let needed = &mut groups[*needed as usize];
                needed.used_at_ms = needed.used_at_ms.max(used_at_ms);
                needed.stays |= stays;
            }
        }
        let members = (0..).zip(&of_node).map(|(node, group)| (*group, node));
        let members = Lists::new(count, members.collect());
        let blobs = Lists::new(self.nodes.len(), self.blobs);
        Groups {
            groups,
            needs,
            members,
            of_node,
            blobs,
            blob_bytes: self.blob_bytes,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Group {
    /// Of its own nodes.
    own_use_ms: i64,
    /// Of it and of all that need it.
    used_at_ms: i64,
    stays: bool,
}

/// The graph of groups, which has no cycles: a group's number is greater than those of all that it needs.
#[derive(Debug)]
pub(crate) struct Groups {
    groups: Vec<Group>,
    needs: Lists,
    members: Lists,
    of_node: Vec<u32>,
    blobs: Lists,
    blob_bytes: Vec<u64>,
}

/// What to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// What was last used before this goes.
    pub(crate) unused_since_ms: Option<i64>,
    /// If the blobs have more bytes than the first, then groups go until they have no more than the second.
    pub(crate) bytes: Option<(u64, u64)>,
}

/// A group that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) group: u32,
    pub(crate) unused: bool,
}

/// What goes, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) choices: Vec<Choice>,
    /// What remains when all of it is gone.
    pub(crate) bytes_left: u64,
}

impl Groups {
    pub(crate) fn members(&self, group: u32) -> &[NodeId] {
        self.members.of(group)
    }

    pub(crate) fn group_of(&self, node: NodeId) -> u32 {
        self.of_node[node as usize]
    }

    pub(crate) fn blobs_of(&self, node: NodeId) -> &[u32] {
        self.blobs.of(node)
    }

    pub(crate) fn blob_bytes(&self, blob: u32) -> u64 {
        self.blob_bytes[blob as usize]
    }

    /// When it, or anything that needs it, was last used.
    pub(crate) fn used_at_ms(&self, group: u32) -> i64 {
        self.groups[group as usize].used_at_ms
    }

    pub(crate) fn has_to_stay(&self, group: u32) -> bool {
        self.groups[group as usize].stays
    }

    /// From now on it stays, with all that it needs.
    pub(crate) fn keep(&mut self, group: u32) {
        let mut todo = vec![group];
        while let Some(group) = todo.pop() {
            if !std::mem::replace(&mut self.groups[group as usize].stays, true) {
                todo.extend(self.needs.of(group));
            }
        }
    }

    /// How many nodes name each blob.
    pub(crate) fn blob_names(&self) -> Vec<u32> {
        let mut names = vec![0; self.blob_bytes.len()];
        for blob in &self.blobs.targets {
            names[*blob as usize] += 1;
        }
        names
    }

    /// Bytes of blobs that nothing but a group's nodes names any more, in `names`.
    pub(crate) fn take_bytes(&self, group: u32, names: &mut [u32]) -> u64 {
        let mut freed = 0;
        for node in self.members(group) {
            for blob in self.blobs_of(*node) {
                let left = &mut names[*blob as usize];
                *left -= 1;
                if *left == 0 {
                    freed += self.blob_bytes(*blob);
                }
            }
        }
        freed
    }

    /// Chooses by use, then by bytes.
    pub(crate) fn choose(&self, limits: Limits) -> Chosen {
        let mut order: Vec<u32> = (0..self.groups.len() as u32)
            .filter(|group| !self.has_to_stay(*group))
            .collect();
        order.sort_unstable_by_key(|group| (self.used_at_ms(*group), std::cmp::Reverse(*group)));
        let mut names = self.blob_names();
        let mut bytes_left: u64 = self.blob_bytes.iter().sum();
        let mut gone = vec![false; self.groups.len()];
        let mut choices = Vec::new();
        let unused = |group: u32| {
            let since = limits.unused_since_ms;
            since.is_some_and(|since| self.used_at_ms(group) < since)
        };
        let aged = order.partition_point(|group| unused(*group));
        for group in &order[..aged] {
            bytes_left -= self.take_bytes(*group, &mut names);
            gone[*group as usize] = true;
            choices.push(Choice {
                group: *group,
                unused: true,
            });
        }
        if let Some((_, low)) = limits.bytes.filter(|(most, _)| bytes_left > *most) {
            for group in &order[aged..] {
                if bytes_left <= low {
                    break;
                }
                bytes_left -= self.take_bytes(*group, &mut names);
                gone[*group as usize] = true;
                choices.push(Choice {
                    group: *group,
                    unused: false,
                });
            }
        }
        for group in self.left_alone(&mut gone) {
            bytes_left -= self.take_bytes(group, &mut names);
            let unused = unused(group);
            choices.push(Choice { group, unused });
        }
        Chosen {
            choices,
            bytes_left,
        }
    }

    /// What only those that go needed, those that need first.
    fn left_alone(&self, gone: &mut [bool]) -> Vec<u32> {
        let count = self.groups.len();
        let mut needed_by_others = vec![false; count];
        let mut needed_last_ms = vec![None::<i64>; count];
        let mut found = Vec::new();
        for group in (0..count).rev() {
            let state = self.groups[group];
            if !gone[group] && !state.stays && !needed_by_others[group] {
                let together = |last: i64| state.own_use_ms <= last.saturating_add(TOGETHER_MS);
                if needed_last_ms[group].is_some_and(together) {
                    gone[group] = true;
                    found.push(group as u32);
                }
            }
            for needed in self.needs.of(group as u32) {
                let needed = *needed as usize;
                if gone[group] {
                    needed_last_ms[needed] = needed_last_ms[needed].max(Some(state.used_at_ms));
                } else {
                    needed_by_others[needed] = true;
                }
            }
        }
        found
    }
}

/// Lists of numbers, one for each of `count` numbers, without an allocation for each.
#[derive(Debug)]
struct Lists {
    starts: Vec<u32>,
    targets: Vec<u32>,
}

impl Lists {
    fn new(count: usize, mut pairs: Vec<(u32, u32)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup();
        let mut starts = vec![0; count + 1];
        for (from, _) in &pairs {
            starts[*from as usize + 1] += 1;
        }
        for index in 0..count {
            starts[index + 1] += starts[index];
        }
        Self {
            starts,
            targets: pairs.into_iter().map(|(_, to)| to).collect(),
        }
    }

    fn of(&self, from: u32) -> &[u32] {
        let from = from as usize;
        &self.targets[self.starts[from] as usize..self.starts[from + 1] as usize]
    }

    fn pairs(&self) -> impl Iterator<Item = (u32, u32)> {
        let count = self.starts.len() as u32 - 1;
        (0..count).flat_map(|from| self.of(from).iter().map(move |to| (from, *to)))
    }
}

/// The strongly connected component of each node, by Tarjan's algorithm without recursion. A component's number
/// is greater than those of all that it leads to.
fn components(edges: &Lists, count: usize) -> Vec<u32> {
    const UNSEEN: u32 = u32::MAX;
    let mut of_node = vec![UNSEEN; count];
    let mut index = vec![UNSEEN; count];
    let mut low = vec![0; count];
    let (mut stack, mut path) = (Vec::new(), Vec::new());
    let (mut next_index, mut next_component) = (0, 0);
    for start in 0..count as u32 {
        if index[start as usize] != UNSEEN {
            continue;
        }
        path.push((start, 0));
        while let Some((node, edge)) = path.pop() {
            let at = node as usize;
            if edge == 0 {
                index[at] = next_index;
                low[at] = next_index;
                next_index += 1;
                stack.push(node);
            } else {
                // Back from where the edge before led.
                let child = edges.of(node)[edge - 1] as usize;
                if of_node[child] == UNSEEN {
                    low[at] = low[at].min(low[child]);
                }
            }
            match edges.of(node).get(edge) {
                Some(child) => {
                    path.push((node, edge + 1));
                    if index[*child as usize] == UNSEEN {
                        path.push((*child, 0));
                    }
                }
                None if low[at] == index[at] => {
                    while let Some(member) = stack.pop() {
                        of_node[member as usize] = next_component;
                        if member == node {
                            break;
                        }
                    }
                    next_component += 1;
                }
                None => {}
            }
        }
    }
    of_node
}

/// Numbers for keys.
pub(crate) type Index<K> = HashMap<K, NodeId>;

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
