//! From a verified NAR to the entries that make its path visible.

use super::NixCache;
use crate::{ServiceError, access::Cache, sync::lock};
use firn_formats::Sha256;
use firn_formats::nix::narinfo::fingerprint;
use firn_formats::nix::{Compression, Hash, NarInfo, Signature, StorePath};
use firn_store::{BlobInfo, EntryKind, IfExists, NewEntry, Publication, PublishedEntry, Session};

/// Most signatures kept on one narinfo.
const SIGNATURES_MAX: usize = 64;

/// A store path whose NAR is in the store and has the declared hash and size.
pub(crate) struct VerifiedPath {
    pub(crate) path: StorePath,
    pub(crate) blob: BlobInfo,
    pub(crate) references: Vec<StorePath>,
    pub(crate) deriver: Option<StorePath>,
    pub(crate) signatures: Vec<Signature>,
    pub(crate) ca: Option<String>,
}

/// Refuses a NAR that is not what its narinfo says. Signing comes after this, never before.
pub(crate) fn check_verified(
    path: &StorePath,
    blob: &BlobInfo,
    nar_hash: &Sha256,
    nar_size: u64,
) -> Result<(), ServiceError> {
    if blob.identity_sha256 != *nar_hash {
        return Err(ServiceError::HashMismatch(format!(
            "the NAR of {path} has hash {}, not {} as declared",
            blob.identity_sha256.nix(),
            nar_hash.nix()
        )));
    }
    if blob.identity_length != nar_size {
        return Err(ServiceError::HashMismatch(format!(
            "the NAR of {path} has {} bytes, not {nar_size} as declared",
            blob.identity_length
        )));
    }
    Ok(())
}

/// Reads signatures, refusing malformed ones.
pub(crate) fn parse_signatures(texts: &[String]) -> Result<Vec<Signature>, ServiceError> {
    texts
        .iter()
        .map(|text| {
            Signature::parse(text)
                .map_err(|error| ServiceError::BadRequest(format!("signature {text:?}: {error}")))
        })
        .collect()
}

impl VerifiedPath {
    /// The narinfo: the pusher's signatures, then the cache's own.
    fn narinfo(&self, cache: &Cache) -> NarInfo {
        let nar_hash = self.blob.identity_sha256;
        let text = fingerprint(
            &self.path,
            &nar_hash,
            self.blob.identity_length,
            &self.references,
        );
        let mut signatures = signatures(cache, self.signatures.iter());
        signatures.extend(cache.keys.sign(&text));
        NarInfo {
            store_path: self.path.clone(),
            url: format!("nar/{}.nar.zst", self.blob.zstd_sha256.base32()),
            compression: Compression::Zstd,
            file_hash: Hash::parse(&self.blob.zstd_sha256.nix()).ok(),
            file_size: Some(self.blob.zstd_length),
            nar_hash,
            nar_size: self.blob.identity_length,
            references: self.references.clone(),
            deriver: self.deriver.clone(),
            signatures,
            ca: self.ca.clone(),
        }
    }

    fn nar_files(&self) -> [NewEntry; 2] {
        [self.blob.zstd_sha256, self.blob.identity_sha256].map(|hash| NewEntry {
            kind: EntryKind::NarFile,
            key: hash.base32(),
            value: bytes::Bytes::new(),
            blobs: vec![self.blob.id],
            requires: Vec::new(),
            // A blob made anew after damage takes the place of the damaged one.
            if_exists: IfExists::Replace,
            lease: None,
        })
    }

    fn entry(&self, cache: &Cache) -> NewEntry {
        let narinfo = self.narinfo(cache);
        let requires = if cache.has_upstream() {
            Vec::new()
        } else {
            self.references
                .iter()
                .filter(|reference| reference.hash() != self.path.hash())
                .map(|reference| (EntryKind::Narinfo, reference.hash().to_string()))
                .collect()
        };
        NewEntry {
            kind: EntryKind::Narinfo,
            key: self.path.hash().to_string(),
            value: narinfo.to_string().into(),
            blobs: vec![self.blob.id],
            requires,
            if_exists: IfExists::Keep,
            lease: None,
        }
    }
}

/// A stored narinfo with signatures by the keys that sign now in place of those by any that have signed; `None`
/// if it stays as it is. Stored ones have those of the day on which they were published. What no key of the cache
/// has signed is signed by none: it was not verified here.
pub(super) fn signed_anew(cache: &Cache, stored: &[u8]) -> Option<bytes::Bytes> {
    if cache.keys.generation() == 0 {
        return None;
    }
    let mut narinfo = NarInfo::parse(std::str::from_utf8(stored).ok()?).ok()?;
    let text = narinfo.fingerprint();
    let made_here = |signature: &Signature| cache.keys.made(&text, signature);
    if !narinfo.signatures.iter().any(made_here) {
        return None;
    }
    narinfo
        .signatures
        .retain(|signature| !cache.keys.own(&signature.key_name));
    narinfo.signatures.extend(cache.keys.sign(&text));
    Some(narinfo.to_string().into())
}

