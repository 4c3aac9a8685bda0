//! Names of realisations: what a content-addressed derivation's output turned out to be.
//!
//! Up to Nix 2.34 they are `realisations/<hash>!<output>.doi`, the hash in
//! base16 with its algorithm; from 2.35 on `build-trace-v2/<derivation>/<output>.doi`.
//! Only the names are read here; what the files say is kept as it came.

use std::fmt;

use super::{Hash, StorePath, base32::quoted, store_path::is_valid_name};

/// Folder of the old form.
const REALISATIONS: &str = "realisations/";
/// Folder of the new form.
const BUILD_TRACE: &str = "build-trace-v2/";
const ENDING: &str = ".doi";

/// Why a text does not name a realisation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a realisation: {0:?}")]
pub struct RealisationError(pub String);

/// Which output of which derivation. Displays as its path in a cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RealisationName {
    /// `realisations/<hash>!<output>.doi`.
    Hashed {
        /// The derivation's hash modulo its fixed outputs.
        hash: Hash,
        /// The output's name.
        output: String,
    },
    /// `build-trace-v2/<derivation>/<output>.doi`.
    Traced {
        /// The derivation.
        derivation: StorePath,
        /// The output's name.
        output: String,
    },
}

impl RealisationName {
    /// Reads a path in a cache, without a leading slash.
    pub fn parse(path: &str) -> Result<Self, RealisationError> {
        Self::parse_any(path).ok_or_else(|| RealisationError(quoted(path)))
    }

    /// Reads an id, `<hash>!<output>`.
    pub fn parse_id(id: &str) -> Result<Self, RealisationError> {
        Self::hashed(id).ok_or_else(|| RealisationError(quoted(id)))
    }

    fn parse_any(path: &str) -> Option<Self> {
        let stem = path.strip_suffix(ENDING)?;
        if let Some(id) = stem.strip_prefix(REALISATIONS) {
            return Self::hashed(id);
        }
        let (derivation, output) = stem.strip_prefix(BUILD_TRACE)?.split_once('/')?;
        let derivation = StorePath::parse_base_name(derivation).ok()?;
        (derivation.is_derivation() && is_valid_name(output)).then(|| Self::Traced {
            derivation,
            output: output.to_owned(),
        })
    }

    fn hashed(id: &str) -> Option<Self> {
        let (hash, output) = id.split_once('!')?;
        let hash = Hash::parse(hash).ok()?;
        is_valid_name(output).then(|| Self::Hashed {
            hash,
            output: output.to_owned(),
        })
    }
}

impl fmt::Display for RealisationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hashed { hash, output } => {
                write!(f, "{REALISATIONS}{}:", hash.algorithm().name())?;
                for byte in hash.digest() {
                    write!(f, "{byte:02x}")?;
                }
                write!(f, "!{output}{ENDING}")
            }
            Self::Traced { derivation, output } => {
                write!(f, "{BUILD_TRACE}{derivation}/{output}{ENDING}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const DERIVATION: &str = "00gzizwnxlwb7ywpp3mykmdni4vllrs8-libnorm1-1.5.9+dfsg-2.drv";

    #[test]
    fn both_forms() {
        for path in [
            format!("realisations/{HASH}!out.doi"),
            format!("build-trace-v2/{DERIVATION}/out.doi"),
        ] {
            let name = RealisationName::parse(&path).unwrap();
            assert_eq!(name.to_string(), path);
        }
        assert_eq!(
            RealisationName::parse_id(&format!("{HASH}!out")),
            RealisationName::parse(&format!("realisations/{HASH}!out.doi"))
        );
    }

    #[test]
    fn refuses_malformed() {
        let drv = DERIVATION;
        for path in [
            String::new(),
            ".doi".into(),
            format!("realisations/{HASH}.doi"),
            format!("realisations/{HASH}!.doi"),
            format!("realisations/{HASH}!..doi"),
            format!("realisations/{HASH}!a/b.doi"),
            format!("realisations/{HASH}!out"),
            format!("realisations/../{HASH}!out.doi"),
            "realisations/sha256:ab!out.doi".into(),
            format!("build-trace-v2/{drv}.doi"),
            format!("build-trace-v2/{drv}/../out.doi"),
            format!("build-trace-v2/{drv}/out/out.doi"),
            "build-trace-v2/00gzizwnxlwb7ywpp3mykmdni4vllrs8-libnorm1/out.doi".into(),
            format!("/realisations/{HASH}!out.doi"),
        ] {
            assert!(RealisationName::parse(&path).is_err(), "{path}");
        }
    }
}
