//! `nix copy --to http…`: a NAR under a name, then the narinfo that ties it to a path.

use super::body::{NAR_BYTES_MAX, Room, content_encoding, decompress, read_all};
use super::{HashText, NixCache, VerifiedPath, check_verified, hash_text};
use crate::{ServiceError, access::Cache};
use firn_chunks::Format;
use firn_formats::Sha256;
use firn_formats::nix::narinfo::NARINFO_BYTES_MAX;
use firn_formats::nix::{Compression, NarInfo, base32};
use firn_store::{BlobInfo, EntryKind, IfExists, NewEntry, Publication, PublishedEntry};
use std::io::{Cursor, Read};

/// The first bytes of a gzip file (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What a PUT did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// It is new.
    Created,
    /// It was there; nothing, or only signatures, changed.
    Known,
}

/// The file hash that a NAR file name begins with, and its compression.
pub(super) fn split_nar_name(name: &str) -> Option<(Sha256, Compression)> {
    let compression = Compression::from_nar_file_name(name)?;
    let stem = name.split_once('.')?.0;
    let hash = match stem.len() {
        52 => Sha256(base32::decode(stem).ok()?),
        64 => Sha256::from_hex(stem)?,
        _ => return None,
    };
    Some((hash, compression))
}

impl NixCache {
    /// Takes in a NAR file, `name` being what follows `nar/`. It is a NAR and has the hash it is
    /// named by, or nothing is kept.
    ///
    /// # Errors
    /// If the name or the body is unsound, or the store fails.
    pub fn put_nar(
        &self,
        cache: &Cache,
        name: &str,
        encoding: Option<&str>,
        body: &mut dyn Read,
    ) -> Result<Uploaded, ServiceError> {
        let (file_hash, compression) = split_nar_name(name).ok_or_else(|| {
            ServiceError::BadRequest(format!(
                "{name:?} does not name a NAR by its file hash, as in <hash>.nar.zst"
            ))
        })?;
        let encoding = content_encoding(encoding)?;
        let (compression, mut body) = told_by_content(compression, encoding, body)?;
        let room = Room::new(&self.budget, cache);
        let shared = self.sessions.get(cache)?;
        let mut ingest = self.store.ingest(shared.session(), Format::Nar);
        let actual = decompress(
            &mut body,
            encoding,
            compression,
            NAR_BYTES_MAX,
            &room,
            &mut |bytes| {
                shared.keep_alive()?;
                Ok(ingest.write(bytes)?)
            },
        )?;
        let check = |actual: Sha256| match actual == file_hash {
            true => Ok(()),
            false => Err(ServiceError::HashMismatch(format!(
                "the file {name} has hash {}",
                actual.base32()
            ))),
        };
        actual.map_or(Ok(()), check)?;
        let blob = ingest.finish()?;
        if actual.is_none() {
            // The file is the NAR itself. A blob that no entry names is the collector's.
            check(blob.identity_sha256)?;
        }
        if !blob.nar {
            // The ingest has parsed it.
            self.store.mark_nars(vec![blob.id])?;
        }
        self.retention
            .admit(cache, blob.zstd_length, blob.zstd_length)?;
        let mut entry = alias_entry(name, compression, &blob);
        // It waits for its narinfo.
        entry.lease = Some(self.store.lease());
        // An alias that a narinfo made durable must not fall back to a lease.
        entry.if_exists = IfExists::Keep;
        let publication = Publication {
            entries: vec![entry],
            deletions: Vec::new(),
        };
        let published = self
            .store
            .publish(Some(shared.session()), cache.row.id, publication)?;
        Ok(match published.first() {
            Some(PublishedEntry::New(_)) => Uploaded::Created,
            // Rule 5: what was kept has this one's lease.
            _ => Uploaded::Known,
        })
    }

