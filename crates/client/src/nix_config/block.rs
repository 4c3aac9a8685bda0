//! Our block in nix.conf.
//!
//! ```text
//! # >>> firn: caches; this block is rewritten by `firn use`
//! # cache URL [private] [token=ID] key=NAME:KEY …     what belongs to whom; older versions wrote none
//! extra-substituters = URL …
//! extra-trusted-public-keys = NAME:KEY …
//! netrc-file = FILE
//! # <<< firn
//! ```

use super::UseCache;
use std::path::Path;

pub(super) const BLOCK_BEGIN: &str = "# >>> firn: caches; this block is rewritten by `firn use`";
const BLOCK_END: &str = "# <<< firn";
const CACHE: &str = "# cache ";

/// A cache of the block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownCache {
    /// The substituter's URL.
    pub url: String,
    /// Whether reading it needs a token.
    pub private: bool,
    /// The token that was made for it.
    pub token_id: Option<String>,
    keys: Vec<String>,
}

impl KnownCache {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut known = Self {
            url: words.next()?.to_owned(),
            ..Self::default()
        };
        for word in words {
            match word.split_once('=') {
                None if word == "private" => known.private = true,
                Some(("token", id)) => known.token_id = Some(id.to_owned()),
                Some(("key", key)) => known.keys.push(key.to_owned()),
                _ => {}
            }
        }
        Some(known)
    }

    fn line(&self) -> String {
        let mut line = format!("{CACHE}{}", self.url);
        if self.private {
            line.push_str(" private");
        }
        if let Some(id) = &self.token_id {
            line.push_str(&format!(" token={id}"));
        }
        for key in &self.keys {
            line.push_str(&format!(" key={key}"));
        }
        line
    }
}

/// The values of our block, in order.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) substituters: Vec<String>,
    pub(super) keys: Vec<String>,
    pub(super) netrc: Option<String>,
    pub(super) known: Vec<KnownCache>,
}

impl Block {
    fn parse(lines: &[&str]) -> Self {
        let mut block = Self::default();
        for line in lines {
            if let Some(text) = line.trim().strip_prefix(CACHE) {
                block.known.extend(KnownCache::parse(text));
                continue;
            }
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

    pub(super) fn add(&mut self, cache: &UseCache, netrc: Option<&Path>, token_id: Option<&str>) {
        let before = self.take(&cache.url);
        match &before {
            Some((_, known)) => self.drop_keys(known, &cache.public_keys),
            None => self.forget_old_keys(cache),
        }
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
        let place = before
            .as_ref()
            .map_or(self.known.len(), |(place, _)| *place);
        let kept = before.and_then(|(_, known)| known.token_id);
        let known = KnownCache {
            url: cache.url.clone(),
            private: cache.private,
            token_id: token_id.map(str::to_owned).or(kept),
            keys: cache.public_keys.clone(),
        };
        self.known.insert(place, known);
    }

    /// Takes out what the block says of a cache, and tells where it said so.
    fn take(&mut self, url: &str) -> Option<(usize, KnownCache)> {
        let place = self.known.iter().position(|known| known.url == url)?;
        Some((place, self.known.remove(place)))
    }

    /// Takes out the keys of a cache, but for some and for those that another cache has, too.
    fn drop_keys(&mut self, cache: &KnownCache, but: &[String]) {
        let others: Vec<&String> = self.known.iter().flat_map(|known| &known.keys).collect();
        self.keys
            .retain(|key| !cache.keys.contains(key) || but.contains(key) || others.contains(&key));
    }

    /// Takes a cache out. What an older version wrote does not say which keys are its: then they go by their names.
    pub(super) fn remove(&mut self, url: &str) -> Option<KnownCache> {
        let place = self.substituters.iter().position(|other| other == url)?;
        self.substituters.remove(place);
        let known = match self.take(url) {
            Some((_, known)) => {
                self.drop_keys(&known, &[]);
                known
            }
            None => {
                let name = cache_name(url).unwrap_or_default();
                let own = format!("{}-", name.replace('/', "-"));
                let alike = |other: &String| cache_name(other).as_deref() == Some(name.as_str());
                if !self.substituters.iter().any(alike) {
                    let number =
                        |key: &str| key.split(':').next()?.strip_prefix(&own)?.parse().ok();
                    self.keys
                        .retain(|key| number(key).is_none_or(|_: u64| false));
                }
                KnownCache {
                    url: url.to_owned(),
                    ..KnownCache::default()
                }
            }
        };
        if self.substituters.is_empty() {
            *self = Self::default();
        }
        Some(known)
    }

    /// Keys that the cache has had before, by their names; for blocks that do not say whose keys are whose. A cache
    /// of another server may have the same name, and so the same names of keys: then nothing is forgotten.
    fn forget_old_keys(&mut self, cache: &UseCache) {
        let alike = |url: &String| *url != cache.url && cache_name(url) == cache_name(&cache.url);
        if self.substituters.iter().any(alike) {
            return;
        }
        let base = |key: &str| {
            let (base, number) = key.split(':').next()?.rsplit_once('-')?;
            number.parse::<u64>().ok().map(|_| base.to_owned())
        };
        let ours: Vec<_> = cache.public_keys.iter().map(|key| base(key)).collect();
        let named = |key: &String| self.known.iter().any(|known| known.keys.contains(key));
        self.keys.retain(|key| {
            named(key)
                || cache.public_keys.contains(key)
                || base(key).is_none()
                || !ours.contains(&base(key))
        });
    }

    fn write(&self) -> String {
        if self.substituters.is_empty() {
            return String::new();
        }
        let known: String = self
            .known
            .iter()
            .map(|known| format!("{}\n", known.line()))
            .collect();
        let mut text = format!(
            "{BLOCK_BEGIN}\n{known}extra-substituters = {}\nextra-trusted-public-keys = {}\n",
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

/// The cache's name in its URL.
fn cache_name(url: &str) -> Option<String> {
    url.splitn(4, '/').nth(3).map(str::to_owned)
}

/// A nix.conf's lines before our block, of it, and after it.
fn parts<'l, 't>(lines: &'l [&'t str]) -> (&'l [&'t str], &'l [&'t str], &'l [&'t str]) {
    let is = |mark: &'static str| move |line: &&str| line.trim() == mark;
    let found = lines.iter().position(is(BLOCK_BEGIN)).and_then(|begin| {
        let (before, rest) = lines.split_at(begin);
        let end = rest.iter().position(is(BLOCK_END))?;
        Some((before, rest.get(1..end)?, rest.get(end + 1..)?))
    });
    found.unwrap_or((lines, &[], &[]))
}

/// The block of a nix.conf; empty if there is none.
pub(super) fn read(text: &str) -> Block {
    let lines: Vec<&str> = text.lines().collect();
    Block::parse(parts(&lines).1)
}

/// A nix.conf with its block changed; every other line stays as it is. An empty block is left out.
pub(super) fn changed<T>(text: &str, change: impl FnOnce(&mut Block) -> T) -> (String, T) {
    let lines: Vec<&str> = text.lines().collect();
    let (before, ours, after) = parts(&lines);
    let mut block = Block::parse(ours);
    let result = change(&mut block);
    let joined =
        |lines: &[&str]| -> String { lines.iter().map(|line| format!("{line}\n")).collect() };
    let text = format!("{}{}{}", joined(before), block.write(), joined(after));
    (text, result)
}
