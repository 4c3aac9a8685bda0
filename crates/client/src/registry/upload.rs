//! Uploading blobs: one POST, one PUT with the whole body. Large PATCHes are capped by some
//! registries, one PUT is taken by all.

use super::{Repository, rights::Access};
use crate::{
    error::{ClientError, Result},
    http::{Answer, Call},
};
use firn_formats::oci::Digest;
use std::{
    io::{Cursor, Read},
    time::Duration,
};
use ureq::http::Method;

const OCTETS: &str = "application/octet-stream";
/// Tries of an upload.
const TRIES: u32 = 6;
const PAUSE_FIRST: Duration = Duration::from_millis(300);
const PAUSE_MAX: Duration = Duration::from_secs(10);

impl Repository {
    /// Uploads a blob that is in memory, unless it is there.
    pub fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<bool> {
        if self.has_blob(digest)? {
            return Ok(false);
        }
        let open = || Ok(Box::new(Cursor::new(bytes)) as Box<dyn Read + '_>);
        self.put_blob_stream(digest, bytes.len() as u64, &open)?;
        Ok(true)
    }

    /// Uploads a blob that `open` reads from its beginning, as often as tries are needed. Each try is an upload
    /// of its own: nobody knows what became of the one before.
    pub fn put_blob_stream<'a>(
        &self,
        digest: &Digest,
        length: u64,
        open: &dyn Fn() -> Result<Box<dyn Read + 'a>>,
    ) -> Result<()> {
        let mut pause = PAUSE_FIRST;
        for _ in 1..TRIES {
            let (error, wish) = match self.put_once(digest, length, open) {
                Ok(answer) if answer.status() < 400 => return Ok(()),
                Ok(answer) => {
                    let wish = answer.retry_after();
                    (answer.into_refusal(), wish)
                }
                Err(error) => (error, None),
            };
            if !may_pass(&error) {
                return Err(error);
            }
            tracing::debug!(%error, %digest, "the upload is tried again");
            std::thread::sleep(wish.unwrap_or(pause));
            pause = (pause * 2).min(PAUSE_MAX);
            // The answer may have been lost, and not the blob.
            if self.has_blob(digest)? {
                return Ok(());
            }
        }
        self.put_once(digest, length, open)?.accept().map(drop)
    }

    fn put_once<'a>(
        &self,
        digest: &Digest,
        length: u64,
        open: &dyn Fn() -> Result<Box<dyn Read + 'a>>,
    ) -> Result<Answer> {
        let location = self.start_upload(digest)?;
        let mut body = open()?;
        let header = self.authorization(Access::Push, &location)?;
        let call = Call::new(Method::PUT, location)
            .authorization(header.as_deref())
            .header("Content-Type", OCTETS);
        self.http.send_stream(&call, length, &mut body)
    }

    /// Whether an upload may be begun. It is left to end by itself.
    pub(super) fn may_push(&self) -> Result<bool> {
        let call = Call::new(Method::POST, self.url("blobs/uploads/"));
        match self.send(&call, Access::Push) {
            Ok(answer) => Ok(answer.status() < 300),
            // The token was refused already.
            Err(ClientError::Refused { status, .. }) if status < 500 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens an upload; gives the URL that takes the whole blob.
    fn start_upload(&self, digest: &Digest) -> Result<String> {
        let url = self.url("blobs/uploads/");
        let answer = self
            .send(&Call::new(Method::POST, url.clone()), Access::Push)?
            .accept()?;
        let location = answer.header("Location").unwrap_or_default();
        let location = self.absolute(location).ok_or(ClientError::BadAnswer {
            url,
            what: format!("its Location is {location:?}"),
        })?;
        let separator = if location.contains('?') { '&' } else { '?' };
        Ok(format!("{location}{separator}digest={digest}"))
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
