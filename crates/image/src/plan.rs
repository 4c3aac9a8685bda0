//! Which store paths share a layer.

use crate::closure::Closure;

/// Layer algorithms by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// nixpkgs' auto-layer: paths with equal sets of large users share a layer.
    Auto,
    /// nixpkgs until 2024 and nix2container: the most referenced paths get a layer each.
    Popularity,
}

/// Groups the closure's paths (indices) into at most `max_layers`; lowest layer first,
/// no layer empty, ties never by hash order of a map.
pub fn plan(closure: &Closure, algorithm: Algorithm, max_layers: usize) -> Vec<Vec<usize>> {
    todo!("{} {algorithm:?} {max_layers}", closure.paths.len())
}
