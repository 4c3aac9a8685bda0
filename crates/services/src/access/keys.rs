//! Signing keys: one file a cache, `keys/<cache with / as %2F>.secret`, one key a line.
//!
//! ```text
//! <name>:<base64 secret>                    signs
//! <name>:<base64 secret> until=<seconds>    signs until then (seconds since 1970, by the store's clock), and is
//!                                           retired after it
//! retired <name>:<base64 public>            signs no more; its signatures are known as the cache's own
//! ```
//! A key's name is `firn-<cache with / as ->-<random>-<number>`. Nix keeps one key for a name, so a name belongs to
//! one key alone: the random part differs for each server, each cache, and each cache that is made again. Keys
//! that were made before names had it keep theirs.
//!
//! They lie beside the database and never in it, so that they survive its loss.

use crate::{ServiceError, secret_file};
use firn_formats::nix::{PublicKey, SecretKey, Signature};
use std::path::{Path, PathBuf};

/// Longest overlap of two keys, in seconds.
pub(crate) const OVERLAP_SECONDS_MAX: u64 = 10 * 365 * 86400;

/// A key that signs.
struct Signing {
    key: SecretKey,
    /// Seconds since 1970, by the store's clock: a secret that is retired is gone for good.
    until: Option<u64>,
}

/// A cache's keys, the oldest first.
pub struct Keys {
    signing: Vec<Signing>,
    retired: Vec<PublicKey>,
}

/// Where a cache's keys lie.
pub(crate) fn path(dir: &Path, cache: &str) -> PathBuf {
    dir.join("keys")
        .join(format!("{}.secret", cache.replace('/', "%2F")))
}

/// Reads a cache's keys, or makes the first. Secrets whose time is over are taken out of the file.
pub(crate) fn load_or_make(dir: &Path, cache: &str, now: u64) -> Result<Keys, ServiceError> {
    let path = path(dir, cache);
    if let Some(text) = secret_file::read(&path)? {
        let mut keys = Keys::parse(&path, &text)?;
        if keys.retire(now) {
            secret_file::write(&path, &keys.text())?;
        }
        return Ok(keys);
    }
    secret_file::make_folder(&dir.join("keys"))?;
    let keys = Keys {
        signing: vec![Signing {
            key: random(&format!("{}-1", base_name(cache)?))?,
            until: None,
        }],
        retired: Vec::new(),
    };
    secret_file::write(&path, &keys.text())?;
    tracing::info!(cache, "made a signing key");
    Ok(keys)
}

/// Adds a new key to the file; the one before it signs for `overlap` seconds more. Those of which an end is known
/// already keep it.
pub(crate) fn rotate(dir: &Path, cache: &str, overlap: u64, now: u64) -> Result<(), ServiceError> {
    if overlap > OVERLAP_SECONDS_MAX {
        return Err(ServiceError::BadRequest(
            "keys overlap for ten years at most".to_owned(),
        ));
    }
    let path = path(dir, cache);
    let mut keys = load_or_make(dir, cache, now)?;
    let key = random(&keys.next_name(cache)?)?;
    let end = now.saturating_add(overlap);
    for old in &mut keys.signing {
        old.until.get_or_insert(end);
    }
    tracing::info!(cache, key = key.name(), overlap, "rotated the signing key");
    keys.signing.push(Signing { key, until: None });
    keys.retire(now);
    secret_file::write(&path, &keys.text())
}

/// The name of a cache's keys without their number. No other cache has it, here or elsewhere.
fn base_name(cache: &str) -> Result<String, ServiceError> {
    let mut bytes = [0; 5];
    getrandom::fill(&mut bytes).map_err(ServiceError::Random)?;
    let unique: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}{unique}", base_begin(cache)))
}

/// What comes before the random part.
fn base_begin(cache: &str) -> String {
    format!("firn-{}-", cache.replace('/', "-"))
}

/// A key's name without its number, and the number.
fn split_name(name: &str) -> Option<(&str, u64)> {
    let (base, number) = name.rsplit_once('-')?;
    Some((base, number.parse().ok()?))
}

fn random(name: &str) -> Result<SecretKey, ServiceError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(ServiceError::Random)?;
    Ok(SecretKey::from_seed(name, seed))
}

