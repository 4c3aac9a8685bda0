//! What is the same thing in two revisions.
//!
//! A store path has another hash in each revision in which anything below it changed, and another
//! version when it was updated. What stays is its name without the version, and by that it is known
//! again: its *key*.
//!
//! A name is cut at its dashes. The version is what lies between the first part that begins with a digit
//! (but for the very first part) and the last one that has a digit; what follows is letters alone and tells
//! the output. Numbers with dots at the end of a part before it go too:
//!
//! ```text
//! glibc-2.38-44-bin             glibc-bin
//! python3.11-numpy-1.26.4       python-numpy
//! app                           app
//! ```
//!
//! Things with equal keys are told apart by a number, in the order of their names, sizes and places in the
//! graph. Hashes decide only between two that are alike in all of these.

use super::Graph;
use crate::closure::{Closure, reverse};
use std::collections::HashMap;

/// The names of a closure's paths, in the planner's one order.
#[derive(Debug)]
pub(super) struct Names {
    /// For each path; no two are equal.
    pub(super) keys: Vec<String>,
    /// Indices of all paths: equals are taken in this order.
    pub(super) order: Vec<usize>,
    /// Place of each path in the order.
    pub(super) rank: Vec<usize>,
}

impl Names {
    pub(super) fn new(closure: &Closure, references: &[Vec<usize>]) -> Self {
        let name = |&i: &usize| closure.paths[i].path.name();
        let users = reverse(references);
        let names_of = |list: &Vec<usize>| {
            let mut names: Vec<&str> = list.iter().map(name).collect();
            names.sort_unstable();
            names
        };
        let mut order: Vec<usize> = (0..closure.paths.len()).collect();
        order.sort_unstable_by(|&a, &b| {
            let (x, y) = (&closure.paths[a], &closure.paths[b]);
            let by_name = x.path.name().cmp(y.path.name());
            by_name
                .then(x.nar_size.cmp(&y.nar_size))
                .then_with(|| names_of(&references[a]).cmp(&names_of(&references[b])))
                .then_with(|| names_of(&users[a]).cmp(&names_of(&users[b])))
                .then_with(|| x.path.cmp(&y.path))
        });
        let mut keys = vec![String::new(); order.len()];
        let mut rank = vec![0; order.len()];
        let mut times: HashMap<String, usize> = HashMap::new();
        for (place, &i) in order.iter().enumerate() {
            rank[i] = place;
            let key = key(name(&i));
            let seen = times.entry(key.clone()).or_default();
            *seen += 1;
            keys[i] = match *seen {
                1 => key,
                // No name of a store path has this character.
                number => format!("{key}#{number}"),
            };
        }
        Self { keys, order, rank }
    }
}

impl Graph {
    /// Sorts indices in the planner's order.
    pub(super) fn sort(&self, indices: &mut [usize]) {
        indices.sort_unstable_by_key(|&i| self.names.rank[i]);
    }
}

/// A name without its version.
pub(super) fn key(name: &str) -> String {
    let parts: Vec<&str> = name.split('-').collect();
    let has_digit = |part: &&str| part.bytes().any(|byte| byte.is_ascii_digit());
    let begins = |part: &&str| part.starts_with(|first: char| first.is_ascii_digit());
    let version = parts.iter().skip(1).position(begins).map(|at| at + 1);
    let (head, tail) = match version {
        None => (parts.as_slice(), Vec::new()),
        Some(begin) => {
            let end = parts.iter().rposition(has_digit);
            let tail = parts[end.map_or(begin, |end| end + 1)..].to_vec();
            (&parts[..begin], tail)
        }
    };
    let kept: Vec<&str> = head
        .iter()
        .map(|part| without_dotted_number(part))
        .chain(tail)
        .collect();
    kept.join("-")
}

/// `python3.11` is `python`; `libc6` stays, and so does what is a number alone.
fn without_dotted_number(part: &str) -> &str {
    let number = |byte: char| byte.is_ascii_digit() || byte == '.';
    let head = part.trim_end_matches(number);
    let tail = &part[head.len()..];
    if head.is_empty() || !tail.contains('.') || tail.starts_with('.') || tail.ends_with('.') {
        part
    } else {
        head
    }
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn versions_go_and_outputs_stay() {
        for (name, wanted) in [
            ("glibc-2.38-44-bin", "glibc-bin"),
            ("glibc-2.38-44", "glibc"),
            ("python3.11-numpy-1.26.4", "python-numpy"),
            ("ffmpeg-6.1-lib", "ffmpeg-lib"),
            ("libc6-2.36-9+deb12u10", "libc6"),
            ("gcc-13.2.0-libgcc", "gcc-libgcc"),
            ("app-unstable-2024-01-31", "app-unstable"),
            ("linux-6.6-rc1", "linux"),
            ("7zip-23.01", "7zip"),
            ("1.2.3", "1.2.3"),
            ("source", "source"),
            ("a.1.-x", "a.1.-x"),
            ("app-0.1", "app"),
        ] {
            assert_eq!(key(name), wanted, "{name}");
        }
    }
}
