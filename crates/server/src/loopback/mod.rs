//! A small HTTP server on this machine for a door that is not the server's own: the loopback substituter of
//! `firn agent` and `firn ci`. It knows connections, limits and bodies; what is answered, a [`LoopbackDoor`] says.

mod answer;

use crate::{Limits, StartError, StopSignals};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Answers GET and HEAD; called on a thread that may block.
pub trait LoopbackDoor: Send + Sync + 'static {
    /// The answer to a path, with its leading slash and without a query.
    fn get(&self, path: &str) -> LoopbackAnswer;
}

/// An answer.
pub enum LoopbackAnswer {
    /// 404.
    NotFound,
    /// 200 with bytes at hand.
    Bytes {
        /// `Content-Type`.
        media_type: &'static str,
        /// The body.
        bytes: Vec<u8>,
    },
    /// 200 with a body that is read on the way; a failing reader resets the connection.
    Stream {
        /// `Content-Type`.
        media_type: &'static str,
        /// `Content-Length`.
        length: u64,
        /// The body.
        reader: Box<dyn Read + Send>,
    },
    /// 502 with one line.
    Failed(String),
}

/// Threads for doors and bodies, which may block: each request under way needs one.
const BLOCKING_THREADS_MAX: usize = 128;
const CONNECTIONS_MAX: usize = 512;
/// How long requests under way may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// A loopback server that runs; dropping it stops it.
pub struct Loopback {
    address: SocketAddr,
    /// Present until stopped.
    parts: Option<Parts>,
}

struct Parts {
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Loopback {
    /// Listens; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn start(listen: SocketAddr, door: Arc<dyn LoopbackDoor>) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .worker_threads(1)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("firn-loopback")
            .build()
            .map_err(StartError::Runtime)?;
        let fault = |source| StartError::Listen {
            address: listen,
            source,
        };
        let listener = runtime.block_on(TcpListener::bind(listen)).map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        let (stop, stopped) = oneshot::channel();
        let serving = runtime.spawn(crate::listen::serve(
            listener,
            move |request| answer::handle(door.clone(), address, request),
            CONNECTIONS_MAX,
            Limits::default(),
            DRAIN,
            stopped,
        ));
        Ok(Self {
            address,
            parts: Some(Parts {
                runtime,
                stop,
                serving,
            }),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on SIGTERM and SIGINT end nothing by themselves: [`Loopback::run_until`] answers them. To be
    /// called before anybody is told that the server runs, since they may stop it at once.
    ///
    /// # Errors
    /// If signals cannot be waited for.
    pub fn catch_signals(&self) -> Result<StopSignals, StartError> {
        let _inside = self.parts.as_ref().map(|parts| parts.runtime.enter());
        StopSignals::catch()
    }

    /// Waits for one of the signals, then stops.
    pub fn run_until(self, mut signals: StopSignals) {
        if let Some(parts) = &self.parts {
            parts.runtime.block_on(signals.wait());
        }
        tracing::info!("stopping");
        self.stop();
    }

    /// Lets requests under way end, for at most some seconds.
    pub fn stop(mut self) {
        self.drain();
    }

    fn drain(&mut self) {
        let Some(parts) = self.parts.take() else {
            return;
        };
        // An error says that it has ended already.
        let _ = parts.stop.send(());
        if let Err(error) = parts.runtime.block_on(parts.serving) {
            tracing::error!(%error, "serving ended badly");
        }
        // A reader that hangs must not keep the process.
        parts.runtime.shutdown_background();
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.drain();
    }
}

#[cfg(test)]
mod tests;
