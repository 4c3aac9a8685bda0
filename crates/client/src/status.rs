//! What of a closure is cached.

use crate::{api::Server, error::Result};
use firn_chunks::ChunkId;
use firn_formats::{
    admin::{EvictionView, PathStatus, StatusQuery},
    push::PATHS_PER_REQUEST_MAX,
};
use firn_image::closure::Closure;
use firn_store::{EntryKind, shared::SharedStore};
use serde::Serialize;

/// One path and what the cache knows of it.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct PathReport {
    pub path: String,
    pub nar_size: u64,
    /// Absent when the path is not cached.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub cached: Option<Cached>,
    /// When and why it went, if the server remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evicted: Option<EvictionView>,
    pub present: bool,
}

/// What the cache says.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct Cached {
    pub stored_bytes: u64,
    /// Seconds since 1970.
    pub published_at: i64,
}

/// A closure in the light of a cache.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs)]
pub struct StatusReport {
    pub paths_total: u64,
    pub paths_present: u64,
    /// NAR sizes, in bytes.
    pub bytes_total: u64,
    pub bytes_missing: u64,
    pub stored_bytes: u64,
    pub paths: Vec<PathReport>,
}

/// Asks, in as few requests as their limits allow.
pub fn status(server: &Server, cache: &str, closure: &Closure) -> Result<StatusReport> {
    let mut report = StatusReport::default();
    for paths in closure.paths.chunks(PATHS_PER_REQUEST_MAX) {
        let answer = server.status(&StatusQuery {
            cache: cache.to_owned(),
            paths: paths.iter().map(|info| info.path.to_string()).collect(),
        })?;
        for info in paths {
            let found = answer.present.get(&info.path.to_string());
            report.add(info.path.absolute(), info.nar_size, found);
            if let Some(path) = report.paths.last_mut() {
                path.evicted = answer.evicted.get(&info.path.to_string()).cloned();
            }
        }
    }
    Ok(report)
}

/// The same of stores without a server: what any of them has. `stored_bytes` are the frames of a path, those
/// that it shares with others counted for each.
pub fn status_of_stores(
    stores: &[SharedStore],
    cache: &str,
    closure: &Closure,
) -> Result<StatusReport> {
    let mut report = StatusReport::default();
    for info in &closure.paths {
        let hash = info.path.hash().to_string();
        let mut found = None;
        for store in stores {
            if let Some(entry) = store.entry(cache, EntryKind::Narinfo, &hash)? {
                let mut stored_bytes = 0;
                for list in &entry.blobs {
                    stored_bytes += stored_bytes_of(store, list)?;
                }
                found = Some(PathStatus {
                    nar_size: info.nar_size,
                    stored_bytes,
                    published_at: entry.at,
                });
                break;
            }
        }
        report.add(info.path.absolute(), info.nar_size, found.as_ref());
    }
    Ok(report)
}

fn stored_bytes_of(store: &SharedStore, list: &firn_chunks::ListId) -> Result<u64> {
    let Some(blob) = store.blob(list)? else {
        return Ok(0);
    };
    let chunks = blob.list.chunks.iter();
    let ids: Vec<ChunkId> = chunks.map(|chunk| chunk.id).collect();
    let located = store.locate(&ids)?;
    let frames = located.into_iter().flatten();
    Ok(frames
        .map(|frame| u64::from(frame.placed.record.frame_length))
        .sum())
}

impl StatusReport {
    fn add(&mut self, path: String, nar_size: u64, found: Option<&PathStatus>) {
        self.paths_total += 1;
        self.bytes_total += nar_size;
        match found {
            Some(found) => {
                self.paths_present += 1;
                self.stored_bytes += found.stored_bytes;
            }
            None => self.bytes_missing += nar_size,
        }
        self.paths.push(PathReport {
            path,
            nar_size,
            present: found.is_some(),
            evicted: None,
            cached: found.map(|found| Cached {
                stored_bytes: found.stored_bytes,
                published_at: found.published_at,
            }),
        });
    }
}