impl Keys {
    fn parse(path: &Path, text: &str) -> Result<Self, ServiceError> {
        let malformed = |what: String| ServiceError::SecretContent {
            path: path.to_owned(),
            what,
        };
        let mut keys = Self {
            signing: Vec::new(),
            retired: Vec::new(),
        };
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let unsound =
                |error: &dyn std::fmt::Display| malformed(format!("line {number}: {error}"));
            match words.as_slice() {
                [] => {}
                ["retired", key] => keys
                    .retired
                    .push(PublicKey::parse(key).map_err(|error| unsound(&error))?),
                [key] => keys.signing.push(Signing {
                    key: SecretKey::parse(key).map_err(|error| unsound(&error))?,
                    until: None,
                }),
                [key, until] => keys.signing.push(Signing {
                    key: SecretKey::parse(key).map_err(|error| unsound(&error))?,
                    until: Some(parse_until(until).ok_or_else(|| unsound(&"not `until=SECONDS`"))?),
                }),
                _ => return Err(unsound(&"too many words")),
            }
        }
        match keys.signing.is_empty() {
            true => Err(malformed("it holds no key that signs".to_owned())),
            false => Ok(keys),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for key in &self.retired {
            text.push_str(&format!("retired {key}\n"));
        }
        for Signing { key, until } in &self.signing {
            text.push_str(&key.to_secret_string());
            if let Some(until) = until {
                text.push_str(&format!(" until={until}"));
            }
            text.push('\n');
        }
        text
    }

    /// Retires what is over; whether anything was. The last key signs on, whatever its line says.
    fn retire(&mut self, now: u64) -> bool {
        let mut changed = false;
        while self.signing.len() > 1
            && let Some(over) = self.signing.iter().position(|signing| signing.is_over(now))
        {
            let signing = self.signing.remove(over);
            self.retired.push(signing.key.public());
            changed = true;
        }
        changed
    }

    /// Whether a key's time is over, so that they are to be loaded again.
    pub(crate) fn retirement_is_due(&self, now: u64) -> bool {
        self.signing.len() > 1 && self.signing.iter().any(|signing| signing.is_over(now))
    }

    /// The name of the next key: numbers go on. The base stays, unless it is from the time of `<cache>-<number>`,
    /// which other servers' caches may have too.
    fn next_name(&self, cache: &str) -> Result<String, ServiceError> {
        let numbers = self.own_names().filter_map(split_name);
        let last = numbers.map(|(_, number)| number).max().unwrap_or(0);
        let newest = self
            .signing
            .last()
            .and_then(|signing| split_name(signing.key.name()));
        let base = match newest {
            Some((base, _)) if base.starts_with(&base_begin(cache)) => base.to_owned(),
            _ => base_name(cache)?,
        };
        Ok(format!("{base}-{}", last.saturating_add(1)))
    }

    fn own_names(&self) -> impl Iterator<Item = &str> {
        let signing = self.signing.iter().map(|signing| signing.key.name());
        signing.chain(self.retired.iter().map(|key| key.name.as_str()))
    }

    /// Whether a key of this name is, or was, the cache's: signatures under it are made here.
    pub(crate) fn own(&self, name: &str) -> bool {
        self.own_names().any(|own| own == name)
    }

    /// The public halves of the keys that sign.
    pub(crate) fn public(&self) -> Vec<PublicKey> {
        let signing = self.signing.iter();
        signing.map(|signing| signing.key.public()).collect()
    }

    /// A signature by each key that signs.
    pub(crate) fn sign(&self, fingerprint: &str) -> Vec<Signature> {
        let signing = self.signing.iter();
        signing
            .map(|signing| signing.key.sign(fingerprint))
            .collect()
    }

    /// Whether the signature was made here, by a key that signs or has signed.
    pub(crate) fn made(&self, fingerprint: &str, signature: &Signature) -> bool {
        let public = self.public();
        let mut known = public.iter().chain(&self.retired);
        known.any(|key| key.verify(fingerprint, signature))
    }

    /// Changes with what signs. 0: there has been but one key.
    pub(crate) fn generation(&self) -> u32 {
        let (signing, retired) = (self.signing.len() as u32, self.retired.len() as u32);
        (signing - 1) << 16 | retired << 1 | u32::from(signing + retired > 1)
    }
}

