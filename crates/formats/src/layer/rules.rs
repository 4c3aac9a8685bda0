//! Modes and owners by rule.
//!
//! A rule names a place (`path`: itself and all below), a pattern that the absolute path must match somewhere
//! (`regex`), or both. All that match go over an entry, in their order. What was copied to the root is known by
//! both its names: where it lies in the image, and where in the store it came from.
//!
//! A layer of store paths has a key that is known before anything is read, so a rule that could match in it is
//! part of that key, whether it does or not.

use crate::nix::{StorePath, store_path::STORE_DIR};
use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// A rule as a spec writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Rule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Octal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u64>,
}

/// Largest compiled pattern of a rule, in bytes.
const REGEX_BYTES_MAX: usize = 10 << 20;

/// Why a rule cannot be.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RuleError {
    #[error("a rule of `perms` has neither `path` nor `regex`")]
    Everything,
    #[error("the path {0:?} of a rule is not absolute")]
    Relative(String),
    #[error("{0:?} is no mode; write four octal digits, such as \"0750\"")]
    Mode(String),
    #[error("{regex:?} is no regular expression")]
    Regex {
        regex: String,
        #[source]
        source: regex_lite::Error,
    },
}

/// Mode and owner of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
}

#[derive(Debug, Clone)]
struct Compiled {
    rule: Rule,
    path: Option<String>,
    regex: Option<Regex>,
    mode: Option<u32>,
}

/// All rules of an image, and who owns what none of them gives away.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: Vec<Compiled>,
    uid: u64,
    gid: u64,
}

impl Rules {
    /// Reads rules.
    pub fn new(rules: Vec<Rule>, uid: u64, gid: u64) -> Result<Self, RuleError> {
        Self::limited(rules, uid, gid, REGEX_BYTES_MAX)
    }

    /// Reads rules, none of whose compiled patterns may have more bytes.
    pub fn limited(
        rules: Vec<Rule>,
        uid: u64,
        gid: u64,
        regex_bytes_max: usize,
    ) -> Result<Self, RuleError> {
        let compile = |rule| compile(rule, regex_bytes_max);
        let rules = rules.into_iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { rules, uid, gid })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Who owns what has no owner of its own.
    pub fn owner(&self) -> (u64, u64) {
        (self.uid, self.gid)
    }

    /// What an entry of these has. `path` is absolute in the image; `source` is where in the store it came from.
    pub fn apply(&self, path: &[u8], source: Option<&[u8]>, entry: &mut Attributes) {
        if self.rules.is_empty() {
            return;
        }
        let path = String::from_utf8_lossy(path);
        let source = source.map(String::from_utf8_lossy);
        for rule in &self.rules {
            let matches = |name: &str| rule.matches(name);
            if matches(&path) || source.as_deref().is_some_and(matches) {
                entry.mode = rule.mode.unwrap_or(entry.mode);
                entry.uid = rule.rule.uid.unwrap_or(entry.uid);
                entry.gid = rule.rule.gid.unwrap_or(entry.gid);
            }
        }
    }

    /// The rules that could match in these store paths, or on the way to them.
    pub fn in_store(&self, paths: &[&StorePath]) -> Self {
        let could_match = |rule: &&Compiled| {
            let named = |path: &str| {
                let mut stores = paths.iter().map(|path| path.absolute());
                is_below(STORE_DIR, path) || stores.any(|store| is_below(path, &store))
            };
            rule.path.as_deref().is_none_or(named)
        };
        Self {
            rules: self.rules.iter().filter(could_match).cloned().collect(),
            uid: self.uid,
            gid: self.gid,
        }
    }

    /// All as lines of a layer key's text.
    pub fn lines(&self) -> String {
        self.rules.iter().map(Compiled::line).collect()
    }

    /// All as a spec writes them.
    pub fn written(&self) -> Vec<Rule> {
        self.rules.iter().map(|rule| rule.rule.clone()).collect()
    }
}

