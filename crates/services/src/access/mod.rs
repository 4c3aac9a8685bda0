//! Who may do what: caches with their configuration and keys, tokens, the matrix of rights.
//!
//! Caches are held in memory: a store has one process that writes to it, so what this process
//! knows is what there is.

pub mod keys;
pub mod name;
pub mod oidc;
pub mod token;

pub use keys::Keys;
pub use token::{Claims, TokenFault, Tokens, UrlClaims};

use crate::actions::{ActionsConfig, Repository};
use crate::{ServiceError, secret_file, sync};
use firn_formats::actions::Scopes;
use firn_formats::admin::{
    CacheConfigure, CacheCreate, CacheView, EvictedSummary, Right, TokenCreate,
};
use firn_formats::nix::PublicKey;
use firn_store::{CacheId, CacheRow, EntryKind, Store};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

/// The cache that holds the server's own entries; no user's name can begin with `_`.
const SYSTEM_CACHE: &str = "_system";
/// The domain that public caches share.
const COMMON_DOMAIN: &str = "public";
/// The cache made at the first start.
pub const MAIN_CACHE: &str = "main";

/// A cache's configuration, kept as JSON in its row.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct CacheConfig {
    #[serde(default)]
    pub public: bool,
    #[serde(default = "default_priority")]
    pub priority: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream_keys: Vec<String>,
    /// What nobody used for so long goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_for_seconds: Option<u64>,
    /// Stored bytes beyond which what was used least recently goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// What its Actions repositories may hold.
    #[serde(default, skip_serializing_if = "ActionsConfig::is_default")]
    pub actions: ActionsConfig,
}

fn default_priority() -> u32 {
    40
}

/// A limit as it is asked for: 0 is none.
fn limit(asked: Option<u64>) -> Option<u64> {
    asked.filter(|limit| *limit > 0)
}

/// A cache, loaded.
pub struct Cache {
    /// Its row.
    pub row: CacheRow,
    /// Its configuration.
    pub config: CacheConfig,
    /// Its signing keys.
    pub keys: Keys,
}

impl Cache {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.row.name
    }
    /// Its public keys.
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.keys.public()
    }
    /// Whether references that are not here are expected in an upstream.
    pub fn has_upstream(&self) -> bool {
        !self.config.upstream_keys.is_empty()
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub enum Identity {
    /// No credentials came.
    Anonymous,
    /// Credentials came that are not accepted; good for no more than none.
    Refused(TokenFault),
    /// A token's bearer.
    Token(Arc<Claims>),
}

impl Identity {
    /// Whether a token gives some right on the cache called `name`.
    pub fn has_any_right(&self, name: &str) -> bool {
        let rights = [Right::Pull, Right::Create, Right::Push, Right::Delete];
        match self {
            Self::Token(claims) => rights.iter().any(|right| claims.grants(name, *right)),
            Self::Anonymous | Self::Refused(_) => false,
        }
    }
}

/// Why a right is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refusal {
    #[error("authentication is needed")]
    Unauthorized,
    #[error("{0}")]
    BadToken(TokenFault),
    #[error("the token does not give this right")]
    Denied,
    #[error("no such cache")]
    NotFound,
}

/// Caches, keys, tokens.
pub struct Access {
    store: Store,
    dir: PathBuf,
    caches: RwLock<BTreeMap<String, Arc<Cache>>>,
    /// Held while caches are made or removed.
    changing: Mutex<()>,
    tokens: Tokens,
}

impl Access {
    /// Loads everything; see [`crate::Services::open`].
    pub(crate) fn open(store: Store, dir: &Path) -> Result<Self, ServiceError> {
        let system = match store.cache(SYSTEM_CACHE)? {
            Some(row) => row,
            None => store.cache_create(SYSTEM_CACHE, SYSTEM_CACHE, b"{}")?,
        };
        let access = Self {
            tokens: Tokens::open(store.clone(), system.id, dir)?,
            store,
            dir: dir.to_owned(),
            caches: RwLock::default(),
            changing: Mutex::new(()),
        };
        for row in access.store.caches()? {
            if row.name != SYSTEM_CACHE {
                let cache = access.load(row)?;
                sync::write(&access.caches).insert(cache.name().to_owned(), Arc::new(cache));
            }
        }
        for row in access.store.caches_deleting()? {
            access.forget(&row)?;
        }
        access.first_start()?;
        Ok(access)
    }

