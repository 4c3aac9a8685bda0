//! What stands beside narinfos: listings, logs, debug info, realisations. The first that comes stays, verbatim: a
//! pusher changes nothing that others get. Listings are the server's own, made from the NAR.

use super::body::{Room, content_encoding, read_all};
use super::{NixCache, Uploaded, realisation};
use crate::sessions::SharedSession;
use crate::{ServiceError, access::Cache, document, document::Document, sync::lock};
use firn_formats::nix::NarInfo;
use firn_formats::nix::listing::ListingWriter;
use firn_formats::nix::nar::{NarError, Parser};
use firn_store::{
    Entry, EntryKind, IfExists, NewEntry, Publication, PublishedEntry, Representation,
};
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
    /// One such document that was pushed. Of listings one that the server has made.
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
        let is_ours = |entry: &Entry| {
            document::read_value(&entry.value).is_some_and(|(kind, _)| kind == MADE_LISTING)
        };
        let Some(entry) = found.filter(is_ours) else {
            return Ok(None);
        };
        Ok(Some(Document {
            media_type: kind.media_type().to_owned(),
            ..document::open(&self.store, &entry)?
        }))
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
        let room = Room::new(&self.budget, cache);
        let bytes = read_all(
            body,
            content_encoding(encoding)?,
            "the file",
            kind.bytes_max(),
            &room,
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
                self.keep_extra(cache, kind, name, &bytes, IfExists::Keep)
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
        let _merging = lock(&self.merging);
        let Some(entry) = self.store.entry(cache.row.id, kind.entry_kind(), name)? else {
            return self.keep_extra(cache, kind, name, bytes, IfExists::Keep);
        };
        let known = document::open(&self.store, &entry)?.into_bytes()?;
        if let Some(merged) = realisation::signed(&known, &new)? {
            self.keep_extra(cache, kind, name, &merged, IfExists::Replace)?;
        }
        Ok(Uploaded::Known)
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
        let kept = document::keep(&self.store, &shared, kind.media_type(), bytes)?;
        self.publish_extra(cache, kind, name, kept, &shared, if_exists)
    }

    fn publish_extra(
        &self,
        cache: &Cache,
        kind: ExtraKind,
        name: &str,
        (value, blobs): document::Kept,
        shared: &SharedSession,
        if_exists: IfExists,
    ) -> Result<Uploaded, ServiceError> {
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

    /// A listing made from the NAR while it is read, and kept. `None` if there is no such path, if what was published
    /// once is no NAR, or if its listing would be longer than any that is taken. Callers make one at a time: each
    /// costs what its NAR costs.
    ///
    /// # Errors
    /// If the store fails.
    pub fn made_listing(
        &self,
        cache: &Cache,
        hash: &str,
    ) -> Result<Option<Document>, ServiceError> {
        // Somebody else may have made it meanwhile.
        if let Some(found) = self.extra(cache, ExtraKind::Listing, hash)? {
            return Ok(Some(found));
        }
        let Some(entry) = self.store.entry(cache.row.id, EntryKind::Narinfo, hash)? else {
            return Ok(None);
        };
        let Some(blob) = entry.blobs.first() else {
            return Ok(None);
        };
        if self.unlisted.get(blob).is_some() {
            return Ok(None);
        }
        let narinfo = NarInfo::parse(&String::from_utf8_lossy(&entry.value))?;
        let none = |fault: NarError| {
            tracing::info!(path = %narinfo.store_path, %fault, "no listing: its NAR is none");
            self.unlisted.insert(*blob, ());
            Ok(None)
        };
        let shared = self.sessions.get(cache)?;
        let kind = ExtraKind::Listing;
        let mut keeping = document::Keeping::new(&self.store, &shared, MADE_LISTING);
        let mut reader = self.store.read(*blob, Representation::Identity, None)?;
        let (mut parser, mut listing) = (Parser::of_stored(), ListingWriter::default());
        while let Some(block) = reader.next_block()? {
            shared.keep_alive()?;
            if let Err(fault) = parser.push(&block, &mut |event| listing.event(&event)) {
                return none(fault);
            }
            keeping.write(&listing.take())?;
            if keeping.length() > kind.bytes_max() || listing.is_impossible() {
                self.unlisted.insert(*blob, ());
                return Ok(None);
            }
        }
        if let Err(fault) = parser.finish() {
            return none(fault);
        }
        let Some(end) = listing.finish() else {
            self.unlisted.insert(*blob, ());
            return Ok(None);
        };
        keeping.write(&end)?;
        let kept = keeping.finish()?;
        // In the place of one that a pusher sent.
        self.publish_extra(cache, kind, hash, kept, &shared, IfExists::Replace)?;
        self.extra(cache, kind, hash)
    }
}
