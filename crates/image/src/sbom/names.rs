//! Name and version of a store path, as Nix's `parseDrvName` tells them apart.

use firn_formats::nix::StorePath;

/// The version begins after the first dash that no letter follows.
pub(super) fn name_and_version(path: &StorePath) -> (&str, Option<&str>) {
    let name = path.name();
    let bytes = name.as_bytes();
    let begins = |&(at, _): &(usize, &str)| bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
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
        ] {
            let path = format!("{}-{text}", "0".repeat(32));
            let path = StorePath::parse_base_name(&path).unwrap();
            assert_eq!(name_and_version(&path), (name, version));
            assert_eq!(purl(&path), url);
        }
    }
}
