//! The same facts by way of `nix-store` and the daemon, for users who may not read the database.

use crate::{
    command::run,
    error::{ClientError, Result},
};
use firn_formats::{
    Sha256,
    nix::{Signature, StorePath},
};
use firn_image::closure::PathInfo;
use serde::Deserialize;
use std::{collections::BTreeMap, process::Command};

/// What `nix path-info --json` says of a path, in the old form (a list) and the new (a map).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    #[serde(default)]
    path: Option<String>,
    nar_hash: String,
    nar_size: u64,
    #[serde(default)]
    references: Vec<String>,
    #[serde(default)]
    deriver: Option<String>,
    #[serde(default)]
    signatures: Vec<String>,
    #[serde(default)]
    ca: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    List(Vec<Info>),
    Map(BTreeMap<String, Option<Info>>),
}

pub(super) fn closure(roots: &[StorePath]) -> Result<Vec<PathInfo>> {
    let mut command = Command::new("nix");
    command
        .args(["--extra-experimental-features", "nix-command"])
        .args(["path-info", "--json", "--recursive"])
        .args(roots.iter().map(StorePath::absolute));
    parse(&run(&mut command)?)
}

fn parse(json: &[u8]) -> Result<Vec<PathInfo>> {
    let answer: Answer = serde_json::from_slice(json)
        .map_err(|source| ClientError::json("answer of `nix path-info`", source))?;
    match answer {
        Answer::List(infos) => infos
            .into_iter()
            .map(|info| {
                let path = info.path.clone().unwrap_or_default();
                convert(&path, info)
            })
            .collect(),
        Answer::Map(infos) => infos
            .into_iter()
            .map(|(path, info)| match info {
                Some(info) => convert(&path, info),
                None => Err(ClientError::PathNotValid { path }),
            })
            .collect(),
    }
}

fn convert(path: &str, info: Info) -> Result<PathInfo> {
    let unsound = |what: &str| ClientError::PathInfo {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let mut references: Vec<StorePath> = info
        .references
        .iter()
        .map(|text| parse_any(text).ok_or_else(|| unsound("a reference is malformed")))
        .collect::<Result<_>>()?;
    references.sort();
    Ok(PathInfo {
        path: parse_any(path).ok_or_else(|| unsound("it is no store path"))?,
        nar_hash: Sha256::parse_nix(&info.nar_hash)
            .map_err(|_| unsound("its hash is no SHA-256"))?,
        nar_size: info.nar_size,
        references,
        deriver: info.deriver.as_deref().and_then(parse_any),
        signatures: info
            .signatures
            .iter()
            .filter_map(|text| Signature::parse(text).ok())
            .collect(),
        ca: info.ca,
    })
}

/// A full path, or a base name as newer versions of the format have it.
fn parse_any(text: &str) -> Option<StorePath> {
    StorePath::parse(text)
        .or_else(|_| StorePath::parse_base_name(text))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "/nix/store/00c89v0sz1j42g5sg6mffiwplzccay6p-a";
    const HASH: &str = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";

    #[test]
    fn both_forms_of_path_info_are_read() {
        let body = format!(
            r#""narHash":"{HASH}","narSize":7,"references":["{A}"],"deriver":null,"signatures":["k:x"]"#
        );
        let list = parse(format!(r#"[{{"path":"{A}",{body}}}]"#).as_bytes()).expect("list");
        let map = parse(format!(r#"{{"{A}":{{{body}}}}}"#).as_bytes()).expect("map");
        for infos in [list, map] {
            assert_eq!(infos.len(), 1);
            assert_eq!(infos[0].path.absolute(), A);
            assert_eq!(infos[0].nar_size, 7);
            assert_eq!(infos[0].references, [infos[0].path.clone()]);
            assert!(
                infos[0].signatures.is_empty(),
                "a malformed signature is left out"
            );
        }
        let missing = parse(format!(r#"{{"{A}":null}}"#).as_bytes());
        assert!(matches!(missing, Err(ClientError::PathNotValid { .. })));
    }
}