    fn first_start(&self) -> Result<(), ServiceError> {
        let path = self.admin_token_path();
        let admin_token = secret_file::read(&path)?;
        if admin_token.is_none() && sync::read(&self.caches).is_empty() {
            self.cache_create(&CacheCreate {
                name: MAIN_CACHE.to_owned(),
                public: true,
                priority: default_priority(),
                domain: None,
                upstream_keys: Vec::new(),
                keep_for_seconds: None,
                quota_bytes: None,
                actions_shared: None,
            })?;
        }
        let good = admin_token.is_some_and(|token| self.tokens.verify(token.trim()).is_ok());
        match good {
            true => Ok(()),
            false => self.make_admin_token(),
        }
    }

    fn make_admin_token(&self) -> Result<(), ServiceError> {
        let created = self.tokens.create(&TokenCreate {
            caches: vec!["*".to_owned()],
            allow: vec![Right::Admin],
            expires_in: None,
            note: Some("made by the server, for admin.token".to_owned()),
            actions: None,
        })?;
        secret_file::write(&self.admin_token_path(), &format!("{}\n", created.token))
    }

    /// Where the admin token lies.
    pub fn admin_token_path(&self) -> PathBuf {
        self.dir.join("admin.token")
    }

    fn load(&self, row: CacheRow) -> Result<Cache, ServiceError> {
        Ok(Cache {
            config: serde_json::from_slice(&row.config)?,
            keys: keys::load_or_make(&self.dir, &row.name, self.now())?,
            row,
        })
    }

    /// Seconds since 1970 by the store's clock.
    fn now(&self) -> u64 {
        u64::try_from(self.store.now_ms() / 1000).unwrap_or(0)
    }

    /// The tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Who bears these credentials.
    pub fn identify(&self, token: Option<&str>) -> Identity {
        match token {
            None => Identity::Anonymous,
            Some(token) => match self.tokens.verify(token) {
                Ok(claims) => Identity::Token(claims),
                Err(fault) => Identity::Refused(fault),
            },
        }
    }

    /// The cache called `name`, if `who` has `right` on it. A cache that exists and one that
    /// does not answer alike to those who have no right on the name.
    ///
    /// # Errors
    /// Says what is lacking.
    pub fn authorize(
        &self,
        who: &Identity,
        name: &str,
        right: Right,
    ) -> Result<Arc<Cache>, Refusal> {
        let cache = sync::read(&self.caches).get(name).cloned();
        if right == Right::Pull
            && let Some(cache) = cache.as_ref().filter(|cache| cache.config.public)
        {
            return Ok(cache.clone());
        }
        match who {
            Identity::Anonymous => Err(Refusal::Unauthorized),
            Identity::Refused(fault) => Err(Refusal::BadToken(*fault)),
            Identity::Token(claims) if claims.grants(name, right) => cache.ok_or(Refusal::NotFound),
            Identity::Token(_) => Err(Refusal::Denied),
        }
    }

    /// The Actions repository and the scopes in it that `who` has a token for. `cache`: the one that the request
    /// names, if it names one; it must be the token's.
    ///
    /// # Errors
    /// Says what is lacking. A cache that exists and one that does not answer alike.
    pub fn actions(
        &self,
        who: &Identity,
        cache: Option<&str>,
    ) -> Result<(Repository, Scopes), Refusal> {
        let claims = match who {
            Identity::Anonymous => return Err(Refusal::Unauthorized),
            Identity::Refused(fault) => return Err(Refusal::BadToken(*fault)),
            Identity::Token(claims) => claims,
        };
        let (own, name, scopes) = claims.actions().ok_or(Refusal::Denied)?;
        if cache.is_some_and(|cache| cache != own) {
            return Err(Refusal::Denied);
        }
        let cache = sync::read(&self.caches).get(own).cloned();
        let cache = cache.ok_or(Refusal::Denied)?;
        Ok((Repository { cache, name }, scopes))
    }

