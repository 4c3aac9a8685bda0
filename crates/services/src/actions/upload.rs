//! From a reservation to an entry.
//!
//! ```text
//! reserve ─▶ parts, in any order ─▶ (their order, for Azure's block lists) ─▶ finish: a blob, then the entry
//! ```
//! A reservation holds its scope, version and key. It ends when no byte came for some minutes. What it has is on disk, so
//! that it goes on after a restart; a part that comes again takes the place of the first. Finishing again what is
//! finished says the same again.

use super::entry::{KIND, Value, stored_key};
use super::{Actions, Entry, Form, Repository, decoded};
use crate::sessions::SharedSession;
use crate::{ServiceError, sync::lock};
use bytes::Bytes;
use firn_chunks::Format;
use firn_formats::actions::names::NameError;
use firn_formats::actions::{check_key, check_scope, check_version};
use firn_store::{
    BlobInfo, EvictionReason, IfExists, NewEntry, Publication, Staged, StagedPart, Store,
    StoreError,
};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Reservations of a repository at a time.
const OPEN_MAX: usize = 1000;
/// Largest entry, in bytes, whatever the quota.
pub const ENTRY_BYTES_MAX: u64 = 64 << 30;
/// Parts of an upload at most: Azure's limit of a block list.
const PARTS_MAX: usize = 50_000;
/// For the sake of uploads under way a repository may hold this many times its quota.
const STAGED_QUOTAS: u64 = 2;
const BUFFER_BYTES: usize = 256 << 10;

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
struct Note {
    scope: String,
    version: String,
    key: String,
    default_branch: bool,
    size: Option<u64>,
    user_agent: String,
    replace: bool,
    /// Names of parts in the order that counts, once it was said.
    order: Option<Vec<String>>,
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

    fn start(name: &str) -> Option<u64> {
        name.strip_prefix("range ")?.parse().ok()
    }
}

/// An upload under way.
#[derive(Clone)]
pub struct Uploading {
    staged: Staged,
    note: Note,
    repository: Repository,
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

