//! What stands beside narinfos: listings, logs, debug info, realisations. The first that comes stays, verbatim: a
//! pusher changes nothing that others get. Listings are the server's own, made from the NAR.

use super::body::{content_encoding, read_all};
use super::{NixCache, Uploaded, realisation};
use crate::{ServiceError, access::Cache, document, document::Document, sync::lock};
use bytes::Bytes;
use firn_formats::nix::NarInfo;
use firn_formats::nix::listing::ListingBuilder;
use firn_formats::nix::nar::{NarError, Parser};
use firn_store::{EntryKind, IfExists, NewEntry, Publication, PublishedEntry, Representation};
use std::io::Read;

/// Longest name of such a document, in bytes.
const NAME_BYTES_MAX: usize = 300;
/// How the value of a listing says that it was made here: caches hold some that came from pushers.
const MADE_LISTING: &str = "application/json; made=here";

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
        if kind != ExtraKind::Listing {
            let open = |entry| document::open(&self.store, &entry);
            return found.map(open).transpose();
        }
        let media_type = |value| document::read_value(value).map(|(media_type, _)| media_type);
        match found {
            Some(entry) if media_type(&entry.value) == Some(MADE_LISTING) => Ok(Some(Document {
                media_type: kind.media_type().to_owned(),
                ..document::open(&self.store, &entry)?
            })),
            _ => self.made_listing(cache, name),
        }
    }

    /// Keeps one, if there is none: later realisations add signatures, later logs nothing. A listing is read and
    /// let go, since the server makes its own.
    ///
    /// # Errors
    /// If name or body are unsound, a realisation is another's, or the store fails.
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
        match kind {
            ExtraKind::Listing => Ok(Uploaded::Known),
            ExtraKind::Realisation | ExtraKind::BuildTrace => {
                self.keep_realisation(cache, kind, name, &bytes)
            }
            ExtraKind::Log | ExtraKind::DebugInfo => {
                self.keep_extra(cache, kind, kind.media_type(), name, &bytes, IfExists::Keep)
            }
        }
    }

    fn keep_realisation(
        &self,
        cache: &Cache,
        kind: ExtraKind,
        name: &str,
        bytes: &[u8],
    ) -> Result<Uploaded, ServiceError> {
        let new = realisation::checked(kind, name, bytes)?;
        let media_type = kind.media_type();
        let _merging = lock(&self.merging);
        let Some(entry) = self.store.entry(cache.row.id, kind.entry_kind(), name)? else {
            return self.keep_extra(cache, kind, media_type, name, bytes, IfExists::Keep);
        };
        let known = document::open(&self.store, &entry)?.into_bytes()?;
        if let Some(merged) = realisation::signed(&known, &new)? {
            self.keep_extra(cache, kind, media_type, name, &merged, IfExists::Replace)?;
        }
        Ok(Uploaded::Known)
    }

    fn keep_extra(
        &self,
        cache: &Cache,
        kind: ExtraKind,
        media_type: &str,
        name: &str,
        bytes: &[u8],
        if_exists: IfExists,
    ) -> Result<Uploaded, ServiceError> {
        let shared = self.sessions.get(cache)?;
        let (value, blobs) = document::keep(&self.store, &shared, media_type, bytes)?;
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

    /// A listing made from the NAR, and kept. What is no NAR has none: such were published once.
    fn made_listing(&self, cache: &Cache, hash: &str) -> Result<Option<Document>, ServiceError> {
        let Some(entry) = self.store.entry(cache.row.id, EntryKind::Narinfo, hash)? else {
            return Ok(None);
        };
        let Some(blob) = entry.blobs.first() else {
            return Ok(None);
        };
        let narinfo = NarInfo::parse(&String::from_utf8_lossy(&entry.value))?;
        let none = |fault: NarError| {
            tracing::info!(path = %narinfo.store_path, %fault, "no listing: its NAR is none");
            Ok(None)
        };
        let mut reader = self.store.read(*blob, Representation::Identity, None)?;
        let mut parser = Parser::of_stored();
        let mut builder = ListingBuilder::default();
        while let Some(block) = reader.next_block()? {
            if let Err(fault) = parser.push(&block, &mut |event| builder.event(&event)) {
                return none(fault);
            }
        }
        if let Err(fault) = parser.finish() {
            return none(fault);
        }
        let Some(listing) = builder.finish() else {
            return Ok(None);
        };
        let json = Bytes::from(serde_json::to_vec(&listing)?);
        let kind = ExtraKind::Listing;
        // In the place of one that a pusher sent.
        self.keep_extra(cache, kind, MADE_LISTING, hash, &json, IfExists::Replace)?;
        Ok(Some(Document {
            media_type: ExtraKind::Listing.media_type().to_owned(),
            length: json.len() as u64,
            content: document::Content::Inline(json),
        }))
    }
}