    /// The cache of an image name and the image's name inside it: the longest cache name wins, of the caches that
    /// `who` may know of. Others do not count, so that nobody can tell whether there are any.
    pub fn split_repository<'a>(
        &self,
        who: &Identity,
        repository: &'a str,
    ) -> Option<(Arc<Cache>, &'a str)> {
        let caches = sync::read(&self.caches);
        let mut slashes = repository.match_indices('/').map(|(at, _)| at);
        let first = slashes.next()?;
        let longest_first = [slashes.next(), Some(first)];
        longest_first.into_iter().flatten().find_map(|at| {
            let cache = caches.get(&repository[..at])?;
            let known = cache.config.public || who.has_any_right(cache.name());
            if !known {
                return None;
            }
            Some((cache.clone(), &repository[at + 1..]))
        })
    }

    /// All caches.
    pub(crate) fn all_caches(&self) -> Vec<Arc<Cache>> {
        sync::read(&self.caches).values().cloned().collect()
    }

    /// A cache by its row. Does not say whether anyone may see it.
    pub fn cache_by_id(&self, id: CacheId) -> Option<Arc<Cache>> {
        let caches = sync::read(&self.caches);
        caches.values().find(|cache| cache.row.id == id).cloned()
    }

    /// The caches on which `who` has `right`, by name.
    pub fn caches(&self, who: &Identity, right: Right) -> Vec<Arc<Cache>> {
        let all: Vec<Arc<Cache>> = sync::read(&self.caches).values().cloned().collect();
        all.into_iter()
            .filter(|cache| self.authorize(who, cache.name(), right).is_ok())
            .collect()
    }

    /// Makes a cache and its key.
    ///
    /// # Errors
    /// If the request is unsound, the name is taken, or the store fails.
    pub fn cache_create(&self, request: &CacheCreate) -> Result<Arc<Cache>, ServiceError> {
        name::check_cache_name(&request.name)?;
        for key in &request.upstream_keys {
            PublicKey::parse(key).map_err(|error| {
                ServiceError::BadRequest(format!("upstream key {key:?}: {error}"))
            })?;
        }
        let domain = match (&request.domain, request.public) {
            (Some(domain), _) => {
                name::check_cache_name(domain)?;
                domain.clone()
            }
            (None, true) => COMMON_DOMAIN.to_owned(),
            // No user can name a domain with a leading underscore, so nobody's cache shares it.
            (None, false) => format!("_cache/{}", request.name),
        };
        let config = CacheConfig {
            public: request.public,
            priority: request.priority,
            upstream_keys: request.upstream_keys.clone(),
            keep_for_seconds: limit(request.keep_for_seconds),
            quota_bytes: limit(request.quota_bytes),
            actions: ActionsConfig {
                shared: request.actions_shared.unwrap_or_default(),
                ..ActionsConfig::default()
            },
        };
        let _changing = sync::lock(&self.changing);
        self.takes_no_images_over(&request.name)?;
        // The keys of one that is being deleted must not become the new one's.
        if self.is_deleting(&request.name)? {
            return Err(ServiceError::Conflict(format!(
                "cache {}, which is being deleted; try again when that is done",
                request.name
            )));
        }
        // Keys without a cache are of no harm, a cache without keys is.
        keys::load_or_make(&self.dir, &request.name, self.now())?;
        let row = self
            .store
            .cache_create(&request.name, &domain, &serde_json::to_vec(&config)?)?;
        let cache = Arc::new(self.load(row)?);
        sync::write(&self.caches).insert(request.name.clone(), cache.clone());
        Ok(cache)
    }

    /// The cache above `name` whose images may be called as those of a cache `name`.
    pub fn parent(&self, name: &str) -> Option<Arc<Cache>> {
        let (parent, _) = name.rsplit_once('/')?;
        sync::read(&self.caches).get(parent).cloned()
    }

    /// Refuses a cache whose name is the beginning of names of images in the cache above: they would be looked for
    /// in the new one.
    fn takes_no_images_over(&self, name: &str) -> Result<(), ServiceError> {
        let Some(parent) = self.parent(name) else {
            return Ok(());
        };
        let below = format!("{}/", &name[parent.name().len() + 1..]);
        let kind = EntryKind::Manifest;
        let images = self.store.entries(parent.row.id, kind, &below, None, 1)?;
        match images.is_empty() {
            true => Ok(()),
            false => Err(ServiceError::Conflict(format!(
                "images called {name}/… in the cache {}; delete them, or choose another name",
                parent.name()
            ))),
        }
    }

    /// Changes a cache's configuration; what the request leaves out stays as it is.
    ///
    /// # Errors
    /// If the cache is gone, or the store fails.
    pub fn cache_configure(
        &self,
        cache: &Cache,
        request: &CacheConfigure,
    ) -> Result<Arc<Cache>, ServiceError> {
        self.change(cache, |current| {
            let mut config = current.config.clone();
            config.priority = request.priority.unwrap_or(config.priority);
            if request.keep_for_seconds.is_some() {
                config.keep_for_seconds = limit(request.keep_for_seconds);
            }
            if request.quota_bytes.is_some() {
                config.quota_bytes = limit(request.quota_bytes);
            }
            if request.actions_keep_for_seconds.is_some() {
                config.actions.keep_for_seconds = limit(request.actions_keep_for_seconds);
            }
            if request.actions_quota_bytes.is_some() {
                config.actions.quota_bytes = limit(request.actions_quota_bytes);
            }
            if let Some(shared) = request.actions_shared {
                config.actions.shared = shared;
            }
            Ok(self
                .store
                .cache_configure(current.row.id, &serde_json::to_vec(&config)?)?)
        })
    }

    /// Changes a cache by `change` and loads it again.
    fn change(
        &self,
        cache: &Cache,
        change: impl FnOnce(&Cache) -> Result<(), ServiceError>,
    ) -> Result<Arc<Cache>, ServiceError> {
        let _changing = sync::lock(&self.changing);
        let gone = || ServiceError::NotFound(format!("cache {}", cache.name()));
        let current = self.cache_by_id(cache.row.id).ok_or_else(gone)?;
        change(&current)?;
        let row = self.store.cache(current.name())?.ok_or_else(gone)?;
        let cache = Arc::new(self.load(row)?);
        sync::write(&self.caches).insert(cache.name().to_owned(), cache.clone());
        Ok(cache)
    }

    /// Gives a cache a new signing key; those it has sign for `overlap` seconds more.
    ///
    /// # Errors
    /// If the overlap is too long, the cache gone, or the file of keys cannot be written.
    pub fn rotate_key(&self, cache: &Cache, overlap: u64) -> Result<Arc<Cache>, ServiceError> {
        self.change(cache, |current| {
            keys::rotate(&self.dir, current.name(), overlap, self.now())
        })
    }

    /// Gives tokens a new signing key, and the server's own admin token a new signature; tokens made before are
    /// good for `overlap` seconds more. Returns until when, in seconds since 1970.
    ///
    /// # Errors
    /// If the overlap is too long, or a file cannot be written.
    pub fn rotate_token_key(&self, overlap: u64) -> Result<u64, ServiceError> {
        let until = self.tokens.rotate(overlap)?;
        self.make_admin_token()?;
        Ok(until)
    }

    /// Lets go of keys whose time is over. To be called now and then.
    pub(crate) fn retire_keys(&self) {
        for cache in self.all_caches() {
            if cache.keys.retirement_is_due(self.now())
                && let Err(error) = self.change(&cache, |_| Ok(()))
            {
                tracing::error!(
                    cache = cache.name(),
                    error = error.chain(),
                    "retiring a key"
                );
            }
        }
        if let Err(error) = self.tokens.retire(self.now()) {
            tracing::error!(error = error.chain(), "retiring a key of tokens");
        }
    }

    /// Removes a cache, its entries and its keys. Once this has begun nobody sees the cache any more; what a failure
    /// leaves of it goes later.
    ///
    /// # Errors
    /// If the store fails before that; then the cache is as it was.
    pub fn cache_delete(&self, cache: &Cache) -> Result<(), ServiceError> {
        let changing = sync::lock(&self.changing);
        self.store.cache_delete_begin(cache.row.id)?;
        sync::write(&self.caches).remove(cache.name());
        drop(changing);
        self.finish_deletions();
        Ok(())
    }

    /// Goes on with deletions of caches that have begun. To be called now and then.
    pub(crate) fn finish_deletions(&self) {
        let rows = match self.store.caches_deleting() {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "looking for caches that are being deleted");
                return;
            }
        };
        for row in rows {
            let finished = self
                .forget(&row)
                .and_then(|()| Ok(self.store.cache_delete_finish(&row)?));
            if let Err(error) = finished {
                tracing::error!(
                    cache = row.name,
                    error = error.chain(),
                    "deleting a cache: this goes on later"
                );
            }
        }
    }

    /// Ends the tokens of a cache that is being deleted, and removes its keys: before its name is free again.
    fn forget(&self, row: &CacheRow) -> Result<(), ServiceError> {
        self.tokens.end_those_of(&row.name)?;
        secret_file::remove(&keys::path(&self.dir, &row.name))
    }

    fn is_deleting(&self, name: &str) -> Result<bool, ServiceError> {
        let rows = self.store.caches_deleting()?;
        Ok(rows.iter().any(|row| row.name == name))
    }

    /// A cache as its users see it.
    ///
    /// # Errors
    /// If the store fails.
    pub fn cache_view(&self, cache: &Cache) -> Result<CacheView, ServiceError> {
        let usage = self.store.cache_usage(cache.row.id)?;
        let evicted = self.store.eviction_summary(cache.row.id)?;
        Ok(CacheView {
            name: cache.name().to_owned(),
            public: cache.config.public,
            priority: cache.config.priority,
            domain: cache.row.domain_name.clone(),
            public_keys: cache
                .public_keys()
                .iter()
                .map(ToString::to_string)
                .collect(),
            store_paths: usage.narinfos,
            images: usage.manifests,
            stored_bytes: usage.stored_bytes,
            keep_for_seconds: cache.config.keep_for_seconds,
            quota_bytes: cache.config.quota_bytes,
            actions_shared: cache.config.actions.shared,
            roots: usage.roots,
            evicted: EvictedSummary {
                paths: evicted.paths,
                images: evicted.images,
                bytes: evicted.bytes,
                last_at: evicted.last_at,
            },
        })
    }
}
