//! Connections: accepted, given limits, drained at the end.

use crate::auth::Peer;
use crate::body::{Body, Watched};
use crate::idle::Activity;
use crate::limits::Limits;
use crate::stream::PacedStream;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};

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

/// By what an address is counted: a site has a network of IPv6, not an address.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
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
pub(crate) async fn serve<H, F>(
    listener: TcpListener,
    handle: H,
    connections_max: usize,
    limits: Limits,
    drain: Duration,
    mut stop: oneshot::Receiver<()>,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let builder = builder(&limits);
    let addresses = Addresses::default();
    let (stopping, stopped) = watch::channel(false);
    let context = Context {
        builder,
        handle,
        idle_max: limits.head(),
        stopped,
    };
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
        let address = counted_as(peer.ip());
        let Some(counted) = addresses.count(address, max) else {
            tracing::warn!(address = %peer.ip(), max, "an address has all connections it may have");
            continue;
        };
        prepare(&stream);
        let stream = TokioIo::new(PacedStream::new(stream, &limits));
        let serving = context.clone().serve(stream, Peer(address));
        tokio::spawn(async move {
            let _held = (permit, counted);
            serving.await;
        });
    }
    drop((listener, context));
    // No receiver left means that no connection is.
    let _ = stopping.send(true);
    if tokio::time::timeout(drain, stopping.closed())
        .await
        .is_err()
    {
        tracing::warn!("requests were still under way when the time to drain was over");
    }
}

/// What every connection is served with.
#[derive(Clone)]
struct Context<H> {
    builder: auto::Builder<TokioExecutor>,
    handle: H,
    idle_max: Duration,
    stopped: watch::Receiver<bool>,
}

impl<H, F> Context<H>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    /// Serves one connection. One that has asked for nothing for a while, or when the server stops, is told that no
    /// more is taken, and ends when what is under way has ended.
    async fn serve(mut self, stream: TokioIo<PacedStream<TcpStream>>, peer: Peer) {
        let activity = Activity::new();
        let (handle, requests) = (self.handle, activity.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let under_way = requests.begin();
            request.extensions_mut().insert(peer);
            let answer = handle(request);
            async move {
                let response = answer.await?;
                Ok::<_, Infallible>(response.map(|body| Watched::new(body, under_way)))
            }
        });
        let mut connection = pin!(self.builder.serve_connection(stream, service));
        let outcome = tokio::select! {
            outcome = connection.as_mut() => Some(outcome),
            () = activity.idle_for(self.idle_max) => None,
            _ = self.stopped.changed() => None,
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(error, "a connection ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s10_addresses_of_ipv6_are_counted_by_their_network() {
        let network = counted_as("2001:db8:1:2:3:4:5:6".parse().unwrap());
        assert_eq!(counted_as("2001:db8:1:2:9::1".parse().unwrap()), network);
        assert_ne!(counted_as("2001:db8:1:3::1".parse().unwrap()), network);
        let four: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(counted_as("::ffff:192.0.2.1".parse().unwrap()), four);
        assert_ne!(counted_as("192.0.2.2".parse().unwrap()), four);
    }
}
