//! The image spec as a document; see docs/image-spec.md.

use super::{Group, LayerCompression, Rule, User};
use crate::closure::PathInfo;
use firn_formats::{
    Sha256,
    nix::{StorePath, store_path::STORE_DIR},
    oci::config::Config,
};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};

/// Longest spec that is read, in bytes; a closure of 100,000 paths fits.
pub const SPEC_BYTES_MAX: usize = 128 << 20;

const VERSION: u32 = 1;

/// Why bytes are not a spec.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SpecError {
    #[error("it is longer than {SPEC_BYTES_MAX} bytes")]
    TooLarge,
    #[error("it is no JSON object")]
    Shape,
    #[error("it is no image spec")]
    Json(#[from] serde_json::Error),
    #[error("it is of version {0}; version {VERSION} is known")]
    Version(u32),
    #[error("{0:?} is no store path")]
    StorePath(String),
    #[error("{path}: {what}")]
    Closure { path: String, what: &'static str },
    #[error("the name {0:?} cannot stand in /etc/passwd or /etc/group")]
    Account(String),
}

/// A spec as it is written. Store paths are texts until they are asked for: each may lead below one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct SpecDocument {
    pub version: Option<u32>,
    pub name: Option<String>,
    pub tag: Option<String>,
    pub config: Config,
    #[serde(deserialize_with = "one_or_many")]
    pub contents: Vec<String>,
    #[serde(deserialize_with = "one_or_many")]
    pub copy_to_root: Vec<String>,
    pub from_image: Option<String>,
    pub max_layers: Option<usize>,
    pub layers: Vec<LayersDocument>,
    pub algorithm: Option<String>,
    #[serde(alias = "compressor")]
    pub compression: Option<Compression>,
    pub created: Option<String>,
    #[serde(alias = "arch")]
    pub architecture: Option<String>,
    pub variant: Option<String>,
    pub os: Option<String>,
    pub annotations: BTreeMap<String, String>,
    pub perms: Vec<Rule>,
    pub uid: u64,
    pub gid: u64,
    pub fake_nss: Option<bool>,
    pub users: Vec<User>,
    pub groups: Vec<Group>,
    pub tmp: Option<bool>,
    #[serde(rename = "includeNixDB", alias = "initializeNixDatabase")]
    pub include_nix_db: bool,
    pub include_store_paths: Option<bool>,
    pub closure: Option<Vec<ClosureEntry>>,
}

/// A group of paths with layers of their own.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct LayersDocument {
    #[serde(deserialize_with = "one_or_many")]
    pub deps: Vec<String>,
    #[serde(default = "one")]
    pub max_layers: usize,
}

fn one() -> usize {
    1
}

/// Compression by all the names it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Compression {
    Zstd,
    #[serde(alias = "gz")]
    Gzip,
    None,
}

impl From<Compression> for LayerCompression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Zstd => Self::Zstd,
            Compression::Gzip => Self::Gzip,
            Compression::None => Self::None,
        }
    }
}

/// A path as `exportReferencesGraph` and `nix path-info --json` know it; what else they say is passed over.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ClosureEntry {
    pub path: String,
    pub nar_hash: String,
    pub nar_size: u64,
    pub references: Vec<String>,
    #[serde(default)]
    pub deriver: Option<String>,
    #[serde(default)]
    pub ca: Option<String>,
}

/// A text, a list of texts, or null.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<Texts>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Texts::One(text)) => vec![text],
        Some(Texts::Many(texts)) => texts,
    })
}

impl SpecDocument {
    /// Reads a spec.
    pub fn parse(json: &[u8]) -> Result<Self, SpecError> {
        if json.len() > SPEC_BYTES_MAX {
            return Err(SpecError::TooLarge);
        }
        // A list would be taken for the fields in their order.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(SpecError::Shape);
        }
        let document: Self = serde_json::from_slice(json)?;
        match document.version {
            None | Some(VERSION) => {}
            Some(other) => return Err(SpecError::Version(other)),
        }
        let accounts = super::Accounts {
            users: document.users.clone(),
            groups: document.groups.clone(),
        };
        match accounts.unsound() {
            Some(name) => Err(SpecError::Account(name.to_owned())),
            None => Ok(document),
        }
    }

    /// `NAME:TAG`, if it has a name.
    pub fn reference(&self) -> Option<String> {
        let name = self.name.as_ref()?;
        let has_tag = name.rfind(':') > name.rfind('/');
        Some(match &self.tag {
            Some(tag) => format!("{name}:{tag}"),
            None if has_tag => name.clone(),
            None => format!("{name}:latest"),
        })
    }

    /// What is known of the paths, if the spec says.
    pub fn path_infos(&self) -> Result<Option<Vec<PathInfo>>, SpecError> {
        let entries = self.closure.as_ref();
        entries
            .map(|entries| entries.iter().map(ClosureEntry::info).collect())
            .transpose()
    }
}

