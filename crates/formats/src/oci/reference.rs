//! Image references: `[registry/]name[:tag][@digest]`.

use super::Digest;
use std::fmt;

/// Why a text is not a reference, a repository name or a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: {text:?}")]
#[allow(missing_docs)]
pub struct ReferenceError {
    pub what: &'static str,
    pub text: String,
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
        todo!("{text}")
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl Tag {
    /// Reads and checks.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        todo!("{text}")
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl Reference {
    /// Reads; the first component is a registry if it has a `.` or `:` or is `localhost`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        todo!("{text}")
    }
}
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!("{}", f.alternate())
    }
}
