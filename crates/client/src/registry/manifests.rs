//! Manifests: documents under a tag or digest.

use super::{Repository, blobs::read_up_to, present, rights::Access};
use crate::{
    error::{ClientError, Result},
    http::Call,
};
use firn_formats::{
    Sha256,
    oci::{Digest, manifest::MANIFEST_BYTES_MAX, media_type},
};
use std::time::Duration;
use ureq::http::Method;

/// Tries of a manifest whose blobs the registry does not see.
const TRIES: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(150);
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest as a registry gave it.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct RawManifest {
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// What became of a wish to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone, or was already.
    Gone,
    /// The registry deletes nothing.
    Unsupported,
}

impl Repository {
    /// The digest a tag points at, if the registry says.
    pub fn manifest_digest(&self, reference: &str) -> Result<Option<String>> {
        let call = Call::new(Method::HEAD, self.manifest_url(reference)).header("Accept", ACCEPT);
        let answer = self.send(&call, Access::Pull)?;
        let digest = answer.header("Docker-Content-Digest").map(str::to_owned);
        Ok(present(answer)?.then_some(digest).flatten())
    }

    /// A manifest, if there is one.
    pub fn manifest(&self, reference: &str) -> Result<Option<RawManifest>> {
        let call = Call::get(self.manifest_url(reference)).header("Accept", ACCEPT);
        let answer = self.send(&call, Access::Pull)?;
        if answer.status() == 404 {
            return Ok(None);
        }
        let answer = answer.accept()?;
        let media_type = answer
            .header("Content-Type")
            .unwrap_or(media_type::OCI_MANIFEST)
            .to_owned();
        let url = answer.url().to_owned();
        Ok(Some(RawManifest {
            media_type,
            bytes: read_up_to(&mut answer.into_reader(), MANIFEST_BYTES_MAX as u64, &url)?,
        }))
    }

    /// Puts a manifest under a tag or digest; its blobs are there. A registry may not see one of them at once,
    /// above all while another job uploads the same, so that refusal is not taken as the last word.
    pub fn put_manifest(
        &self,
        reference: &str,
        media_type: &'static str,
        bytes: &[u8],
    ) -> Result<()> {
        let mut pause = PAUSE_FIRST;
        for _ in 1..TRIES {
            match self.put_manifest_once(reference, media_type, bytes) {
                Err(ClientError::Refused { message, .. }) if message.contains("BLOB_UNKNOWN") => {
                    tracing::debug!(reference, message, "the manifest is put again");
                }
                outcome => return outcome,
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        self.put_manifest_once(reference, media_type, bytes)
    }

    fn put_manifest_once(
        &self,
        reference: &str,
        media_type: &'static str,
        bytes: &[u8],
    ) -> Result<()> {
        let call = Call::new(Method::PUT, self.manifest_url(reference)).body(media_type, bytes);
        self.send(&call, Access::Push)?.accept().map(drop)
    }

    /// Deletes the manifest that a tag points at, with all its tags.
    pub fn delete_manifest(&self, tag: &str) -> Result<Deletion> {
        let digest = match self.manifest_digest(tag)? {
            Some(digest) => Digest::parse(&digest)?,
            // Gone, or the registry does not say the digest of what it has.
            None => match self.manifest(tag)? {
                Some(manifest) => Sha256::of(&manifest.bytes).into(),
                None => return Ok(Deletion::Gone),
            },
        };
        let url = self.manifest_url(&digest.to_string());
        let answer = self.send(&Call::new(Method::DELETE, url), Access::Delete)?;
        match answer.status() {
            404 => Ok(Deletion::Gone),
            405 | 501 => Ok(Deletion::Unsupported),
            _ => answer.accept().map(|_| Deletion::Gone),
        }
    }

    fn manifest_url(&self, reference: &str) -> String {
        self.url(&format!("manifests/{reference}"))
    }
}
