//! Request bodies: brought to blocking threads as a reader, or gathered under a limit. A client
//! must keep a minimum rate, but may take as long as it needs.

use crate::gate::{Busy, Gate};
use crate::limits::Limits;
use bytes::{Buf as _, Bytes, BytesMut};
use firn_services::budget::{Client, Lease};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use std::io::{self, Read};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// How often a silent client is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While others wait, this much waiting for a client tells whether it is too slow.
const CONTENDED_FOR: Duration = Duration::from_secs(10);
/// Bytes that are taken before a body asks for a place: most have no more, and a client that does not bring
/// as many takes no place from anybody.
const FIRST_BYTES: u64 = 64 << 10;
/// Pieces read ahead of a blocking reader.
const PIECES_AHEAD: usize = 8;
/// What is still read of a refused body, so that its sender sees the answer, in bytes.
const DISCARD_BYTES_MAX: u64 = 64 << 20;

/// What a body of JSON costs, for each of its bytes: itself, and what it is parsed to.
pub(crate) const PARSED_COST: usize = 3;

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

/// How fast bodies must come, and where they are counted.
#[derive(Clone)]
pub(crate) struct Pace {
    silence_max: Duration,
    rate_min: u64,
    window: Duration,
    contended_rate_min: u64,
    received: Counter,
}

impl Pace {
    pub(crate) fn new(limits: &Limits, received: Counter) -> Self {
        Self {
            silence_max: Duration::from_secs(limits.silence_seconds_max),
            rate_min: limits.rate_bytes_min,
            window: Duration::from_secs(limits.rate_seconds),
            contended_rate_min: limits.contended_rate_bytes_min,
            received,
        }
    }
}

/// Reads pieces at no less than the minimum rate. Only the time in which the client is waited for counts,
/// not that in which the server has other things to do.
struct Paced<B> {
    body: B,
    pace: Pace,
    /// What it holds, and for whom.
    held: Vec<(Gate, Client)>,
    silent: Duration,
    /// In the present window.
    waited: Duration,
    came: u64,
    came_in_all: u64,
}

impl<B: RequestBody> Paced<B> {
    fn new(body: B, pace: Pace, held: Vec<(Gate, Client)>) -> Self {
        Self {
            body,
            pace,
            held,
            silent: Duration::ZERO,
            waited: Duration::ZERO,
            came: 0,
            came_in_all: 0,
        }
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let began = Instant::now();
            let frame = tokio::time::timeout(LOOK_EVERY, self.body.frame()).await;
            let waited = began.elapsed();
            self.waited += waited;
            self.silent += waited;
            let data = match frame {
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some(Err(io::Error::other(error))),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Err(_) => Bytes::new(),
            };
            if !data.is_empty() {
                self.silent = Duration::ZERO;
                self.came += data.len() as u64;
                self.came_in_all += data.len() as u64;
                self.pace.received.inc_by(data.len() as u64);
            }
            if self.too_slow() {
                return Some(Err(io::ErrorKind::TimedOut.into()));
            }
            if !data.is_empty() {
                return Some(Ok(data));
            }
        }
    }

    fn too_slow(&mut self) -> bool {
        let below =
            |rate: u64| (self.came as u128) < u128::from(rate) * self.waited.as_millis() / 1000;
        let contended = self.waited >= CONTENDED_FOR.min(self.pace.window)
            && self.held.iter().any(|(gate, client)| {
                (self.came_in_all >= FIRST_BYTES || client.is_stranger())
                    && gate.wanted_from(client)
            });
        let over = self.waited >= self.pace.window;
        let slow = self.silent >= self.pace.silence_max
            || (over && below(self.pace.rate_min))
            || (contended && below(self.pace.contended_rate_min));
        if over {
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
        slow
    }
}

/// A body as a blocking reader.
pub(crate) struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    begun: Option<oneshot::Receiver<()>>,
}

