//! `hashFiles` as GitHub computes it: a SHA-256 over the SHA-256 digests of the files that match, in the
//! order in which a walk finds them.
//!
//! The walk of the runner's function: the pattern's folders in the order of the patterns, names in a
//! folder sorted bytewise, links not followed (a link to a file is hashed as the file, a link to a folder
//! is left out), and only what lies in the workspace counts.

use super::glob::{Base, GlobError, Matched, Pattern, names};
use firn_formats::sha256::Sha256Hasher;
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Files of one key, at most; more is a pattern that was not meant.
const FILES_MAX: u64 = 1_000_000;
const BLOCK_BYTES: usize = 128 << 10;

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum HashFilesError {
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// Nothing matches: the key would be the same for ever.
    #[error("no file matches {}", .patterns.join(", "))]
    NoMatch { patterns: Vec<String> },
    #[error("more than {FILES_MAX} files match")]
    TooMany,
    #[error("cannot read {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl HashFilesError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}

/// Hashes what `patterns` match. `base` says where relative ones begin, and is the workspace as well.
///
/// # Errors
/// If a pattern is malformed, nothing matches, or a file cannot be read.
pub fn hash_files(patterns: &[String], base: &Base) -> Result<String, HashFilesError> {
    let mut all = Sha256Hasher::new();
    let mut count = 0u64;
    for file in find(patterns, base)? {
        let metadata =
            std::fs::metadata(&file).map_err(|source| HashFilesError::io(&file, source))?;
        if !file.starts_with(&base.directory) || file == base.directory || metadata.is_dir() {
            continue;
        }
        count += 1;
        if count > FILES_MAX {
            return Err(HashFilesError::TooMany);
        }
        all.update(&digest(&file).map_err(|source| HashFilesError::io(&file, source))?);
    }
    if count == 0 {
        return Err(HashFilesError::NoMatch {
            patterns: patterns.to_vec(),
        });
    }
    Ok(all.finish().hex())
}

fn digest(file: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = File::open(file)?;
    let mut hasher = Sha256Hasher::new();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(hasher.finish().0);
        }
        hasher.update(&block[..read]);
    }
}

/// Files, folders and links that match, in the order of the walk.
///
/// # Errors
/// If a pattern is malformed, or a folder cannot be read.
pub fn find(lines: &[String], base: &Base) -> Result<Vec<PathBuf>, HashFilesError> {
    let mut patterns = Vec::new();
    for line in lines.iter().flat_map(|line| line.lines()) {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            let pattern = Pattern::parse(line, base)?;
            let below = pattern.descendants();
            patterns.push(pattern);
            patterns.extend(below);
        }
    }
    let mut stack = search_paths(&patterns);
    stack.reverse();
    let mut found = Vec::new();
    while let Some(path) = stack.pop() {
        let names = names(&path);
        let matched = verdict(&patterns, &names);
        let below = patterns
            .iter()
            .any(|pattern| !pattern.negate && pattern.may_match_below(&names));
        if matched == Matched::default() && !below {
            continue;
        }
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(HashFilesError::io(&path, source)),
        };
        if !metadata.is_dir() {
            if matched.file {
                found.push(path);
            }
            continue;
        }
        let mut children = children(&path).map_err(|source| HashFilesError::io(&path, source))?;
        children.reverse();
        stack.extend(children);
        if matched.directory {
            found.push(path);
        }
    }
    Ok(found)
}

/// Later patterns overrule earlier ones.
fn verdict(patterns: &[Pattern], names: &[Vec<u16>]) -> Matched {
    patterns.iter().fold(Matched::default(), |so_far, pattern| {
        let one = pattern.matches(names);
        match pattern.negate {
            true => Matched {
                directory: so_far.directory && !one.directory,
                file: so_far.file && !one.file,
            },
            false => Matched {
                directory: so_far.directory || one.directory,
                file: so_far.file || one.file,
            },
        }
    })
}

/// Where to begin: each pattern's folder, without repetitions and what lies below another.
fn search_paths(patterns: &[Pattern]) -> Vec<PathBuf> {
    let candidates: Vec<PathBuf> = patterns
        .iter()
        .filter(|pattern| !pattern.negate)
        .map(Pattern::search_path)
        .collect();
    let mut chosen: Vec<PathBuf> = Vec::new();
    for candidate in &candidates {
        let above = |other: &PathBuf| candidate != other && candidate.starts_with(other);
        if !chosen.contains(candidate) && !candidates.iter().any(above) {
            chosen.push(candidate.clone());
        }
    }
    chosen
}

fn children(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut children = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    children.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_formats::Sha256;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("folder");
            std::fs::write(&path, file).expect("file");
        }
        dir
    }

    fn hash(dir: &Path, patterns: &[&str]) -> Result<String, HashFilesError> {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let base = Base {
            directory: dir.to_path_buf(),
            home: None,
        };
        hash_files(&patterns, &base)
    }

    fn expected(files: &[&str]) -> String {
        let digests: Vec<u8> = files
            .iter()
            .flat_map(|file| Sha256::of(file.as_bytes()).0)
            .collect();
        Sha256::of(&digests).hex()
    }

    #[test]
    fn digests_are_hashed_in_the_order_of_the_walk() {
        let dir = tree(&["b/x.lock", "a/x.lock", ".hidden/x.lock", "a-b/x.lock", "y"]);
        let found = hash(dir.path(), &["**/x.lock"]).expect("a hash");
        let order = [".hidden/x.lock", "a/x.lock", "a-b/x.lock", "b/x.lock"];
        assert_eq!(found, expected(&order));
        let found = hash(dir.path(), &["b", "a", "!**/x.lock", "y"]).expect("a hash");
        assert_eq!(found, expected(&["y"]));
    }

    #[test]
    fn nothing_that_matches_is_an_error() {
        let dir = tree(&["a"]);
        assert!(matches!(
            hash(dir.path(), &["b", "c*"]),
            Err(HashFilesError::NoMatch { patterns }) if patterns == ["b", "c*"]
        ));
    }
}
