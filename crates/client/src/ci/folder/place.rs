//! Where folders are on this machine, and what they are called on every machine.

use super::super::{
    error::Result,
    glob::{Base, GlobError},
    hash_files,
};
use std::path::{Component, Path, PathBuf};

/// A folder or a file to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `~/…` below the home, relative below the working directory, else absolute.
    pub name: String,
    /// Where it is here.
    pub path: PathBuf,
}

impl Place {
    /// The place that an entry names, on this machine. `None` for names that lead anywhere else than they say.
    pub fn of_name(name: &str, base: &Base) -> Option<Self> {
        let (root, rest) = match name.strip_prefix("~/") {
            Some(rest) => (base.home.clone()?, rest),
            None => (base.directory.clone(), name),
        };
        let sound = |component| matches!(component, Component::Normal(_) | Component::RootDir);
        let path = root.join(rest);
        (!rest.is_empty() && path.components().all(sound)).then(|| Self {
            name: name.to_owned(),
            path,
        })
    }

    /// What a path is called on every machine.
    fn of_path(path: PathBuf, base: &Base) -> Self {
        let below = |root: Option<&PathBuf>, prefix: &str| {
            let rest = path.strip_prefix(root?).ok()?.to_str()?;
            (!rest.is_empty()).then(|| format!("{prefix}{rest}"))
        };
        let name = below(Some(&base.directory), "")
            .or_else(|| below(base.home.as_ref(), "~/"))
            .unwrap_or_else(|| path.to_string_lossy().into_owned());
        Self { name, path }
    }

    /// Whether it is Nix's own, which the substituter serves.
    fn is_of_nix(&self) -> bool {
        ["/nix/store", "/nix/var"].iter().any(|of_nix| {
            self.path.starts_with(of_nix) || Path::new(of_nix).starts_with(&self.path)
        })
    }
}

/// The places that the user's patterns mean now. Those of Nix itself are told apart: they need not be kept.
///
/// # Errors
/// If a pattern is malformed or a folder cannot be read.
pub fn places(patterns: &[String], base: &Base) -> Result<(Vec<Place>, Vec<Place>)> {
    let mut found: Vec<Place> = Vec::new();
    for line in patterns.iter().flat_map(|lines| lines.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with('!') {
            continue;
        }
        if line.contains(['*', '?', '[']) {
            found.extend(expand(line, patterns, base)?);
        } else {
            found.push(Place::of_path(literal(line, base)?, base));
        }
    }
    let mut kept: Vec<Place> = Vec::new();
    let mut of_nix = Vec::new();
    for place in found {
        if place.is_of_nix() {
            of_nix.push(place);
        } else if !kept.contains(&place) {
            kept.push(place);
        }
    }
    Ok((kept, of_nix))
}

/// A path without wildcards need not exist yet.
fn literal(line: &str, base: &Base) -> Result<PathBuf> {
    let path = match line.strip_prefix("~/") {
        Some(rest) => {
            let home = base.home.as_ref();
            home.ok_or_else(|| GlobError::NoHome(line.to_owned()))?
                .join(rest)
        }
        None => base.directory.join(line),
    };
    let sound = |component| !matches!(component, Component::ParentDir);
    let path: PathBuf = path.components().collect();
    match path.components().all(sound) && path != base.directory {
        true => Ok(path),
        false => Err(GlobError::Relative(line.to_owned()).into()),
    }
}

/// What a pattern matches, less what the patterns with `!` exclude, without what lies below another match.
fn expand(line: &str, patterns: &[String], base: &Base) -> Result<Vec<Place>> {
    let mut lines = vec![line.to_owned()];
    let excluded = patterns.iter().flat_map(|lines| lines.lines());
    lines.extend(
        excluded
            .map(str::trim)
            .filter(|line| line.starts_with('!'))
            .map(str::to_owned),
    );
    let mut tops: Vec<PathBuf> = Vec::new();
    for path in hash_files::find(&lines, base)? {
        if !tops.iter().any(|top| path.starts_with(top)) {
            tops.push(path);
        }
    }
    Ok(tops
        .into_iter()
        .map(|path| Place::of_path(path, base))
        .collect())
}
