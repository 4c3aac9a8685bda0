//! Starting and stopping.

use crate::app::{App, Doors};
use crate::body::Body;
use crate::config::Config;
use crate::keeper::Keeper;
use crate::listen;
use crate::welcome::lines;
use firn_services::{ServiceError, Services};
use firn_store::{RebuildReport, Store, StoreError};
use http::Request;
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How often what clients left behind is dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Connections to the address for figures.
const FIGURES_CONNECTIONS_MAX: usize = 64;
/// Threads for work that blocks.
const BLOCKING_THREADS_MAX: usize = 128;

/// Why a server does not start, run or stop.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StartError {
    #[error("the store does not open")]
    Store(#[from] StoreError),
    #[error("the services do not start")]
    Services(#[from] ServiceError),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the runtime does not start")]
    Runtime(#[source] std::io::Error),
    #[error("no signals can be waited for")]
    Signals(#[source] std::io::Error),
}

/// A server that runs. Dropping it stops it, too.
pub struct Running {
    app: Arc<App>,
    address: SocketAddr,
    /// Present until stopped.
    parts: Option<Parts>,
}

/// The signals that stop a server, caught.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From here on SIGTERM and SIGINT end nothing by themselves. To be called inside a runtime: registering
    /// needs its driver.
    pub(crate) fn catch() -> Result<Self, StartError> {
        let catch = |kind| signal(kind).map_err(StartError::Signals);
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

struct Parts {
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    /// Ends the address for figures when it goes.
    _figures: Option<oneshot::Sender<()>>,
}

/// Opens the store, makes what a first start needs, listens, serves.
///
/// # Errors
/// If the folder is in use, the address taken, or something cannot be read or written.
pub fn start(config: Config) -> Result<Running, StartError> {
    use_small_pages();
    raise_open_files();
    let store = Store::open(config.store_options())?;
    let services = Services::open(store, &config.data)?;
    let idle = Duration::from_secs(config.limits.actions_idle_seconds_max);
    services.actions.set_idle(idle);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(io_threads())
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("firn-server")
        .build()
        .map_err(StartError::Runtime)?;
    let listener = listen_at(&runtime, config.listen)?;
    let figures = config.metrics_listen.map(|at| listen_at(&runtime, at));
    let figures = figures.transpose()?;
    let address = listener.local_addr().map_err(|source| StartError::Listen {
        address: config.listen,
        source,
    })?;
    let url = match &config.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", reachable(address)),
    };
    let app = Arc::new(App::new(services, config, url));
    let figures = figures.map(|listener| serve_figures(&runtime, &app, listener));
    let (stop, stopped) = oneshot::channel();
    let doors = Doors::new(app.clone());
    let serving = runtime.spawn(listen::serve(
        listener,
        move |request| doors.clone().handle(request),
        app.config.connections_max,
        app.config.limits.clone(),
        Duration::from_secs(app.config.drain_seconds),
        stopped,
    ));
    runtime.spawn(sweep(Arc::downgrade(&app)));
    Keeper::start(&app).map_err(StartError::Runtime)?;
    runtime.spawn(crate::scrub::run(Arc::downgrade(&app)));
    runtime.spawn(keep_within_limits(Arc::downgrade(&app)));
    tracing::info!(%address, data = %app.config.data.display(), "listening");
    Ok(Running {
        app,
        address,
        parts: Some(Parts {
            runtime,
            stop,
            serving,
            _figures: figures,
        }),
    })
}

fn listen_at(runtime: &Runtime, address: SocketAddr) -> Result<TcpListener, StartError> {
    let listening = runtime.block_on(TcpListener::bind(address));
    listening.map_err(|source| StartError::Listen { address, source })
}

/// Serves `/metrics` at an address of its own until the sender is dropped.
fn serve_figures(runtime: &Runtime, app: &Arc<App>, listener: TcpListener) -> oneshot::Sender<()> {
    let router = crate::operations::figures_only().with_state(app.clone());
    let figures = TowerToHyperService::new(router);
    let (stop, stopped) = oneshot::channel();
    runtime.spawn(listen::serve(
        listener,
        move |request: Request<Incoming>| {
            let answer = figures.call(request.map(axum::body::Body::new));
            async move { Ok(answer.await?.map(Body::Axum)) }
        },
        FIGURES_CONNECTIONS_MAX,
        app.config.limits.clone(),
        Duration::from_secs(app.config.drain_seconds),
        stopped,
    ));
    stop
}

/// Threads that only move bytes; hashing and compressing have their own. With one for each core, a thread that
/// must wait for a core holds up the answers it has at hand: on two cores the slowest percent took three times
/// as long, and no more came through.
fn io_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.div_ceil(2)
}

/// Makes the database of a server that does not run anew, from packs and segments.
///
/// # Errors
/// If the folder is in use, or something cannot be read or written.
pub fn rebuild(config: &Config) -> Result<RebuildReport, StoreError> {
    Store::rebuild(&config.store_options())
}

/// Uploads ask for buffers and give them back by the thousand. In huge pages each of those that is touched
/// costs 2 MiB, to clear and to hold.
fn use_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "PR_SET_THP_DISABLE");
    }
}

