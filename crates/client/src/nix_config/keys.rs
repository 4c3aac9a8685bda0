//! Which keys Nix trusts, for those who verify without it.

use crate::credentials::config_home;
use firn_formats::nix::PublicKey;
use std::path::{Path, PathBuf};

/// The keys that nix.conf (the system's, the user's, `NIX_CONFIG`) trusts, cache.nixos.org's by default.
pub fn trusted_keys() -> Vec<PublicKey> {
    let mut texts = Vec::new();
    let system =
        std::env::var_os("NIX_CONF_DIR").map_or_else(|| PathBuf::from("/etc/nix"), PathBuf::from);
    collect_config(&system.join("nix.conf"), 0, &mut texts);
    if let Some(home) = config_home() {
        collect_config(&home.join("nix/nix.conf"), 0, &mut texts);
    }
    texts.extend(std::env::var("NIX_CONFIG"));
    let mut keys = vec![DEFAULT_KEY.to_owned()];
    for line in texts.iter().flat_map(|text| text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let words = value.split_whitespace().map(str::to_owned);
        match name.trim() {
            "trusted-public-keys" => keys = words.collect(),
            "extra-trusted-public-keys" => keys.extend(words),
            _ => {}
        }
    }
    keys.iter()
        .filter_map(|key| PublicKey::parse(key).ok())
        .collect()
}

const DEFAULT_KEY: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

/// Reads a configuration file and those it includes.
fn collect_config(path: &Path, depth: u32, texts: &mut Vec<String>) {
    let Ok(text) = std::fs::read_to_string(path) else {
        return;
    };
    let included: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let named = matches!(words.next(), Some("include" | "!include"));
            let file = words.next().filter(|_| named)?;
            Some(path.parent()?.join(file))
        })
        .collect();
    texts.push(text);
    if depth < 8 {
        included
            .iter()
            .for_each(|file| collect_config(file, depth + 1, texts));
    }
}
