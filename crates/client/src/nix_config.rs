//! Nix's configuration: which keys are trusted, and a block of our own that makes Nix use a cache.

use crate::{
    credentials::config_home,
    error::{ClientError, Result},
    files::{write_public, write_secret},
    http::ServerUrl,
};
use firn_formats::nix::PublicKey;
use std::path::{Path, PathBuf};

const BLOCK_BEGIN: &str = "# >>> firn: caches; this block is rewritten by `firn use`";
const BLOCK_END: &str = "# <<< firn";

/// A cache as Nix shall use it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UseCache {
    /// The substituter's URL, `http(s)://host/<cache>`.
    pub url: String,
    /// `name:base64`, one or more.
    pub public_keys: Vec<String>,
    /// The host that the token is for, where the cache is private.
    pub host: String,
    /// Whether reading needs a token.
    pub private: bool,
}

impl UseCache {
    /// From what the server tells of the cache.
    pub fn new(server: &ServerUrl, name: &str, public_keys: Vec<String>, private: bool) -> Self {
        Self {
            url: server.join(name),
            public_keys,
            host: server.host().to_owned(),
            private,
        }
    }

    /// The lines for nix.conf.
    pub fn nix_conf_lines(&self, netrc: Option<&Path>) -> Vec<String> {
        let mut lines = vec![
            format!("extra-substituters = {}", self.url),
            format!("extra-trusted-public-keys = {}", self.public_keys.join(" ")),
        ];
        if let Some(netrc) = netrc.filter(|_| self.private) {
            lines.push(format!("netrc-file = {}", netrc.display()));
        }
        lines
    }

    /// The block to paste into a flake.
    pub fn flake_block(&self) -> String {
        let keys: Vec<String> = self
            .public_keys
            .iter()
            .map(|key| format!("\"{key}\""))
            .collect();
        format!(
            "nixConfig = {{\n  extra-substituters = [ \"{}\" ];\n  extra-trusted-public-keys = [ {} ];\n}};\n",
            self.url,
            keys.join(" ")
        )
    }

    /// The line for netrc.
    pub fn netrc_line(&self, token: &str) -> String {
        format!("machine {} login firn password {token}", self.host)
    }
}

/// Where Nix's configuration of this user lies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ConfigFiles {
    pub nix_conf: PathBuf,
    pub netrc: PathBuf,
}

impl ConfigFiles {
    /// `/etc/nix` for root, else the user's own folder; `NIX_CONF_DIR` and `XDG_CONFIG_HOME` go before.
    pub fn of_user() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dir = if let Some(dir) = set("NIX_CONF_DIR") {
            PathBuf::from(dir)
        } else if rustix::process::geteuid().is_root() && set("XDG_CONFIG_HOME").is_none() {
            PathBuf::from("/etc/nix")
        } else {
            config_home()
                .ok_or_else(|| {
                    ClientError::Setting("neither XDG_CONFIG_HOME nor HOME is set".to_owned())
                })?
                .join("nix")
        };
        Ok(Self::in_dir(&dir))
    }

    /// `nix.conf` and `netrc` in a folder.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            nix_conf: dir.join("nix.conf"),
            netrc: dir.join("netrc"),
        }
    }

    /// Makes Nix use the cache; doing so again changes nothing. Other caches of our block stay.
    pub fn apply(&self, cache: &UseCache, token: Option<&str>) -> Result<()> {
        let old = read_text(&self.nix_conf)?;
        let netrc_wanted = cache.private.then_some(token).flatten();
        let new = with_cache(&old, cache, netrc_wanted.map(|_| self.netrc.as_path()));
        if new != old {
            write_public(&self.nix_conf, new.as_bytes())?;
        }
        if let Some(token) = netrc_wanted {
            let old = read_text(&self.netrc)?;
            write_secret(&self.netrc, with_machine(&old, cache, token).as_bytes())?;
        }
        Ok(())
    }
}

