//! Response bodies. A fault in mid-stream is an error of the body, on which hyper breaks the
//! connection off: what was promised by Content-Length never ends cleanly short of it (rule 9).

use crate::idle::UnderWay;
use bytes::Bytes;
use firn_services::ServiceError;
use firn_services::budget::Lease;
use firn_store::{BlobReader, StoreError, WouldBlock};
use http_body::{Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Why a response broke off.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(crate) enum BodyError {
    #[error("reading the store failed")]
    Store(#[from] StoreError),
    #[error("making the response failed")]
    Service(#[from] ServiceError),
    #[error("stored bytes ended too early")]
    Short,
    #[error("a worker failed")]
    Worker(#[from] tokio::task::JoinError),
    #[error("the source of the bytes failed")]
    Source(#[from] std::io::Error),
    #[error("a page failed")]
    Page(#[from] axum::Error),
}

/// Any response's body.
pub(crate) enum Body {
    /// Bytes at hand.
    Full(Option<Bytes>),
    /// Bytes of the store.
    Blob(BlobBody),
    /// Bytes made by a blocking worker; the length is often not known.
    Made(MadeBody),
    /// From an axum handler.
    Axum(axum::body::Body),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::Full(None)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Blob(body) => body.poll(context),
            Self::Made(body) => body.poll(context),
            Self::Axum(body) => Pin::new(body).poll_frame(context).map_err(BodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Blob(body) => body.remaining == 0,
            Self::Made(_) => false,
            Self::Axum(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Blob(body) => SizeHint::with_exact(body.remaining),
            Self::Made(body) => match body.remaining {
                Some(remaining) => SizeHint::with_exact(remaining),
                None => SizeHint::default(),
            },
            Self::Axum(body) => body.size_hint(),
        }
    }
}

/// Bytes of an answer, paid for as long as they are held: a client may take its time.
pub(crate) fn leased(bytes: Bytes, lease: Lease) -> Bytes {
    struct Leased(Bytes, #[allow(dead_code)] Lease);
    impl AsRef<[u8]> for Leased {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Leased(bytes, lease))
}

/// A body that says when it is over, or given up.
pub(crate) struct Watched {
    body: Body,
    _under_way: UnderWay,
}

impl Watched {
    pub(crate) fn new(body: Body, under_way: UnderWay) -> Self {
        Self {
            body,
            _under_way: under_way,
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type Read = (Box<BlobReader>, Result<Option<Bytes>, StoreError>);

enum Reading {
    Inline(Box<BlobReader>),
    Worker(JoinHandle<Read>),
    Over,
}

/// Blocks of the store: from hot pages on this thread, where handing over would cost more than
/// the copy; what the disk must be waited for on a blocking one.
pub(crate) struct BlobBody {
    reading: Reading,
    remaining: u64,
    sent: Counter,
    told: Option<Box<dyn Fn(u64) + Send>>,
}

impl BlobBody {
    pub(crate) fn new(reader: BlobReader, sent: Counter) -> Self {
        Self {
            remaining: reader.remaining(),
            reading: Reading::Inline(Box::new(reader)),
            sent,
            told: None,
        }
    }

    /// Tells somebody of the bytes that are handed on.
    pub(crate) fn told(self, told: impl Fn(u64) + Send + 'static) -> Self {
        Self {
            told: Some(Box::new(told)),
            ..self
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match std::mem::replace(&mut self.reading, Reading::Over) {
                Reading::Over => return Poll::Ready(None),
                Reading::Inline(mut reader) => match reader.try_next_block() {
                    Ok(Err(WouldBlock)) => {
                        self.reading = Reading::Worker(tokio::task::spawn_blocking(move || {
                            let block = reader.next_block();
                            (reader, block)
                        }));
                    }
                    Ok(Ok(block)) => return Poll::Ready(self.hand_on(reader, Ok(block))),
                    Err(error) => return Poll::Ready(self.hand_on(reader, Err(error))),
                },
                Reading::Worker(mut worker) => match Pin::new(&mut worker).poll(context) {
                    Poll::Pending => {
                        self.reading = Reading::Worker(worker);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok((reader, block))) => {
                        return Poll::Ready(self.hand_on(reader, block));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                },
            }
        }
    }

    fn hand_on(
        &mut self,
        reader: Box<BlobReader>,
        block: Result<Option<Bytes>, StoreError>,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        let fault = match block {
            Ok(Some(block)) => match self.remaining.checked_sub(block.len() as u64) {
                Some(remaining) => {
                    self.remaining = remaining;
                    self.sent.inc_by(block.len() as u64);
                    if let Some(told) = &self.told {
                        told(block.len() as u64);
                    }
                    if remaining > 0 {
                        self.reading = Reading::Inline(reader);
                    }
                    return Some(Ok(Frame::data(block)));
                }
                None => BodyError::Short,
            },
            Ok(None) if self.remaining == 0 => return None,
            Ok(None) => BodyError::Short,
            Err(error) => error.into(),
        };
        tracing::error!(error = %fault, source = ?std::error::Error::source(&fault),
            "a response breaks off; the connection is reset");
        Some(Err(fault))
    }
}

type Next = Box<dyn FnMut() -> Result<Option<Bytes>, BodyError> + Send>;

/// What a turn of a worker came to: the maker, if there is more to make, and the blocks.
type Turn = (Option<Next>, VecDeque<Result<Bytes, BodyError>>);

enum Making {
    Idle(Next),
    Worker(JoinHandle<Turn>),
    Over,
}

/// Blocks that a blocking worker makes, some at a turn. Between its turns it holds no thread: a client that
/// reads slowly, or not at all, must not keep one from others.
pub(crate) struct MadeBody {
    making: Making,
    blocks: VecDeque<Result<Bytes, BodyError>>,
    remaining: Option<u64>,
    sent: Counter,
}

/// Blocks that one turn makes …
const MADE_AT_A_TURN: usize = 4;
/// … unless they take longer: what comes slowly is sent as it comes.
const TURN_TIME_MAX: Duration = Duration::from_millis(50);

fn make(mut next: Next) -> Turn {
    let mut blocks = VecDeque::with_capacity(MADE_AT_A_TURN);
    let began = Instant::now();
    while blocks.is_empty() || (blocks.len() < MADE_AT_A_TURN && began.elapsed() < TURN_TIME_MAX) {
        match next() {
            Ok(Some(block)) => blocks.push_back(Ok(block)),
            Ok(None) => return (None, blocks),
            Err(error) => {
                blocks.push_back(Err(error));
                return (None, blocks);
            }
        }
    }
    (Some(next), blocks)
}

impl MadeBody {
    /// Runs `next` until it ends. `length` is that of all blocks, if known.
    pub(crate) fn new(
        length: Option<u64>,
        sent: Counter,
        next: impl FnMut() -> Result<Option<Bytes>, BodyError> + Send + 'static,
    ) -> Self {
        Self {
            making: Making::Idle(Box::new(next)),
            blocks: VecDeque::new(),
            remaining: length,
            sent,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            // The next turn is made while the last one's blocks are sent.
            self.making = match std::mem::replace(&mut self.making, Making::Over) {
                Making::Idle(next) if self.blocks.len() < MADE_AT_A_TURN / 2 => {
                    Making::Worker(tokio::task::spawn_blocking(move || make(next)))
                }
                other => other,
            };
            if let Some(block) = self.blocks.pop_front() {
                return Poll::Ready(Some(self.hand_on(block)));
            }
            let Making::Worker(worker) = &mut self.making else {
                return Poll::Ready(self.end());
            };
            match ready!(Pin::new(worker).poll(context)) {
                Ok((next, blocks)) => {
                    self.blocks = blocks;
                    self.making = next.map_or(Making::Over, Making::Idle);
                }
                Err(error) => {
                    self.making = Making::Over;
                    return Poll::Ready(Some(self.hand_on(Err(error.into()))));
                }
            }
        }
    }

    fn hand_on(&mut self, block: Result<Bytes, BodyError>) -> Result<Frame<Bytes>, BodyError> {
        let block = block.inspect_err(|error| {
            tracing::error!(%error, source = ?std::error::Error::source(error),
                "a response breaks off; the connection is reset");
        })?;
        self.sent.inc_by(block.len() as u64);
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(block.len() as u64);
        }
        Ok(Frame::data(block))
    }

    fn end(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let short = self.remaining.take().is_some_and(|remaining| remaining > 0);
        short.then_some(Err(BodyError::Short))
    }
}
