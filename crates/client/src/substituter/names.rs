//! Names of NARs at the loopback door, and which store paths are versions of one another.

use firn_formats::{
    Sha256,
    nix::{StorePathHash, base32},
};

/// `<nar hash, base32>-<hash part>.nar`.
pub(super) fn nar(nar_hash: &Sha256, path: &StorePathHash) -> String {
    format!("{}-{path}.nar", nar_hash.base32())
}

/// The NAR's hash and the hash part of the path whose it is.
pub(super) fn parse_nar(name: &str) -> Option<(Sha256, String)> {
    let (nar_hash, hash) = name.strip_suffix(".nar")?.split_once('-')?;
    let nar_hash = Sha256(base32::decode(nar_hash).ok()?);
    let hash = StorePathHash::parse(hash).ok()?;
    Some((nar_hash, hash.to_string()))
}

/// What stays of a name when its version changes: all up to the first dash that no letter follows, as Nix
/// splits names.
pub(super) fn without_version(name: &str) -> &str {
    let end = name
        .match_indices('-')
        .map(|(at, _)| at)
        .find(|at| {
            let next = name.as_bytes().get(at + 1);
            next.is_some_and(|byte| !byte.is_ascii_alphabetic())
        })
        .unwrap_or(name.len());
    name.get(..end).unwrap_or(name)
}

/// How much less than an equal name another version's says: 0 the same, 1 the same but for digits (so the
/// same output), 2 any.
pub(super) fn distance(name: &str, other: &str) -> u8 {
    let letters = |text: &str| -> String {
        let kept = text.chars().filter(|char| !char.is_ascii_digit());
        kept.collect()
    };
    match name == other {
        true => 0,
        false if letters(name) == letters(other) => 1,
        false => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00c89v0sz1j42g5sg6mffiwplzccay6p";

    #[test]
    fn names_tell_nar_and_path() {
        let (nar_hash, path) = (
            Sha256::of(b"nar"),
            StorePathHash::parse(HASH).expect("a hash"),
        );
        let name = nar(&nar_hash, &path);
        assert_eq!(parse_nar(&name), Some((nar_hash, HASH.to_owned())));
        let digest = nar_hash.base32();
        for bad in [
            "",
            ".nar",
            &name[1..],
            &name.replace(".nar", ""),
            &format!("{digest}.nar"),
            &format!("{digest}-{HASH}.nar.xz"),
            &format!("{digest}-../{HASH}.nar"),
            &format!("{digest}-{HASH}é.nar"),
        ] {
            assert_eq!(parse_nar(bad), None, "{bad}");
        }
    }

    #[test]
    fn versions_of_one_package_are_known() {
        for (name, expected) in [
            ("hello-2.12.1", "hello"),
            ("perl-base-5.36.0-7+deb12u4", "perl-base"),
            ("python3.14-numpy-1.2", "python3.14-numpy"),
            ("app", "app"),
            ("app-", "app-"),
            ("glibc-2.40-66-dev", "glibc"),
        ] {
            assert_eq!(without_version(name), expected);
        }
        assert_eq!(distance("a-1", "a-1"), 0);
        assert_eq!(distance("glibc-2.40-66-dev", "glibc-2.41-7-dev"), 1);
        assert_eq!(distance("glibc-2.40-66-dev", "glibc-2.40-66"), 2);
    }
}