/// Whether `path` is `place` or lies below it.
fn is_below(path: &str, place: &str) -> bool {
    place == "/"
        || path
            .strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn compile(rule: Rule, regex_bytes_max: usize) -> Result<Compiled, RuleError> {
    if rule.path.is_none() && rule.regex.is_none() {
        return Err(RuleError::Everything);
    }
    let path = match &rule.path {
        Some(path) if !path.starts_with('/') => return Err(RuleError::Relative(path.clone())),
        Some(path) if path.trim_end_matches('/').is_empty() => Some("/".to_owned()),
        Some(path) => Some(path.trim_end_matches('/').to_owned()),
        None => None,
    };
    let regex = match &rule.regex {
        Some(regex) => {
            let built = RegexBuilder::new(regex).size_limit(regex_bytes_max).build();
            let regex = regex.clone();
            Some(built.map_err(|source| RuleError::Regex { regex, source })?)
        }
        None => None,
    };
    let mode = match &rule.mode {
        Some(mode) => {
            let octal = u32::from_str_radix(mode, 8).ok();
            let octal = octal.filter(|octal| *octal <= 0o7777 && !mode.starts_with('+'));
            Some(octal.ok_or_else(|| RuleError::Mode(mode.clone()))?)
        }
        None => None,
    };
    Ok(Compiled {
        rule,
        path,
        regex,
        mode,
    })
}

impl Compiled {
    fn matches(&self, name: &str) -> bool {
        let placed = |place: &String| is_below(name, place);
        let matched = |regex: &Regex| regex.is_match(name);
        self.path.as_ref().is_none_or(placed) && self.regex.as_ref().is_none_or(matched)
    }

    fn line(&self) -> String {
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
        let mode = self
            .mode
            .map_or("-".to_owned(), |mode| format!("{mode:04o}"));
        format!(
            "rule {mode} {} {} {:?} {:?}\n",
            number(self.rule.uid),
            number(self.rule.gid),
            self.path.as_deref().unwrap_or_default(),
            self.rule.regex.as_deref().unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: Option<&str>, regex: Option<&str>, mode: &str, uid: Option<u64>) -> Rule {
        Rule {
            path: path.map(str::to_owned),
            regex: regex.map(str::to_owned),
            mode: (!mode.is_empty()).then(|| mode.to_owned()),
            uid,
            gid: None,
        }
    }

    fn applied(rules: &Rules, path: &str, source: Option<&str>) -> (u32, u64) {
        let mut entry = Attributes {
            mode: 0o644,
            uid: 0,
            gid: 0,
        };
        rules.apply(path.as_bytes(), source.map(str::as_bytes), &mut entry);
        (entry.mode, entry.uid)
    }

    #[test]
    fn later_rules_go_over_earlier_ones() {
        let rules = vec![
            rule(Some("/data/"), None, "", Some(5)),
            rule(None, Some("\\.key$"), "0400", None),
            rule(Some("/data/x"), Some("y"), "600", Some(6)),
            rule(
                Some("/nix/store/00000000000000000000000000000000-s"),
                None,
                "755",
                None,
            ),
        ];
        let rules = Rules::new(rules, 0, 0).unwrap();
        for (path, source, expected) in [
            ("/data", None, (0o644, 5)),
            ("/database", None, (0o644, 0)),
            ("/data/a.key", None, (0o400, 5)),
            ("/data/x/y", None, (0o600, 6)),
            ("/data/x/z", None, (0o644, 5)),
            ("/etc/a.key", Some("/nix/store/1-t/etc/a.key"), (0o400, 0)),
            (
                "/run",
                Some("/nix/store/00000000000000000000000000000000-s/run"),
                (0o755, 0),
            ),
        ] {
            assert_eq!(applied(&rules, path, source), expected, "{path}");
        }
    }

    #[test]
    fn only_rules_that_can_match_in_the_store_are_part_of_its_layers() {
        let store =
            |name: &str| StorePath::parse_base_name(&format!("{}-{name}", "0".repeat(32))).unwrap();
        let (a, b) = (store("a"), store("b"));
        let inside = format!("{}/bin", a.absolute());
        let lines = |rule: Rule, path: &StorePath| {
            Rules::new(vec![rule], 0, 0)
                .unwrap()
                .in_store(&[path])
                .lines()
        };
        assert_eq!(lines(rule(Some("/etc"), None, "700", None), &a), "");
        let line = lines(rule(Some(&inside), None, "700", None), &a);
        assert_eq!(line, format!("rule 0700 - - {inside:?} \"\"\n"));
        assert_eq!(lines(rule(Some(&inside), None, "700", None), &b), "");
        for everywhere in ["/", "/nix", "/nix/store/"] {
            let rule = rule(Some(everywhere), None, "700", None);
            assert!(!lines(rule, &b).is_empty(), "{everywhere}");
        }
        assert!(!lines(rule(None, Some("x"), "", Some(1)), &b).is_empty());
    }

    #[test]
    fn unsound_rules_are_refused() {
        for (bad, what) in [
            (rule(None, None, "755", None), "neither"),
            (rule(Some("etc"), None, "755", None), "not absolute"),
            (rule(Some("/etc"), None, "u+x", None), "no mode"),
            (rule(Some("/etc"), None, "17777", None), "no mode"),
            (rule(None, Some("("), "755", None), "no regular"),
        ] {
            let error = Rules::new(vec![bad], 0, 0).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
