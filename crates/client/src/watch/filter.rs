//! Which paths are sent.

use crate::ci::Segment;
use firn_formats::nix::StorePath;

/// Which paths are sent: none that an exclude matches, and if there are includes only what one of them
/// matches. A pattern is for the name without its hash, or for the whole base name. Derivations are never
/// sent: whoever can use one can make it.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    includes: Vec<Segment>,
    excludes: Vec<Segment>,
    size_max: Option<u64>,
}

impl Filter {
    /// From patterns with `*`, `?` and `[…]`; `size_max` is of the NAR, in bytes.
    pub fn new(includes: &[String], excludes: &[String], size_max: Option<u64>) -> Self {
        let parse =
            |patterns: &[String]| patterns.iter().map(|text| Segment::parse(text)).collect();
        Self {
            includes: parse(includes),
            excludes: parse(excludes),
            size_max,
        }
    }

    /// Whether a path is to be sent. A size of 0 is not known.
    pub fn takes(&self, path: &StorePath, nar_size: u64) -> bool {
        let name: Vec<u16> = path.name().encode_utf16().collect();
        let base_name: Vec<u16> = path.to_string().encode_utf16().collect();
        let any = |patterns: &[Segment]| {
            patterns
                .iter()
                .any(|pattern| pattern.matches(&name) || pattern.matches(&base_name))
        };
        !path.is_derivation()
            && self.size_max.is_none_or(|size_max| nar_size <= size_max)
            && (self.includes.is_empty() || any(&self.includes))
            && !any(&self.excludes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sizes_and_derivations() {
        let path = |name: &str| {
            StorePath::parse_base_name(&format!("{}-{name}", "0".repeat(32))).expect("a path")
        };
        let words =
            |list: &[&str]| -> Vec<String> { list.iter().map(|&word| word.into()).collect() };
        let filter = Filter::new(&words(&["app-*", "lib"]), &words(&["*-debug"]), Some(100));
        assert!(filter.takes(&path("app-1"), 100));
        assert!(filter.takes(&path("lib"), 1));
        assert!(!filter.takes(&path("other"), 1));
        assert!(!filter.takes(&path("app-1-debug"), 1));
        assert!(!filter.takes(&path("app-1"), 101));
        assert!(!filter.takes(&path("app-1.drv"), 1));
        assert!(Filter::default().takes(&path("x"), u64::MAX));
        let by_hash = Filter::new(&[], &words(&["0000*"]), None);
        assert!(!by_hash.takes(&path("x"), 1));
    }
}
