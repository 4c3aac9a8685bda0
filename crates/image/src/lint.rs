//! What should not be in an image: what it costs, and the references by which it got in.
//!
//! Names and versions are read out of the store paths. The files of the local store are looked at, never hashed, and
//! none is read but the programs that the image starts. A byte counts once: what is found as a whole path
//! is not found again in its files.

mod files;
mod names;
mod started;
mod walk;

use crate::closure::{Closure, reverse};
use firn_formats::{nix::StorePath, oci::config::Config};
use serde::Serialize;
use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
};

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Contents that nothing which the image starts refers to or names.
    Unused,
    /// An output for building against it, or for debugging.
    DevOutput,
    /// Compilers, build systems, sources.
    BuildTime,
    /// One package in two versions.
    TwoVersions,
    /// Manuals and documentation.
    Docs,
    /// C and C++ headers.
    Headers,
    /// Archives for a linker.
    StaticLibrary,
}

impl Check {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Unused,
        Self::DevOutput,
        Self::BuildTime,
        Self::TwoVersions,
        Self::Docs,
        Self::Headers,
        Self::StaticLibrary,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::DevOutput => "dev-output",
            Self::BuildTime => "build-time",
            Self::TwoVersions => "two-versions",
            Self::Docs => "docs",
            Self::Headers => "headers",
            Self::StaticLibrary => "static-library",
        }
    }
}

/// Something that should not be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it was found by.
    pub check: Check,
    /// Base name of the store path.
    pub path: String,
    /// What the image would be smaller by: NARs of the path and of what only it brings, or files.
    pub bytes: u64,
    /// Store paths that only it brings, itself included; 0 where it is about files in a path.
    pub paths: usize,
    /// Where the files lie in the path, the largest folders first; of files only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// From one of the contents to the path: how it got in.
    pub via: Vec<String>,
    /// What is wrong, in words.
    pub detail: String,
}

/// All that was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// The dearest first.
    pub findings: Vec<Finding>,
    /// What could not be judged.
    pub notes: Vec<String>,
    /// Of all findings, each byte once.
    pub bytes: u64,
    /// NARs of the closure.
    pub bytes_total: u64,
}

/// Judges a closure whose files lie in `store_dir` by what the config starts. Findings about store paths whose base
/// name, name or name without version `is_allowed` accepts are left out.
pub fn lint(
    store_dir: &Path,
    closure: &Closure,
    config: &Config,
    is_allowed: &dyn Fn(&StorePath) -> bool,
) -> Findings {
    let mut judged = Judged::new(closure);
    let mut notes = Vec::new();
    let mut whole = Vec::new();
    match started::judge(store_dir, closure, config) {
        Ok(started) => {
            judged.keep(&started.needed);
            whole = started.unused;
        }
        Err(note) => notes.push(note),
    }
    let mut condemned: BTreeSet<usize> =
        judged.only_by(&whole.iter().map(|f| f.0).collect::<Vec<_>>());
    for found in names::dev_outputs(closure)
        .into_iter()
        .chain(names::build_time(closure, &judged.roots))
        .chain(names::two_versions(closure))
    {
        if !condemned.contains(&found.0) {
            whole.push(found);
        }
    }
    whole.retain(|(path, ..)| !is_allowed(&closure.paths[*path].path));
    let places: Vec<usize> = whole.iter().map(|found| found.0).collect();
    condemned = judged.only_by(&places);
    let mut findings: Vec<Finding> = whole
        .into_iter()
        .map(|(path, check, detail)| judged.finding(path, check, detail))
        .collect();
    let mut bytes: u64 = condemned.iter().map(|&i| closure.paths[i].nar_size).sum();
    for path in (0..closure.paths.len()).filter(|path| !condemned.contains(path)) {
        if is_allowed(&closure.paths[path].path) {
            continue;
        }
        for finding in files::of(store_dir, &judged, path, &mut notes) {
            bytes += finding.bytes;
            findings.push(finding);
        }
    }
    findings.sort_by(|a, b| (b.bytes, a.check, &a.path).cmp(&(a.bytes, b.check, &b.path)));
    Findings {
        findings,
        notes,
        bytes,
        bytes_total: closure.nar_bytes(),
    }
}

/// A path (its index), what it was found by, and what is wrong with it.
type Found = (usize, Check, String);

/// A closure, and who brings what.
struct Judged<'a> {
    closure: &'a Closure,
    dependencies: Vec<Vec<usize>>,
    roots: Vec<usize>,
    kept: Vec<usize>,
    /// For each path who brought it first, walking from the roots; None of roots.
    brought_by: Vec<Option<usize>>,
}

impl<'a> Judged<'a> {
    fn new(closure: &'a Closure) -> Self {
        let dependencies = closure.dependencies();
        let roots = roots(closure);
        let mut brought_by = vec![None; closure.paths.len()];
        let mut seen: BTreeSet<usize> = roots.iter().copied().collect();
        let mut queue: VecDeque<usize> = roots.iter().copied().collect();
        while let Some(user) = queue.pop_front() {
            for &dependency in &dependencies[user] {
                if seen.insert(dependency) {
                    brought_by[dependency] = Some(user);
                    queue.push_back(dependency);
                }
            }
        }
        Self {
            closure,
            dependencies,
            roots,
            kept: Vec::new(),
            brought_by,
        }
    }

    /// What the image starts stays, whatever else goes.
    fn keep(&mut self, needed: &BTreeSet<StorePath>) {
        let index = self.closure.index();
        let needed = needed.iter().filter_map(|path| index.get(path).copied());
        self.kept.extend(needed);
    }

    /// What nothing would need any more without these.
    fn only_by(&self, paths: &[usize]) -> BTreeSet<usize> {
        let gone: BTreeSet<usize> = paths.iter().copied().collect();
        let mut kept: BTreeSet<usize> = BTreeSet::new();
        let mut open: Vec<usize> = self.roots.iter().chain(&self.kept).copied().collect();
        while let Some(path) = open.pop() {
            if !gone.contains(&path) && kept.insert(path) {
                open.extend(&self.dependencies[path]);
            }
        }
        (0..self.closure.paths.len())
            .filter(|path| !kept.contains(path))
            .collect()
    }

    fn finding(&self, path: usize, check: Check, detail: String) -> Finding {
        let gone = self.only_by(&[path]);
        Finding {
            check,
            path: self.name(path),
            bytes: gone.iter().map(|&i| self.closure.paths[i].nar_size).sum(),
            paths: gone.len(),
            files: Vec::new(),
            via: self.via(path),
            detail,
        }
    }

    fn name(&self, path: usize) -> String {
        self.closure.paths[path].path.to_string()
    }

    fn via(&self, path: usize) -> Vec<String> {
        let mut chain = vec![self.name(path)];
        let mut at = path;
        while let Some(user) = self.brought_by[at] {
            chain.push(self.name(user));
            at = user;
        }
        chain.reverse();
        chain
    }
}

/// The image's contents: those that are named, and what nothing refers to, such as a path that the config names.
fn roots(closure: &Closure) -> Vec<usize> {
    let index = closure.index();
    let named = closure
        .roots
        .iter()
        .filter_map(|root| index.get(root).copied());
    let users = reverse(&closure.dependencies());
    let mut roots: Vec<usize> = named.collect();
    let top = (0..users.len()).filter(|&path| users[path].is_empty());
    let top: Vec<usize> = top.filter(|path| !roots.contains(path)).collect();
    roots.extend(top);
    roots
}

#[cfg(test)]
mod tests;
