//! What a server does by itself from time to time, one step after the other: a step is a function of
//! [`run_steps`], and asks [`Keeper::going_on`] whether the server stops.

use crate::app::App;
use firn_formats::admin::{CollectionRequest, CollectionView};
use firn_services::ServiceError;
use firn_store::{CollectionOptions, CollectionReport};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The first round comes so long after the start at the latest: a server that is started anew each hour would
/// never keep anything in order.
const FIRST_AFTER_MAX: Duration = Duration::from_secs(300);
/// How much of the time a collection by itself may work, in percent.
const BUSY_PERCENT: u8 = 25;
/// … and one that somebody waits for.
const BUSY_PERCENT_ASKED: u8 = 75;

/// The keeper's thread, and the word that everything is to stop.
pub(crate) struct Keeper {
    stopping: AtomicBool,
    thread: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Keeper {
    pub(crate) fn new() -> Self {
        Self {
            stopping: AtomicBool::new(false),
            thread: Mutex::new(None),
        }
    }

    /// Whether long work may go on.
    pub(crate) fn going_on(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed)
    }

    /// Starts the thread, unless the configuration says that nothing is to be done by itself.
    pub(crate) fn start(app: &Arc<App>) -> std::io::Result<()> {
        let interval = Duration::from_secs(app.config.gc_interval_seconds);
        if interval.is_zero() {
            return Ok(());
        }
        let (stop, stopped) = channel::<()>();
        let weak: Weak<App> = Arc::downgrade(app);
        let thread = std::thread::Builder::new()
            .name("firn-keeper".into())
            .spawn(move || {
                let mut wait = interval.min(FIRST_AFTER_MAX);
                while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                    let Some(app) = weak.upgrade() else { return };
                    run_steps(&app);
                    wait = interval;
                }
            })?;
        *app.keeper.thread() = Some((stop, thread));
        Ok(())
    }

    fn thread(&self) -> std::sync::MutexGuard<'_, Option<(Sender<()>, JoinHandle<()>)>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the step under way end where it is, and the thread with it.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some((stop, thread)) = self.thread().take() {
            drop(stop);
            // The thread's panic has been reported by the runtime already.
            let _ = thread.join();
        }
    }
}

/// One round.
fn run_steps(app: &App) {
    let options = CollectionOptions {
        grace: Duration::from_secs(app.config.gc_grace_seconds),
        busy_percent: BUSY_PERCENT,
        ..CollectionOptions::default()
    };
    // The log has said it.
    let _ = collect(app, &options);
}

/// Collects, and says so in the log and the metrics.
fn collect(app: &App, options: &CollectionOptions) -> Result<CollectionReport, ServiceError> {
    let began = Instant::now();
    let outcome = app
        .services
        .store
        .collect(options, &|_| app.keeper.going_on());
    match &outcome {
        Ok(report) => {
            app.metrics.collected(report.bytes_deleted, began.elapsed());
            tracing::info!(
                entries = report.entries_expired,
                blobs = report.blobs_dropped,
                chunks = report.chunks_condemned,
                packs_rewritten = report.packs_rewritten,
                packs_deleted = report.packs_deleted,
                bytes = report.bytes_deleted,
                stopped = report.stopped,
                seconds = began.elapsed().as_secs_f64(),
                "collected"
            );
        }
        Err(error) => tracing::error!(%error, "collecting"),
    }
    Ok(outcome?)
}

/// A collection that somebody asked for, or what it would do.
pub(crate) fn collect_asked(
    app: &App,
    request: &CollectionRequest,
) -> Result<CollectionView, ServiceError> {
    let began = Instant::now();
    let mut options = CollectionOptions {
        grace: Duration::from_secs(request.grace_seconds.unwrap_or(app.config.gc_grace_seconds)),
        busy_percent: BUSY_PERCENT_ASKED,
        ..CollectionOptions::default()
    };
    if let Some(percent) = request.dead_percent {
        options.dead_percent = percent.min(100);
    }
    if request.confirm_time && !request.dry_run {
        app.services.store.confirm_time()?;
    }
    let report = match request.dry_run {
        true => {
            let store = &app.services.store;
            store.plan_collection(&options, &|_| app.keeper.going_on())?
        }
        false => collect(app, &options)?,
    };
    Ok(CollectionView {
        dry_run: request.dry_run,
        entries_expired: report.entries_expired,
        blobs_dropped: report.blobs_dropped,
        chunks_total: report.chunks_total,
        chunks_condemned: report.chunks_condemned,
        bytes_condemned: report.bytes_condemned,
        packs_rewritten: report.packs_rewritten,
        bytes_rewritten: report.bytes_rewritten,
        packs_deleted: report.packs_deleted,
        bytes_deleted: report.bytes_deleted,
        packs_waiting: report.packs_waiting,
        bytes_waiting: report.bytes_waiting,
        packs_damaged: report.packs_damaged,
        segments_written: report.segments_written,
        segments_deleted: report.segments_deleted,
        stopped: report.stopped,
        seconds: began.elapsed().as_secs_f64(),
    })
}
