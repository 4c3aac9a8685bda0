//! Image references: `[registry/]name[:tag][@digest]`, by the grammar of the
//! OCI distribution specification.

use super::Digest;
use std::fmt;

/// Longest repository name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 128;
/// Longest registry, in bytes: a DNS name and a port.
pub const REGISTRY_BYTES_MAX: usize = 253 + 6;

/// Longest part of a foreign text that an error repeats, in characters.
const QUOTED_CHARS_MAX: usize = 300;

/// Why a text is not a reference, a repository name or a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: {text:?}")]
#[allow(missing_docs)]
pub struct ReferenceError {
    pub what: &'static str,
    pub text: String,
}

impl ReferenceError {
    fn new(what: &'static str, text: &str) -> Self {
        Self {
            what,
            text: text.chars().take(QUOTED_CHARS_MAX).collect(),
        }
    }
}

/// A repository name: components of `[a-z0-9]+([._-]…)*` joined by `/`, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(String);

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

/// A reference. No registry is made up: `registry` is `None` when the text names none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Reference {
    pub registry: Option<String>,
    pub name: RepositoryName,
    pub tag: Option<Tag>,
    pub digest: Option<Digest>,
}

impl RepositoryName {
    /// Reads and checks.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let sound = text.len() <= NAME_BYTES_MAX && text.split('/').all(is_component);
        match sound {
            true => Ok(Self(text.to_owned())),
            false => Err(ReferenceError::new("a repository name", text)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// Reads and checks.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let mut bytes = text.bytes();
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let sound = text.len() <= TAG_BYTES_MAX
            && bytes.next().is_some_and(word)
            && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-');
        match sound {
            true => Ok(Self(text.to_owned())),
            false => Err(ReferenceError::new("a tag", text)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Reference {
    /// Reads; the first component is a registry if it has a `.` or `:` or is `localhost`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = Digest::parse(digest)
                    .map_err(|_| ReferenceError::new("a reference (its digest is wrong)", text))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((first, rest)) if names_registry(first) => {
                if !is_registry(first) {
                    return Err(ReferenceError::new("a registry", first));
                }
                (Some(first.to_owned()), rest)
            }
            _ => (None, rest),
        };
        // A tag holds no `/` and a name no `:`, so the first colon is the tag's.
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(Tag::parse(tag)?)),
            None => (rest, None),
        };
        Ok(Self {
            registry,
            name: RepositoryName::parse(name)?,
            tag,
            digest,
        })
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_sound =
        bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    ends_sound
        && bytes.split(alphanumeric).all(|separator| match separator {
            b"" | b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|byte| *byte == b'-'),
        })
}

fn names_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// `host[:port]`, where the host is a DNS name, an IPv4 address or `[IPv6]`.
fn is_registry(text: &str) -> bool {
    if text.len() > REGISTRY_BYTES_MAX {
        return false;
    }
    let (host_sound, port) = match text.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((address, "")) => (is_ipv6(address), None),
            Some((address, rest)) => match rest.strip_prefix(':') {
                Some(port) => (is_ipv6(address), Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (is_host(host), Some(port)),
            None => (is_host(text), None),
        },
    };
    host_sound && port.is_none_or(is_port)
}

fn is_ipv6(address: &str) -> bool {
    address.parse::<core::net::Ipv6Addr>().is_ok()
}

fn is_host(host: &str) -> bool {
    host.split('.').all(|label| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    })
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.name.0)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{}", tag.0)?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_the_grammar() {
        for name in [
            "a",
            "0",
            "main",
            "acme/web",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a-----b",
            "a.b_c-d/e__f/0",
        ] {
            assert_eq!(RepositoryName::parse(name).unwrap().as_str(), name);
        }
        for name in [
            "", "/", "a/", "/a", "a//b", "A", "a.", ".a", "a..b", "a._b", "a___b", "-a", "a-",
            "a-_b", "a b", "é", "a\n", "..", "a/../b",
        ] {
            assert!(RepositoryName::parse(name).is_err(), "{name:?} was taken");
        }
        assert!(RepositoryName::parse(&"a".repeat(255)).is_ok());
        assert!(RepositoryName::parse(&"a".repeat(256)).is_err());
    }

    #[test]
    fn tags_follow_the_grammar() {
        for tag in ["latest", "_", "1.2.3", "v1-rc.2_x", "A", "a."] {
            assert_eq!(Tag::parse(tag).unwrap().as_str(), tag);
        }
        for tag in ["", ".a", "-a", "a:b", "a/b", "a b", "é", "a+b", "a\n"] {
            assert!(Tag::parse(tag).is_err(), "{tag:?} was taken");
        }
        assert!(Tag::parse(&"a".repeat(128)).is_ok());
        assert!(Tag::parse(&"a".repeat(129)).is_err());
    }

    #[track_caller]
    fn parts(text: &str) -> (Option<String>, String, Option<String>, bool) {
        let reference = Reference::parse(text).unwrap();
        assert_eq!(reference.to_string(), text);
        (
            reference.registry,
            reference.name.0,
            reference.tag.map(|tag| tag.0),
            reference.digest.is_some(),
        )
    }

    #[test]
    fn references_are_taken_apart() {
        let some = |text: &str| Some(text.to_owned());
        let digest = Digest::from(crate::Sha256::of(b""));
        assert_eq!(parts("busybox"), (None, "busybox".into(), None, false));
        assert_eq!(
            parts("acme/web:v1"),
            (None, "acme/web".into(), some("v1"), false)
        );
        assert_eq!(
            parts("ghcr.io/acme/web:v1"),
            (some("ghcr.io"), "acme/web".into(), some("v1"), false)
        );
        assert_eq!(
            parts("localhost/web"),
            (some("localhost"), "web".into(), None, false)
        );
        assert_eq!(
            parts(&format!("localhost:5000/web:v1@{digest}")),
            (some("localhost:5000"), "web".into(), some("v1"), true)
        );
        assert_eq!(
            parts("[::1]:8484/main/web"),
            (some("[::1]:8484"), "main/web".into(), None, false)
        );
        assert_eq!(
            parts("127.0.0.1:8484/main/web"),
            (some("127.0.0.1:8484"), "main/web".into(), None, false)
        );
        // Without a slash nothing is a registry.
        assert_eq!(
            parts("example.com"),
            (None, "example.com".into(), None, false)
        );
        assert_eq!(
            parts("localhost:5000"),
            (None, "localhost".into(), some("5000"), false)
        );
    }

    #[test]
    fn unsound_references_are_refused() {
        for text in [
            "",
            "@",
            ":",
            ":v1",
            "a:",
            "a@",
            "a@sha256:00",
            "a:b:c",
            "A/b",
            "ghcr.io/",
            "ghcr.io/A",
            "host:port/a",
            "host:0/a",
            "host:65536/a",
            "host:+1/a",
            ":5000/a",
            "a..b/c",
            "-a.b/c",
            "[::1/a",
            "[::1]5000/a",
            "[::g]/a",
            "http://ghcr.io/a",
            "user@ghcr.io/a",
            "a b/c",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_back(text in r"[a-zA-Z0-9.:/@_\[\]-]{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(reference.to_string(), text);
            }
        }

        #[test]
        fn well_formed_references_parse(
            registry in prop::option::of(r"[a-z]{1,9}\.(io|com)(:[1-9][0-9]{0,3})?"),
            name in r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}/[a-z0-9]{1,9}",
            tag in prop::option::of(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"),
            digest in prop::option::of(any::<[u8; 32]>()),
        ) {
            // A dotted first component would be read as the registry.
            let registry = registry.or_else(|| name.split('/').next()?.contains('.').then(|| "r.io".to_owned()));
            let reference = Reference {
                registry,
                name: RepositoryName::parse(&name).unwrap(),
                tag: tag.map(|tag| Tag::parse(&tag).unwrap()),
                digest: digest.map(|raw| Digest::Sha256(crate::Sha256(raw))),
            };
            prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
        }
    }
}