fn read_text(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(ClientError::io(path, source)),
    }
}

/// The values of our block, in order.
#[derive(Default)]
struct Block {
    substituters: Vec<String>,
    keys: Vec<String>,
    netrc: Option<String>,
}

impl Block {
    fn parse(lines: &[&str]) -> Self {
        let mut block = Self::default();
        for line in lines {
            let Some((name, value)) = line.split_once('=') else {
                continue;
            };
            let words = || value.split_whitespace().map(str::to_owned);
            match name.trim() {
                "extra-substituters" => block.substituters.extend(words()),
                "extra-trusted-public-keys" => block.keys.extend(words()),
                "netrc-file" => block.netrc = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        block
    }

    fn add(&mut self, cache: &UseCache, netrc: Option<&Path>) {
        self.forget_old_keys(cache);
        if !self.substituters.contains(&cache.url) {
            self.substituters.push(cache.url.clone());
        }
        for key in &cache.public_keys {
            if !self.keys.contains(key) {
                self.keys.push(key.clone());
            }
        }
        if let Some(netrc) = netrc {
            self.netrc = Some(netrc.display().to_string());
        }
    }

    /// Keys that the cache has had before. A cache of another server may have the same name, and so the same
    /// names of keys: then nothing is forgotten.
    fn forget_old_keys(&mut self, cache: &UseCache) {
        let name = |url: &str| url.splitn(4, '/').nth(3).map(str::to_owned);
        let alike = |url: &String| *url != cache.url && name(url) == name(&cache.url);
        if self.substituters.iter().any(alike) {
            return;
        }
        let base = |key: &str| {
            let (base, number) = key.split(':').next()?.rsplit_once('-')?;
            number.parse::<u64>().ok().map(|_| base.to_owned())
        };
        let ours: Vec<_> = cache.public_keys.iter().map(|key| base(key)).collect();
        self.keys.retain(|key| {
            cache.public_keys.contains(key) || base(key).is_none() || !ours.contains(&base(key))
        });
    }

    fn write(&self) -> String {
        let mut text = format!(
            "{BLOCK_BEGIN}\nextra-substituters = {}\nextra-trusted-public-keys = {}\n",
            self.substituters.join(" "),
            self.keys.join(" ")
        );
        if let Some(netrc) = &self.netrc {
            text.push_str(&format!("netrc-file = {netrc}\n"));
        }
        text.push_str(BLOCK_END);
        text.push('\n');
        text
    }
}

/// A nix.conf with the cache in our block; every other line stays as it is.
fn with_cache(text: &str, cache: &UseCache, netrc: Option<&Path>) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let begin = lines.iter().position(|line| line.trim() == BLOCK_BEGIN);
    let end = begin.and_then(|begin| {
        let found = lines[begin..]
            .iter()
            .position(|line| line.trim() == BLOCK_END)?;
        Some(begin + found)
    });
    let (before, ours, after) = match (begin, end) {
        (Some(begin), Some(end)) => (&lines[..begin], &lines[begin + 1..end], &lines[end + 1..]),
        _ => (&lines[..], &[][..], &[][..]),
    };
    let mut block = Block::parse(ours);
    block.add(cache, netrc);
    let mut out = String::new();
    before
        .iter()
        .for_each(|line| out.push_str(&format!("{line}\n")));
    out.push_str(&block.write());
    after
        .iter()
        .for_each(|line| out.push_str(&format!("{line}\n")));
    out
}

/// A netrc with one line for the cache's host; other machines' lines stay.
fn with_machine(text: &str, cache: &UseCache, token: &str) -> String {
    let ours = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some("machine")
            && words.next() == Some(cache.host.as_str())
            && words.next() == Some("login")
            && words.next() == Some("firn")
    };
    let mut out: String = text
        .lines()
        .filter(|line| !ours(line))
        .map(|line| format!("{line}\n"))
        .collect();
    out.push_str(&cache.netrc_line(token));
    out.push('\n');
    out
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn cache(name: &str, private: bool) -> UseCache {
        let server = ServerUrl::parse("http://127.0.0.1:8484").expect("url");
        UseCache::new(&server, name, vec![format!("{name}-1:AAAA")], private)
    }

