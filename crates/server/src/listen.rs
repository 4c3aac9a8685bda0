//! Connections: accepted, given limits, drained at the end.

use crate::limits::Limits;
use crate::stream::PacedStream;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

/// A connection whose peer acknowledges nothing for this long is dead, in milliseconds.
const UNACKNOWLEDGED_MS_MAX: u32 = 120_000;
/// After an accept failed (too many open files), how long to wait.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Largest head of a request over HTTP/2, in bytes as its standard counts them.
const HEAD_BYTES_MAX: u32 = 32 << 10;
/// What a connection of HTTP/1 reads and writes ahead, in bytes; a head must fit in.
const BUFFER_BYTES_MAX: usize = 128 << 10;

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(BUFFER_BYTES_MAX)
        .header_read_timeout(limits.head());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.head())
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX);
    builder
}

fn prepare(stream: &TcpStream) {
    // Small answers must not wait for the acknowledgement of what went before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT");
    }
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection that is counted for as long as this lives.
struct Counted(Addresses, IpAddr);

impl Addresses {
    /// Counts a connection, unless its address has `max` already.
    fn count(&self, address: IpAddr, max: usize) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Counted(self.clone(), address))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Self(Addresses(counts), address) = self;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(address);
            }
        }
    }
}

/// Accepts until told to stop, then lets requests under way end for at most `drain`.
pub(crate) async fn serve<H, F, B>(
    listener: TcpListener,
    handle: H,
    connections_max: usize,
    limits: Limits,
    drain: Duration,
    mut stop: oneshot::Receiver<()>,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let builder = Arc::new(builder(&limits));
    let addresses = Addresses::default();
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(connections_max));
    loop {
        let permit = tokio::select! {
            permit = connections.clone().acquire_owned() => permit,
            _ = &mut stop => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stop => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let max = limits.connections_per_address_max;
        let Some(counted) = addresses.count(peer.ip().to_canonical(), max) else {
            tracing::warn!(address = %peer.ip(), max, "an address has all connections it may have");
            continue;
        };
        prepare(&stream);
        let stream = TokioIo::new(PacedStream::new(stream, &limits));
        let connection = builder
            .serve_connection(stream, service_fn(handle.clone()))
            .into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            let _held = (permit, counted);
            if let Err(error) = watched.await {
                tracing::debug!(error, "a connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests were still under way when the time to drain was over");
    }
}