impl Signing {
    fn is_over(&self, now: u64) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// Reads `until=SECONDS`.
pub(super) fn parse_until(word: &str) -> Option<u64> {
    word.strip_prefix("until=")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(keys: &Keys) -> Vec<String> {
        let public = keys.public();
        public.into_iter().map(|key| key.name).collect()
    }

    #[test]
    fn keys_overlap_retire_and_keep_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let load = |now| load_or_make(folder.path(), "acme/web", now).unwrap();
        let first = load(0);
        assert_eq!(first.generation(), 0);
        let base = split_name(&names(&first)[0]).unwrap().0.to_owned();
        let name = |number: u64| format!("{base}-{number}");
        assert_eq!(names(&first), [name(1)]);
        rotate(folder.path(), "acme/web", 3600, 1000).unwrap();
        let both = load(1000);
        assert_eq!(names(&both), [name(1), name(2)]);
        rotate(folder.path(), "acme/web", 0, 4600).unwrap();
        let third = load(4600);
        assert_eq!(names(&third), [name(3)]);
        assert!(third.own(&name(1)) && !third.own(&name(4)));
        let signature = first.sign("text").remove(0);
        assert!(third.made("text", &signature) && !third.made("other", &signature));
        let text = std::fs::read_to_string(path(folder.path(), "acme/web")).unwrap();
        assert_eq!(text.matches("retired ").count(), 2);
        assert!(!text.contains(&first.signing[0].key.to_secret_string()));
        let generations = [first.generation(), both.generation(), third.generation()];
        assert!(generations[1] != generations[0] && generations[1] != generations[2]);
    }

    fn first_name(folder: &Path, cache: &str) -> String {
        load_or_make(folder, cache, 0)
            .unwrap()
            .public()
            .remove(0)
            .name
    }

    #[test]
    fn n1_no_two_keys_have_one_name() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut names = vec![
            first_name(here.path(), "main"),
            first_name(there.path(), "main"),
            first_name(here.path(), "acme/web"),
            first_name(here.path(), "acme-web"),
            first_name(here.path(), "cache.nixos.org"),
        ];
        // A cache that is deleted and made again.
        secret_file::remove(&path(here.path(), "main")).unwrap();
        names.push(first_name(here.path(), "main"));
        assert!(!names.iter().any(|name| name.starts_with("cache.nixos.org")));
        let different: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
        // What is there keeps its name.
        assert_eq!(first_name(here.path(), "main"), names[5]);
    }

    #[test]
    fn n1_keys_with_names_of_before_stay_and_are_followed_by_one_with_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "main");
        secret_file::make_folder(&folder.path().join("keys")).unwrap();
        let old = random("main-1").unwrap();
        secret_file::write(&path, &format!("{}\n", old.to_secret_string())).unwrap();
        assert_eq!(first_name(folder.path(), "main"), "main-1");
        rotate(folder.path(), "main", 3600, 1000).unwrap();
        let keys = load_or_make(folder.path(), "main", 1000).unwrap().public();
        assert_eq!(keys[0].name, "main-1");
        let (base, number) = split_name(&keys[1].name).unwrap();
        assert!(base.starts_with("firn-main-") && number == 2, "{base}");
    }

    #[test]
    fn n12_a_rotation_leaves_the_overlap_of_an_older_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = |now| -> Vec<u64> {
            let keys = load_or_make(folder.path(), "main", now).unwrap();
            let number = |name: &String| split_name(name).unwrap().1;
            names(&keys).iter().map(number).collect()
        };
        assert_eq!(numbers(0), [1]);
        rotate(folder.path(), "main", 3600, 1000).unwrap();
        // The second key leaked; clients that know only the first have until 4600 as they were told.
        rotate(folder.path(), "main", 0, 2000).unwrap();
        assert_eq!(numbers(2000), [1, 3]);
        rotate(folder.path(), "main", 10_000, 3000).unwrap();
        assert_eq!(numbers(4599), [1, 3, 4]);
        assert_eq!(numbers(4600), [3, 4]);
        assert_eq!(numbers(13_000), [4]);
    }

    #[test]
    fn malformed_lines_are_named_without_the_secret() {
        let path = Path::new("x.secret");
        for text in ["", "a:b", "retired x", "n:AAAA until=x", "a b c"] {
            let Err(error) = Keys::parse(path, text) else {
                panic!("{text:?} was taken");
            };
            assert!(!error.to_string().contains("AAAA"), "{error}");
        }
    }
}