/// Each client is an open file, and so is each pack that is read: as many as the system lets the process have. What a
/// process may have unless it asks is often 1,024, for the sake of programs that use `select`.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// An address a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::from(([127, 0, 0, 1], address.port()));
    }
    address
}

async fn sweep(app: std::sync::Weak<App>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(app) = app.upgrade() else { return };
        // Errors are logged where they happen.
        let _ = crate::app::blocking(move || app.services.sweep()).await;
    }
}

async fn keep_within_limits(app: std::sync::Weak<App>) {
    loop {
        let Some(seconds) = app
            .upgrade()
            .map(|app| app.config.retention_interval_seconds)
        else {
            return;
        };
        tokio::time::sleep(Duration::from_secs(seconds.max(1))).await;
        let Some(app) = app.upgrade() else { return };
        // A worker that failed is logged where it does.
        let _ = crate::app::blocking(move || {
            if let Err(error) = app.services.retention.keep() {
                tracing::error!(error = error.chain(), "keeping caches within their limits");
            }
            if let Err(error) = app.services.actions.keep() {
                tracing::error!(
                    error = error.chain(),
                    "ending Actions entries that nobody uses"
                );
            }
        })
        .await;
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL: the configured one, or by its address.
    pub fn url(&self) -> &str {
        &self.app.url
    }

    /// The file with the admin token.
    pub fn admin_token_path(&self) -> PathBuf {
        self.app.services.access.admin_token_path()
    }

    /// The services behind it, for tests and for the process that runs it.
    pub fn services(&self) -> &firn_services::Services {
        &self.app.services
    }

    /// From here on SIGTERM and SIGINT end nothing by themselves: [`Running::run_until`] answers them. To be
    /// called before anybody is told that the server runs, since they may stop it at once.
    ///
    /// # Errors
    /// If signals cannot be waited for.
    pub fn catch_signals(&self) -> Result<StopSignals, StartError> {
        let _inside = self.parts.as_ref().map(|parts| parts.runtime.enter());
        StopSignals::catch()
    }

    /// Waits for one of the signals, then stops.
    ///
    /// # Errors
    /// If the store does not close.
    pub fn run_until(mut self, mut signals: StopSignals) -> Result<(), StartError> {
        if let Some(parts) = &self.parts {
            parts.runtime.block_on(signals.wait());
        }
        tracing::info!("stopping");
        self.drain()
    }

    /// Takes no more connections, lets requests under way end, closes the store.
    ///
    /// # Errors
    /// If the store does not close.
    pub fn stop(mut self) -> Result<(), StartError> {
        self.drain()
    }

    fn drain(&mut self) -> Result<(), StartError> {
        let Some(parts) = self.parts.take() else {
            return Ok(());
        };
        // An error says that it has ended already.
        let _ = parts.stop.send(());
        self.app.keeper.stop();
        if let Err(error) = parts.runtime.block_on(parts.serving) {
            tracing::error!(%error, "serving ended badly");
        }
        parts
            .runtime
            .shutdown_timeout(Duration::from_secs(self.app.config.drain_seconds));
        if let Err(error) = self.app.services.retention.flush() {
            tracing::warn!(error = error.chain(), "noting what was used");
        }
        if let Err(error) = self.app.services.actions.flush() {
            tracing::warn!(error = error.chain(), "noting what was looked for");
        }
        Ok(self.app.services.store.close()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.drain() {
            tracing::error!(%error, "stopping failed");
        }
    }
}

/// The lines to print after the start: login, docker, nix.conf, flake.
pub fn welcome(running: &Running) -> String {
    let token = running.admin_token_path();
    // They are pasted into shells that stand elsewhere.
    let token = std::path::absolute(&token).unwrap_or(token);
    lines(&running.app.services.access, running.url(), Some(&token))
}
