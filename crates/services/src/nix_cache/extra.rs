//! What stands beside narinfos: listings, logs, debug info, realisations. Kept verbatim.

use super::body::{content_encoding, read_all};
use super::{NixCache, Uploaded};
use crate::{ServiceError, access::Cache, document, document::Document};
use bytes::Bytes;
use firn_formats::nix::NarInfo;
use firn_formats::nix::listing::ListingBuilder;
use firn_formats::nix::nar::Parser;
use firn_store::{EntryKind, IfExists, NewEntry, Publication, PublishedEntry, Representation};
use std::io::Read;

/// Longest name of such a document, in bytes.
const NAME_BYTES_MAX: usize = 300;

/// The documents beside narinfos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ExtraKind {
    Listing,
    Log,
    DebugInfo,
    Realisation,
    BuildTrace,
}

impl ExtraKind {
    fn entry_kind(self) -> EntryKind {
        match self {
            Self::Listing => EntryKind::Listing,
            Self::Log => EntryKind::Log,
            Self::DebugInfo => EntryKind::DebugInfo,
            Self::Realisation => EntryKind::Realisation,
            Self::BuildTrace => EntryKind::BuildTrace,
        }
    }
    /// Largest taken in, in bytes.
    fn bytes_max(self) -> u64 {
        match self {
            Self::Listing | Self::Log => 64 << 20,
            Self::DebugInfo | Self::Realisation | Self::BuildTrace => 1 << 20,
        }
    }
    /// How it is served.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Log => "text/plain; charset=utf-8",
            _ => "application/json",
        }
    }
}

fn check_name(name: &str) -> Result<(), ServiceError> {
    let sound = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    let part_sound = |part: &str| !part.is_empty() && part != "." && part != "..";
    if name.len() <= NAME_BYTES_MAX && name.bytes().all(sound) && name.split('/').all(part_sound) {
        return Ok(());
    }
    Err(ServiceError::BadRequest(format!(
        "{name:?} is not a name for such a file"
    )))
}

impl NixCache {
    /// One such document.
    ///
    /// # Errors
    /// If the store fails.
    pub fn extra(
        &self,
        cache: &Cache,
        kind: ExtraKind,
        name: &str,
    ) -> Result<Option<Document>, ServiceError> {
        let found = self.store.entry(cache.row.id, kind.entry_kind(), name)?;
        match found {
            Some(entry) => Ok(Some(document::open(&self.store, &entry)?)),
            None if kind == ExtraKind::Listing => self.made_listing(cache, name),
            None => Ok(None),
        }
    }

    /// Keeps one, in place of what was there.
    ///
    /// # Errors
    /// If name or body are unsound, or the store fails.
    pub fn put_extra(
        &self,
        cache: &Cache,
        kind: ExtraKind,
        name: &str,
        encoding: Option<&str>,
        body: &mut dyn Read,
    ) -> Result<Uploaded, ServiceError> {
        check_name(name)?;
        let bytes = read_all(
            body,
            content_encoding(encoding)?,
            "the file",
            kind.bytes_max(),
        )?;
        if kind != ExtraKind::Log {
            serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).map_err(|error| {
                ServiceError::BadRequest(format!("{name} is not JSON: {error}"))
            })?;
        }
        self.keep_extra(cache, kind, name, &bytes, IfExists::Replace)
    }

    fn keep_extra(
        &self,
        cache: &Cache,
        kind: ExtraKind,
        name: &str,
        bytes: &[u8],
        if_exists: IfExists,
    ) -> Result<Uploaded, ServiceError> {
        let shared = self.sessions.get(cache)?;
        let (value, blobs) = document::keep(&self.store, &shared, kind.media_type(), bytes)?;
        let entry = NewEntry {
            kind: kind.entry_kind(),
            key: name.to_owned(),
            value,
            blobs,
            requires: Vec::new(),
            if_exists,
            lease: None,
        };
        let publication = Publication {
            entries: vec![entry],
            deletions: Vec::new(),
        };
        let published = self
            .store
            .publish(Some(shared.session()), cache.row.id, publication)?;
        Ok(match published.first() {
            Some(PublishedEntry::New(_)) => Uploaded::Created,
            _ => Uploaded::Known,
        })
    }

    /// A listing that nobody pushed: made from the NAR, and kept.
    fn made_listing(&self, cache: &Cache, hash: &str) -> Result<Option<Document>, ServiceError> {
        let Some(entry) = self.store.entry(cache.row.id, EntryKind::Narinfo, hash)? else {
            return Ok(None);
        };
        let Some(blob) = entry.blobs.first() else {
            return Ok(None);
        };
        let narinfo = NarInfo::parse(&String::from_utf8_lossy(&entry.value))?;
        let damaged = || ServiceError::StoredEntry(format!("the NAR of {}", narinfo.store_path));
        let mut reader = self.store.read(*blob, Representation::Identity, None)?;
        let mut parser = Parser::new();
        let mut builder = ListingBuilder::default();
        while let Some(block) = reader.next_block()? {
            parser
                .push(&block, &mut |event| builder.event(&event))
                .map_err(|_| damaged())?;
        }
        parser.finish().map_err(|_| damaged())?;
        let Some(listing) = builder.finish() else {
            return Ok(None);
        };
        let json = Bytes::from(serde_json::to_vec(&listing)?);
        self.keep_extra(cache, ExtraKind::Listing, hash, &json, IfExists::Keep)?;
        Ok(Some(Document {
            media_type: ExtraKind::Listing.media_type().to_owned(),
            length: json.len() as u64,
            content: document::Content::Inline(json),
        }))
    }
}
