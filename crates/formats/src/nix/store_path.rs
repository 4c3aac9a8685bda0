//! Store paths: `/nix/store/<32 characters of base32>-<name>`.
//!
//! A name has 1 to 211 of the characters `0-9a-zA-Z+-._?=`; it is not `.` or
//! `..`, and does not begin with `.-` or `..-`. Paths order as their texts do,
//! which is the order of references in narinfos and fingerprints.

use std::{cmp::Ordering, fmt};

use super::base32;

/// The one store directory Firn serves.
pub const STORE_DIR: &str = "/nix/store";

/// Longest name of a store path, in characters.
pub const NAME_LENGTH_MAX: usize = 211;

/// Characters of base32 before the dash.
const HASH_LENGTH: usize = 32;

/// Why a text is not a store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a store path: {0:?}")]
pub struct StorePathError(pub String);

impl StorePathError {
    fn of(text: &str) -> Self {
        Self(base32::quoted(text))
    }
}

/// The hash part of a store path: 20 bytes, 32 characters of base32.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StorePathHash(pub [u8; 20]);

/// A store path: hash and name. Displays as `<hash>-<name>` (the base name).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePath {
    hash: StorePathHash,
    name: String,
}

impl StorePathHash {
    /// Reads 32 characters.
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        base32::decode(text)
            .map(Self)
            .map_err(|_| StorePathError::of(text))
    }
}

/// The order of the base32 texts: the last byte is the most significant.
impl Ord for StorePathHash {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}
impl PartialOrd for StorePathHash {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for StorePathHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(&self.0))
    }
}
impl fmt::Debug for StorePathHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `name` can be the name of a store path, or of a derivation's output.
pub fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
    // What follows the first dash never makes a dot name harmless: `..-x` is refused too.
    let first = name.split('-').next().unwrap_or_default();
    (1..=NAME_LENGTH_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && first != "."
        && first != ".."
}

impl StorePath {
    /// Reads a base name, `<hash>-<name>`.
    pub fn parse_base_name(text: &str) -> Result<Self, StorePathError> {
        Self::split(text).ok_or_else(|| StorePathError::of(text))
    }

    fn split(text: &str) -> Option<Self> {
        let (hash, rest) = text.split_at_checked(HASH_LENGTH)?;
        let name = rest.strip_prefix('-')?;
        if !is_valid_name(name) {
            return None;
        }
        Some(Self {
            hash: StorePathHash::parse(hash).ok()?,
            name: name.to_owned(),
        })
    }

    /// Reads `/nix/store/<hash>-<name>`, nothing below it.
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        text.strip_prefix(STORE_DIR)
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(Self::split)
            .ok_or_else(|| StorePathError::of(text))
    }

    /// The hash part.
    pub fn hash(&self) -> StorePathHash {
        self.hash
    }
    /// The name part.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// `/nix/store/<hash>-<name>`.
    pub fn absolute(&self) -> String {
        format!("{STORE_DIR}/{self}")
    }
    /// Whether the path is a derivation's.
    pub fn is_derivation(&self) -> bool {
        self.name.ends_with(".drv")
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.hash, self.name)
    }
}
impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "00c89v0sz1j42g5sg6mffiwplzccay6p";

    #[test]
    fn reads_a_real_path() {
        let base = format!("{HASH}-perl-base-5.36.0-7+deb12u4");
        let path = StorePath::parse(&format!("/nix/store/{base}")).unwrap();
        assert_eq!(path.name(), "perl-base-5.36.0-7+deb12u4");
        assert_eq!(path.hash().to_string(), HASH);
        assert_eq!(path.to_string(), base);
        assert_eq!(StorePath::parse_base_name(&base), Ok(path.clone()));
        assert_eq!(path.absolute(), format!("/nix/store/{base}"));
    }

    #[test]
    fn names() {
        let longest = "a".repeat(211);
        for name in [
            "a",
            ".gitignore",
            "...",
            "-",
            "--",
            "a=?_+.",
            ".a-",
            longest.as_str(),
        ] {
            assert!(
                StorePath::parse_base_name(&format!("{HASH}-{name}")).is_ok(),
                "{name}"
            );
        }
        let too_long = "a".repeat(212);
        for name in [
            "",
            ".",
            "..",
            ".-",
            ".-a",
            "..-a",
            "a/b",
            "a b",
            "a\n",
            "a\0",
            "é",
            "~",
            too_long.as_str(),
        ] {
            assert!(
                StorePath::parse_base_name(&format!("{HASH}-{name}")).is_err(),
                "{name:?}"
            );
        }
    }

    #[test]
    fn refuses_other_shapes() {
        for text in [
            "",
            "/nix/store",
            "/nix/store/",
            "/nix/store//00c89v0sz1j42g5sg6mffiwplzccay6p-a",
            "/nix/store00c89v0sz1j42g5sg6mffiwplzccay6p-a",
            "/gnu/store/00c89v0sz1j42g5sg6mffiwplzccay6p-a",
            "00c89v0sz1j42g5sg6mffiwplzccay6p-a",
            "/nix/store/00c89v0sz1j42g5sg6mffiwplzccay6p",
            "/nix/store/00c89v0sz1j42g5sg6mffiwplzccay6p-a/bin",
            "/nix/store/e0c89v0sz1j42g5sg6mffiwplzccay6p-a",
            "/nix/store/00c89v0sz1j42g5sg6mffiwplzccay6-a",
            "/nix/store/0000000000000000000000000000000é-a",
        ] {
            assert!(StorePath::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn orders_as_text(a: [u8; 20], b: [u8; 20], name in "[a-z]{1,3}", other in "[a-z]{1,3}") {
            let path = |hash, name: &str| StorePath { hash: StorePathHash(hash), name: name.into() };
            for (left, right) in [
                (path(a, &name), path(b, &other)),
                (path(a, &name), path(a, &other)),
            ] {
                prop_assert_eq!(left.cmp(&right), left.to_string().cmp(&right.to_string()));
                prop_assert_eq!(StorePath::parse(&left.absolute()), Ok(left));
            }
        }

        #[test]
        fn never_panics(text in "(/nix/store/)?\\PC{0,60}") {
            if let Ok(path) = StorePath::parse(&text) {
                prop_assert_eq!(path.absolute(), text);
            }
        }
    }
}
