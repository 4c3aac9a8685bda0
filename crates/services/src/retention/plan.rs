//! Plan, then execute: what would go is known before anything does, and looked at again when it goes.

use super::graph::{Chosen, Groups, Limits};
use super::scan::{Held, NEEDING, Names, Scan};
use crate::ServiceError;
use firn_store::{CacheId, Entry, EntryKind, Evicted, Eviction, EvictionReason, Store, StoreError};
use std::collections::VecDeque;

/// Entries in one transaction, while which nobody else writes: some milliseconds.
const BATCH: usize = 100;

/// What would go from a cache.
pub struct Plan {
    cache: CacheId,
    groups: Groups,
    held: Vec<Held>,
    names: Names,
    newest: u64,
    chosen: Chosen,
    /// Stored bytes of the cache before.
    pub bytes_before: u64,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evictions {
    /// Narinfos.
    pub paths: u64,
    /// Manifests.
    pub images: u64,
    /// Stored bytes that nothing in the cache names any more.
    pub bytes: u64,
    /// Groups that were used or needed again meanwhile, and stayed.
    pub stayed: u64,
    /// The first of what went.
    pub evicted: Vec<Evicted>,
}

/// Evictions that a report lists one by one.
const LISTED_MAX: usize = 1000;

impl Plan {
    pub(crate) fn new(cache: CacheId, scan: Scan, limits: Limits) -> Self {
        let bytes_before = scan.graph.bytes();
        let groups = scan.graph.groups();
        let chosen = groups.choose(limits);
        Self {
            cache,
            groups,
            held: scan.held,
            names: scan.names,
            newest: scan.newest,
            chosen,
            bytes_before,
        }
    }

    /// Stored bytes that would remain.
    pub fn bytes_after(&self) -> u64 {
        self.chosen.bytes_left
    }

    /// Whether anything would go.
    pub fn is_empty(&self) -> bool {
        self.chosen.choices.is_empty()
    }

    /// What would go, if nothing changed meanwhile.
    ///
    /// # Errors
    /// If the store fails.
    pub fn preview(self, store: &Store) -> Result<Evictions, ServiceError> {
        let cache = self.cache;
        let mut run = Run::new(self);
        // In a transaction that takes nothing away.
        Ok(store.evict(cache, move |eviction| {
            while let Some(choice) = run.queue.pop_front() {
                run.count(eviction, choice.group, choice.unused, false)?;
            }
            Ok(run.done)
        })?)
    }

    /// Takes it away, in short transactions. `between` them is told the keys of narinfos that went.
    ///
    /// # Errors
    /// If the store fails; what went until then stays away, and what is left has no hole.
    pub(crate) fn execute(
        self,
        store: &Store,
        between: &mut dyn FnMut(&[String]) -> Result<(), ServiceError>,
    ) -> Result<Evictions, ServiceError> {
        let cache = self.cache;
        let mut run = Run::new(self);
        while !run.queue.is_empty() {
            // Most of what is new is taken in before the writer is held.
            let (_, newest) = store.now_and_newest()?;
            let published = store.published_since(cache, run.plan.newest, NEEDING)?;
            run.take_in(&published, newest);
            run = store.evict(cache, move |eviction| run.batch(eviction))?;
            between(&std::mem::take(&mut run.gone))?;
        }
        Ok(run.done)
    }
}

/// A plan being carried out.
struct Run {
    queue: VecDeque<super::graph::Choice>,
    blob_names: Vec<u32>,
    plan: Plan,
    done: Evictions,
    /// Keys of narinfos that went in this transaction.
    gone: Vec<String>,
}

impl Run {
    fn new(mut plan: Plan) -> Self {
        Self {
            queue: std::mem::take(&mut plan.chosen.choices).into(),
            blob_names: plan.groups.blob_names(),
            plan,
            done: Evictions::default(),
            gone: Vec::new(),
        }
    }

    fn take_in(&mut self, published: &[Entry], newest: u64) {
        for entry in published {
            for node in self.plan.names.needed_by(entry) {
                let group = self.plan.groups.group_of(node);
                self.plan.groups.keep(group);
            }
        }
        self.plan.newest = newest;
    }