impl ClosureEntry {
    fn info(&self) -> Result<PathInfo, SpecError> {
        let unsound = |what| SpecError::Closure {
            path: self.path.clone(),
            what,
        };
        let mut references = self
            .references
            .iter()
            .map(|path| store_path(path))
            .collect::<Result<Vec<_>, _>>()?;
        references.sort();
        Ok(PathInfo {
            path: store_path(&self.path)?,
            nar_hash: Sha256::parse_nix(&self.nar_hash)
                .map_err(|_| unsound("its narHash is no SHA-256"))?,
            nar_size: self.nar_size,
            references,
            deriver: self
                .deriver
                .as_deref()
                .and_then(|path| StorePath::parse(path).ok()),
            signatures: Vec::new(),
            ca: self.ca.clone().filter(|ca| !ca.is_empty()),
        })
    }
}

/// The store path that a text is or lies below.
pub fn store_path(text: &str) -> Result<StorePath, SpecError> {
    let name = text
        .strip_prefix(STORE_DIR)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.split('/').next());
    let parsed = name.and_then(|name| StorePath::parse_base_name(name).ok());
    parsed.ok_or_else(|| SpecError::StorePath(text.to_owned()))
}

/// Characters of a store path's hash.
const HASH_CHARS: usize = 32;

/// The store paths that texts name, anywhere in them.
pub fn named_store_paths<'a>(texts: impl IntoIterator<Item = &'a str>) -> BTreeSet<StorePath> {
    let mut found = BTreeSet::new();
    let prefix = format!("{STORE_DIR}/");
    for text in texts {
        for (at, _) in text.match_indices(&prefix) {
            let rest = &text[at + prefix.len()..];
            let is_name = |c: char| c.is_ascii_alphanumeric() || "+-._?=".contains(c);
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            if end > HASH_CHARS
                && let Ok(path) = StorePath::parse_base_name(&rest[..end])
            {
                found.insert(path);
            }
        }
    }
    found
}

/// All texts of a config.
pub fn texts_of_config(config: &Config) -> Result<Vec<String>, serde_json::Error> {
    let mut texts = Vec::new();
    let mut open = vec![serde_json::to_value(config)?];
    while let Some(value) = open.pop() {
        match value {
            serde_json::Value::String(text) => texts.push(text),
            serde_json::Value::Array(values) => open.extend(values),
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    texts.push(name);
                    open.push(value);
                }
            }
            _ => {}
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_has_the_names_of_others() {
        let spec = SpecDocument::parse(
            br#"{"name": "r.example:5000/app", "contents": "/nix/store/x", "copyToRoot": null,
                "compressor": "gz", "initializeNixDatabase": true, "arch": "arm64",
                "layers": [{"deps": ["/nix/store/y"]}],
                "perms": [{"regex": "^/data", "mode": "0700", "uid": 5}],
                "config": {"Entrypoint": ["/bin/app"], "Shell": ["/bin/sh"]}}"#,
        )
        .unwrap();
        assert_eq!(spec.contents, ["/nix/store/x"]);
        assert_eq!(spec.compression, Some(Compression::Gzip));
        assert!(spec.include_nix_db && spec.copy_to_root.is_empty());
        assert_eq!(spec.layers[0].max_layers, 1);
        assert_eq!(spec.perms[0].uid, Some(5));
        assert!(spec.config.extra.contains_key("Shell"));
        assert_eq!(spec.reference().unwrap(), "r.example:5000/app:latest");
    }

    #[test]
    fn unsound_specs_are_refused() {
        for (json, what) in [
            (r#"{"entrypoint": []}"#, "unknown field"),
            (r#"{"version": 2}"#, "version 2"),
            (r#"{"users": [{"name": "a:b", "uid": 1}]}"#, "cannot stand"),
            ("[]", "no JSON object"),
            ("{", "no image spec"),
        ] {
            let error = SpecDocument::parse(json.as_bytes()).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let text = format!("{error} {}", source.unwrap_or_default());
            assert!(text.contains(what), "{text}");
        }
    }

    #[test]
    fn nixs_graph_is_a_closure() {
        let hash = "0".repeat(32);
        let json = format!(
            r#"{{"closure": [{{"path": "/nix/store/{hash}-a", "narSize": 96, "closureSize": 96, "valid": true,
                "narHash": "sha256:0000000000000000000000000000000000000000000000000000", "references": []}}]}}"#
        );
        let infos = SpecDocument::parse(json.as_bytes()).unwrap().path_infos();
        assert_eq!(infos.unwrap().unwrap()[0].nar_size, 96);
        let none = SpecDocument::parse(b"{}").unwrap().path_infos().unwrap();
        assert!(none.is_none());
    }

    #[test]
    fn store_paths_are_found_in_texts() {
        let hash = "0".repeat(32);
        let texts = [
            format!("PATH=/nix/store/{hash}-a/bin:/nix/store/{hash}-b-1.0/bin"),
            format!("x /nix/store/{hash}-c"),
            "/nix/store/short-d".to_owned(),
            "/nix/store/".to_owned(),
        ];
        let found = named_store_paths(texts.iter().map(String::as_str));
        let names: Vec<&str> = found.iter().map(StorePath::name).collect();
        assert_eq!(names, ["a", "b-1.0", "c"]);
        let config = Config {
            entrypoint: Some(vec![format!("/nix/store/{hash}-a/bin/a")]),
            labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            ..Config::default()
        };
        let mut texts = texts_of_config(&config).unwrap();
        texts.sort();
        assert_eq!(texts.len(), 5, "{texts:?}");
        assert!(store_path(&texts[0]).is_ok(), "{texts:?}");
    }
}
