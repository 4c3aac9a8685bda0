//! Parts of what lies behind a URL, and bodies that break off.

use super::Answer;
use crate::error::{ClientError, Result};
use std::{
    io::{self, Read as _},
    ops::Range,
    time::Duration,
};

/// Tries of a body that broke off.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);

/// Bytes of a range, exactly as many as asked for; `send` asks, with the value of a `Range` header. They are as the
/// other side gave them: whoever uses them has a checksum.
pub(crate) fn read_range(
    range: Range<u64>,
    send: &dyn Fn(String) -> Result<Answer>,
) -> Result<Vec<u8>> {
    let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
        return Ok(Vec::new());
    };
    patiently(|| {
        let answer = send(format!("bytes={}-{last}", range.start))?.accept()?;
        let url = answer.url().to_owned();
        // Some ignore the header and send all of it.
        let skipped = match answer.status() {
            206 => begin_of(&answer)?,
            _ => 0,
        };
        let ahead = range.start.checked_sub(skipped);
        let ahead = ahead.ok_or_else(|| bad_answer(&url, "it is of another range"))?;
        let mut body = answer.into_reader();
        let broken = |source| broken_off(&url, source);
        let passed = io::copy(&mut (&mut body).take(ahead), &mut io::sink()).map_err(broken)?;
        let mut bytes = Vec::with_capacity(usize::try_from(last - range.start + 1).unwrap_or(0));
        body.take(last - range.start + 1)
            .read_to_end(&mut bytes)
            .map_err(broken)?;
        if passed != ahead || bytes.len() as u64 != last - range.start + 1 {
            let what = "it is shorter than the range that was asked for";
            return Err(bad_answer(&url, what));
        }
        Ok(bytes)
    })
}

/// Where a partial answer begins: `Content-Range: bytes 5-9/100`.
fn begin_of(answer: &Answer) -> Result<u64> {
    answer
        .header("Content-Range")
        .and_then(|text| text.trim().strip_prefix("bytes"))
        .and_then(|text| text.trim().split('-').next()?.parse().ok())
        .ok_or_else(|| bad_answer(answer.url(), "it does not say of which range it is"))
}

/// A body that breaks off is asked for again; what the head says is final.
pub(crate) fn patiently<T>(mut ask: impl FnMut() -> Result<T>) -> Result<T> {
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

pub(crate) fn broken_off(url: &str, source: io::Error) -> ClientError {
    ClientError::Unreachable {
        url: url.to_owned(),
        source: Box::new(ureq::Error::Io(source)),
    }
}

pub(crate) fn bad_answer(url: &str, what: &str) -> ClientError {
    ClientError::BadAnswer {
        url: url.to_owned(),
        what: what.to_owned(),
    }
}