    fn exists(&self) -> ActionsError {
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

    fn open(&self, staged: Staged) -> Result<Uploading, ActionsError> {
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
        let staged = self.store.staged_bytes(cache, owner)?;
        let room = most.saturating_mul(STAGED_QUOTAS).saturating_sub(staged);
        let most = most.min(room);
        if length.is_some_and(|length| length > most) {
            return Err(too_large(most));
        }
        let mut writer = self.store.staged_part(uploading.id(), self.idle())?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) if writer.length() + count as u64 > most => return Err(too_large(most)),
                Ok(count) => writer.write(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ServiceError::Interrupted(error).into()),
            }
        }
        let found = writer.length();
        match length {
            Some(said) if said != found => Err(ActionsError::Size { said, found }),
            _ => Ok(writer.finish(&part.name())?.length),
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

    /// Makes an entry of what was uploaded for a key. One that was made of it before is given again.
    ///
    /// # Errors
    /// `Gone` if nothing was; `Size`, `Hole`, `Exists`; if the quota does not allow it.
    pub fn finish_key(
        &self,
        repository: &Repository,
        scope: &str,
        version: &str,
        key: &str,
        size: u64,
    ) -> Result<Entry, ActionsError> {
        let cache = repository.cache.row.id;
        let stored = stored_key(&repository.name, scope, version, key);
        match self.store.staged_for(cache, &stored)? {
            Some(staged) => self.finish(&self.open(staged)?, size),
            None => {
                let found = self.store.entry(cache, KIND, &stored)?;
                let entry = found.as_ref().map(Entry::of_store).transpose()?;
                entry
                    .filter(|entry| entry.size == size)
                    .ok_or(ActionsError::Gone)
            }
        }
    }

    /// As [`Actions::finish_key`], of an upload by its number.
    ///
    /// # Errors
    /// As [`Actions::finish_key`].
    pub fn finish_number(
        &self,
        repository: &Repository,
        number: u64,
        size: u64,
    ) -> Result<Entry, ActionsError> {
        match self.uploading(repository, number) {
            Ok(uploading) => self.finish(&uploading, size),
            Err(ActionsError::Gone) => {
                let id = self.finished.get(&number).ok_or(ActionsError::Gone)?;
                let entry = self.entry(repository, id)?;
                entry
                    .filter(|entry| entry.size == size)
                    .ok_or(ActionsError::Gone)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Actions::finish_key`], of an upload. A second call waits for the first.
    ///
    /// # Errors
    /// As [`Actions::finish_key`].
    pub fn finish(&self, uploading: &Uploading, size: u64) -> Result<Entry, ActionsError> {
        let _alone = Committing::begin(self, uploading.id());
        if let Some(entry) = self.finished(uploading)? {
            return Ok(entry);
        }
        // As it is now: the order of its parts may have come after the caller looked.
        let uploading = self.uploading_by_id(uploading.id())?;
        let finished = self.commit(&uploading, size);
        match &finished {
            // What the client can mend, and what the store could not do now.
            Err(ActionsError::Size { .. } | ActionsError::Hole(_) | ActionsError::Block(_)) => {}
            Err(ActionsError::Service(error)) if error.code().status() >= 500 => {}
            _ => self.store.staged_end(uploading.id())?,
        }
        if let Ok(entry) = &finished {
            self.finished.insert(uploading.number(), entry.id);
        }
        finished
    }

    fn finished(&self, uploading: &Uploading) -> Result<Option<Entry>, ActionsError> {
        let cache = uploading.repository.cache.row.id;
        let Some(found) = self.store.entry(cache, KIND, &uploading.staged.key)? else {
            return Ok(None);
        };
        let entry = Entry::of_store(&found)?;
        Ok(Some(entry).filter(|entry| entry.upload == uploading.id()))
    }

    fn commit(&self, uploading: &Uploading, size: u64) -> Result<Entry, ActionsError> {
        let parts = self.store.staged_parts(uploading.id())?;
        let parts = in_order(parts, uploading.note.order.as_deref())?;
        let found: u64 = parts.iter().map(|part| part.length).sum();
        if found != size {
            return Err(ActionsError::Size { said: size, found });
        }
        let repository = &uploading.repository;
        let session = self.sessions.get(&repository.cache)?;
        let (blob, form) = self.store_bytes(uploading, &session, &parts, size)?;
        self.make_room(repository, blob.id, blob.zstd_length)?;
        let cache = &repository.cache;
        self.retention
            .admit(cache, blob.zstd_length, blob.zstd_length)?;
        self.publish(uploading, &session, &blob, form, size)
    }

    fn store_bytes(
        &self,
        uploading: &Uploading,
        session: &Arc<SharedSession>,
        parts: &[StagedPart],
        size: u64,
    ) -> Result<(BlobInfo, Form), ActionsError> {
        let alive = || -> Result<Alive<'_>, ActionsError> {
            Ok(Alive {
                inner: self.store.staged_reader(parts)?,
                store: &self.store,
                session,
                id: uploading.id(),
                idle: self.idle(),
                touched: Instant::now(),
            })
        };
        if decoded::may_decode(&uploading.note.user_agent) {
            let mut reader = alive()?;
            let stored = decoded::store(&self.store, session.session(), &mut reader, size)?;
            if let Some(blob) = stored {
                return Ok((blob, Form::Decoded));
            }
        }
        let mut reader = alive()?;
        let mut ingest = self.store.ingest(session.session(), Format::Opaque);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match reader
                .read(&mut buffer)
                .map_err(ServiceError::Interrupted)?
            {
                0 => break,
                count => ingest.write(&buffer[..count])?,
            }
        }
        Ok((ingest.finish()?, Form::Exact))
    }

    /// Rule 3: from here on it is there.
    fn publish(
        &self,
        uploading: &Uploading,
        session: &SharedSession,
        blob: &BlobInfo,
        form: Form,
        size: u64,
    ) -> Result<Entry, ActionsError> {
        let cache = uploading.repository.cache.row.id;
        let key = &uploading.staged.key;
        let value = Value {
            size,
            form,
            default_branch: uploading.note.default_branch,
            upload: uploading.id().to_owned(),
        };
        let value = serde_json::to_vec(&value).map_err(ServiceError::from)?;
        let old = match uploading.note.replace {
            true => self.store.entry(cache, KIND, key)?,
            false => None,
        };
        let entry = NewEntry {
            kind: KIND,
            key: key.clone(),
            value: Bytes::from(value),
            blobs: vec![blob.id],
            requires: Vec::new(),
            if_exists: match uploading.note.replace {
                true => IfExists::Replace,
                false => IfExists::Refuse,
            },
            lease: None,
        };
        let publication = Publication {
            entries: vec![entry],
            deletions: Vec::new(),
        };
        let published = self
            .store
            .publish(Some(session.session()), cache, publication);
        match published {
            Err(StoreError::Conflict(_)) => return Err(uploading.exists()),
            published => published?,
        };
        if let Some(old) = old {
            let old = Entry::of_store(&old)?.evicted(EvictionReason::Replaced);
            self.store
                .evict(cache, move |eviction| eviction.remember(&old))?;
        }
        self.finished(uploading)?.ok_or(ActionsError::Gone)
    }
}

/// The parts that make an entry, in their order.
fn in_order(
    parts: Vec<StagedPart>,
    order: Option<&[String]>,
) -> Result<Vec<StagedPart>, ActionsError> {
    if let Some(order) = order {
        let mut by_name: std::collections::HashMap<&str, &StagedPart> =
            parts.iter().map(|part| (&*part.name, part)).collect();
        let mut found = Vec::with_capacity(order.len());
        for name in order {
            let part = by_name.remove(&**name);
            found.push(
                part.ok_or_else(|| ActionsError::Block(name.clone()))?
                    .clone(),
            );
        }
        return Ok(found);
    }
    let mut placed: Vec<(u64, StagedPart)> = parts
        .into_iter()
        .filter_map(|part| Some((Part::start(&part.name)?, part)))
        .collect();
    placed.sort_by_key(|(start, _)| *start);
    let mut end = 0;
    for (start, part) in &placed {
        if *start != end {
            return Err(ActionsError::Hole(end.min(*start)));
        }
        end += part.length;
    }
    Ok(placed.into_iter().map(|(_, part)| part).collect())
}

/// Reads staged bytes and keeps alive what holds them meanwhile.
struct Alive<'a> {
    inner: firn_store::StagedReader,
    store: &'a Store,
    session: &'a SharedSession,
    id: &'a str,
    idle: Duration,
    touched: Instant,
}

impl Read for Alive<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.session.keep_alive().map_err(io::Error::other)?;
        if self.touched.elapsed() > self.idle / 8 {
            self.store
                .staged_touch(self.id, self.idle)
                .map_err(io::Error::other)?;
            self.touched = Instant::now();
        }
        self.inner.read(buffer)
    }
}

/// The one commit of an upload under way.
struct Committing<'a> {
    actions: &'a Actions,
    id: String,
}

impl<'a> Committing<'a> {
    /// Waits for another's end.
    fn begin(actions: &'a Actions, id: &str) -> Self {
        let mut under_way = lock(&actions.committing);
        while !under_way.insert(id.to_owned()) {
            under_way = actions
                .committed
                .wait(under_way)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        Self {
            actions,
            id: id.to_owned(),
        }
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        lock(&self.actions.committing).remove(&self.id);
        self.actions.committed.notify_all();
    }
}
