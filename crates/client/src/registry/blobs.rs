//! Reading blobs: whole ones that are checked against their digest, and ranges.

use super::{Repository, present, rights::Access};
use crate::{
    error::{ClientError, Result},
    http::{Call, bad_answer, broken_off, patiently, read_range},
};
use firn_formats::oci::Digest;
use std::{io::Read, ops::Range};
use ureq::http::Method;

/// Largest config read, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 32 << 20;

impl Repository {
    /// Whether the repository has a blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let call = Call::new(Method::HEAD, self.blob_url(digest));
        present(self.send(&call, Access::Pull)?)
    }

    /// A small blob, checked against its digest.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.blob_up_to(digest, DOCUMENT_BYTES_MAX)?
            .ok_or_else(|| absent(digest))
    }

    /// A blob of at most `bytes_max` bytes, checked against its digest; `None` if there is none.
    pub fn blob_up_to(&self, digest: &Digest, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let bytes = patiently(|| {
            let answer = self.send(&Call::get(self.blob_url(digest)), Access::Pull)?;
            if answer.status() == 404 {
                return Ok(None);
            }
            let answer = answer.accept()?;
            let url = answer.url().to_owned();
            read_up_to(&mut answer.into_reader(), bytes_max, &url).map(Some)
        })?;
        match bytes {
            Some(bytes) if !digest.matches(&bytes) => Err(ClientError::HashMismatch {
                what: format!("blob {digest}"),
            }),
            bytes => Ok(bytes),
        }
    }

    /// Bytes of a blob, exactly as many as asked for. They are as the registry gave them: whoever uses them
    /// has a checksum.
    pub fn blob_range(&self, digest: &Digest, range: Range<u64>) -> Result<Vec<u8>> {
        let url = self.blob_url(digest);
        read_range(range, &|value| {
            let call = Call::get(url.clone()).header("Range", value);
            self.send(&call, Access::Pull)
        })
    }

    fn blob_url(&self, digest: &Digest) -> String {
        self.url(&format!("blobs/{digest}"))
    }
}

pub(super) fn read_up_to(body: &mut dyn Read, bytes_max: u64, url: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| broken_off(url, source))?;
    if bytes.len() as u64 > bytes_max {
        return Err(bad_answer(
            url,
            &format!("it is larger than {bytes_max} bytes"),
        ));
    }
    Ok(bytes)
}

fn absent(digest: &Digest) -> ClientError {
    ClientError::Setting(format!("the registry does not have blob {digest}"))
}
