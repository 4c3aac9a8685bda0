//! Tokens: JWTs signed with HS256 by a key of this server, revocable by their id.
//!
//! The keys lie in `token.key`, mode 0600, one a line: 64 hexadecimal characters, and `until=SECONDS` if tokens that
//! it signed are good no longer than that. The last line signs. What was issued and what was revoked are entries of
//! the system cache; the tokens themselves are kept nowhere.

mod secrets;
mod url;

pub use url::UrlClaims;

use super::name::pattern_covers;
use crate::{ServiceError, sync};
use bytes::Bytes;
use firn_formats::Sha256;
use firn_formats::actions::{RepositoryName, Scopes};
use firn_formats::admin::{Right, TokenCreate, TokenCreated, TokenView};
use firn_store::{CacheId, EntryKind, IfExists, NewEntry, Publication, Store};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache as QuickCache;
use secrets::{Key, load_or_make_keys, without_old, write_keys};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest token looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Most patterns in one token.
const PATTERNS_MAX: usize = 100;
/// Tokens whose check is remembered.
const REMEMBERED_TOKENS: usize = 4096;
/// How far clocks of machines that share a key may differ, in seconds.
const CLOCK_SECONDS: u64 = 60;
/// The end of Actions tokens that have none: Go's clients want a number. It is that of the year 9999.
const NEVER: u64 = 253_402_300_799;
/// Entries read at once.
const PAGE: usize = 1000;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct Claims {
    pub jti: String,
    /// Seconds since 1970.
    pub iat: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Patterns of cache names.
    pub caches: Vec<String>,
    pub allow: Vec<Right>,
    /// The token this one was exchanged for; it ends with that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Made by the registry's token endpoint for the scopes asked; more can be asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub registry: bool,
    /// Seconds since 1970; Go's Actions clients want it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// The repository of the Actions cache that `ac` is about, in the one cache that `caches` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The newest of the store's sequence numbers when it was made; absent in tokens of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// What may be read and saved there, as [`Scopes`] read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ac: Option<String>,
}

impl Claims {
    /// Whether the token gives `right` on the cache called `name` (or on all a pattern covers).
    /// Admin holds every right, and push that to create.
    pub fn grants(&self, name: &str, right: Right) -> bool {
        let allowed = self.allow.contains(&right)
            || self.allow.contains(&Right::Admin)
            || (right == Right::Create && self.allow.contains(&Right::Push));
        allowed
            && self
                .caches
                .iter()
                .any(|pattern| pattern_covers(pattern, name))
    }
}

impl Claims {
    /// The cache, repository and scopes of a token for the Actions cache.
    pub fn actions(&self) -> Option<(&str, RepositoryName, Scopes)> {
        let [cache] = self.caches.as_slice() else {
            return None;
        };
        let repository = RepositoryName::parse(self.repo.as_deref()?).ok()?;
        Some((cache, repository, Scopes::parse(self.ac.as_deref()?).ok()?))
    }
}

/// A token's public face, as the system cache keeps it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Issued {
    claims: Claims,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Why a token is not accepted. Tells nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TokenFault {
    #[error("the token is not one of this server's")]
    Invalid,
    #[error("the token has expired")]
    Expired,
    #[error("the token was revoked")]
    Revoked,
}

/// Issues, checks and revokes tokens.
pub struct Tokens {
    store: Store,
    system: CacheId,
    path: PathBuf,
    /// The newest last; never empty.
    keys: RwLock<Vec<Key>>,
    validation: Validation,
    /// With the end of the key that signed.
    remembered: QuickCache<Sha256, (Arc<Claims>, Option<u64>)>,
    revoked: RwLock<HashSet<String>>,
    /// Names of caches that were deleted, each with the sequence number of that: older tokens do not name the cache
    /// that has the name now.
    deleted: RwLock<HashMap<String, u64>>,
}

/// What stands before a deleted cache's name in its key, among those of revoked tokens: their ids are hexadecimal.
const DELETED_PREFIX: &str = "cache:";

/// Seconds since 1970. It decides about tokens, never about data.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn store_seconds(store: &Store) -> u64 {
    u64::try_from(store.now_ms() / 1000).unwrap_or(0)
}

/// 16 random bytes in hexadecimal.
///
/// # Errors
/// If the system gives none.
pub fn random_id() -> Result<String, ServiceError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(ServiceError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A time in RFC 3339; `None` if it is out of reach.
pub fn rfc3339(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_string())
}

