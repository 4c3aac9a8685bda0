//! Reading blobs: whole ones that are checked against their digest, and ranges.

use super::{Repository, present, rights::Access};
use crate::{
    error::{ClientError, Result},
    http::{Answer, Call},
};
use firn_formats::oci::Digest;
use std::{
    io::{self, Read},
    ops::Range,
    time::Duration,
};
use ureq::http::Method;

/// Largest config read, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 32 << 20;
/// Tries of a body that broke off.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);

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
        let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
            return Ok(Vec::new());
        };
        let call = Call::get(self.blob_url(digest))
            .header("Range", format!("bytes={}-{last}", range.start));
        patiently(|| {
            let answer = self.send(&call, Access::Pull)?.accept()?;
            let url = answer.url().to_owned();
            // Some ignore the header and send all of it.
            let skipped = match answer.status() {
                206 => begin_of(&answer)?,
                _ => 0,
            };
            let ahead = range.start.checked_sub(skipped);
            let ahead = ahead.ok_or_else(|| bad(&url, "it is of another range"))?;
            let mut body = answer.into_reader();
            let broken = |source| broken_off(&url, source);
            let passed = io::copy(&mut (&mut body).take(ahead), &mut io::sink()).map_err(broken)?;
            let mut bytes =
                Vec::with_capacity(usize::try_from(last - range.start + 1).unwrap_or(0));
            body.take(last - range.start + 1)
                .read_to_end(&mut bytes)
                .map_err(broken)?;
            if passed != ahead || bytes.len() as u64 != last - range.start + 1 {
                return Err(bad(&url, "it is shorter than the range that was asked for"));
            }
            Ok(bytes)
        })
    }

    fn blob_url(&self, digest: &Digest) -> String {
        self.url(&format!("blobs/{digest}"))
    }
}

/// Where a partial answer begins: `Content-Range: bytes 5-9/100`.
fn begin_of(answer: &Answer) -> Result<u64> {
    answer
        .header("Content-Range")
        .and_then(|text| text.trim().strip_prefix("bytes"))
        .and_then(|text| text.trim().split('-').next()?.parse().ok())
        .ok_or_else(|| bad(answer.url(), "it does not say of which range it is"))
}

/// A body that breaks off is asked for again; what the head says is final.
fn patiently<T>(mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match ask() {
            Err(ClientError::Unreachable { .. }) => {}
            outcome => return outcome,
        }
        std::thread::sleep(pause);
        pause *= 3;
    }
    ask()
}

pub(super) fn read_up_to(body: &mut dyn Read, bytes_max: u64, url: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| broken_off(url, source))?;
    if bytes.len() as u64 > bytes_max {
        return Err(bad(url, &format!("it is larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn broken_off(url: &str, source: io::Error) -> ClientError {
    ClientError::Unreachable {
        url: url.to_owned(),
        source: Box::new(ureq::Error::Io(source)),
    }
}

fn bad(url: &str, what: &str) -> ClientError {
    ClientError::BadAnswer {
        url: url.to_owned(),
        what: what.to_owned(),
    }
}

fn absent(digest: &Digest) -> ClientError {
    ClientError::Setting(format!("the registry does not have blob {digest}"))
}