impl NixCache {
    /// Makes paths visible, in one transaction, together with `more`. A path that is there stays
    /// as it is, but that the pusher's signatures are added if it is the same. Returns how many
    /// paths are new.
    pub(crate) fn publish(
        &self,
        session: &Session,
        cache: &Cache,
        mut paths: Vec<VerifiedPath>,
        more: Vec<NewEntry>,
    ) -> Result<u32, ServiceError> {
        self.check_nars(&paths)?;
        let keys: Vec<String> = paths
            .iter()
            .map(|path| path.path.hash().to_string())
            .collect();
        let key_texts: Vec<&str> = keys.iter().map(String::as_str).collect();
        let present = self
            .store
            .entries_present(cache.row.id, EntryKind::Narinfo, &key_texts)?;
        for (path, present) in paths.iter_mut().zip(&present) {
            match present {
                // What is here keeps its own.
                true => path.ca = None,
                false => self.check_address(path)?,
            }
        }
        // Only where a narinfo is read, merged and written back must others wait.
        let _merging = present.contains(&true).then(|| lock(&self.merging));
        let mut publication = Publication::default();
        let mut narinfo_places = Vec::with_capacity(paths.len());
        for ((path, key), present) in paths.iter().zip(&keys).zip(&present) {
            let merged = match present {
                true => self.merged(cache, path, key)?,
                false => Merged::Absent,
            };
            match merged {
                Merged::Same => {}
                Merged::Signed(entry) => publication.entries.push(entry),
                Merged::Absent => {
                    publication.entries.extend(path.nar_files());
                    narinfo_places.push(publication.entries.len());
                    publication.entries.push(path.entry(cache));
                }
            }
        }
        publication.entries.extend(more);
        if publication.entries.is_empty() {
            return Ok(0);
        }
        let published = self
            .store
            .publish(Some(session), cache.row.id, publication)?;
        self.narinfos.forget(cache.row.id, key_texts.into_iter());
        let new = |place: &&usize| matches!(published.get(**place), Some(PublishedEntry::New(_)));
        Ok(narinfo_places.iter().filter(new).count() as u32)
    }

    /// What a second pusher of a path adds: signatures, and nothing else.
    fn merged(
        &self,
        cache: &Cache,
        path: &VerifiedPath,
        key: &str,
    ) -> Result<Merged, ServiceError> {
        let Some(entry) = self.store.entry(cache.row.id, EntryKind::Narinfo, key)? else {
            return Ok(Merged::Absent);
        };
        let mut narinfo = NarInfo::parse(&String::from_utf8_lossy(&entry.value))?;
        let sorted = |references: &[StorePath]| {
            let mut references = references.to_vec();
            references.sort();
            references
        };
        let same = narinfo.nar_hash == path.blob.identity_sha256
            && narinfo.store_path == path.path
            && sorted(&narinfo.references) == sorted(&path.references);
        if !same {
            tracing::info!(path = %path.path, "kept: it is here with another NAR or other references");
            return Ok(Merged::Same);
        }
        let known = std::mem::take(&mut narinfo.signatures);
        narinfo.signatures = signatures(cache, known.iter().chain(&path.signatures));
        // The NAR is here and was verified again, so the cache signs, too.
        narinfo
            .signatures
            .extend(cache.keys.sign(&narinfo.fingerprint()));
        let value: bytes::Bytes = narinfo.to_string().into();
        Ok(match value == entry.value {
            true => Merged::Same,
            false => Merged::Signed(NewEntry {
                value,
                blobs: entry.blobs,
                if_exists: IfExists::Replace,
                ..path.entry(cache)
            }),
        })
    }
}

/// What is to be done for a path that was looked for.
enum Merged {
    /// It is not here.
    Absent,
    /// It is here, and stays as it is.
    Same,
    /// It is here, and gets signatures.
    Signed(NewEntry),
}

/// The signatures of others. One in the name of one of the cache's keys counts only if it was made here.
fn signatures<'a>(cache: &Cache, all: impl Iterator<Item = &'a Signature>) -> Vec<Signature> {
    let mut signatures: Vec<Signature> = Vec::new();
    for signature in all {
        if signatures.len() < SIGNATURES_MAX
            && !cache.keys.own(&signature.key_name)
            && !signatures.contains(signature)
        {
            signatures.push(signature.clone());
        }
    }
    signatures
}
