//! The claim `ac` of a runtime token: which scopes it reads and writes.
//!
//! ```text
//! "ac": "[{\"Scope\":\"refs/heads/feature\",\"Permission\":3},{\"Scope\":\"refs/heads/main\",\"Permission\":1}]"
//! ```
//! A string of JSON inside the JSON. Permission: 1 read, 2 write, 3 both. The order counts: entries are looked for
//! in the first scope, then in the next; the first that may be written is where new entries go. The last is the
//! default branch, whose entries are evicted last.

use super::names::{NameError, check_scope};

/// Most scopes of a token.
pub const SCOPES_MAX: usize = 20;
/// Longest claim, in bytes.
const CLAIM_BYTES_MAX: usize = 32 << 10;

const READ: u64 = 1;
const WRITE: u64 = 2;

/// A scope and what may be done in it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Scope {
    /// A ref in full.
    #[serde(rename = "Scope")]
    pub name: String,
    #[serde(rename = "Permission")]
    permission: u64,
}

impl Scope {
    /// One that is read only.
    pub fn read(name: &str) -> Self {
        Self::with(name, READ)
    }

    /// One that is read and written.
    pub fn write(name: &str) -> Self {
        Self::with(name, READ | WRITE)
    }

    fn with(name: &str, permission: u64) -> Self {
        Self {
            name: name.to_owned(),
            permission,
        }
    }

    /// Whether entries in it may be read.
    pub fn may_read(&self) -> bool {
        self.permission & READ != 0
    }

    /// Whether entries may be saved in it.
    pub fn may_write(&self) -> bool {
        self.permission & WRITE != 0
    }
}

/// The scopes of a token, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

/// Why a claim is refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ScopesError {
    #[error("the claim `ac` is not JSON as GitHub writes it")]
    Json(#[source] serde_json::Error),
    #[error(
        "the claim `ac` is longer than {CLAIM_BYTES_MAX} bytes or names more than {SCOPES_MAX} scopes"
    )]
    TooLong,
    #[error("a scope of the claim `ac`")]
    Name(#[from] NameError),
}

impl Scopes {
    /// Of those.
    ///
    /// # Errors
    /// If there are too many, or one is no scope.
    pub fn new(scopes: Vec<Scope>) -> Result<Self, ScopesError> {
        if scopes.len() > SCOPES_MAX {
            return Err(ScopesError::TooLong);
        }
        for scope in &scopes {
            check_scope(&scope.name)?;
        }
        Ok(Self(scopes))
    }

    /// Parses the claim.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(claim: &str) -> Result<Self, ScopesError> {
        if claim.len() > CLAIM_BYTES_MAX {
            return Err(ScopesError::TooLong);
        }
        Self::new(serde_json::from_str(claim).map_err(ScopesError::Json)?)
    }

    /// The claim.
    pub fn claim(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// All, in order.
    pub fn all(&self) -> &[Scope] {
        &self.0
    }

    /// Those that may be read, in the order in which they are looked through.
    pub fn readable(&self) -> impl Iterator<Item = &str> {
        let readable = self.0.iter().filter(|scope| scope.may_read());
        readable.map(|scope| &*scope.name)
    }

    /// Where new entries go.
    pub fn writable(&self) -> Option<&str> {
        let writable = self.0.iter().find(|scope| scope.may_write());
        writable.map(|scope| &*scope.name)
    }

    /// Whether a scope is that of the default branch. A pull request's is not, even alone.
    pub fn is_default(&self, name: &str) -> bool {
        let last = self.0.last().is_some_and(|last| last.name == name);
        last && !name.starts_with("refs/pull/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_says_what_is_read_and_written() {
        let claim = r#"[{"Scope":"refs/heads/f","Permission":3},{"Scope":"refs/heads/main","Permission":1}]"#;
        let scopes = Scopes::parse(claim).unwrap();
        assert_eq!(scopes.claim(), claim);
        assert_eq!(scopes.writable(), Some("refs/heads/f"));
        let readable: Vec<&str> = scopes.readable().collect();
        assert_eq!(readable, ["refs/heads/f", "refs/heads/main"]);
        assert!(scopes.is_default("refs/heads/main") && !scopes.is_default("refs/heads/f"));
        let write_only = Scopes::parse(r#"[{"Scope":"x","Permission":2}]"#).unwrap();
        assert_eq!(write_only.readable().count(), 0);
        assert_eq!(write_only.writable(), Some("x"));
        let nothing = Scopes::parse(r#"[{"Scope":"x","Permission":0}]"#).unwrap();
        assert_eq!((nothing.readable().count(), nothing.writable()), (0, None));
        let pull = Scopes::parse(r#"[{"Scope":"refs/pull/1/merge","Permission":3}]"#).unwrap();
        assert!(!pull.is_default("refs/pull/1/merge"));
    }

    #[test]
    fn hostile_claims_are_refused() {
        let many = serde_json::to_string(&vec![Scope::read("a"); SCOPES_MAX + 1]).unwrap();
        for bad in [
            "",
            "{}",
            "null",
            r#"[{"Scope":"a"}]"#,
            r#"[{"Scope":1,"Permission":1}]"#,
            r#"[{"Scope":"a","Permission":-1}]"#,
            r#"[{"Scope":"","Permission":1}]"#,
            r#"[{"Scope":"a\nb","Permission":1}]"#,
            &many,
            &" ".repeat(CLAIM_BYTES_MAX + 1),
        ] {
            assert!(Scopes::parse(bad).is_err(), "{bad:.60}");
        }
    }
}
