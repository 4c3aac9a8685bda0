//! Name and version of a store path, as Nix's `parseDrvName` tells them apart.

use firn_formats::nix::StorePath;

/// The version begins after the first dash that no letter follows. A name is never empty, though it is in Nix for
/// "-1.0": bills of materials want one.
pub(super) fn name_and_version(path: &StorePath) -> (&str, Option<&str>) {
    let name = path.name();
    let bytes = name.as_bytes();
    let no_letter = |at: usize| {
        bytes
            .get(at)
            .is_some_and(|next| !next.is_ascii_alphabetic())
    };
    let begins = |&(at, _): &(usize, &str)| at > 0 && no_letter(at + 1);
    match name.match_indices('-').find(begins) {
        Some((at, _)) => (&name[..at], Some(&name[at + 1..])),
        None => (name, None),
    }
}

/// `pkg:nix/name@version`, with what is not plain escaped.
pub(super) fn purl(path: &StorePath) -> String {
    let (name, version) = name_and_version(path);
    let mut purl = format!("pkg:nix/{}", escaped(name));
    if let Some(version) = version {
        purl.push('@');
        purl.push_str(&escaped(version));
    }
    purl
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_told_apart() {
        for (text, name, version, url) in [
            (
                "glibc-2.38-44",
                "glibc",
                Some("2.38-44"),
                "pkg:nix/glibc@2.38-44",
            ),
            (
                "libc6-2.36+x",
                "libc6",
                Some("2.36+x"),
                "pkg:nix/libc6@2.36%2Bx",
            ),
            ("source", "source", None, "pkg:nix/source"),
            ("a-b-1", "a-b", Some("1"), "pkg:nix/a-b@1"),
            ("a--1", "a", Some("-1"), "pkg:nix/a@-1"),
            ("a-?b", "a", Some("?b"), "pkg:nix/a@%3Fb"),
            ("a-", "a-", None, "pkg:nix/a-"),
            ("-1.0", "-1.0", None, "pkg:nix/-1.0"),
        ] {
            let path = format!("{}-{text}", "0".repeat(32));
            let path = StorePath::parse_base_name(&path).unwrap();
            assert_eq!(name_and_version(&path), (name, version));
            assert_eq!(purl(&path), url);
        }
    }
}
