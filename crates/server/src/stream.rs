//! A connection's bytes, with what keeps a slow client from holding it for ever: a time for the first bytes,
//! by which HTTP/1 and 2 are told apart, and a least rate at which answers must be taken.

use crate::limits::Limits;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What a connection of HTTP/2 begins with. Only when it ended, or something else came, a version and its
/// own limits apply.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose peer has to keep up.
pub(crate) struct PacedStream<S> {
    inner: S,
    /// Bytes of the preface that came, and until when the rest may come; `None` once it is decided.
    beginning: Option<(usize, Pin<Box<Sleep>>)>,
    answer: Answer,
}

impl<S> PacedStream<S> {
    pub(crate) fn new(inner: S, limits: &Limits) -> Self {
        let until = Instant::now() + limits.head();
        Self {
            inner,
            beginning: Some((0, Box::pin(sleep_until(until)))),
            answer: Answer {
                window: Duration::from_secs(limits.answer_seconds_max),
                rate_min: limits.rate_bytes_min,
                waited: Duration::ZERO,
                taken: 0,
                waiting: None,
            },
        }
    }
}

/// How fast answers are taken, counted only while the peer is waited for.
struct Answer {
    window: Duration,
    rate_min: u64,
    waited: Duration,
    taken: u64,
    /// Since when the peer is waited for, and the end of the window.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Answer {
    /// Looks at what writing came to.
    fn wrote<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Ready(Ok(value)) => {
                if let Some((since, _)) = self.waiting.take() {
                    self.waited += since.elapsed();
                }
                self.taken += bytes(&value) as u64;
                if self.waited >= self.window {
                    if self.too_slow() {
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                    (self.waited, self.taken) = (Duration::ZERO, 0);
                }
                Poll::Ready(Ok(value))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.wait(context),
        }
    }

    /// Waits on, unless the window is over and too little was taken in it.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        loop {
            let rest = self.window.saturating_sub(self.waited);
            let (since, end) = self.waiting.get_or_insert_with(|| {
                let now = Instant::now();
                (now, Box::pin(sleep_until(now + rest)))
            });
            if end.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.waited += since.elapsed();
            self.waiting = None;
            if self.too_slow() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            (self.waited, self.taken) = (Duration::ZERO, 0);
        }
    }

    fn too_slow(&self) -> bool {
        self.taken < self.waited.as_secs().saturating_mul(self.rate_min)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.inner).poll_read(context, buffer);
        let Some((came, until)) = &mut this.beginning else {
            return outcome;
        };
        if outcome.is_pending() {
            return match until.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            };
        }
        let bytes = &buffer.filled()[before..];
        let expected = &PREFACE[*came..];
        let same = expected.iter().zip(bytes).all(|(a, b)| a == b);
        *came += bytes.len();
        if !same || *came >= PREFACE.len() {
            this.beginning = None;
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let outcome = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.answer.wrote(context, outcome, |count| *count)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let outcome = Pin::new(&mut this.inner).poll_write_vectored(context, parts);
        this.answer.wrote(context, outcome, |count| *count)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let outcome = Pin::new(&mut this.inner).poll_flush(context);
        this.answer.wrote(context, outcome, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    fn limits() -> Limits {
        Limits {
            head_seconds_max: 10,
            answer_seconds_max: 100,
            rate_bytes_min: 100,
            ..Limits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_preface_that_does_not_end_is_cut() {
        for (begin, cut) in [
            (&b""[..], true),
            (b"PRI * HT", true),
            (PREFACE, false),
            (b"GET", false),
        ] {
            let (mut peer, stream) = duplex(1000);
            peer.write_all(begin).await.unwrap();
            let mut stream = PacedStream::new(stream, &limits());
            let mut buffer = [0; 100];
            let read = stream.read_exact(&mut buffer);
            let outcome = tokio::time::timeout(Duration::from_secs(60), read).await;
            assert_eq!(outcome.is_ok_and(|read| read.is_err()), cut, "{begin:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_must_be_taken_at_the_least_rate() {
        for (every_second, cut) in [(0, true), (10, true), (200, false)] {
            let (mut peer, stream) = duplex(64);
            let mut stream = PacedStream::new(stream, &limits());
            let taking = tokio::spawn(async move {
                let mut buffer = vec![0; every_second];
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if every_second > 0 && peer.read_exact(&mut buffer).await.is_err() {
                        return;
                    }
                }
            });
            let written = stream.write_all(&vec![0; 60_000]).await;
            assert_eq!(written.is_err(), cut, "{every_second}");
            taking.abort();
        }
    }
}
