//! Which store has a path, and what is said of it.

use super::{Source, Substituter, names};
use crate::{
    error::{ClientError, Result},
    push::work::lock,
};
use firn_chunks::{ChunkId, ChunkList};
use firn_formats::nix::{Compression, NarInfo, StorePathHash};
use firn_store::EntryKind;

/// A path that a store has.
pub(super) struct Found {
    /// Index of the source.
    pub(super) source: usize,
    pub(super) narinfo: NarInfo,
    pub(super) list: ChunkList,
    /// For each chunk the source that has it.
    pub(super) located: Vec<usize>,
}

impl Substituter {
    /// The first store of the cache that has the path, with all of its chunks somewhere. A store that fails
    /// is passed over; its failure counts if no other has the path.
    pub(super) fn find(&self, cache: &str, hash: &str) -> Result<Option<Found>> {
        if StorePathHash::parse(hash).is_err() {
            return Ok(None);
        }
        let mut failure = None;
        for (index, source) in self.sources.iter().enumerate() {
            if source.cache != cache || self.is_broken(index, hash) {
                continue;
            }
            match self.look(index, source, hash) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => {
                    let location = source.store.backend().location();
                    tracing::warn!(
                        location,
                        error = &error as &dyn std::error::Error,
                        "the store did not answer"
                    );
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    fn look(&self, index: usize, source: &Source, hash: &str) -> Result<Option<Found>> {
        let Some((narinfo, list)) = entry(source, hash)? else {
            return Ok(None);
        };
        let ids: Vec<ChunkId> = list.chunks.iter().map(|chunk| chunk.id).collect();
        let located = locate(&self.sources, index, &ids)?;
        // What cannot be served whole is not offered (rules 4 and 9).
        let Some(located) = located.into_iter().collect() else {
            let location = source.store.backend().location();
            tracing::warn!(location, hash, "chunks of the path are missing");
            return Ok(None);
        };
        Ok(Some(Found {
            source: index,
            narinfo,
            list,
            located,
        }))
    }

    pub(super) fn is_broken(&self, source: usize, hash: &str) -> bool {
        let broken = lock(&self.broken);
        // The common case allocates nothing.
        !broken.is_empty() && broken.contains(&(source, hash.to_owned()))
    }

    /// The narinfo as Nix gets it from here.
    pub(super) fn offer(&self, mut narinfo: NarInfo) -> NarInfo {
        narinfo.url = format!(
            "nar/{}",
            names::nar(&narinfo.nar_hash, &narinfo.store_path.hash())
        );
        narinfo.compression = Compression::None;
        narinfo.file_hash = Some(narinfo.nar_hash.into());
        narinfo.file_size = Some(narinfo.nar_size);
        let name = self.key.name();
        narinfo
            .signatures
            .retain(|signature| signature.key_name != name);
        let signature = self.key.sign(&narinfo.fingerprint());
        narinfo.signatures.push(signature);
        narinfo
    }
}

/// What one store has of a path. An entry that contradicts itself is as good as absent.
fn entry(source: &Source, hash: &str) -> Result<Option<(NarInfo, ChunkList)>> {
    let store = &source.store;
    let Some(entry) = store.entry(&source.cache, EntryKind::Narinfo, hash)? else {
        return Ok(None);
    };
    let unsound = |what: &str| {
        let location = store.backend().location();
        tracing::warn!(location, hash, what, "an entry is passed over");
        Ok(None)
    };
    let text = std::str::from_utf8(&entry.value).unwrap_or_default();
    let Ok(narinfo) = NarInfo::parse(text) else {
        return unsound("it holds no narinfo");
    };
    if narinfo.store_path.hash().to_string() != hash {
        return unsound("its narinfo is another path's");
    }
    let Some(list) = entry.blobs.first() else {
        return unsound("it names no NAR");
    };
    let Some(blob) = store.blob(list)? else {
        return unsound("its NAR is not known");
    };
    if blob.list.raw_length() != narinfo.nar_size || blob.identity_sha256 != narinfo.nar_hash.0 {
        return unsound("its NAR is not the one that the narinfo names");
    }
    Ok(Some((narinfo, blob.list)))
}

/// For each chunk the index of a source that has it, `first` before the others.
fn locate(sources: &[Source], first: usize, ids: &[ChunkId]) -> Result<Vec<Option<usize>>> {
    let mut found: Vec<Option<usize>> = vec![None; ids.len()];
    let others = (0..sources.len()).filter(|index| *index != first);
    for index in std::iter::once(first).chain(others) {
        let lacking: Vec<usize> = (0..ids.len()).filter(|at| found[*at].is_none()).collect();
        let (false, Some(source)) = (lacking.is_empty(), sources.get(index)) else {
            break;
        };
        let wanted: Vec<ChunkId> = lacking.iter().map(|at| ids[*at]).collect();
        let located = match source.store.locate(&wanted) {
            Ok(located) => located,
            Err(error) if index == first => return Err(ClientError::from(error)),
            Err(_) => continue,
        };
        for (at, located) in lacking.into_iter().zip(located) {
            found[at] = located.map(|_| index);
        }
    }
    Ok(found)
}
