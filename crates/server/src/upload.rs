//! Request bodies: brought to blocking threads as a reader, or gathered under a limit. A client
//! must keep a minimum rate, but may take as long as it needs.

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use std::io::{self, Read};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Longest silence in a body.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// After this time a body must have come at the minimum rate.
const RATE_GRACE: Duration = Duration::from_secs(30);
/// The minimum rate, in bytes a second.
const RATE_MIN: u64 = 1024;
/// Pieces read ahead of a blocking reader.
const PIECES_AHEAD: usize = 8;
/// What is still read of a refused body, so that its sender sees the answer, in bytes.
const DISCARD_BYTES_MAX: u64 = 64 << 20;

/// A request's body, whoever parsed the request.
pub(crate) trait RequestBody:
    http_body::Body<Data = Bytes, Error = Self::Fault> + Send + Unpin + 'static
{
    /// Its error.
    type Fault: Into<Box<dyn std::error::Error + Send + Sync>> + Send;
}
impl RequestBody for Incoming {
    type Fault = hyper::Error;
}
impl RequestBody for axum::body::Body {
    type Fault = axum::Error;
}

/// Reads pieces at no less than the minimum rate.
struct Paced<B> {
    body: B,
    began: Instant,
    came: u64,
    received: Counter,
}

impl<B: RequestBody> Paced<B> {
    fn new(body: B, received: Counter) -> Self {
        Self {
            body,
            began: Instant::now(),
            came: 0,
            received,
        }
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let frame = match tokio::time::timeout(SILENCE_MAX, self.body.frame()).await {
                Err(_) => return Some(Err(io::ErrorKind::TimedOut.into())),
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some(Err(io::Error::other(error))),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.came += data.len() as u64;
            self.received.inc_by(data.len() as u64);
            let took = self.began.elapsed();
            if took > RATE_GRACE && self.came < took.as_secs() * RATE_MIN {
                return Some(Err(io::ErrorKind::TimedOut.into()));
            }
            if !data.is_empty() {
                return Some(Ok(data));
            }
        }
    }
}

/// A body as a blocking reader.
pub(crate) struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.current = piece?,
            }
        }
        let count = self.current.len().min(out.len());
        self.current.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}

/// Hands a body to a blocking reader while it comes in.
pub(crate) fn reader<B: RequestBody>(body: B, received: Counter) -> BodyReader {
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    tokio::spawn(async move {
        let mut paced = Paced::new(body, received);
        while let Some(piece) = paced.next().await {
            let failed = piece.is_err();
            if sender.send(piece).await.is_err() {
                return discard(paced).await;
            }
            if failed {
                return;
            }
        }
    });
    BodyReader {
        pieces,
        current: Bytes::new(),
    }
}

async fn discard<B: RequestBody>(mut paced: Paced<B>) {
    let end = paced.came + DISCARD_BYTES_MAX;
    while paced.came < end {
        match paced.next().await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// Why a body could not be gathered.
#[derive(Debug)]
pub(crate) enum GatherError {
    /// It is larger than allowed.
    TooLarge(usize),
    /// It broke off.
    Broken(io::Error),
}

/// Gathers a body of at most `bytes_max`.
pub(crate) async fn gather<B: RequestBody>(
    body: B,
    bytes_max: usize,
    received: Counter,
) -> Result<Bytes, GatherError> {
    let announced = body.size_hint().lower();
    let mut paced = Paced::new(body, received);
    if announced > bytes_max as u64 {
        discard(paced).await;
        return Err(GatherError::TooLarge(bytes_max));
    }
    let mut out = BytesMut::with_capacity(announced as usize);
    while let Some(piece) = paced.next().await {
        let piece = piece.map_err(GatherError::Broken)?;
        if out.len() + piece.len() > bytes_max {
            discard(paced).await;
            return Err(GatherError::TooLarge(bytes_max));
        }
        out.extend_from_slice(&piece);
    }
    Ok(out.freeze())
}