    fn batch(mut self, eviction: &Eviction<'_>) -> Result<Self, StoreError> {
        let newest = eviction.newest()?;
        let published = eviction.published_since(self.plan.newest, NEEDING)?;
        self.take_in(&published, newest);
        let mut entries = 0;
        while entries < BATCH
            && let Some(choice) = self.queue.pop_front()
        {
            entries += self.plan.groups.members(choice.group).len();
            if !self.may_go(eviction, choice.group)? {
                self.done.stayed += 1;
                self.plan.groups.keep(choice.group);
                continue;
            }
            self.count(eviction, choice.group, choice.unused, true)?;
            for node in self.plan.groups.members(choice.group) {
                eviction.remove(self.plan.held[*node as usize].sequence)?;
            }
        }
        Ok(self)
    }

    /// Everything that decided is looked up again.
    fn may_go(&self, eviction: &Eviction<'_>, group: u32) -> Result<bool, StoreError> {
        if self.plan.groups.has_to_stay(group) {
            return Ok(false);
        }
        for node in self.plan.groups.members(group) {
            let held = &self.plan.held[*node as usize];
            let leases = matches!(
                held.kind,
                EntryKind::Narinfo
                    | EntryKind::NarFile
                    | EntryKind::NarAlias
                    | EntryKind::RegistryBlob
                    | EntryKind::Layer
            );
            if !eviction.may_go(held.sequence, held.used_at_ms, leases)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sums up, and remembers why if it is `real`.
    fn count(
        &mut self,
        eviction: &Eviction<'_>,
        group: u32,
        unused: bool,
        real: bool,
    ) -> Result<(), StoreError> {
        let groups = &self.plan.groups;
        let mut bytes = groups.take_bytes(group, &mut self.blob_names);
        self.done.bytes += bytes;
        let reason = match unused {
            true => EvictionReason::Unused,
            false => EvictionReason::Quota,
        };
        let tags = self.tags(eviction, group)?;
        for node in groups.members(group) {
            let held = &self.plan.held[*node as usize];
            if !matches!(
                held.kind,
                EntryKind::Narinfo | EntryKind::Manifest | EntryKind::ActionsEntry
            ) {
                continue;
            }
            let Some((key, name)) = named(eviction, held)? else {
                continue;
            };
            match held.kind {
                EntryKind::Narinfo => self.done.paths += 1,
                EntryKind::Manifest => self.done.images += 1,
                _ => {}
            }
            let evicted = Evicted {
                kind: held.kind,
                key,
                name: if tags.is_empty() { name } else { tags.clone() },
                at: 0,
                reason,
                // Of a group of several the first stands for all.
                bytes: std::mem::take(&mut bytes),
                used_at: groups.used_at_ms(group).max(0) / 1000,
            };
            if real {
                eviction.remember(&evicted)?;
                if held.kind == EntryKind::Narinfo {
                    self.gone.push(evicted.key.clone());
                }
            }
            if self.done.evicted.len() < LISTED_MAX {
                self.done.evicted.push(evicted);
            }
        }
        Ok(())
    }

    /// An image's tags.
    fn tags(&self, eviction: &Eviction<'_>, group: u32) -> Result<String, StoreError> {
        let mut tags = Vec::new();
        for node in self.plan.groups.members(group) {
            let held = &self.plan.held[*node as usize];
            if held.kind == EntryKind::Tag {
                tags.extend(
                    eviction
                        .entry(held.sequence, EntryKind::Tag)?
                        .map(|tag| tag.key),
                );
            }
        }
        Ok(tags.join(", "))
    }
}

/// A narinfo's, manifest's or Actions entry's key, and what people call it.
fn named(eviction: &Eviction<'_>, held: &Held) -> Result<Option<(String, String)>, StoreError> {
    let Some(entry) = eviction.entry(held.sequence, held.kind)? else {
        return Ok(None);
    };
    let name = match held.kind {
        EntryKind::Narinfo => std::str::from_utf8(&entry.value)
            .ok()
            .and_then(|text| {
                text.lines()
                    .find_map(|line| line.strip_prefix("StorePath: "))
            })
            .and_then(|path| path.rsplit('/').next())
            .unwrap_or(&entry.key)
            .to_owned(),
        EntryKind::ActionsEntry => entry.key.rsplit('\n').next().unwrap_or_default().to_owned(),
        _ => entry.key.clone(),
    };
    Ok(Some((entry.key, name)))
}
