//! Figures for Prometheus.

use firn_store::Stats;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Which door a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Door {
    Nix,
    Registry,
    Actions,
    Api,
    Operations,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    door: Door,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabels {
    door: Door,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookupLabels {
    cache: i64,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Hit,
    Miss,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabels {
    cache: i64,
    name: String,
}

/// The counters, and the registry that writes them out.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    received: Counter,
    sent: Family<DoorLabels, Counter>,
    lookups: Family<LookupLabels, Counter>,
    caches: Family<NameLabels, Gauge>,
    chunks_new: Gauge,
    chunks_known: Gauge,
    chunks: Gauge,
    stored: Gauge,
    sessions: Gauge,
    collections: Counter,
    reclaimed: Counter,
    collection_duration: Gauge<f64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("firn"),
            requests: Family::default(),
            received: Counter::default(),
            sent: Family::default(),
            lookups: Family::default(),
            caches: Family::default(),
            chunks_new: Gauge::default(),
            chunks_known: Gauge::default(),
            chunks: Gauge::default(),
            stored: Gauge::default(),
            sessions: Gauge::default(),
            collections: Counter::default(),
            reclaimed: Counter::default(),
            collection_duration: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Requests by door and status",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "received",
            "Bytes of request bodies",
            Unit::Bytes,
            self.received.clone(),
        );
        registry.register_with_unit(
            "sent",
            "Bytes of response bodies by door",
            Unit::Bytes,
            self.sent.clone(),
        );
        registry.register(
            "lookups",
            "Narinfo look-ups by cache and outcome",
            self.lookups.clone(),
        );
        registry.register(
            "cache_info",
            "The names of the caches that the label `cache` numbers",
            self.caches.clone(),
        );
        registry.register(
            "chunks_new_since_start",
            "Chunks that came in and were new",
            self.chunks_new.clone(),
        );
        registry.register(
            "chunks_known_since_start",
            "Chunks that came in and were known",
            self.chunks_known.clone(),
        );
        registry.register("chunks", "Chunks in the store", self.chunks.clone());
        registry.register_with_unit(
            "chunks_stored",
            "Their stored size",
            Unit::Bytes,
            self.stored.clone(),
        );
        registry.register("sessions", "Open upload sessions", self.sessions.clone());
        registry.register(
            "collections",
            "Times that what nothing needs any more was taken away",
            self.collections.clone(),
        );
        registry.register_with_unit(
            "reclaimed",
            "Bytes of packs that were deleted",
            Unit::Bytes,
            self.reclaimed.clone(),
        );
        registry.register_with_unit(
            "collection_duration",
            "How long the last collection took",
            Unit::Seconds,
            self.collection_duration.clone(),
        );
    }

    pub(crate) fn request(&self, door: Door, status: u16) {
        self.requests
            .get_or_create(&RequestLabels { door, status })
            .inc();
    }

    /// A collection has ended.
    pub(crate) fn collected(&self, bytes: u64, duration: Duration) {
        self.collections.inc();
        self.reclaimed.inc_by(bytes);
        self.collection_duration.set(duration.as_secs_f64());
    }

    pub(crate) fn received(&self) -> &Counter {
        &self.received
    }

    pub(crate) fn sent(&self, door: Door) -> Counter {
        self.sent.get_or_create(&DoorLabels { door }).clone()
    }

    pub(crate) fn lookup(&self, cache: i64, hit: bool) {
        let outcome = if hit { Outcome::Hit } else { Outcome::Miss };
        self.lookups
            .get_or_create(&LookupLabels { cache, outcome })
            .inc();
    }

    /// The text form.
    pub(crate) fn encode(
        &self,
        stats: &Stats,
        caches: impl Iterator<Item = (i64, String)>,
    ) -> Result<String, std::fmt::Error> {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.chunks_new.set(gauge(stats.chunks_new_total));
        self.chunks_known.set(gauge(stats.chunks_known_total));
        self.chunks.set(gauge(stats.chunks));
        self.stored.set(gauge(stats.chunk_stored_bytes));
        self.sessions.set(gauge(stats.sessions));
        self.caches.clear();
        for (cache, name) in caches {
            self.caches
                .get_or_create(&NameLabels { cache, name })
                .set(1);
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}
