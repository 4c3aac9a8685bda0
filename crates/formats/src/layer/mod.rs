//! Layers by key: what the key of a layer says, and the proof that a tar is what a key says.
//!
//! A key is the SHA-256, in hexadecimal, of a text. Its first lines say the version of the
//! layer format and all options that change the tar's bytes; compression is not among them,
//! since a key names a tar, whatever its representations:
//!
//! ```text
//! firn layer 1
//! owner 0:0
//! mtime 1
//! modes 0444 0555
//! rule <mode> <uid> <gid> <path> <regex>        for each rule that could match in them
//! /nix/store/<hash>-<name> sha256:<base32>      for each path, sorted bytewise
//! ```
//!
//! For root files it is `firn root layer 1` and a newline, then the layer's tar; for a
//! layer of both, `firn mixed layer 1`, the key of the paths and a newline each, then the tar
//! of the root files alone. Where files are copied to the root, what is hashed instead of the tar is
//! `copied` and a newline, for each store path that is copied its line as above, and the tar without the copied
//! files' contents, which those lines stand for.
//!
//! So the key of a layer can be computed from its tar: [`Scan`] does that, one pass for most layers and two
//! where store paths and root files share one. It takes only what Firn's writer makes, rebuilds each path's NAR
//! and hashes it. Equal keys then mean equal texts, equal NARs and equal tars. Where a rule hides whether a file
//! is executable, whoever made the layer says so ([`Recipe`]); the NAR's hash shows whether that is true. From a
//! layer with copies its key cannot be computed: a tar does not tell which file of a path another has covered.

mod recipe;
mod rules;
mod scan;
mod tree;

pub use recipe::{Recipe, RecipeError, Terms};
pub use rules::{Attributes, Rule, RuleError, Rules};
pub use scan::{Found, Scan};

use crate::nix::StorePath;
use crate::sha256::{Sha256, Sha256Hasher};

/// Time of all entries.
pub const MTIME: u64 = 1;
/// Mode of a store file.
pub const FILE_MODE: u32 = 0o444;
/// Mode of a store file that is executable.
pub const EXECUTABLE_MODE: u32 = 0o555;
/// Mode of a directory in a store path.
pub const DIRECTORY_MODE: u32 = 0o555;
/// Mode of a symlink.
pub const SYMLINK_MODE: u32 = 0o777;
/// Mode of the [`STORE_PARENTS`].
pub const PARENT_MODE: u32 = 0o755;
/// The directories that every layer with store paths has.
pub const STORE_PARENTS: [&[u8]; 2] = [b"nix", b"nix/store"];
/// What stands in the text of a layer's root files in place of a tar, if some of them are copies.
pub const COPIED: &[u8] = b"copied\n";

/// The key of a layer of store paths, under way.
#[derive(Clone)]
pub struct PathsKey(Sha256Hasher);

impl PathsKey {
    /// With the owner of all entries, and the [lines](Rules::lines) of the rules that could match in the paths.
    pub fn new((uid, gid): (u64, u64), rules: &str) -> Self {
        let mut hasher = Sha256Hasher::new();
        let head = format!(
            "firn layer 1\nowner {uid}:{gid}\nmtime {MTIME}\nmodes {FILE_MODE:04o} {DIRECTORY_MODE:04o}\n{rules}"
        );
        hasher.update(head.as_bytes());
        Self(hasher)
    }

    /// Adds a path. They come in the order of their names.
    pub fn add(&mut self, path: &StorePath, nar_hash: &Sha256) {
        self.0.update(path_line(path, nar_hash).as_bytes());
    }

    /// The key.
    pub fn finish(self) -> String {
        self.0.finish().hex()
    }
}

/// A store path's line in a key's text.
pub fn path_line(path: &StorePath, nar_hash: &Sha256) -> String {
    format!("{} {}\n", path.absolute(), nar_hash.nix())
}

/// The key of a layer of root files under way: their tar follows.
pub fn root_key() -> Sha256Hasher {
    let mut hasher = Sha256Hasher::new();
    hasher.update(b"firn root layer 1\n");
    hasher
}

/// The key of a layer of store paths and root files under way: the tar of the root files follows.
pub fn mixed_key(paths_key: &str) -> Sha256Hasher {
    let mut hasher = Sha256Hasher::new();
    hasher.update(format!("firn mixed layer 1\n{paths_key}\n").as_bytes());
    hasher
}

#[cfg(test)]
mod tests;
