//! Uploading blobs: one POST, one PUT with the whole body. Large PATCHes are capped by some
//! registries, one PUT is taken by all.
//!
//! When a PUT breaks off, the registry is asked how far the upload is; where it says so, a second PUT brings the
//! rest, and where not, or where that is refused, the blob goes as a new upload. Whatever the registry
//! put together has to have the blob's digest.

use super::{Repository, rights::Access};
use crate::{
    error::{ClientError, Result},
    http::{Answer, Call},
};
use firn_formats::oci::{Digest, RepositoryName};
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
/// What is sent again without asking: asking costs as much.
const RESUMED_BYTES_MIN: u64 = 1 << 20;

/// Opens a blob's content from its beginning.
pub type Open<'o, 'r> = dyn Fn() -> Result<Box<dyn Read + 'r>> + 'o;

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// Its bytes were sent.
    Sent,
    /// The registry had it in another repository.
    Mounted,
}

struct Upload<'u, 'r> {
    digest: &'u Digest,
    length: u64,
    /// A repository of the same registry that may have it.
    from: Option<&'u RepositoryName>,
    open: &'u Open<'u, 'r>,
}

/// An upload that the registry has opened.
enum Started {
    Mounted,
    At(String),
}

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

    /// Uploads a blob that `open` reads from its beginning, as often as tries are needed.
    pub fn put_blob_stream(&self, digest: &Digest, length: u64, open: &Open<'_, '_>) -> Result<()> {
        self.put_blob_from(digest, length, None, open).map(drop)
    }

    /// [`Repository::put_blob_stream`], unless the registry can mount the blob from another of its repositories.
    pub fn put_blob_from(
        &self,
        digest: &Digest,
        length: u64,
        from: Option<&RepositoryName>,
        open: &Open<'_, '_>,
    ) -> Result<Uploaded> {
        let upload = Upload {
            digest,
            length,
            from,
            open,
        };
        let mut pause = PAUSE_FIRST;
        let mut broken = None;
        for _ in 1..TRIES {
            let (error, wish) = match self.try_upload(&upload, &mut broken) {
                Ok((_, Some(answer))) if answer.status() >= 400 => {
                    let wish = answer.retry_after();
                    (answer.into_refusal(), wish)
                }
                Ok((how, _)) => return Ok(how),
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
                return Ok(Uploaded::Sent);
            }
        }
        let (how, answer) = self.try_upload(&upload, &mut None)?;
        answer.map_or(Ok(()), |answer| answer.accept().map(drop))?;
        Ok(how)
    }

    /// Sends what is missing of a broken upload, or all. `broken` is where the try before has ended, and then
    /// where this one has.
    fn try_upload(
        &self,
        upload: &Upload<'_, '_>,
        broken: &mut Option<String>,
    ) -> Result<(Uploaded, Option<Answer>)> {
        let resumed = broken
            .take()
            .and_then(|place| self.how_far(&place, upload.length));
        let is_resumed = resumed.is_some();
        let (place, offset) = match resumed {
            Some(resumed) => resumed,
            None => match self.start_upload(upload)? {
                Started::Mounted => return Ok((Uploaded::Mounted, None)),
                Started::At(place) => (place, 0),
            },
        };
        let answer = self.put_rest(upload, &place, offset);
        // What a resumed upload has come to, if it is refused, helps no further.
        let may_be_there = matches!(&answer, Err(ClientError::Unreachable { .. }))
            || !is_resumed && matches!(&answer, Ok(answer) if answer.status() >= 500);
        if may_be_there && upload.length >= RESUMED_BYTES_MIN {
            *broken = Some(place);
        }
        match answer {
            Ok(answer) if is_resumed && answer.status() >= 400 => {
                let refusal = answer.into_refusal();
                tracing::debug!(%refusal, digest = %upload.digest, "the upload cannot be resumed");
                self.try_upload(upload, &mut None)
            }
            answer => Ok((Uploaded::Sent, Some(answer?))),
        }
    }

    fn put_rest(&self, upload: &Upload<'_, '_>, place: &str, offset: u64) -> Result<Answer> {
        let mut body = (upload.open)()?;
        let skipped = std::io::copy(&mut (&mut body).take(offset), &mut std::io::sink());
        skipped.map_err(|source| ClientError::io(upload.digest.to_string(), source))?;
        let separator = if place.contains('?') { '&' } else { '?' };
        let url = format!("{place}{separator}digest={}", upload.digest);
        let header = self.authorization(Access::Push, &url)?;
        let mut call = Call::new(Method::PUT, url)
            .authorization(header.as_deref())
            .header("Content-Type", OCTETS);
        if offset > 0 {
            let last = upload.length.saturating_sub(1);
            call = call.header("Content-Range", format!("{offset}-{last}"));
        }
        let rest = upload.length.saturating_sub(offset);
        self.http.send_stream(&call, rest, &mut body)
    }

    /// Where a broken upload goes on, and from which byte, if the registry knows and has some of it.
    fn how_far(&self, place: &str, length: u64) -> Option<(String, u64)> {
        let answer = self.send(&Call::get(place), Access::Push).ok()?;
        if answer.status() != 204 {
            return None;
        }
        let range = answer.header("Range")?;
        let last: u64 = range.rsplit_once('-')?.1.trim().parse().ok()?;
        // 0-0 is one byte or none.
        let offset = last.checked_add(1).filter(|_| last > 0)?;
        let next = answer.header("Location").and_then(|to| self.absolute(to));
        (offset < length).then(|| (next.unwrap_or_else(|| place.to_owned()), offset))
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

    /// Opens an upload, unless the blob can be mounted.
    fn start_upload(&self, upload: &Upload<'_, '_>) -> Result<Started> {
        let url = match upload.from {
            Some(from) => self.url(&format!(
                "blobs/uploads/?mount={}&from={}",
                upload.digest,
                crate::http::encode_query(from.as_str())
            )),
            None => self.url("blobs/uploads/"),
        };
        let answer = self.send(&Call::new(Method::POST, url.clone()), Access::Push)?;
        if answer.status() == 201 && upload.from.is_some() {
            return Ok(Started::Mounted);
        }
        let answer = answer.accept()?;
        let location = answer.header("Location").unwrap_or_default();
        let place = self.absolute(location).ok_or(ClientError::BadAnswer {
            url,
            what: format!("its Location is {location:?}"),
        })?;
        Ok(Started::At(place))
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
