//! Uploading blobs: one POST, one PUT with the whole body. Large PATCHes are capped by some
//! registries, one PUT is taken by all.

use super::Repository;
use crate::{
    error::{ClientError, Result},
    http::{Answer, Call},
};
use firn_formats::oci::Digest;
use std::{io::Read, time::Duration};
use ureq::http::Method;

const OCTETS: &str = "application/octet-stream";
/// Tries of an upload whose body is a stream.
const TRIES: u32 = 4;

impl Repository {
    /// Uploads a blob that is in memory.
    pub fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let location = self.start_upload(digest)?;
        self.send(&Call::new(Method::PUT, location).body(OCTETS, bytes))?
            .accept()
            .map(drop)
    }

    /// Uploads a blob that `open` reads from its beginning, as often as tries are needed.
    pub fn put_blob_stream(
        &self,
        digest: &Digest,
        length: u64,
        open: &dyn Fn() -> Result<Box<dyn Read>>,
    ) -> Result<()> {
        let mut pause = Duration::from_millis(300);
        for tries in 1.. {
            match self.put_once(digest, length, open) {
                Err(error) if tries < TRIES && may_pass(&error) => {
                    tracing::debug!(%error, %digest, "the upload is tried again");
                    std::thread::sleep(pause);
                    pause *= 3;
                }
                outcome => return outcome,
            }
        }
        Ok(())
    }

    fn put_once(
        &self,
        digest: &Digest,
        length: u64,
        open: &dyn Fn() -> Result<Box<dyn Read>>,
    ) -> Result<()> {
        let location = self.start_upload(digest)?;
        let mut body = open()?;
        let header = self.authorization();
        let call = Call::new(Method::PUT, location)
            .authorization(header.as_deref())
            .header("Content-Type", OCTETS);
        self.http
            .send_stream(&call, length, &mut body)?
            .accept()
            .map(drop)
    }

    /// Opens an upload; gives the URL that takes the whole blob.
    fn start_upload(&self, digest: &Digest) -> Result<String> {
        let answer = self
            .send(&Call::new(Method::POST, self.url("blobs/uploads/")))?
            .accept()?;
        let location = self.location(&answer)?;
        let separator = if location.contains('?') { '&' } else { '?' };
        Ok(format!("{location}{separator}digest={digest}"))
    }

    /// `Location`, absolute or relative to the registry's root.
    fn location(&self, answer: &Answer) -> Result<String> {
        let location = answer.header("Location").unwrap_or_default();
        if location.starts_with("http://") || location.starts_with("https://") {
            return Ok(location.to_owned());
        }
        if let Some(path) = location.strip_prefix('/') {
            let scheme = if self.base.as_str().starts_with("https:") {
                "https"
            } else {
                "http"
            };
            return Ok(format!("{scheme}://{}/{path}", self.base.authority()));
        }
        Err(ClientError::BadAnswer {
            url: self.url("blobs/uploads/"),
            what: format!("its Location is {location:?}"),
        })
    }
}

fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused { status, .. } => {
            // A token may have ended in mid-stream, an upload session too.
            matches!(status, 401 | 404 | 408 | 429 | 500..)
        }
        _ => false,
    }
}
