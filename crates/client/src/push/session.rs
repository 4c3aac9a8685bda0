//! A push session on the server, kept alive by its requests.

use crate::{
    api::Server,
    error::{ClientError, Result},
};
use firn_formats::push::{Begin, Begun, LayerDescriptor, PATHS_PER_REQUEST_MAX};
use firn_formats::push::{Proposal, ProposalAnswer, Publish, Published};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// What the server lacks, and where to bring it.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Indices of the paths asked for.
    pub(super) paths: Vec<usize>,
    /// Layers that the server knows, by key.
    pub(super) layers: BTreeMap<String, LayerDescriptor>,
    pub(super) session: Option<String>,
    pub(super) expires_in: Duration,
}

/// Asks what is missing, in as few requests as their limits allow.
pub(super) fn begin(
    server: &Server,
    cache: &str,
    paths: &[String],
    layers: &[String],
    session: Option<String>,
    gzip: bool,
) -> Result<Missing> {
    let mut missing = Missing {
        session,
        ..Missing::default()
    };
    let mut proven = true;
    let count = paths
        .len()
        .max(layers.len())
        .div_ceil(PATHS_PER_REQUEST_MAX)
        .max(1);
    for batch in 0..count {
        let from = batch * PATHS_PER_REQUEST_MAX;
        let begun: Begun = server.begin(
            cache,
            &Begin {
                paths: slice(paths, from),
                layers: slice(layers, from),
                session: missing.session.clone(),
                gzip,
            },
        )?;
        missing
            .paths
            .extend(begun.missing.iter().map(|index| from + *index as usize));
        proven &= begun.layers_proven;
        missing.layers.extend(begun.layers);
        missing.session = begun.session.or(missing.session);
        missing.expires_in = Duration::from_secs(begun.expires_in);
    }
    if !proven && !layers.is_empty() {
        disbelieve(server, cache, &mut missing)?;
    }
    missing.paths.retain(|index| *index < paths.len());
    Ok(missing)
}

/// An older server answers a key with whatever was published under it first, by whoever may push. What it says of
/// a layer that is proposed to it is of that very layer, so all are; its frames are there. It opens a session only
/// for what it does not know.
fn disbelieve(server: &Server, cache: &str, missing: &mut Missing) -> Result<()> {
    missing.layers.clear();
    if missing.session.is_some() {
        return Ok(());
    }
    let begin = Begin {
        layers: vec![format!("unknown-{}", unpredictable()?)],
        ..Begin::default()
    };
    let begun = server.begin(cache, &begin)?;
    if begun.session.is_none() {
        return Err(ClientError::BadAnswer {
            url: server.url().to_string(),
            what: "no session for a layer that it cannot know".to_owned(),
        });
    }
    missing.session = begun.session;
    missing.expires_in = Duration::from_secs(begun.expires_in);
    Ok(())
}

/// So that nobody can have published a layer under it.
fn unpredictable() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| ClientError::Setting(format!("there is no randomness: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn slice(all: &[String], from: usize) -> Vec<String> {
    all.iter()
        .skip(from)
        .take(PATHS_PER_REQUEST_MAX)
        .cloned()
        .collect()
}

/// The session of one push.
#[derive(Debug)]
pub(super) struct Session<'a> {
    server: &'a Server,
    id: String,
    heartbeat_every: Duration,
    started: Instant,
    last_sign_millis: AtomicU64,
}

impl<'a> Session<'a> {
    pub(super) fn new(server: &'a Server, id: String, expires_in: Duration) -> Self {
        Self {
            server,
            id,
            heartbeat_every: (expires_in / 3).max(Duration::from_secs(1)),
            started: Instant::now(),
            last_sign_millis: AtomicU64::new(0),
        }
    }

    fn signed<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_ok() {
            let now = self.started.elapsed().as_millis() as u64;
            self.last_sign_millis.fetch_max(now, Ordering::Relaxed);
        }
        outcome
    }

    pub(super) fn propose(&self, proposals: &[Proposal]) -> Result<Vec<ProposalAnswer>> {
        self.signed(self.server.propose(&self.id, proposals))
    }

    pub(super) fn frames(&self, body: &[u8]) -> Result<()> {
        self.signed(self.server.frames(&self.id, body)).map(drop)
    }

    pub(super) fn publish(&self, publish: &Publish) -> Result<Published> {
        self.signed(self.server.publish(&self.id, publish))
    }

    /// Shows life if nothing else did for a while.
    pub(super) fn keep_alive(&self) -> Result<()> {
        let last = Duration::from_millis(self.last_sign_millis.load(Ordering::Relaxed));
        if self.started.elapsed().saturating_sub(last) < self.heartbeat_every {
            return Ok(());
        }
        self.signed(self.server.heartbeat(&self.id))
    }

    /// Ends it. A session that cannot be ended ends by itself.
    pub(super) fn close(self) {
        if let Err(error) = self.server.close(&self.id) {
            tracing::debug!(%error, "the session was left to expire");
        }
    }
}
