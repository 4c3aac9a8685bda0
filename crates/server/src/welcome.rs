//! The lines to paste: nix.conf, a flake's `nixConfig`, docker, `firn login`.

use firn_formats::admin::Right;
use firn_services::{Access, Identity};
use std::fmt::Write as _;
use std::path::Path;

/// The host part of a URL, as docker names a registry.
fn host(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, host)| host)
}

/// The text; `admin_token` is the file to take the token from, for those who started the server.
pub(crate) fn lines(access: &Access, url: &str, admin_token: Option<&Path>) -> String {
    let caches = access.caches(&Identity::Anonymous, Right::Pull);
    let mut substituters = Vec::new();
    let mut keys = Vec::new();
    for cache in &caches {
        substituters.push(format!("{url}/{}", cache.name()));
        keys.extend(cache.public_keys().iter().map(ToString::to_string));
    }
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_lines(&mut out, url, &substituters, &keys, admin_token);
    out
}

fn write_lines(
    out: &mut String,
    url: &str,
    substituters: &[String],
    keys: &[String],
    admin_token: Option<&Path>,
) -> std::fmt::Result {
    let quoted = |texts: &[String]| {
        let texts: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
        texts.join(" ")
    };
    if !substituters.is_empty() {
        writeln!(out, "# nix.conf")?;
        writeln!(out, "extra-substituters = {}", substituters.join(" "))?;
        writeln!(out, "extra-trusted-public-keys = {}", keys.join(" "))?;
        writeln!(out)?;
        writeln!(out, "# flake.nix")?;
        writeln!(out, "nixConfig = {{")?;
        writeln!(out, "  extra-substituters = [ {} ];", quoted(substituters))?;
        writeln!(out, "  extra-trusted-public-keys = [ {} ];", quoted(keys))?;
        writeln!(out, "}};")?;
        writeln!(out)?;
    }
    writeln!(out, "# push store paths and images")?;
    match admin_token {
        Some(path) => writeln!(out, "FIRN_TOKEN=$(cat {}) firn login {url}", path.display())?,
        None => writeln!(out, "FIRN_TOKEN=… firn login {url}")?,
    }
    writeln!(out, "firn push ./result")?;
    writeln!(out, "firn image push --name app:latest ./result")?;
    writeln!(out)?;
    writeln!(out, "# docker")?;
    match admin_token {
        Some(path) => writeln!(
            out,
            "docker login -u firn --password-stdin {} < {}",
            host(url),
            path.display()
        )?,
        None => writeln!(out, "docker login {}", host(url))?,
    }
    writeln!(out, "docker pull {}/main/app:latest", host(url))
}
