//! What refers to a manifest: by the registry's own list, or else by a tag that stands in for it
//! (distribution-spec 1.1, "Listing Referrers" and "Backwards Compatibility").

use super::{Repository, blobs::read_up_to, rights::Access};
use crate::{
    error::{ClientError, Result},
    http::Call,
};
use firn_formats::oci::{Descriptor, Digest, Index, manifest::MANIFEST_BYTES_MAX, media_type};
use std::collections::BTreeMap;
use ureq::http::Method;

/// Referrers kept in the tag that stands in: the newest.
const REFERRERS_MAX: usize = 100;

/// The tag that stands in for the list: the digest, with a dash for the colon.
fn fallback_tag(subject: &Digest) -> String {
    let tag = subject.to_string().replace(':', "-");
    tag.chars().take(128).collect()
}

impl Repository {
    /// The referrers of this artifact type.
    pub fn referrers(&self, subject: &Digest, artifact_type: &str) -> Result<Vec<Descriptor>> {
        let escaped = artifact_type.replace('+', "%2B");
        let url = self.url(&format!("referrers/{subject}?artifactType={escaped}"));
        let call = Call::get(url).header("Accept", media_type::OCI_INDEX);
        let answer = self.send(&call, Access::Pull)?;
        let index = match answer.status() {
            200 => {
                let url = answer.url().to_owned();
                let bytes = read_up_to(&mut answer.into_reader(), MANIFEST_BYTES_MAX as u64, &url)?;
                serde_json::from_slice(&bytes)
                    .map_err(|source| ClientError::json("list of referrers", source))?
            }
            // It has no such list.
            _ => self.fallback_index(subject)?,
        };
        let mut found = index.manifests;
        // Not every registry filters.
        found.retain(|entry| entry.artifact_type.as_deref() == Some(artifact_type));
        Ok(found)
    }

    /// Puts a manifest that names a subject under a tag, and makes it known where the registry does not by itself.
    pub fn put_referrer(
        &self,
        tag: &str,
        manifest: &[u8],
        own: &Descriptor,
        subject: &Digest,
    ) -> Result<()> {
        let url = self.url(&format!("manifests/{tag}"));
        let call = Call::new(Method::PUT, url).body(media_type::OCI_MANIFEST, manifest);
        let answer = self.send(&call, Access::Push)?.accept()?;
        if answer.header("OCI-Subject").is_some() {
            return Ok(());
        }
        let mut index = self.fallback_index(subject)?;
        index.manifests.retain(|entry| entry.digest != own.digest);
        index.manifests.push(own.clone());
        let surplus = index.manifests.len().saturating_sub(REFERRERS_MAX);
        index.manifests.drain(..surplus);
        let bytes = serde_json::to_vec(&index)
            .map_err(|source| ClientError::json("list of referrers", source))?;
        self.put_manifest(&fallback_tag(subject), media_type::OCI_INDEX, &bytes)
    }

    fn fallback_index(&self, subject: &Digest) -> Result<Index> {
        let none = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests: Vec::new(),
            subject: None,
            annotations: BTreeMap::new(),
        };
        match self.manifest(&fallback_tag(subject))? {
            None => Ok(none),
            Some(raw) => serde_json::from_slice(&raw.bytes)
                .map_err(|source| ClientError::json("list of referrers", source)),
        }
    }
}
