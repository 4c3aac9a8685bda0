//! Pushing a closure, or an image's layers, to a Firn server: only what is missing, in few requests.

mod pipeline;
mod propose;
mod publish;
mod send;
mod session;
mod units;
pub(crate) mod work;

use crate::{api::Server, error::Result, local_store::LocalStore, progress::Progress};
use firn_formats::push::{ApiErrorCode, LayerDescriptor};
use firn_image::{closure::Closure, compose::PlannedImage};
use publish::{Outcome, Publisher};
use serde::Serialize;
use session::{Missing, Session};
use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};
use work::{Job, Work};

/// How often a push begins again after the server has forgotten some of it.
const RESUMES_MAX: u32 = 4;

/// What a push did.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs)]
pub struct PushReport {
    pub paths_total: u64,
    pub paths_pushed: u64,
    /// Sum of the NAR sizes of the closure.
    pub bytes_total: u64,
    /// Chunks of what had to be pushed.
    pub chunks_total: u64,
    pub chunks_sent: u64,
    /// Bytes of all requests, heads and ids included.
    pub bytes_sent: u64,
    pub seconds: f64,
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Threads that compress and send: more than cores, since some of them wait for the server.
pub(crate) fn sender_threads() -> usize {
    (cores() + 2).clamp(4, 16)
}

/// Pushes a closure.
pub fn push(
    server: &Server,
    cache: &str,
    store: &LocalStore,
    closure: &Closure,
    progress: &dyn Progress,
) -> Result<PushReport> {
    let started = Instant::now();
    let sent_before = server.http().bytes_sent();
    let target = Target {
        server,
        cache,
        gzip: false,
    };
    let everything: Vec<usize> = (0..closure.paths.len()).collect();
    let pushed = target.push(store, closure, &everything, None, progress)?;
    Ok(PushReport {
        paths_total: closure.paths.len() as u64,
        paths_pushed: pushed.paths,
        bytes_total: closure.paths.iter().map(|info| info.nar_size).sum(),
        chunks_total: pushed.chunks_total,
        chunks_sent: pushed.chunks_sent,
        bytes_sent: server.http().bytes_sent() - sent_before,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Where a push goes.
pub(crate) struct Target<'a> {
    pub(crate) server: &'a Server,
    pub(crate) cache: &'a str,
    /// Layers are wanted as gzip too.
    pub(crate) gzip: bool,
}

/// What became of a push of paths and layers.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    pub(crate) paths: u64,
    pub(crate) chunks_total: u64,
    pub(crate) chunks_sent: u64,
    /// Descriptors of all layers, by key.
    pub(crate) layers: BTreeMap<String, LayerDescriptor>,
    /// How many of them had to be pushed.
    pub(crate) layers_pushed: u64,
}

impl Target<'_> {
    /// Brings the given paths (indices) of the closure, and all layers of the image. Resumes when the
    /// server has ended the session or forgotten chunks of it.
    pub(crate) fn push(
        &self,
        store: &LocalStore,
        closure: &Closure,
        paths: &[usize],
        image: Option<&PlannedImage>,
        progress: &dyn Progress,
    ) -> Result<Pushed> {
        let hashes: Vec<String> = paths
            .iter()
            .map(|index| closure.paths[*index].path.hash().to_string())
            .collect();
        let keys: Vec<String> = image
            .iter()
            .flat_map(|image| image.layers.iter().map(|layer| layer.key.clone()))
            .collect();
        let mut pushed = Pushed::default();
        let mut work: Option<Work<'_>> = None;
        let mut session = None;
        let mut resumes = 0;
        loop {
            let missing = session::begin(
                self.server,
                self.cache,
                &hashes,
                &keys,
                session.take(),
                self.gzip,
            )?;
            let jobs = self.jobs(&missing, paths, image);
            pushed.layers.extend(missing.layers);
            let id = match missing.session {
                Some(id) if !jobs.is_empty() => id,
                Some(id) => {
                    Session::new(self.server, id, missing.expires_in).close();
                    return Ok(pushed);
                }
                None => return Ok(pushed),
            };
            let session_now = Session::new(self.server, id.clone(), missing.expires_in);
            let work = work.get_or_insert_with(|| Work::new(store, closure, image));
            match self.run(&session_now, work, &jobs, progress, &mut pushed) {
                Ok(()) => {
                    session_now.close();
                    return Ok(pushed);
                }
                Err(error) if error.is_resumable() && resumes < RESUMES_MAX => {
                    resumes += 1;
                    tracing::info!(%error, "the push is resumed");
                    session = (error.code() != Some(ApiErrorCode::SessionGone)).then_some(id);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Missing paths, and layers that the server cannot describe.
    fn jobs(&self, missing: &Missing, paths: &[usize], image: Option<&PlannedImage>) -> Vec<Job> {
        let mut indices: Vec<usize> = missing.paths.iter().map(|index| paths[*index]).collect();
        indices.sort_unstable();
        indices.dedup();
        let mut seen: HashSet<&str> = HashSet::new();
        let layers: Vec<usize> = image
            .iter()
            .flat_map(|image| image.layers.iter().enumerate())
            .filter(|(_, layer)| !missing.layers.contains_key(&layer.key))
            .filter(|(_, layer)| seen.insert(&layer.key))
            .map(|(index, _)| index)
            .collect();
        units::in_units(&indices, &layers, image)
    }

    fn run(
        &self,
        session: &Session<'_>,
        work: &Work<'_>,
        jobs: &[Job],
        progress: &dyn Progress,
        pushed: &mut Pushed,
    ) -> Result<()> {
        let bytes = jobs.iter().map(|job| match job {
            Job::Path(index) => work.info(*index).nar_size,
            Job::Layer(index) => layer_bytes(work, *index),
        });
        progress.begin("push", bytes.sum());
        let publisher = Publisher::new(session, work, jobs, self.gzip);
        let mut outcome = Outcome::default();
        let done = pipeline::run(session, work, jobs, progress, |events, failure| {
            publisher.run(events, failure, &mut outcome)
        });
        progress.end();
        work.remember();
        pushed.chunks_total += outcome.chunks_total;
        pushed.chunks_sent += outcome.chunks_sent;
        pushed.layers.extend(outcome.layers);
        done?;
        let paths = jobs
            .iter()
            .filter(|job| matches!(job, Job::Path(_)))
            .count() as u64;
        pushed.paths += paths;
        pushed.layers_pushed += jobs.len() as u64 - paths;
        Ok(())
    }
}

/// A layer's tar is about as large as its paths' NARs.
fn layer_bytes(work: &Work<'_>, index: usize) -> u64 {
    let layer = work.image.and_then(|image| image.layers.get(index));
    layer.map_or(0, |layer| {
        layer
            .paths
            .iter()
            .map(|path| work.info(*path).nar_size)
            .sum()
    })
}
