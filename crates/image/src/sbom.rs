//! A bill of materials: what a closure consists of, in the two forms that tools read.
//!
//! Both say the same of each store path: name, version, NAR hash, and which paths it refers to. Nothing in
//! them depends on when or where they were made.

mod cyclonedx;
mod names;
mod spdx;

use crate::closure::{Closure, PathInfo};
use firn_formats::sha256::Sha256Hasher;
use std::collections::HashSet;

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SbomFormat {
    /// SPDX 2.3, as JSON.
    Spdx,
    /// CycloneDX 1.6, as JSON.
    CycloneDx,
}

impl SbomFormat {
    /// The document's media type, which is also the artifact's beside an image.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Spdx => "application/spdx+json",
            Self::CycloneDx => "application/vnd.cyclonedx+json",
        }
    }
}

/// What a bill is made from.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Sbom<'a> {
    /// Of the image, or of whatever the closure is.
    pub name: &'a str,
    /// RFC 3339.
    pub created: &'a str,
    pub closure: &'a Closure,
}

impl Sbom<'_> {
    /// The document.
    pub fn to_json(&self, format: SbomFormat) -> Result<Vec<u8>, serde_json::Error> {
        match format {
            SbomFormat::Spdx => spdx::document(self),
            SbomFormat::CycloneDx => cyclonedx::document(self),
        }
    }

    /// Hash over all paths and the name, in hexadecimal: two documents with one content have one name.
    fn identity(&self) -> String {
        let mut hasher = Sha256Hasher::new();
        hasher.update(self.name.as_bytes());
        for info in self.sorted() {
            hasher.update(format!("\n{} {}", info.path, info.nar_hash.hex()).as_bytes());
        }
        hasher.finish().hex()
    }

    /// The time without fractions and in UTC, as both formats want it, or a second after 1970.
    fn time(&self) -> &str {
        let pattern = b"dddd-dd-ddTdd:dd:ddZ";
        let fits = |(byte, wanted): (u8, &u8)| match wanted {
            b'd' => byte.is_ascii_digit(),
            other => byte == *other,
        };
        let matches =
            self.created.len() == pattern.len() && self.created.bytes().zip(pattern).all(fits);
        match matches {
            true => self.created,
            false => crate::spec::CREATED,
        }
    }

    /// By store path, so that the order in which they came does not show.
    fn sorted(&self) -> Vec<&PathInfo> {
        let mut paths: Vec<&PathInfo> = self.closure.paths.iter().collect();
        paths.sort_by(|a, b| a.path.cmp(&b.path));
        paths
    }

    /// The paths that nothing else refers to: what the image was made of.
    fn tops(&self) -> Vec<&PathInfo> {
        let referred: HashSet<_> = self
            .closure
            .paths
            .iter()
            .flat_map(|info| info.references.iter().filter(|path| **path != info.path))
            .collect();
        let mut tops = self.sorted();
        tops.retain(|info| !referred.contains(&info.path));
        tops
    }
}
