//! Content addresses, as `CA` fields of narinfos have them, and the store paths that follow from them.
//!
//! ```text
//! text:sha256:<hash>          a file that refers to other paths, such as a derivation
//! fixed:<algo>:<hash>         a file
//! fixed:r:<algo>:<hash>       a tree, by its NAR
//! ```

use super::hash::{Algorithm, Hash};
use super::store_path::{STORE_DIR, StorePath, StorePathHash};
use crate::Sha256;
use std::fmt::Write as _;

/// What is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A file's content; the path may refer to others.
    Text,
    /// A file's content.
    Flat,
    /// The NAR, in which the path's own hash counts as zeros.
    Recursive,
}

/// How content is hashed, and its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentAddress {
    /// What is hashed.
    pub method: Method,
    /// The hash.
    pub hash: Hash,
}

impl ContentAddress {
    /// Reads a `CA` field; `None` if it is of none of the three forms (Git trees are another).
    pub fn parse(text: &str) -> Option<Self> {
        let (method, hash) = match text.split_once(':')? {
            ("text", hash) => (Method::Text, hash),
            ("fixed", rest) => match rest.strip_prefix("r:") {
                Some(hash) => (Method::Recursive, hash),
                None => (Method::Flat, rest),
            },
            _ => return None,
        };
        let hash = Hash::parse(hash).ok()?;
        let allowed = method != Method::Text || hash.algorithm() == Algorithm::Sha256;
        allowed.then_some(Self { method, hash })
    }

    /// Whether `path`, which refers to `references` (itself among them or not), is the path of this content.
    pub fn is_of(&self, path: &StorePath, references: &[StorePath]) -> bool {
        let refers_to_itself = references.contains(path);
        let mut others: Vec<&StorePath> =
            references.iter().filter(|other| *other != path).collect();
        others.sort();
        others.dedup();
        let referring = |kind: &str| {
            let mut kind = kind.to_owned();
            for other in &others {
                let _ = write!(kind, ":{}", other.absolute());
            }
            kind
        };
        let digest = hexadecimal(&self.hash);
        let expected = match (self.method, self.hash.algorithm()) {
            (Method::Text, _) if refers_to_itself => return false,
            (Method::Text, _) => store_path_hash(&referring("text"), &digest, path.name()),
            (Method::Recursive, Algorithm::Sha256) => {
                let mut kind = referring("source");
                if refers_to_itself {
                    kind.push_str(":self");
                }
                store_path_hash(&kind, &digest, path.name())
            }
            _ if !references.is_empty() => return false,
            (method, _) => {
                let tree = if method == Method::Recursive {
                    "r:"
                } else {
                    ""
                };
                let inner = Sha256::of(format!("fixed:out:{tree}{digest}:").as_bytes());
                let inner = format!("sha256:{}", inner.hex());
                store_path_hash("output:out", &inner, path.name())
            }
        };
        expected == path.hash()
    }
}

/// `algo:base16`, as it goes into the text that a path is the hash of.
fn hexadecimal(hash: &Hash) -> String {
    let mut text = format!("{}:", hash.algorithm().name());
    for byte in hash.digest() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn store_path_hash(kind: &str, digest: &str, name: &str) -> StorePathHash {
    let text = format!("{kind}:{digest}:{STORE_DIR}:{name}");
    let mut folded = [0; 20];
    for (byte, at) in Sha256::of(text.as_bytes()).0.iter().zip((0..20).cycle()) {
        folded[at] ^= byte;
    }
    StorePathHash(folded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn nix(args: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let done = Command::new("nix-store")
            .args(args)
            .env("NIX_STATE_DIR", folder.path().join("state"))
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// `nix-store --print-fixed-path` computes paths without a store.
    #[test]
    fn paths_are_those_that_nix_computes() {
        let digest = Sha256::of(b"content");
        let base32 = digest.base32();
        let long = "0".repeat(128);
        for (recursive, algorithm, hash) in [
            (false, "sha256", base32.as_str()),
            (true, "sha256", &base32),
            (false, "sha512", &long),
            (true, "sha512", &long),
        ] {
            let mut args = vec!["--print-fixed-path"];
            args.extend(recursive.then_some("--recursive"));
            args.extend([algorithm, hash, "name"]);
            let path = StorePath::parse(&nix(&args)).unwrap();
            let tree = if recursive { "r:" } else { "" };
            let address = format!("fixed:{tree}{algorithm}:{hash}");
            let address = ContentAddress::parse(&address).unwrap();
            assert!(address.is_of(&path, &[]), "{address:?}");
            assert!(
                !address.is_of(&path, std::slice::from_ref(&path)),
                "{address:?}"
            );
            let other = StorePath::parse_base_name(&format!("{}-other", path.hash())).unwrap();
            assert!(!address.is_of(&other, &[]));
        }
    }

    #[test]
    fn other_forms_are_told() {
        for text in [
            "",
            "x",
            "fixed:git:sha1:0",
            "fixed:r:",
            "text:md5:0",
            "nar:sha256:0",
        ] {
            assert_eq!(ContentAddress::parse(text), None, "{text}");
        }
    }
}
