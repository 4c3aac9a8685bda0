//! `nix-cache-info`.
//!
//! Lines of `Key: value`. Nix refuses a cache whose `StoreDir` is not its own,
//! asks for many paths at once only if `WantMassQuery` is `1`, and asks caches
//! of a lower `Priority` first.

/// Longest `nix-cache-info` read, in bytes: what is longer is some other page.
pub const CACHE_INFO_BYTES_MAX: usize = 64 << 10;

/// What Nix assumes of a binary cache that names no priority.
const PRIORITY_DEFAULT: u32 = 50;

/// A cache's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CacheInfo {
    pub store_dir: String,
    pub want_mass_query: bool,
    pub priority: u32,
}

impl CacheInfo {
    /// Parses; unknown lines are passed over. `None` if there is no `StoreDir`
    /// (so an error page is not taken for a cache) or the priority is no number.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > CACHE_INFO_BYTES_MAX {
            return None;
        }
        let mut store_dir = None;
        let mut want_mass_query = false;
        let mut priority = PRIORITY_DEFAULT;
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match key {
                "StoreDir" => store_dir = Some(value.to_owned()),
                "WantMassQuery" => want_mass_query = value == "1",
                "Priority" => priority = value.parse().ok()?,
                _ => {}
            }
        }
        Some(Self {
            store_dir: store_dir?,
            want_mass_query,
            priority,
        })
    }
}

impl std::fmt::Display for CacheInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "StoreDir: {}", self.store_dir)?;
        writeln!(f, "WantMassQuery: {}", u8::from(self.want_mass_query))?;
        writeln!(f, "Priority: {}", self.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let text = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n";
        let info = CacheInfo::parse(text).unwrap();
        assert_eq!((info.want_mass_query, info.priority), (true, 40));
        assert_eq!(info.to_string(), text);
    }

    #[test]
    fn what_is_missing_and_what_is_wrong() {
        let info = CacheInfo::parse("StoreDir: /nix/store\nFuture: x\nno colon").unwrap();
        assert_eq!((info.want_mass_query, info.priority), (false, 50));
        assert_eq!(CacheInfo::parse(""), None);
        assert_eq!(CacheInfo::parse("<html>: not found</html>"), None);
        assert_eq!(
            CacheInfo::parse("StoreDir: /nix/store\nPriority: low\n"),
            None
        );
        assert_eq!(
            CacheInfo::parse("StoreDir: /nix/store\nPriority: -1\n"),
            None
        );
        let long = format!("StoreDir: /nix/store\n{}", " ".repeat(CACHE_INFO_BYTES_MAX));
        assert_eq!(CacheInfo::parse(&long), None);
    }
}
