//! Nix's configuration: which keys are trusted, and a block of our own that makes Nix use a cache.

mod ask;
mod block;
mod keys;
mod netrc;

pub use ask::{NixSettings, daemon_listens, nix_is_here, open_cache, user_is_trusted};
pub use block::KnownCache;
pub use keys::trusted_keys;
pub use netrc::NetrcEntry;

use crate::{
    credentials::config_home,
    error::{ClientError, Result},
    files::{write_public, write_secret},
    http::{Call, Http, ServerUrl},
};
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

const STORE: &str = "/nix/store";

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

    /// The block to paste into a flake. A flake cannot say where the token is.
    pub fn flake_block(&self) -> String {
        let mut text = String::new();
        if self.private {
            text = format!(
                "# The cache is private: Nix needs a token for {} in netrc, which a flake cannot give.\n\
                 # On each machine, `firn use CACHE` writes it; or this line in Nix's netrc-file:\n# {}\n",
                self.host,
                self.netrc_line("TOKEN")
            );
        }
        text.push_str(&self.attributes("nixConfig", None));
        text
    }

    /// The block for NixOS or home-manager, which write nix.conf themselves.
    pub fn nixos_block(&self, netrc: Option<&Path>) -> String {
        self.attributes("nix.settings", netrc.filter(|_| self.private))
    }

    fn attributes(&self, name: &str, netrc: Option<&Path>) -> String {
        let quoted = |key: &String| format!("\"{key}\"");
        let keys: Vec<String> = self.public_keys.iter().map(quoted).collect();
        let mut text = format!(
            "{name} = {{\n  extra-substituters = [ \"{}\" ];\n  extra-trusted-public-keys = [ {} ];\n",
            self.url,
            keys.join(" ")
        );
        if let Some(netrc) = netrc {
            text.push_str(&format!("  netrc-file = \"{}\";\n", netrc.display()));
        }
        text.push_str("};\n");
        text
    }

    /// The line for netrc.
    pub fn netrc_line(&self, token: &str) -> String {
        netrc::line(&self.host, token)
    }
}

/// Whether a substituter is answered with a token, or without any. Only a refusal is a no.
pub fn may_read(http: &Http, url: &str, token: Option<&str>) -> Result<bool> {
    let credential = token.map(|token| crate::credentials::Credential::Token(token.to_owned()));
    let header = credential.map(|credential| credential.basic_header());
    let call = Call::get(format!("{url}/nix-cache-info")).authorization(header.as_deref());
    let answer = http.send(&call)?;
    match answer.status() {
        401 | 403 | 404 => Ok(false),
        _ => answer.accept().map(|_| true),
    }
}

/// What goes into netrc.
#[derive(Clone, Copy)]
pub struct NetrcToken<'a> {
    /// The secret.
    pub token: &'a str,
    /// Its id, if it was made for this.
    pub id: Option<&'a str>,
}

