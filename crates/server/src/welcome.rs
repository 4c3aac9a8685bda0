//! The lines to paste: `firn login`, docker, nix.conf, a flake's `nixConfig`.

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
    let registry = host(url);
    writeln!(out, "# Log in, then push store paths, and images of them")?;
    match admin_token {
        Some(path) => writeln!(out, "firn login {url} --token-stdin < {}", quoted(path))?,
        None => writeln!(out, "firn login {url}")?,
    }
    writeln!(out, "firn push ./result")?;
    writeln!(
        out,
        "firn image push --name app:1 --entrypoint app ./result"
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "# Run images; docker logs in only to push, and to private caches"
    )?;
    writeln!(out, "docker run --rm {registry}/main/app:1")?;
    let login = format!("docker login --username firn --password-stdin {registry}");
    match admin_token {
        Some(path) => writeln!(out, "{login} < {}", quoted(path))?,
        None => writeln!(out, "{login} < FILE-WITH-TOKEN")?,
    }
    if substituters.is_empty() {
        return Ok(());
    }
    let strings = |texts: &[String]| {
        let texts: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
        texts.join(" ")
    };
    writeln!(out)?;
    writeln!(
        out,
        "# Let Nix substitute: lines for nix.conf, which `firn use main` writes"
    )?;
    writeln!(out, "extra-substituters = {}", substituters.join(" "))?;
    writeln!(out, "extra-trusted-public-keys = {}", keys.join(" "))?;
    writeln!(out)?;
    writeln!(out, "# … or for flake.nix")?;
    writeln!(out, "nixConfig = {{")?;
    writeln!(out, "  extra-substituters = [ {} ];", strings(substituters))?;
    writeln!(out, "  extra-trusted-public-keys = [ {} ];", strings(keys))?;
    writeln!(out, "}};")
}

/// A path as one word of a shell's line.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word() {
        assert_eq!(quoted(Path::new("/srv/firn-data/t")), "/srv/firn-data/t");
        assert_eq!(quoted(Path::new("/my data/it's")), "'/my data/it'\\''s'");
    }
}