impl Tokens {
    /// Loads or makes the key in `dir`; `system` is the cache that holds the lists.
    pub(crate) fn open(store: Store, system: CacheId, dir: &Path) -> Result<Self, ServiceError> {
        let path = dir.join("token.key");
        let mut keys = load_or_make_keys(&path)?;
        // What is over by one of the clocks only may be good again.
        if without_old(&mut keys, now().min(store_seconds(&store))) {
            write_keys(&path, &keys)?;
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        // Checked at each use, since the check of the signature is remembered.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let mut revoked = HashSet::new();
        let mut deleted = HashMap::new();
        for_each_entry(&store, system, EntryKind::RevokedToken, |entry| {
            match entry.key.strip_prefix(DELETED_PREFIX) {
                Some(cache) => drop(deleted.insert(cache.to_owned(), entry.sequence)),
                None => drop(revoked.insert(entry.key)),
            }
            Ok(())
        })?;
        Ok(Self {
            store,
            system,
            path,
            keys: RwLock::new(keys),
            validation,
            remembered: QuickCache::new(REMEMBERED_TOKENS),
            revoked: RwLock::new(revoked),
            deleted: RwLock::new(deleted),
        })
    }

    /// Checks signature, expiry and revocation.
    ///
    /// # Errors
    /// Says why it is refused.
    pub fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::Invalid);
        }
        let fingerprint = Sha256::of(token.as_bytes());
        let (claims, key_until) = match self.remembered.get(&fingerprint) {
            Some(known) => known,
            None => {
                // Held until it is remembered: a rotation changes the keys' ends and then forgets all.
                let keys = sync::read(&self.keys);
                // … as does the deletion of a cache.
                let deleted = sync::read(&self.deleted);
                let (mut claims, until) = self.decode(&keys, token).ok_or(TokenFault::Invalid)?;
                claims.caches.retain(|name| {
                    let gone = deleted.get(name);
                    gone.is_none_or(|gone| claims.seq.is_some_and(|seq| seq >= *gone))
                });
                let found = (Arc::new(claims), until);
                self.remembered.insert(fingerprint, found.clone());
                found
            }
        };
        let now = now();
        if key_until.is_some_and(|until| until <= now) {
            return Err(TokenFault::Invalid);
        }
        if claims
            .nbf
            .is_some_and(|nbf| nbf > now.saturating_add(CLOCK_SECONDS))
        {
            return Err(TokenFault::Invalid);
        }
        if claims.exp.is_some_and(|exp| exp <= now) {
            return Err(TokenFault::Expired);
        }
        let revoked = sync::read(&self.revoked);
        let ended = |id: &String| revoked.contains(id);
        if ended(&claims.jti) || claims.parent.as_ref().is_some_and(ended) {
            return Err(TokenFault::Revoked);
        }
        Ok(claims)
    }

    /// The claims of a token that one of the keys signed, the newest asked first, and that key's end. The
    /// comparison takes the same time wherever signatures differ: it is the library's.
    fn decode(&self, keys: &[Key], token: &str) -> Option<(Claims, Option<u64>)> {
        keys.iter().rev().find_map(|key| {
            let decoding = DecodingKey::from_secret(&key.secret);
            let decoded = jsonwebtoken::decode::<Claims>(token, &decoding, &self.validation);
            Some((decoded.ok()?.claims, key.until))
        })
    }

    /// A new key signs from now on; what older ones signed is good for `overlap` seconds more. Returns until when.
    ///
    /// # Errors
    /// If the overlap is too long, or the file cannot be written.
    pub(crate) fn rotate(&self, overlap: u64) -> Result<u64, ServiceError> {
        if overlap > super::keys::OVERLAP_SECONDS_MAX {
            return Err(ServiceError::BadRequest(
                "keys overlap for ten years at most".to_owned(),
            ));
        }
        let now = now();
        let end = now.saturating_add(overlap);
        let mut keys = sync::write(&self.keys);
        let mut changed = keys.clone();
        for old in &mut changed {
            old.until = Some(old.until.map_or(end, |until| until.min(end)));
        }
        if overlap == 0 {
            // Whatever the clocks say later.
            changed.clear();
        }
        changed.push(Key::random()?);
        without_old(&mut changed, now.min(store_seconds(&self.store)));
        write_keys(&self.path, &changed)?;
        *keys = changed;
        // What is remembered has the ends that keys had before.
        self.remembered.clear();
        drop(keys);
        tracing::info!(overlap, "rotated the key of tokens");
        Ok(end)
    }

    /// Lets go of keys whose time is over by both clocks, the wall's and the store's, which says `store_now`: tokens go by
    /// the wall clock, but a key that was thrown away while that was wrong would not come back.
    pub(crate) fn retire(&self, store_now: u64) -> Result<(), ServiceError> {
        let now = now().min(store_now);
        let over = sync::read(&self.keys).iter().any(|key| key.is_over(now));
        if over {
            let mut keys = sync::write(&self.keys);
            if without_old(&mut keys, now) {
                write_keys(&self.path, &keys)?;
            }
        }
        Ok(())
    }

    /// Makes a token and keeps its public face.
    ///
    /// # Errors
    /// If the request is unsound or the store fails.
    pub fn create(&self, request: &TokenCreate) -> Result<TokenCreated, ServiceError> {
        check_request(request)?;
        let claims = self.claims(request)?;
        let token = self.sign(&claims)?;
        let created = TokenCreated {
            id: claims.jti.clone(),
            token,
            expires: claims.exp.and_then(rfc3339),
        };
        let issued = Issued {
            claims,
            note: request.note.clone(),
        };
        self.put(
            EntryKind::Token,
            &created.id,
            serde_json::to_vec(&issued)?.into(),
        )?;
        Ok(created)
    }

    /// As [`Tokens::create`], kept in no list: for tokens that end soon.
    ///
    /// # Errors
    /// If the request is unsound.
    pub fn issue(&self, request: &TokenCreate) -> Result<TokenCreated, ServiceError> {
        check_request(request)?;
        let claims = self.claims(request)?;
        Ok(TokenCreated {
            token: self.sign(&claims)?,
            expires: claims.exp.and_then(rfc3339),
            id: claims.jti,
        })
    }

    fn claims(&self, request: &TokenCreate) -> Result<Claims, ServiceError> {
        let iat = now();
        let exp = request
            .expires_in
            .map(|seconds| iat.saturating_add(seconds));
        let mut claims = Claims {
            jti: random_id()?,
            iat,
            seq: Some(self.newest()?),
            exp,
            caches: request.caches.clone(),
            allow: request.allow.clone(),
            parent: None,
            registry: false,
            nbf: None,
            repo: None,
            ac: None,
        };
        if let Some(grant) = &request.actions {
            let scopes = Scopes::new(grant.scopes.clone());
            let scopes = scopes.map_err(|error| ServiceError::BadRequest(error.to_string()))?;
            let repository = RepositoryName::parse(&grant.repository);
            let repository =
                repository.map_err(|error| ServiceError::BadRequest(error.to_string()))?;
            claims.exp = Some(exp.unwrap_or(NEVER));
            claims.nbf = Some(iat);
            claims.repo = Some(repository.to_string());
            claims.ac = Some(scopes.claim());
        }
        Ok(claims)
    }

    /// A short-lived token with no more rights than `parent` (anonymous without); kept in no list.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn exchange(
        &self,
        parent: Option<&Claims>,
        caches: Vec<String>,
        allow: Vec<Right>,
        seconds: u64,
    ) -> Result<(String, Claims), ServiceError> {
        let iat = now();
        let end = iat.saturating_add(seconds);
        let claims = Claims {
            jti: random_id()?,
            iat,
            seq: Some(self.newest()?),
            exp: Some(
                parent
                    .and_then(|claims| claims.exp)
                    .map_or(end, |exp| exp.min(end)),
            ),
            caches,
            allow,
            parent: parent
                .map(|claims| claims.parent.clone().unwrap_or_else(|| claims.jti.clone())),
            registry: true,
            nbf: None,
            repo: None,
            ac: None,
        };
        Ok((self.sign(&claims)?, claims))
    }

    fn sign(&self, claims: &impl serde::Serialize) -> Result<String, ServiceError> {
        let keys = sync::read(&self.keys);
        let secret = keys.last().map_or(&[][..], |key| &key.secret);
        let encoding = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &encoding)
            .map_err(ServiceError::Token)
    }

    /// All issued tokens, newest last.
    ///
    /// # Errors
    /// If the store fails.
    pub fn list(&self) -> Result<Vec<TokenView>, ServiceError> {
        let mut issued = Vec::new();
        for_each_entry(&self.store, self.system, EntryKind::Token, |entry| {
            issued.push(serde_json::from_slice::<Issued>(&entry.value)?);
            Ok(())
        })?;
        issued.sort_by(|a, b| (a.claims.iat, &a.claims.jti).cmp(&(b.claims.iat, &b.claims.jti)));
        Ok(issued.into_iter().map(|token| self.view(token)).collect())
    }

    fn view(&self, token: Issued) -> TokenView {
        TokenView {
            revoked: sync::read(&self.revoked).contains(&token.claims.jti),
            expires: token.claims.exp.and_then(rfc3339),
            id: token.claims.jti,
            caches: token.claims.caches,
            allow: token.claims.allow,
            note: token.note,
        }
    }

    /// One issued token.
    ///
    /// # Errors
    /// If the store fails.
    pub fn get(&self, id: &str) -> Result<Option<TokenView>, ServiceError> {
        let Some(entry) = self.store.entry(self.system, EntryKind::Token, id)? else {
            return Ok(None);
        };
        Ok(Some(self.view(serde_json::from_slice(&entry.value)?)))
    }

    /// Ends a token, and those exchanged for it, at once.
    ///
    /// # Errors
    /// If the store fails.
    pub fn revoke(&self, id: &str) -> Result<(), ServiceError> {
        self.put(EntryKind::RevokedToken, id, Bytes::new())?;
        sync::write(&self.revoked).insert(id.to_owned());
        Ok(())
    }

    /// Tokens made before now name no cache of this name any more, but for patterns.
    ///
    /// # Errors
    /// If the store fails.
    pub(crate) fn end_those_of(&self, cache: &str) -> Result<(), ServiceError> {
        let key = format!("{DELETED_PREFIX}{cache}");
        self.put(EntryKind::RevokedToken, &key, Bytes::new())?;
        let entry = self
            .store
            .entry(self.system, EntryKind::RevokedToken, &key)?;
        let sequence = match entry {
            Some(entry) => entry.sequence,
            None => self.newest()?,
        };
        sync::write(&self.deleted).insert(cache.to_owned(), sequence);
        self.remembered.clear();
        Ok(())
    }

    fn newest(&self) -> Result<u64, ServiceError> {
        let (_, newest) = self.store.now_and_newest()?;
        Ok(newest)
    }

    fn put(&self, kind: EntryKind, key: &str, value: Bytes) -> Result<(), ServiceError> {
        let entry = NewEntry {
            kind,
            key: key.to_owned(),
            value,
            blobs: Vec::new(),
            requires: Vec::new(),
            if_exists: IfExists::Replace,
            lease: None,
        };
        let publication = Publication {
            entries: vec![entry],
            deletions: Vec::new(),
        };
        self.store.publish(None, self.system, publication)?;
        Ok(())
    }
}