    #[test]
    fn using_a_cache_twice_changes_nothing_and_other_lines_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = ConfigFiles::in_dir(dir.path());
        std::fs::write(&files.nix_conf, "sandbox = true\n").expect("write");
        files.apply(&cache("main", false), None).expect("apply");
        let once = std::fs::read_to_string(&files.nix_conf).expect("read");
        files.apply(&cache("main", false), None).expect("apply");
        let twice = std::fs::read_to_string(&files.nix_conf).expect("read");
        assert_eq!(once, twice);
        assert!(once.starts_with("sandbox = true\n"));
        assert!(once.contains("extra-substituters = http://127.0.0.1:8484/main\n"));
        assert!(once.contains("extra-trusted-public-keys = main-1:AAAA\n"));
        assert!(!files.netrc.exists());
    }

    #[test]
    fn a_second_cache_joins_the_first_and_lines_below_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = ConfigFiles::in_dir(dir.path());
        files.apply(&cache("main", false), None).expect("apply");
        let mut text = std::fs::read_to_string(&files.nix_conf).expect("read");
        text.push_str("max-jobs = 4\n");
        std::fs::write(&files.nix_conf, text).expect("write");
        files
            .apply(&cache("web", true), Some("secret"))
            .expect("apply");
        let text = std::fs::read_to_string(&files.nix_conf).expect("read");
        assert!(text.contains("http://127.0.0.1:8484/main http://127.0.0.1:8484/web\n"));
        assert!(text.contains("main-1:AAAA web-1:AAAA\n"));
        assert!(text.ends_with("max-jobs = 4\n"));
        assert_eq!(text.matches(BLOCK_BEGIN).count(), 1);
        assert!(!text.contains("secret"));
    }

    #[test]
    fn keys_that_a_cache_no_longer_signs_by_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = ConfigFiles::in_dir(dir.path());
        let keys = || {
            let text = std::fs::read_to_string(&files.nix_conf).expect("read");
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("extra-trusted-public-keys = "));
            line.expect("keys").to_owned()
        };
        files.apply(&cache("main", false), None).expect("apply");
        files.apply(&cache("web", false), None).expect("apply");
        let mut rotated = cache("main", false);
        rotated.public_keys.push("main-2:BBBB".to_owned());
        files.apply(&rotated, None).expect("apply");
        assert_eq!(keys(), "main-1:AAAA web-1:AAAA main-2:BBBB");
        rotated.public_keys.remove(0);
        files.apply(&rotated, None).expect("apply");
        assert_eq!(keys(), "web-1:AAAA main-2:BBBB");
        let elsewhere = ServerUrl::parse("http://other").expect("url");
        let other = UseCache::new(&elsewhere, "main", vec!["main-1:CCCC".to_owned()], false);
        files.apply(&other, None).expect("apply");
        assert_eq!(keys(), "web-1:AAAA main-2:BBBB main-1:CCCC");
    }

    #[test]
    fn tokens_go_into_a_netrc_that_only_its_owner_reads() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = ConfigFiles::in_dir(dir.path());
        std::fs::write(&files.netrc, "machine other login me password x\n").expect("write");
        files
            .apply(&cache("web", true), Some("first"))
            .expect("apply");
        files
            .apply(&cache("web", true), Some("second"))
            .expect("apply");
        let text = std::fs::read_to_string(&files.netrc).expect("read");
        assert_eq!(
            text,
            "machine other login me password x\nmachine 127.0.0.1 login firn password second\n"
        );
        let mode = std::fs::metadata(&files.netrc).expect("file").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }
}
