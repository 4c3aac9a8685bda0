//! From a reservation to all that an entry is made of; `finish` makes it.
//!
//! ```text
//! reserve ─▶ parts, in any order ─▶ (their order, for Azure's block lists) ─▶ finish: a blob, then the entry
//! ```
//! A reservation holds its scope, version and key. It ends when no byte came for some minutes. What it has is on disk, so
//! that it goes on after a restart; a part that comes again takes the place of the first. Finishing again what is
//! finished says the same again.

use super::entry::{KIND, stored_key};
use super::finish::{BUFFER_BYTES, Committing};
use super::{Actions, Repository};
use crate::ServiceError;
use firn_formats::actions::names::NameError;
use firn_formats::actions::{check_key, check_scope, check_version};
use firn_store::{Staged, StoreError};
use std::io::{self, Read};

/// Reservations of a repository at a time.
const OPEN_MAX: usize = 1000;
/// Largest entry, in bytes, whatever the quota.
pub const ENTRY_BYTES_MAX: u64 = 64 << 30;
/// Parts of an upload at most: Azure's limit of a block list.
const PARTS_MAX: usize = 50_000;
/// For the sake of uploads under way a repository may hold this many times its quota.
const STAGED_QUOTAS: u64 = 2;

/// Room is taken by so many bytes, for a part that does not say how long it is.
const RESERVED_AT_ONCE: u64 = 1 << 20;

/// Why something was not saved.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ActionsError {
    #[error(transparent)]
    Name(#[from] NameError),
    /// Or another job is saving it now.
    #[error("Cache already exists. Scope: {scope}, Key: {key}, Version: {version}")]
    Exists {
        scope: String,
        key: String,
        version: String,
    },
    #[error("there is no such upload (any more): reserve the key again")]
    Gone,
    #[error("{found} bytes came, and {said} were said to")]
    Size { said: u64, found: u64 },
    #[error("bytes are missing at {0}")]
    Hole(u64),
    #[error("the list names a block that did not come: {0}")]
    Block(String),
    #[error("the upload has more than {PARTS_MAX} parts")]
    Parts,
    #[error(transparent)]
    Service(ServiceError),
}

impl<E: Into<ServiceError>> From<E> for ActionsError {
    fn from(error: E) -> Self {
        match error.into() {
            ServiceError::SessionGone => Self::Gone,
            error => Self::Service(error),
        }
    }
}

/// What is to be saved.
#[derive(Debug, Clone)]
pub struct Save {
    /// Its key.
    pub key: String,
    /// Its version.
    pub version: String,
    /// Where to; the caller has looked whether that is allowed.
    pub scope: String,
    /// Whether that is the default branch.
    pub default_branch: bool,
    /// How many bytes, if the client says so.
    pub size: Option<u64>,
    /// The client, which decides whether its bytes may be stored decoded.
    pub user_agent: String,
    /// Put it in the place of one that is there.
    pub replace: bool,
}

/// What a reservation remembers.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Note {
    pub(super) scope: String,
    pub(super) version: String,
    pub(super) key: String,
    pub(super) default_branch: bool,
    pub(super) size: Option<u64>,
    pub(super) user_agent: String,
    pub(super) replace: bool,
    /// Names of parts in the order that counts, once it was said.
    pub(super) order: Option<Vec<String>>,
}

/// A part's place in an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// A block with an id; the block list gives it a place.
    Block(String),
    /// Bytes from an offset on.
    Range(u64),
}

impl Part {
    fn name(&self) -> String {
        match self {
            Self::Whole => "whole".to_owned(),
            Self::Block(id) => format!("block {id}"),
            Self::Range(start) => format!("range {start:020}"),
        }
    }

    pub(super) fn start(name: &str) -> Option<u64> {
        name.strip_prefix("range ")?.parse().ok()
    }
}

/// An upload under way.
#[derive(Clone)]
pub struct Uploading {
    pub(super) staged: Staged,
    pub(super) note: Note,
    pub(super) repository: Repository,
}

impl Uploading {
    /// Its random id, for URLs.
    pub fn id(&self) -> &str {
        &self.staged.id
    }