impl BodyReader {
    /// Waits until enough came, or all, or nothing more will: before that no work is worth a place.
    pub(crate) async fn begun(&mut self) {
        if let Some(begun) = self.begun.take() {
            // Who sends it may also be gone, which says the same.
            let _ = begun.await;
        }
    }
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

/// Hands a body to a blocking reader while it comes in; the reader works with what is `held`.
pub(crate) fn reader<B: RequestBody>(body: B, pace: Pace, held: Vec<(Gate, Client)>) -> BodyReader {
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    let (begin, begun) = oneshot::channel();
    tokio::spawn(async move {
        let mut paced = Paced::new(body, pace, held);
        let mut begin = Some(begin);
        // Small pieces become few large ones: before there is a place, nobody takes them.
        let mut first = BytesMut::new();
        loop {
            let piece = paced.next().await;
            let more = matches!(piece, Some(Ok(_)));
            let beginning = begin.is_some();
            let ready = if beginning {
                if let Some(Ok(bytes)) = &piece {
                    first.extend_from_slice(bytes);
                }
                if more && (first.len() as u64) < FIRST_BYTES {
                    continue;
                }
                begin = None;
                (!first.is_empty()).then(|| Ok(std::mem::take(&mut first).freeze()))
            } else {
                None
            };
            let rest = match piece {
                Some(Ok(bytes)) if ready.is_none() => Some(Ok(bytes)),
                Some(Err(error)) => Some(Err(error)),
                _ => None,
            };
            for piece in ready.into_iter().chain(rest) {
                if sender.send(piece).await.is_err() {
                    return discard(paced).await;
                }
            }
            if beginning && more {
                // What waits for a place holds no more than this.
                drop(sender.reserve_many(PIECES_AHEAD).await);
            }
            if !more {
                return;
            }
        }
    });
    BodyReader {
        pieces,
        current: Bytes::new(),
        begun: Some(begun),
    }
}

async fn discard<B: RequestBody>(mut paced: Paced<B>) {
    let end = paced.came_in_all + DISCARD_BYTES_MAX;
    while paced.came_in_all < end {
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
    /// There was no place for it.
    Busy,
}

impl From<Busy> for GatherError {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

/// A body in memory, and its place there.
pub(crate) struct Gathered {
    pub(crate) bytes: Bytes,
    /// To be held until the body was worked on.
    pub(crate) place: Option<Lease>,
}

/// Gathers a body of at most `bytes_max`, for which `client` pays `cost` bytes of `gate` a byte. A stranger pays
/// before anything is read, others once more came than most bodies have.
pub(crate) async fn gather<B: RequestBody>(
    body: B,
    (bytes_max, cost): (usize, usize),
    pace: Pace,
    gate: &Gate,
    client: &Client,
) -> Result<Gathered, GatherError> {
    let size = body.size_hint();
    let announced = size.exact();
    let mut paced = Paced::new(body, pace, vec![(gate.clone(), client.clone())]);
    if size.lower() > bytes_max as u64 {
        discard(paced).await;
        return Err(GatherError::TooLarge(bytes_max));
    }
    let total = announced.map_or(bytes_max, |length| length as usize);
    let price = total as u64 * cost as u64;
    let mut place = match client.is_stranger() && total > 0 {
        true => Some(gate.enter(client, price).await?),
        false => None,
    };
    let mut out = BytesMut::with_capacity(total.min(FIRST_BYTES as usize));
    while let Some(piece) = paced.next().await {
        let piece = piece.map_err(GatherError::Broken)?;
        if out.len() + piece.len() > bytes_max {
            drop(out);
            discard(paced).await;
            return Err(GatherError::TooLarge(bytes_max));
        }
        if place.is_none() && (out.len() + piece.len()) as u64 > FIRST_BYTES {
            place = Some(gate.enter(client, price).await?);
        }
        if announced.is_some() && (out.len() + piece.len()) as u64 > FIRST_BYTES {
            out.reserve(total.saturating_sub(out.len()));
        }
        out.extend_from_slice(&piece);
    }
    let bytes = out.freeze();
    Ok(Gathered { bytes, place })
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_services::budget::{Budget, Share, Shares};
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    fn limits() -> Limits {
        Limits {
            silence_seconds_max: 20,
            rate_bytes_min: 100,
            rate_seconds: 30,
            contended_rate_bytes_min: 10_000,
            ..Limits::default()
        }
    }

    fn gate(bytes: u64, patience: u64) -> Gate {
        let share = Share {
            each: bytes,
            all: bytes,
        };
        let budget = Budget::new(Shares {
            total: bytes,
            strangers: share,
            known: share,
            held: share,
        });
        Gate::new(budget, Duration::from_secs(patience))
    }

    /// A body that begins at once and then brings so much every so many seconds.
    fn body(first: usize, bytes: usize, seconds: u64, pieces: usize) -> axum::body::Body {
        let pieces = stream::unfold(0, move |index| async move {
            if index > 0 {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
            let length = if index == 0 { first } else { bytes };
            let frame = Frame::data(Bytes::from(vec![7; length]));
            (index <= pieces).then_some((Ok::<_, std::io::Error>(frame), index + 1))
        });
        axum::body::Body::new(StreamBody::new(pieces))
    }

    async fn gathered(body: axum::body::Body, gate: &Gate) -> Result<usize, GatherError> {
        let pace = Pace::new(&limits(), Counter::default());
        let one = Client::known("one");
        let gathered = gather(body, (1 << 20, 1), pace, gate, &one).await;
        gathered.map(|gathered| gathered.bytes.len())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_a_trickle_end_a_body_and_patience_does_not() {
        let gate = gate(2 << 20, 60);
        let slow = |outcome: Result<usize, GatherError>| {
            let broken = matches!(outcome, Err(GatherError::Broken(ref error)) if error.kind() == io::ErrorKind::TimedOut);
            assert!(broken, "{outcome:?}");
        };
        slow(gathered(body(10, 1000, 25, 3), &gate).await);
        slow(gathered(body(10, 1, 1, 1000), &gate).await);
        // What came fast at the beginning is no credit for ever.
        slow(gathered(body(500_000, 1, 1, 1000), &gate).await);
        assert_eq!(
            gathered(body(10, 2000, 15, 60), &gate).await.unwrap(),
            120_010
        );
        let large = gathered(body(10, 900_000, 1, 2), &gate).await;
        assert!(matches!(large, Err(GatherError::TooLarge(_))), "{large:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_keeps_its_place_only_while_nobody_wants_it() {
        let gate = gate(1 << 20, 600);
        // 1,000 bytes a second, more than the least rate.
        let slow = || body(100_000, 1000, 1, 200);
        assert_eq!(gathered(slow(), &gate).await.unwrap(), 300_000);
        let (first, second) = tokio::join!(
            gathered(slow(), &gate),
            gathered(body(100_000, 100_000, 1, 5), &gate)
        );
        assert!(matches!(first, Err(GatherError::Broken(_))), "{first:?}");
        assert_eq!(second.unwrap(), 600_000);
    }
}
