//! Names and their limits.

use std::fmt;

/// Longest key, in characters: GitHub's limit.
pub const KEY_CHARS_MAX: usize = 512;
/// Most keys in one request, the primary one among them: the client's limit.
pub const KEYS_MAX: usize = 10;
/// Longest version, in bytes. GitHub's clients send 64 hexadecimal characters, others what they like.
pub const VERSION_BYTES_MAX: usize = 512;
/// Longest scope, in bytes: a ref as long as git's own may be on most file systems.
pub const SCOPE_BYTES_MAX: usize = 1024;
/// Longest name of a repository, in bytes: GitHub's owners have up to 39 and repositories up to 100.
const REPOSITORY_BYTES_MAX: usize = 200;

/// Why a name is refused. A client shows the text to a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NameError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} is longer than {max} {unit}")]
    TooLong {
        what: &'static str,
        max: usize,
        unit: &'static str,
    },
    #[error("the key has a comma, which separates keys")]
    Comma,
    #[error("{what} has a control character, or one at the end of Unicode")]
    Character { what: &'static str },
    #[error("{0:?} is not the name of a repository: OWNER/NAME")]
    Repository(String),
    #[error("there are more than {KEYS_MAX} keys")]
    TooManyKeys,
}

/// Control characters separate the parts of a stored key; U+10FFFF ends ranges of them.
fn check_characters(what: &'static str, text: &str) -> Result<(), NameError> {
    match text.chars().any(|c| c.is_control() || c == '\u{10FFFF}') {
        true => Err(NameError::Character { what }),
        false => Ok(()),
    }
}

/// Checks a key.
///
/// # Errors
/// Says which rule it breaks.
pub fn check_key(key: &str) -> Result<(), NameError> {
    if key.is_empty() {
        return Err(NameError::Empty { what: "the key" });
    }
    if key.len() > KEY_CHARS_MAX && key.chars().count() > KEY_CHARS_MAX {
        return Err(NameError::TooLong {
            what: "the key",
            max: KEY_CHARS_MAX,
            unit: "characters",
        });
    }
    if key.contains(',') {
        return Err(NameError::Comma);
    }
    check_characters("the key", key)
}

/// Checks the keys of a request, the primary one first.
///
/// # Errors
/// As [`check_key`]; if there are none, or too many.
pub fn check_keys<K: AsRef<str>>(keys: &[K]) -> Result<(), NameError> {
    if keys.is_empty() {
        return Err(NameError::Empty { what: "the key" });
    }
    if keys.len() > KEYS_MAX {
        return Err(NameError::TooManyKeys);
    }
    keys.iter().try_for_each(|key| check_key(key.as_ref()))
}

fn check_text(what: &'static str, text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > max {
        let unit = "bytes";
        return Err(NameError::TooLong { what, max, unit });
    }
    check_characters(what, text)
}

/// Checks a version.
///
/// # Errors
/// Says which rule it breaks.
pub fn check_version(version: &str) -> Result<(), NameError> {
    check_text("the version", version, VERSION_BYTES_MAX)
}

/// Checks a scope: a ref in full.
///
/// # Errors
/// Says which rule it breaks.
pub fn check_scope(scope: &str) -> Result<(), NameError> {
    check_text("the scope", scope, SCOPE_BYTES_MAX)
}

/// `owner/name` in lower case, as GitHub compares them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

impl RepositoryName {
    /// Parses; letters may be upper case.
    ///
    /// # Errors
    /// If it is not `OWNER/NAME`, each of letters, digits, `.`, `_` and `-`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::Repository(text.chars().take(REPOSITORY_BYTES_MAX).collect());
        let part = |part: &str| {
            let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !part.is_empty() && part != "." && part != ".." && part.bytes().all(sound)
        };
        match text.split_once('/') {
            Some((owner, name))
                if text.len() <= REPOSITORY_BYTES_MAX && part(owner) && part(name) =>
            {
                Ok(Self(text.to_ascii_lowercase()))
            }
            _ => Err(refused()),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_limits_of_the_clients() {
        for good in [
            "a",
            "Linux-node-äöü",
            &"ä".repeat(512),
            "a b\u{10FFFE}",
            "a/b|c",
        ] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        assert_eq!(check_key("a,b"), Err(NameError::Comma));
        assert!(matches!(check_key(""), Err(NameError::Empty { .. })));
        assert!(matches!(
            check_key(&"ä".repeat(513)),
            Err(NameError::TooLong { .. })
        ));
        for bad in ["a\nb", "a\0", "\u{10FFFF}", "\u{7f}", "\u{85}"] {
            assert!(
                matches!(check_key(bad), Err(NameError::Character { .. })),
                "{bad:?}"
            );
        }
        assert_eq!(check_keys(&["a"; 10]), Ok(()));
        assert_eq!(check_keys(&["a"; 11]), Err(NameError::TooManyKeys));
        assert!(check_keys::<&str>(&[]).is_err());
    }

    #[test]
    fn repositories_are_two_parts_in_lower_case() {
        assert_eq!(
            RepositoryName::parse("Acme/Web.App_1-x").unwrap().as_str(),
            "acme/web.app_1-x"
        );
        for bad in [
            "", "a", "a/", "/a", "a/b/c", "../a", "a/..", "a b/c", "ä/b", "a/b\n",
        ] {
            assert!(RepositoryName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(RepositoryName::parse(&format!("a/{}", "b".repeat(300))).is_err());
    }
}