    /// Its number; not zero.
    pub fn number(&self) -> u64 {
        self.staged.number
    }

    /// Whose it is.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Where it goes.
    pub fn scope(&self) -> &str {
        &self.note.scope
    }

    pub(super) fn exists(&self) -> ActionsError {
        exists(&self.note.scope, &self.note.key, &self.note.version)
    }
}

fn exists(scope: &str, key: &str, version: &str) -> ActionsError {
    ActionsError::Exists {
        scope: scope.to_owned(),
        key: key.to_owned(),
        version: version.to_owned(),
    }
}

fn too_large(limit: u64) -> ActionsError {
    ActionsError::Service(ServiceError::TooLarge {
        what: "the entry",
        limit,
    })
}

impl Actions {
    /// Reserves a key in a scope.
    ///
    /// # Errors
    /// `Exists` if it is taken, or being uploaded; names that break a rule; a size beyond the quota.
    pub fn reserve(&self, repository: &Repository, save: &Save) -> Result<Uploading, ActionsError> {
        check_key(&save.key)?;
        check_version(&save.version)?;
        check_scope(&save.scope)?;
        let most = self.most(repository);
        if save.size.is_some_and(|size| size > most) {
            return Err(too_large(most));
        }
        let cache = &repository.cache.row;
        let key = stored_key(&repository.name, &save.scope, &save.version, &save.key);
        let taken = || exists(&save.scope, &save.key, &save.version);
        let mut replace = save.replace;
        if let Some(there) = self.store.entry(cache.id, KIND, &key)?.filter(|_| !replace) {
            replace = self.may_replace(repository, &there)?;
            if !replace {
                return Err(taken());
            }
        }
        let note = Note {
            scope: save.scope.clone(),
            version: save.version.clone(),
            key: save.key.clone(),
            default_branch: save.default_branch,
            size: save.size,
            user_agent: save.user_agent.chars().take(256).collect(),
            replace,
            order: None,
        };
        let encoded = serde_json::to_vec(&note).map_err(ServiceError::from)?;
        let owner = repository.name.as_str();
        let staged = self
            .store
            .stage(cache, owner, &key, &encoded, self.idle(), OPEN_MAX);
        match staged {
            Ok(staged) => Ok(Uploading {
                staged,
                note,
                repository: repository.clone(),
            }),
            Err(StoreError::Conflict(_)) => Err(taken()),
            Err(error) => Err(error.into()),
        }
    }

    /// The largest entry that a repository takes.
    fn most(&self, repository: &Repository) -> u64 {
        self.config(repository).quota().min(ENTRY_BYTES_MAX)
    }

    /// An upload of a repository, by its number.
    ///
    /// # Errors
    /// `Gone`, also if it is another repository's.
    pub fn uploading(
        &self,
        repository: &Repository,
        number: u64,
    ) -> Result<Uploading, ActionsError> {
        let staged = self.store.staged_by_number(number)?;
        let owner = repository.name.as_str();
        let staged = staged
            .filter(|staged| staged.cache == repository.cache.row.id && staged.owner == owner);
        self.open(staged.ok_or(ActionsError::Gone)?)
    }

    /// An upload by its id. Whoever knows that, from a signed URL, may go on with it.
    ///
    /// # Errors
    /// `Gone`.
    pub fn uploading_by_id(&self, id: &str) -> Result<Uploading, ActionsError> {
        self.open(self.store.staged(id)?.ok_or(ActionsError::Gone)?)
    }

    pub(super) fn open(&self, staged: Staged) -> Result<Uploading, ActionsError> {
        let note: Note = serde_json::from_slice(&staged.note).map_err(ServiceError::from)?;
        let cache = self.access.cache_by_id(staged.cache);
        let name = firn_formats::actions::RepositoryName::parse(&staged.owner)?;
        let repository = Repository {
            cache: cache.ok_or(ActionsError::Gone)?,
            name,
        };
        Ok(Uploading {
            staged,
            note,
            repository,
        })
    }

