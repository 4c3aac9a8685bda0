//! From what was uploaded to an entry: its bytes become a blob, and one transaction makes it visible.

use super::entry::{KIND, Value, stored_key};
use super::upload::{ActionsError, Part, Uploading};
use super::{Actions, Entry, Form, Repository, decoded};
use crate::sessions::SharedSession;
use crate::{ServiceError, access::token::now, sync::lock};
use bytes::Bytes;
use firn_chunks::Format;
use firn_store::{
    BlobInfo, EvictionReason, IfExists, NewEntry, Publication, PublishedEntry, StagedPart, Store,
    StoreError,
};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a body, or of what is staged, read at once.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

impl Actions {
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
                let entry = self.made_of(repository, number)?;
                entry
                    .filter(|entry| entry.size == size)
                    .ok_or(ActionsError::Gone)
            }
            Err(error) => Err(error),
        }
    }

    /// What an upload that is over became: a client may not have heard, and ask again after a restart.
    fn made_of(&self, repository: &Repository, number: u64) -> Result<Option<Entry>, ServiceError> {
        if let Some(id) = self.finished.get(&number) {
            return self.entry(repository, id);
        }
        let entries = self.list(repository)?.into_iter();
        let made = entries.filter(|entry| number > 0 && entry.upload_number == number);
        Ok(made.max_by_key(|entry| entry.id))
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
        let place = self.make_room(repository, blob.id, blob.zstd_length)?;
        let cache = &repository.cache;
        self.retention
            .admit(cache, blob.zstd_length, blob.zstd_length)?;
        let entry = self.publish(uploading, &session, &blob, form, size)?;
        drop(place);
        if let Err(error) = self.settle(repository, entry.id) {
            // It is saved; the next save looks again.
            tracing::error!(
                error = error.chain(),
                "keeping a repository within its quota"
            );
        }
        Ok(entry)
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
            number: uploading.number(),
        };
        let value = Bytes::from(serde_json::to_vec(&value).map_err(ServiceError::from)?);
        let old = match uploading.note.replace {
            true => self.store.entry(cache, KIND, key)?,
            false => None,
        };
        let entry = NewEntry {
            kind: KIND,
            key: key.clone(),
            value: value.clone(),
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
        let published = match published {
            Err(StoreError::Conflict(_)) => return Err(uploading.exists()),
            published => published?,
        };
        if let Some(old) = old {
            let old = Entry::of_store(&old)?.evicted(EvictionReason::Replaced);
            self.store
                .evict(cache, move |eviction| eviction.remember(&old))?;
        }
        // Not asked for again: another save may have needed its room already.
        let Some(PublishedEntry::New(sequence) | PublishedEntry::Replaced(sequence)) =
            published.first()
        else {
            return Err(ActionsError::Gone);
        };
        let made = firn_store::Entry {
            sequence: *sequence,
            kind: KIND,
            key: key.clone(),
            value,
            blobs: vec![blob.id],
            created_at: i64::try_from(now()).unwrap_or(0),
        };
        Ok(Entry::of_store(&made)?)
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
pub(super) struct Committing<'a> {
    actions: &'a Actions,
    id: String,
}

impl<'a> Committing<'a> {
    /// Waits for another's end.
    pub(super) fn begin(actions: &'a Actions, id: &str) -> Self {
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