fn check_request(request: &TokenCreate) -> Result<(), ServiceError> {
    let refuse = |why: &str| Err(ServiceError::BadRequest(why.to_owned()));
    if request.caches.is_empty() || (request.allow.is_empty() && request.actions.is_none()) {
        return refuse("a token names at least one cache pattern and one right");
    }
    if let Some(grant) = &request.actions {
        if request.caches.len() != 1 || request.caches[0].contains('*') {
            return refuse("a token for the Actions cache names one cache, without `*`");
        }
        if grant.scopes.is_empty() {
            return refuse("a token for the Actions cache names at least one scope");
        }
    }
    if request.caches.len() > PATTERNS_MAX || request.caches.iter().any(|name| name.len() > 256) {
        return refuse("too many cache patterns, or too long ones");
    }
    let sound =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' | b'*');
    if !request
        .caches
        .iter()
        .all(|name| !name.is_empty() && name.bytes().all(sound))
    {
        return refuse(
            "a cache pattern has lower-case letters, digits, `.`, `_`, `-`, `/` and `*`",
        );
    }
    if request.note.as_ref().is_some_and(|note| note.len() > 1024) {
        return refuse("the note is too long");
    }
    Ok(())
}

fn for_each_entry(
    store: &Store,
    cache: CacheId,
    kind: EntryKind,
    mut take: impl FnMut(firn_store::Entry) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    let mut after: Option<String> = None;
    loop {
        let page = store.entries(cache, kind, "", after.as_deref(), PAGE)?;
        let whole = page.len() == PAGE;
        after = page.last().map(|entry| entry.key.clone());
        for entry in page {
            take(entry)?;
        }
        if !whole {
            return Ok(());
        }
    }
}
