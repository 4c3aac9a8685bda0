//! The union of records: what several segments tell, as one would tell it.

use super::{SHARED_DOMAIN, StoredPack};
use firn_chunks::{
    ChunkId, ListId,
    pack::Placed,
    segment::{BlobRecord, Record},
};
use std::collections::BTreeMap;

/// Records by what they are about; the same as the local index would hold.
#[derive(Debug, Default)]
pub(super) struct Union {
    pub(super) packs: BTreeMap<String, Pack>,
    pub(super) blobs: BTreeMap<ListId, BlobRecord>,
    /// By cache, kind and key.
    pub(super) entries: BTreeMap<(String, u16, String), Record>,
}

#[derive(Debug, Default)]
pub(super) struct Pack {
    length: u64,
    /// By chunk and offset.
    pub(super) frames: BTreeMap<(ChunkId, u64), Placed>,
}

impl Union {
    /// Adds records in any order.
    pub(super) fn add(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            match record {
                Record::Pack {
                    domain,
                    pack,
                    sealed_length,
                    frames,
                } if domain == SHARED_DOMAIN => self.add_pack(&pack, sealed_length, &frames),
                Record::Blob(blob) if blob.domain == SHARED_DOMAIN => self.add_blob(blob),
                Record::Entry { .. } => self.add_entry(record),
                Record::Pack { .. } | Record::Blob(_) | Record::Cache { .. } => {}
            }
        }
    }

    pub(super) fn add_pack(&mut self, name: &str, length: u64, frames: &[Placed]) {
        let pack = self.packs.entry(name.to_owned()).or_default();
        pack.length = pack.length.max(length);
        for placed in frames {
            pack.frames
                .entry((placed.record.id, placed.offset))
                .or_insert(*placed);
        }
    }

    pub(super) fn add_blob(&mut self, blob: BlobRecord) {
        let rank = |blob: &BlobRecord| {
            (
                blob.flags,
                blob.identity_sha256,
                blob.zstd_sha256,
                blob.zstd_length,
            )
        };
        let id = blob.list.id();
        match self.blobs.get(&id) {
            Some(known) if rank(known) <= rank(&blob) => {}
            _ => {
                self.blobs.insert(id, blob);
            }
        }
    }

    fn add_entry(&mut self, record: Record) {
        let Record::Entry {
            cache, kind, key, ..
        } = &record
        else {
            return;
        };
        let name = (cache.clone(), *kind, key.clone());
        match self.entries.get(&name) {
            Some(known) if newness(known) >= newness(&record) => {}
            _ => {
                self.entries.insert(name, record);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.blobs.is_empty() && self.entries.is_empty()
    }

    /// About how many bytes a segment of it has: ids and checksums do not compress, the rest does.
    pub(super) fn size_estimate(&self) -> u64 {
        let frames: usize = self.packs.values().map(|pack| pack.frames.len()).sum();
        let chunks: usize = self.blobs.values().map(|blob| blob.list.chunks.len()).sum();
        let entries = self.entries.values().map(|record| match record {
            Record::Entry { value, blobs, .. } => 32 + value.len() / 2 + 32 * blobs.len(),
            _ => 0,
        });
        let records = self.packs.len() + self.blobs.len();
        (200 + 50 * frames + 34 * chunks + 80 * records + entries.sum::<usize>()) as u64
    }

    /// The packs it names.
    pub(super) fn packs(&self) -> Vec<StoredPack> {
        let packs = self.packs.iter();
        packs
            .map(|(name, pack)| StoredPack {
                name: name.clone(),
                length: pack.length,
            })
            .collect()
    }

    /// The records, packs first.
    pub(super) fn into_records(self) -> Vec<Record> {
        let packs = self.packs.into_iter().map(|(name, pack)| Record::Pack {
            domain: SHARED_DOMAIN.into(),
            pack: name,
            sealed_length: pack.length,
            frames: pack.frames.into_values().collect(),
        });
        packs
            .chain(self.blobs.into_values().map(Record::Blob))
            .chain(self.entries.into_values())
            .collect()
    }
}

/// Sequence, deleted, time, value and lists.
type Newness<'a> = (u64, bool, i64, &'a [u8], &'a [u8]);

/// The greater wins.
fn newness(record: &Record) -> Option<Newness<'_>> {
    match record {
        Record::Entry {
            sequence,
            deleted,
            at,
            value,
            blobs,
            ..
        } => Some((*sequence, *deleted, *at, value, blobs.as_flattened())),
        _ => None,
    }
}
