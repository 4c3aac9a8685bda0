//! What of a closure is cached.

use crate::{api::Server, error::Result};
use firn_formats::{
    admin::{PathStatus, StatusQuery},
    push::PATHS_PER_REQUEST_MAX,
};
use firn_image::closure::Closure;
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
        }
    }
    Ok(report)
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
            cached: found.map(|found| Cached {
                stored_bytes: found.stored_bytes,
                published_at: found.published_at,
            }),
        });
    }
}
