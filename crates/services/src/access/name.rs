//! Names of caches: one or two path components, each fit for a repository name as well.

use crate::ServiceError;
use firn_formats::oci::RepositoryName;

/// Longest cache name, in bytes: image names still fit below it.
pub const CACHE_NAME_BYTES_MAX: usize = 100;

/// First components that are doors of the server, and those kept for doors to come.
const RESERVED_FIRST: &[&str] = &[
    "v1",
    "v2",
    "api",
    "twirp",
    "_apis",
    "devstoreaccount1",
    "healthz",
    "readyz",
    "livez",
    "metrics",
    "static",
    "assets",
    "login",
    "docs",
    "favicon.ico",
    "robots.txt",
    "index.html",
];

/// Components that begin a path inside the Nix door.
const RESERVED_ANY: &[&str] = &[
    "nar",
    "log",
    "debuginfo",
    "realisations",
    "build-trace-v2",
    "nix-cache-info",
    "public-key",
    "serve",
    "twirp",
    "_apis",
    "v2",
];

/// Checks a cache's name.
///
/// # Errors
/// Says which rule it breaks.
pub fn check_cache_name(name: &str) -> Result<(), ServiceError> {
    let refuse = |why: &str| {
        Err(ServiceError::BadRequest(format!(
            "{name:?} cannot name a cache: {why}"
        )))
    };
    if name.len() > CACHE_NAME_BYTES_MAX {
        return refuse("it is too long");
    }
    if RepositoryName::parse(name).is_err() {
        return refuse(
            "a name has lower-case letters, digits, and single `.`, `_` or `-` between them",
        );
    }
    let components: Vec<&str> = name.split('/').collect();
    if components.len() > 2 {
        return refuse("it has more than two components");
    }
    if RESERVED_FIRST.contains(&components[0]) {
        return refuse("it is reserved");
    }
    for component in components {
        if RESERVED_ANY.contains(&component)
            || component.ends_with(".narinfo")
            || component.ends_with(".ls")
        {
            return refuse("it is reserved");
        }
    }
    Ok(())
}

/// Whether `pattern` covers `name`: `*` stands for any run of characters, `/` included.
///
/// It also orders patterns: if it holds with a pattern as `name`, everything that one covers
/// is covered.
pub fn pattern_covers(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, covers) in [
            ("*", "acme/web", true),
            ("main", "main", true),
            ("main", "mainx", false),
            ("acme/*", "acme/web", true),
            ("acme/*", "acme", false),
            ("acme/*", "*", false),
            ("acme/*", "acme/*", true),
            ("*", "acme/*", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(pattern_covers(pattern, name), covers, "{pattern} {name}");
        }
    }
}
