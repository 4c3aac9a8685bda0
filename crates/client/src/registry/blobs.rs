//! Reading blobs: whole ones that are checked against their digest, and ranges.

use super::{Repository, present, rights::Access};
use crate::{
    error::{ClientError, Result},
    http::{Call, bad_answer, broken_off, patiently, read_range},
};
use firn_formats::oci::Digest;
use firn_image::base::BlobSource;
use std::{
    io::{self, Read},
    ops::Range,
    sync::Arc,
};
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

    /// A blob's bytes from one on, as the registry gives them.
    fn blob_from(&self, digest: &Digest, offset: u64) -> Result<Box<dyn Read + Send>> {
        let mut call = Call::get(self.blob_url(digest));
        if offset > 0 {
            call = call.header("Range", format!("bytes={offset}-"));
        }
        let answer = self.send(&call, Access::Pull)?.accept()?;
        let is_part = answer.status() == 206;
        let mut body = answer.into_reader();
        if offset > 0 && !is_part {
            // Not every registry knows ranges.
            io::copy(&mut (&mut body).take(offset), &mut io::sink())
                .map_err(|source| ClientError::io(digest.to_string(), source))?;
        }
        Ok(Box::new(body))
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

/// The blobs of a repository as streams.
#[derive(Debug, Clone)]
pub struct RegistryBlobs(pub Arc<Repository>);

impl BlobSource for RegistryBlobs {
    fn open_blob(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let body = self.0.blob_from(digest, 0).map_err(io::Error::other)?;
        Ok(Box::new(BlobStream {
            repository: Arc::clone(&self.0),
            digest: digest.clone(),
            offset: 0,
            breaks: 0,
            body,
        }))
    }
}

/// Breaks of one stream after which it is given up.
const BREAKS_MAX: u32 = 5;

/// A blob on its way; goes on where a connection breaks.
struct BlobStream {
    repository: Arc<Repository>,
    digest: Digest,
    offset: u64,
    breaks: u32,
    body: Box<dyn Read + Send>,
}

impl Read for BlobStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.body.read(buffer) {
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(error) if self.breaks < BREAKS_MAX => {
                    self.breaks += 1;
                    tracing::debug!(%error, digest = %self.digest, "the blob is asked for again");
                    let rest = self.repository.blob_from(&self.digest, self.offset);
                    self.body = rest.map_err(io::Error::other)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn absent(digest: &Digest) -> ClientError {
    ClientError::Setting(format!("the registry does not have blob {digest}"))
}