// By hand: the token is never shown.
impl std::fmt::Debug for NetrcToken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetrcToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Where Nix's configuration of this user lies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ConfigFiles {
    pub nix_conf: PathBuf,
    pub netrc: PathBuf,
    /// Whether nix.conf has to name the netrc, which is not where Nix looks for it.
    pub names_netrc: bool,
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
            names_netrc: true,
        }
    }

    /// With the netrc that Nix reads already, if somebody has named one.
    pub fn with_settings(mut self, settings: &NixSettings) -> Result<Self> {
        let ours = block::read(&read_text(&self.nix_conf)?).netrc;
        let named = settings.netrc_file != settings.netrc_file_default;
        let is_ours = ours.is_some_and(|ours| Path::new(&ours) == settings.netrc_file);
        if named && !is_ours && settings.netrc_file != self.netrc {
            self.netrc.clone_from(&settings.netrc_file);
            self.names_netrc = false;
        }
        Ok(self)
    }

    /// Refuses files that are not for us to write: those of the Nix store, and those that nobody may write.
    pub fn check_writable(&self, with_netrc: bool) -> Result<()> {
        let mut files = vec![&self.nix_conf];
        files.extend(with_netrc.then_some(&self.netrc));
        for path in files {
            refuse_unwritable(path)?;
        }
        Ok(())
    }

    /// The caches of our block.
    pub fn substituters(&self) -> Result<Vec<String>> {
        Ok(block::read(&read_text(&self.nix_conf)?).substituters)
    }

    /// What our block says of a cache.
    pub fn known(&self, url: &str) -> Result<Option<KnownCache>> {
        let known = block::read(&read_text(&self.nix_conf)?).known;
        Ok(known.into_iter().find(|known| known.url == url))
    }

    /// The entry of netrc that Nix takes for a host.
    pub fn netrc_entry(&self, host: &str) -> Result<Option<NetrcEntry>> {
        let entries = netrc::entries(&read_text(&self.netrc)?);
        let matches = |entry: &NetrcEntry| {
            let machine = entry.machine.as_deref();
            machine.is_none_or(|machine| machine.eq_ignore_ascii_case(host))
        };
        Ok(entries.into_iter().find(matches))
    }

    /// Makes Nix use the cache; doing so again changes nothing. Other caches of our block stay. Without a token,
    /// netrc stays as it is. Whether nix.conf has changed.
    pub fn apply(&self, cache: &UseCache, token: Option<NetrcToken<'_>>) -> Result<bool> {
        self.check_writable(token.is_some())?;
        if let Some(token) = token {
            let old = read_text(&self.netrc)?;
            let new = netrc::with_machine(&old, &cache.host, token.token);
            if new != old {
                write_secret(&self.netrc, new.as_bytes())?;
            }
        }
        let netrc = (cache.private && self.names_netrc).then_some(self.netrc.as_path());
        let id = token.and_then(|token| token.id);
        self.change(|block| block.add(cache, netrc, id))
            .map(|(changed, ())| changed)
    }

    /// Takes back what [`ConfigFiles::apply`] wrote of a cache. What was known of it; `None` if it was not there.
    pub fn remove(&self, url: &str) -> Result<Option<KnownCache>> {
        let block = block::read(&read_text(&self.nix_conf)?);
        if !block.substituters.iter().any(|other| other == url) {
            return Ok(None);
        }
        refuse_unwritable(&self.nix_conf)?;
        let host = |url: &str| ServerUrl::parse(url).map(|url| url.host().to_owned());
        let own = host(url)?;
        let mut others = block.substituters.iter().filter(|other| *other != url);
        let last_of_host = !others.any(|other| host(other).is_ok_and(|host| host == own));
        let netrc = block
            .netrc
            .map_or_else(|| self.netrc.clone(), PathBuf::from);
        let old = read_text(&netrc)?;
        let new = netrc::without_machine(&old, &own);
        if last_of_host && new != old {
            refuse_unwritable(&netrc)?;
            match new.is_empty() {
                true => remove_file(&netrc)?,
                false => write_secret(&netrc, new.as_bytes())?,
            }
        }
        self.change(|block| block.remove(url))
            .map(|(_, known)| known)
    }

    fn change<T>(&self, change: impl FnOnce(&mut block::Block) -> T) -> Result<(bool, T)> {
        let old = read_text(&self.nix_conf)?;
        let (new, result) = block::changed(&old, change);
        match new.is_empty() {
            _ if new == old => {}
            true => remove_file(&self.nix_conf)?,
            false => write_public(&self.nix_conf, new.as_bytes())?,
        }
        Ok((new != old, result))
    }
}

fn refuse_unwritable(path: &Path) -> Result<()> {
    let refuse = |what: String| {
        Err(ClientError::Unwritable {
            path: path.to_owned(),
            what,
        })
    };
    // The file may be a link, and so may a folder above it, whether the file is there or not.
    let real = path
        .ancestors()
        .find_map(|path| std::fs::canonicalize(path).ok());
    if let Some(real) = real.filter(|real| real.starts_with(STORE)) {
        return refuse(format!("it leads to {} in the Nix store", real.display()));
    }
    match std::fs::metadata(path) {
        Ok(file) if file.permissions().mode() & 0o222 == 0 => {
            refuse("nobody may write it".to_owned())
        }
        Ok(_) => Ok(()),
        // A link that leads nowhere, such as to what was in the store.
        Err(_) if path.is_symlink() => refuse("it is a link that leads nowhere".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ClientError::io(path, source)),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ClientError::io(path, error))
        }
        _ => Ok(()),
    }
}

fn read_text(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(ClientError::io(path, source)),
    }
}

#[cfg(test)]
mod tests;
