//! What a layer's tar does not tell of how it was made.

use super::rules::{Attributes, Rule, RuleError, Rules};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Most rules of a recipe.
const RULES_MAX: usize = 256;
/// Largest compiled regular expression, in bytes: it is run over every path of a layer.
const REGEX_BYTES_MAX: usize = 64 << 10;
/// Most files of which a recipe says that they are executable.
const EXECUTABLE_MAX: usize = 50_000;

/// The owner and the rules of a layer of store paths. What it says of executable files needs no belief: the NAR
/// hashes in the layer's key depend on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// Who owns what no rule gives away.
    #[serde(default)]
    pub uid: u64,
    /// The group.
    #[serde(default)]
    pub gid: u64,
    /// The rules that could match in the layer's store paths, in their order.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Executable files whose mode a rule sets: `nix/store/…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub executable: Vec<String>,
}

/// Why a recipe is not used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RecipeError {
    #[error("a layer's recipe has more than {0} {1}")]
    TooMany(usize, &'static str),
    #[error(transparent)]
    Rule(#[from] RuleError),
}

/// A recipe that can be applied.
#[derive(Debug)]
pub struct Terms {
    pub(super) rules: Rules,
    executable: HashSet<String>,
}

impl Recipe {
    /// Reads the rules.
    ///
    /// # Errors
    /// If it is too large or a rule is not sound.
    pub fn terms(&self) -> Result<Terms, RecipeError> {
        if self.rules.len() > RULES_MAX {
            return Err(RecipeError::TooMany(RULES_MAX, "rules"));
        }
        if self.executable.len() > EXECUTABLE_MAX {
            return Err(RecipeError::TooMany(EXECUTABLE_MAX, "executable files"));
        }
        let rules = Rules::limited(self.rules.clone(), self.uid, self.gid, REGEX_BYTES_MAX)?;
        Ok(Terms {
            rules,
            executable: self.executable.iter().cloned().collect(),
        })
    }
}

impl Terms {
    /// Whether a store file is executable; its mode shows it unless a rule sets it.
    pub(super) fn is_executable(&self, path: &[u8], mode: u32) -> bool {
        let executable = self.attributes(path, super::EXECUTABLE_MODE).mode;
        match executable == self.attributes(path, super::FILE_MODE).mode {
            true => std::str::from_utf8(path).is_ok_and(|path| self.executable.contains(path)),
            false => mode == executable,
        }
    }

    /// What the entry of a path in the store has that would have this mode.
    pub(super) fn attributes(&self, path: &[u8], mode: u32) -> Attributes {
        let (uid, gid) = self.rules.owner();
        let mut attributes = Attributes { mode, uid, gid };
        let absolute = [b"/", path].concat();
        self.rules.apply(&absolute, None, &mut attributes);
        attributes
    }
}
