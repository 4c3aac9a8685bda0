//! `nix-cache-info`.

/// A cache's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CacheInfo {
    pub store_dir: String,
    pub want_mass_query: bool,
    pub priority: u32,
}

impl CacheInfo {
    /// Parses; unknown lines are passed over.
    pub fn parse(text: &str) -> Option<Self> {
        todo!("{text}")
    }
}

impl std::fmt::Display for CacheInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!("{}", f.alternate())
    }
}