    /// Takes in a narinfo: its NAR must be here and be what it says, its references be here or
    /// upstream. It is signed and published; a second one adds its signatures.
    ///
    /// # Errors
    /// If it is unsound, something it needs is missing, or the store fails.
    pub fn put_narinfo(
        &self,
        cache: &Cache,
        hash: &HashText,
        encoding: Option<&str>,
        body: &mut dyn Read,
    ) -> Result<Uploaded, ServiceError> {
        let text = read_all(
            body,
            content_encoding(encoding)?,
            "the narinfo",
            NARINFO_BYTES_MAX as u64,
            &Room::new(&self.budget, cache),
        )?;
        let text = String::from_utf8(text)
            .map_err(|_| ServiceError::BadRequest("the narinfo is not UTF-8".to_owned()))?;
        let narinfo = NarInfo::parse(&text)?;
        if hash_text(&narinfo.store_path.hash().to_string()) != Some(*hash) {
            return Err(ServiceError::BadRequest(format!(
                "the narinfo is of {}, which is not the path asked for",
                narinfo.store_path
            )));
        }
        let shared = self.sessions.get(cache)?;
        let (blob, alias) = self.uploaded_nar(cache, &narinfo)?;
        check_verified(
            &narinfo.store_path,
            &blob,
            &narinfo.nar_hash,
            narinfo.nar_size,
        )?;
        let path = VerifiedPath {
            path: narinfo.store_path,
            blob,
            references: narinfo.references,
            deriver: narinfo.deriver,
            signatures: narinfo.signatures,
            ca: narinfo.ca,
        };
        let new = self.publish(
            shared.session(),
            cache,
            vec![path],
            alias.into_iter().collect(),
        )?;
        Ok(match new {
            0 => Uploaded::Known,
            _ => Uploaded::Created,
        })
    }

    /// The NAR that a narinfo's URL names, and its alias made durable.
    fn uploaded_nar(
        &self,
        cache: &Cache,
        narinfo: &NarInfo,
    ) -> Result<(BlobInfo, Option<NewEntry>), ServiceError> {
        let url = &narinfo.url;
        let name = url.strip_prefix("nar/").ok_or_else(|| {
            ServiceError::BadRequest(format!("the URL {url:?} does not begin with nar/"))
        })?;
        let (_, named) = split_nar_name(name).ok_or_else(|| {
            ServiceError::BadRequest(format!("the URL {url:?} does not name a NAR by its hash"))
        })?;
        let alias = self.nar_alias(cache, name)?;
        let compression = alias.as_ref().map_or(named, |(_, actual)| *actual);
        if compression != narinfo.compression {
            return Err(ServiceError::BadRequest(format!(
                "the URL {url:?} and Compression {} do not agree",
                narinfo.compression.name()
            )));
        }
        if let Some((blob, _)) = alias {
            let alias = alias_entry(name, compression, &blob);
            return Ok((blob, Some(alias)));
        }
        let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
        match self.nar_blob(cache, EntryKind::NarFile, stem)? {
            Some(blob) => Ok((blob, None)),
            None => Err(ServiceError::BadRequest(format!(
                "its NAR {url} is not here; upload that first"
            ))),
        }
    }
}

/// The compression of a NAR file, and its body again. Nix gives gzip no ending of its own: under
/// a plain `.nar` lies what the first bytes say, a NAR's being those of a length.
fn told_by_content<'a>(
    named: Compression,
    encoding: Compression,
    body: &'a mut dyn Read,
) -> Result<(Compression, impl Read + 'a), ServiceError> {
    let mut first = Vec::new();
    if (named, encoding) == (Compression::None, Compression::None) {
        body.take(GZIP_MAGIC.len() as u64)
            .read_to_end(&mut first)
            .map_err(ServiceError::Interrupted)?;
    }
    let compression = match first == GZIP_MAGIC {
        true => Compression::Gzip,
        false => named,
    };
    Ok((compression, Cursor::new(first).chain(body)))
}

/// A NAR file's name, with the compression that its pusher chose as the value.
fn alias_entry(name: &str, compression: Compression, blob: &BlobInfo) -> NewEntry {
    NewEntry {
        kind: EntryKind::NarAlias,
        key: name.to_owned(),
        value: compression.name().into(),
        blobs: vec![blob.id],
        requires: Vec::new(),
        if_exists: IfExists::Replace,
        lease: None,
    }
}
