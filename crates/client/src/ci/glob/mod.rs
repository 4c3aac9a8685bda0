//! Patterns of file names as GitHub's `hashFiles` understands them.
//!
//! The rules are those of the npm packages `@actions/glob` and, below it, `minimatch` with the options
//! `dot, nobrace, nocomment, noext, nonegate`: `*`, `?` and `[…]` within a name, `**` for any number of
//! folders, `\` escapes, `!` in front excludes, hidden files are files like others, and whatever lies
//! below a folder that matches, matches too. Names are compared as UTF-16, of which `?` takes one unit.

mod segment;

pub(crate) use segment::Segment;

use std::path::{Path, PathBuf};

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum GlobError {
    #[error("the pattern is empty")]
    Empty,
    #[error("pattern {0:?}: `.` may stand at the beginning only, `..` nowhere")]
    Relative(String),
    #[error("pattern {0:?} begins with `~`, and there is no HOME")]
    NoHome(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`: any number of names.
    Globstar,
    Name(Segment),
}

/// What a pattern says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Matched {
    pub(crate) directory: bool,
    pub(crate) file: bool,
}

/// A pattern with an absolute root.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    pub(crate) negate: bool,
    parts: Vec<Part>,
    texts: Vec<String>,
    /// It ended with a slash: only folders match.
    folders_only: bool,
    /// Made for what lies below the matches of another.
    implicit: bool,
}

/// Where relative patterns and `~` lead.
#[derive(Debug, Clone)]
pub struct Base {
    /// The working directory.
    pub directory: PathBuf,
    /// The home directory.
    pub home: Option<PathBuf>,
}

impl Base {
    /// Of this process.
    ///
    /// # Errors
    /// If the working directory is gone.
    pub fn of_process() -> std::io::Result<Self> {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        Ok(Self {
            directory: std::env::current_dir()?,
            home: home.map(PathBuf::from),
        })
    }
}

impl Pattern {
    /// Reads one line.
    pub(crate) fn parse(line: &str, base: &Base) -> Result<Self, GlobError> {
        let mut text = line.trim();
        let mut negate = false;
        while let Some(rest) = text.strip_prefix('!') {
            negate = !negate;
            text = rest.trim();
        }
        let text = rooted(text, base)?;
        let texts: Vec<String> = text
            .split('/')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        let folders_only = text.len() > 1 && text.ends_with('/');
        Ok(Self::of(negate, texts, folders_only, false))
    }

    fn of(negate: bool, texts: Vec<String>, folders_only: bool, implicit: bool) -> Self {
        let parts = texts
            .iter()
            .map(|text| match text.as_str() {
                "**" => Part::Globstar,
                text => Part::Name(Segment::parse(text)),
            })
            .collect();
        Self {
            negate,
            parts,
            texts,
            folders_only,
            implicit,
        }
    }

    /// The pattern for what lies below its matches, unless it says that itself.
    pub(crate) fn descendants(&self) -> Option<Self> {
        let ends_open = self.parts.last() == Some(&Part::Globstar);
        if ends_open && !self.folders_only {
            return None;
        }
        let mut texts = self.texts.clone();
        texts.push("**".to_owned());
        Some(Self::of(self.negate, texts, false, true))
    }

    /// The folder above all matches: the names before the first wildcard.
    pub(crate) fn search_path(&self) -> PathBuf {
        let literals = self.texts.iter().map_while(|text| literal(text));
        std::iter::once("/".to_owned()).chain(literals).collect()
    }

    /// What it says of a path, given by its names below the root.
    pub(crate) fn matches(&self, names: &[Vec<u16>]) -> Matched {
        let nothing_more = self.parts.last() == Some(&Part::Globstar) && self.implicit;
        if !matches(&self.parts, names, nothing_more) {
            return Matched::default();
        }
        Matched {
            directory: true,
            file: !self.folders_only,
        }
    }

    /// Whether something below a path may match.
    pub(crate) fn may_match_below(&self, names: &[Vec<u16>]) -> bool {
        may_match_below(&self.parts, names)
    }
}

/// `last_takes_one`: a `**` at the end must have something to match.
fn matches(parts: &[Part], names: &[Vec<u16>], last_takes_one: bool) -> bool {
    match (parts, names) {
        ([], []) => true,
        ([], _) => false,
        ([Part::Globstar], names) => !last_takes_one || !names.is_empty(),
        ([Part::Globstar, rest @ ..], names) => {
            (0..=names.len()).any(|skip| match names.get(skip..) {
                Some(names) => matches(rest, names, last_takes_one),
                None => false,
            })
        }
        ([Part::Name(_), ..], []) => false,
        ([Part::Name(segment), parts @ ..], [name, names @ ..]) => {
            segment.matches(name) && matches(parts, names, last_takes_one)
        }
    }
}

fn may_match_below(parts: &[Part], names: &[Vec<u16>]) -> bool {
    match (parts, names) {
        ([Part::Globstar, ..], _) | (_, []) => true,
        ([], _) => false,
        ([Part::Name(segment), parts @ ..], [name, names @ ..]) => {
            segment.matches(name) && may_match_below(parts, names)
        }
    }
}

/// The names of a path below the root, as they are compared.
pub(crate) fn names(path: &Path) -> Vec<Vec<u16>> {
    path.components()
        .filter_map(|component| match component {
            std::path::Component::Normal(name) => {
                Some(name.to_string_lossy().encode_utf16().collect())
            }
            _ => None,
        })
        .collect()
}

/// Makes a pattern absolute and checks its `.` and `..`.
fn rooted(text: &str, base: &Base) -> Result<String, GlobError> {
    if text.is_empty() {
        return Err(GlobError::Empty);
    }
    let relative = |(index, name): (usize, &str)| match literal(name).as_deref() {
        Some(".") => index > 0,
        Some("..") => true,
        _ => false,
    };
    let trimmed = text.trim_end_matches('/');
    if trimmed.split('/').enumerate().any(relative) {
        return Err(GlobError::Relative(text.to_owned()));
    }
    let below = |folder: &Path, rest: &str| format!("{}{rest}", escape(&folder.to_string_lossy()));
    if text == "." || text.starts_with("./") {
        return Ok(below(&base.directory, &text[1..]));
    }
    if text == "~" || text.starts_with("~/") {
        let home = base.home.as_deref();
        let home = home.ok_or_else(|| GlobError::NoHome(text.to_owned()))?;
        return Ok(below(home, &text[1..]));
    }
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    Ok(below(&base.directory, &format!("/{text}")))
}

/// A path as a pattern that matches only it.
fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (at, c) in path.char_indices() {
        let name_rest = || path[at + 1..].split('/').next().unwrap_or_default();
        match c {
            '\\' => out.push_str("\\\\"),
            '*' | '?' => out.extend(['[', c, ']']),
            '[' if name_rest().find(']').is_some_and(|closed| closed > 0) => out.push_str("[[]"),
            c => out.push(c),
        }
    }
    out
}

/// The name that a segment can only match; `None` where it has a wildcard. A set of one is that one.
fn literal(text: &str) -> Option<String> {
    let units: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while let Some(&c) = units.get(at) {
        at += 1;
        match c {
            '\\' => match units.get(at) {
                Some(&escaped) => {
                    out.push(escaped);
                    at += 1;
                }
                None => out.push(c),
            },
            '*' | '?' => return None,
            '[' => match set(&units, at) {
                Some((set, after)) if set.chars().count() == 1 => {
                    out.push_str(&set);
                    at = after;
                }
                Some((set, _)) if !set.is_empty() => return None,
                _ => out.push(c),
            },
            c => out.push(c),
        }
    }
    (!out.is_empty()).then_some(out)
}

/// The text of a set that begins at `at`, and where it ends.
fn set(units: &[char], mut at: usize) -> Option<(String, usize)> {
    let mut set = String::new();
    while let Some(&c) = units.get(at) {
        at += 1;
        match (c, units.get(at)) {
            ('\\', Some(&escaped)) => {
                set.push(escaped);
                at += 1;
            }
            (']', _) => return Some((set, at)),
            (c, _) => set.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let base = Base {
            directory: "/repo".into(),
            home: Some("/home/me".into()),
        };
        let pattern = Pattern::parse(pattern, &base).expect("a pattern");
        let names = names(Path::new(path));
        pattern.matches(&names).file
            || pattern
                .descendants()
                .is_some_and(|below| below.matches(&names).file)
    }

    #[test]
    fn names_match_as_in_minimatch() {
        for (pattern, path, expected) in [
            ("flake.lock", "/repo/flake.lock", true),
            ("flake.lock", "/repo/a/flake.lock", false),
            ("./flake.lock", "/repo/flake.lock", true),
            ("**/flake.lock", "/repo/flake.lock", true),
            ("**/flake.lock", "/repo/a/b/flake.lock", true),
            ("*.lock", "/repo/.lock", true),
            ("*.lock", "/repo/x.lock", true),
            ("*.lock", "/repo/x.locks", false),
            ("a?c", "/repo/abc", true),
            ("a?c", "/repo/ac", false),
            ("[a-c]x", "/repo/bx", true),
            ("[!a-c]x", "/repo/bx", false),
            ("[^a-c]x", "/repo/dx", true),
            ("[z-a]x", "/repo/[z-a]x", true),
            ("[ab", "/repo/[ab", true),
            ("[]a]", "/repo/]", true),
            ("a{b,c}", "/repo/ab", false),
            ("a{b,c}", "/repo/a{b,c}", true),
            ("+(a)", "/repo/+(a)", true),
            (r"\*", "/repo/*", true),
            (r"\*", "/repo/x", false),
            ("dir", "/repo/dir/deep/file", true),
            ("dir/", "/repo/dir/deep/file", true),
            ("dir/", "/repo/dir", false),
            ("dir/**", "/repo/dir", true),
            ("~/x", "/home/me/x", true),
            ("/a/**/z", "/a/z", true),
            ("/a/**/b/**/z", "/a/1/b/2/3/z", true),
            ("/a/**/b/**/z", "/a/1/2/3/z", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn relative_paths_are_refused() {
        let base = Base {
            directory: "/repo".into(),
            home: None,
        };
        for pattern in ["..", "a/../b", "a/./b", "", "!", "~/x"] {
            assert!(Pattern::parse(pattern, &base).is_err(), "{pattern}");
        }
        assert!(Pattern::parse("!!a", &base).is_ok_and(|pattern| !pattern.negate));
    }

    #[test]
    fn the_search_begins_above_the_first_wildcard() {
        let base = Base {
            directory: "/w[o]r*k".into(),
            home: None,
        };
        let path = |text: &str| Pattern::parse(text, &base).expect(text).search_path();
        assert_eq!(path("a/b*/c"), Path::new("/w[o]r*k/a"));
        assert_eq!(path("a/[b]/c"), Path::new("/w[o]r*k/a/b/c"));
        assert_eq!(path("**"), Path::new("/w[o]r*k"));
        assert_eq!(path("/x/y"), Path::new("/x/y"));
    }
}