    /// Takes a part in; durable when this returns. One that came before, at the same place, is replaced. `length`:
    /// of the body, if the client said so.
    ///
    /// # Errors
    /// If it breaks off, is of another length than it said, or the whole becomes too large.
    pub fn put_part(
        &self,
        uploading: &Uploading,
        part: &Part,
        length: Option<u64>,
        body: &mut dyn Read,
    ) -> Result<u64, ActionsError> {
        let repository = &uploading.repository;
        let most = self.most(repository);
        let (cache, owner) = (repository.cache.row.id, &uploading.staged.owner);
        let in_all = most.saturating_mul(STAGED_QUOTAS);
        let mut room = self.room.coming((cache, repository.name.clone()));
        let mut reserve = |bytes: u64| match bytes <= most
            && room.grow(bytes, in_all, || {
                Ok(self.store.staged_bytes(cache, owner)?)
            })? {
            true => Ok(bytes),
            false => Err(too_large(most)),
        };
        let mut reserved = match length {
            Some(length) => reserve(length)?,
            None => 0,
        };
        let mut writer = self.store.staged_part(uploading.id(), self.idle())?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let wanted = writer.length() + count as u64;
                    match length {
                        Some(said) if wanted > said => {
                            return Err(ActionsError::Size {
                                said,
                                found: wanted,
                            });
                        }
                        _ if wanted > most => return Err(too_large(most)),
                        _ => {}
                    }
                    if wanted > reserved {
                        let least = wanted - reserved;
                        reserved +=
                            reserve(RESERVED_AT_ONCE.max(least)).or_else(|_| reserve(least))?;
                    }
                    writer.write(&buffer[..count])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ServiceError::Interrupted(error).into()),
            }
        }
        let found = writer.length();
        match length {
            Some(said) if said != found => Err(ActionsError::Size { said, found }),
            _ => Ok(room.settle(|| writer.finish(&part.name()))?.length),
        }
    }

    /// Takes bytes in behind those that came before, one call after the other. `at`: where the client says they
    /// begin. Gives where they do.
    ///
    /// # Errors
    /// `Hole` if they begin elsewhere; as [`Actions::put_part`].
    pub fn append(
        &self,
        uploading: &Uploading,
        at: Option<u64>,
        length: Option<u64>,
        body: &mut dyn Read,
    ) -> Result<u64, ActionsError> {
        let _alone = Committing::begin(self, uploading.id());
        let end = self.staged_bytes(uploading)?;
        if at.is_some_and(|at| at != end) {
            return Err(ActionsError::Hole(end));
        }
        self.put_part(uploading, &Part::Range(end), length, body)?;
        Ok(end)
    }

    /// Bytes of the parts that came so far.
    ///
    /// # Errors
    /// If the upload has ended.
    pub fn staged_bytes(&self, uploading: &Uploading) -> Result<u64, ActionsError> {
        let parts = self.store.staged_parts(uploading.id())?;
        Ok(parts.iter().map(|part| part.length).sum())
    }

    /// Says, durably, which parts make the entry, in their order.
    ///
    /// # Errors
    /// `Block` if one did not come.
    pub fn put_order(&self, uploading: &Uploading, parts: &[Part]) -> Result<(), ActionsError> {
        if parts.len() > PARTS_MAX {
            return Err(ActionsError::Parts);
        }
        let here = self.store.staged_parts(uploading.id())?;
        let here: std::collections::HashSet<&str> = here.iter().map(|part| &*part.name).collect();
        let mut order = Vec::with_capacity(parts.len());
        for part in parts {
            let name = part.name();
            if !here.contains(&*name) {
                return Err(ActionsError::Block(name));
            }
            order.push(name);
        }
        let note = Note {
            order: Some(order),
            ..uploading.note.clone()
        };
        let encoded = serde_json::to_vec(&note).map_err(ServiceError::from)?;
        Ok(self.store.staged_note(uploading.id(), &encoded)?)
    }

    /// Gives an upload up: its key is free.
    ///
    /// # Errors
    /// If the store fails.
    pub fn abandon(&self, uploading: &Uploading) -> Result<(), ActionsError> {
        Ok(self.store.staged_end(uploading.id())?)
    }
}
