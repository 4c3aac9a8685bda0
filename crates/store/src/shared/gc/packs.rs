//! Packs that no segment names: found, marked, and a grace later deleted.

use super::mark;
use crate::shared::{Backend, Inner, PackFile, clock, union::Union};
use crate::{EntryKind, StoreError};
use firn_chunks::pack;
use std::collections::{HashMap, HashSet};
use std::io::Write as _;

/// The cache whose entries are the marks; no cache of a user's has this name.
pub(in crate::shared) const MARKS: &str = "";

/// The packs of a place, and its time.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) packs: Vec<PackFile>,
    /// Seconds since 1970, by the place.
    pub(super) now: i64,
}

/// Lists the packs; `None` where the place looks after them itself. An empty pack is stored first and deleted
/// afterwards: when it was stored is the place's time.
pub(super) fn list(backend: &dyn Backend) -> Result<Option<Stored>, StoreError> {
    if backend.packs()?.is_none() {
        return Ok(None);
    }
    let mut file =
        tempfile::tempfile().map_err(|error| StoreError::io(std::env::temp_dir(), error))?;
    let bytes = [pack::header(), pack::trailer(&[])].concat();
    file.write_all(&bytes)
        .map_err(|error| StoreError::io(std::env::temp_dir(), error))?;
    let probe = backend.put_pack(&file, bytes.len() as u64)?;
    let listed = backend.packs();
    backend.delete_pack(&probe.name)?;
    let mut packs = listed?.unwrap_or_default();
    let Some(at) = packs.iter().position(|pack| pack.name == probe.name) else {
        let what = format!("{} does not list what was just stored", backend.location());
        return Err(StoreError::Damaged(what));
    };
    let now = packs.swap_remove(at).modified_at;
    Ok(Some(Stored { packs, now }))
}

/// Packs by what is to be done with them.
#[derive(Debug, Default)]
pub(super) struct Packs {
    pub(super) marked: Vec<PackFile>,
    pub(super) waiting: Vec<PackFile>,
    pub(super) deleted: Vec<PackFile>,
    /// Marks of packs that are named again, or are gone.
    unmarked: Vec<String>,
}

impl Packs {
    pub(super) fn sort(
        stored: &Stored,
        named: &HashSet<String>,
        marks: &HashMap<String, i64>,
        grace: i64,
    ) -> Self {
        let mut sorted = Self::default();
        let mut here = HashSet::new();
        for pack in &stored.packs {
            here.insert(&pack.name);
            if named.contains(&pack.name) || stored.now - pack.modified_at < grace {
                continue;
            }
            match marks.get(&pack.name) {
                None => &mut sorted.marked,
                Some(at) if stored.now - at < grace => &mut sorted.waiting,
                Some(_) => &mut sorted.deleted,
            }
            .push(pack.clone());
        }
        let marks = marks.keys();
        sorted.unmarked = marks
            .filter(|name| named.contains(*name) || !here.contains(name))
            .cloned()
            .collect();
        sorted
    }

    /// Marks and deletes nothing; marks are still taken back.
    pub(super) fn leave(&mut self) {
        self.marked.clear();
        self.waiting.append(&mut self.deleted);
    }

    /// Adds marks, and takes back those that are not right any more, in what will be published.
    pub(super) fn write_marks(
        &self,
        inner: &Inner,
        now: i64,
        union: &mut Union,
    ) -> Result<(), StoreError> {
        let added = self.marked.iter().map(|pack| (&pack.name, Some(now)));
        let taken = self.unmarked.iter().map(|name| (name, None));
        for (name, at) in added.chain(taken) {
            let before = inner.index.sequence(MARKS, EntryKind::PackMark, name)?;
            let sequence = clock::micros().max(before.unwrap_or(0) + 1);
            union.add([mark(EntryKind::PackMark, name, at, sequence)]);
        }
        Ok(())
    }
}
