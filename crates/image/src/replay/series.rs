//! A series: the closures of an image's revisions, oldest first, as JSON.
//!
//! `{"revisions": [{"roots": [PATH], "paths": [{"path", "narSize", "references"}]}]}`, where a
//! PATH is `/nix/store/<hash>-<name>`. Other fields are allowed and say nothing here.

use crate::closure::{Closure, ClosureError, PathInfo};
use firn_formats::{
    Sha256,
    nix::{StorePath, store_path::StorePathError},
};
use serde::Deserialize;
use std::collections::HashSet;

/// Most revisions of a series.
pub(super) const REVISIONS_MAX: usize = 10_000;
/// Most paths of one revision.
pub(super) const PATHS_MAX: usize = 100_000;
/// Most paths of all revisions.
pub(super) const PATHS_TOTAL_MAX: usize = 4_000_000;
/// Most bytes of one path: sums of all of them fit 64 bits.
pub(super) const NAR_SIZE_MAX: u64 = 1 << 40;

/// Closures, oldest first.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Series {
    pub revisions: Vec<Closure>,
}

/// Why a text is not a series.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SeriesError {
    #[error("it is not a series as JSON")]
    Json(#[from] serde_json::Error),
    #[error("it has {count} revisions; {} at most are read", REVISIONS_MAX)]
    TooManyRevisions { count: usize },
    #[error("it has no revision")]
    Empty,
    #[error("all revisions together have more than {} paths", PATHS_TOTAL_MAX)]
    TooManyPaths,
    #[error("revision {revision}")]
    Revision {
        revision: usize,
        #[source]
        source: RevisionError,
    },
}

/// Why a revision is no closure.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RevisionError {
    #[error("it has {count} paths; {} at most are read", PATHS_MAX)]
    TooManyPaths { count: usize },
    #[error("a path's name is wrong")]
    Path(#[from] StorePathError),
    #[error("{path} is there twice")]
    Duplicate { path: StorePath },
    #[error("{path} has {size} bytes; {} at most are believed", NAR_SIZE_MAX)]
    TooLarge { path: StorePath, size: u64 },
    #[error("it is not closed")]
    Closure(#[from] ClosureError),
    #[error("{path} and {user} refer to each other, directly or not")]
    Cycle { path: StorePath, user: StorePath },
}

#[derive(Deserialize)]
struct RawSeries {
    revisions: Vec<RawRevision>,
}

#[derive(Deserialize)]
struct RawRevision {
    #[serde(default)]
    roots: Vec<String>,
    paths: Vec<RawPath>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPath {
    path: String,
    nar_size: u64,
    #[serde(default)]
    references: Vec<String>,
}

impl Series {
    /// Reads JSON.
    pub fn parse(json: &[u8]) -> Result<Self, SeriesError> {
        let raw: RawSeries = serde_json::from_slice(json)?;
        match raw.revisions.len() {
            0 => return Err(SeriesError::Empty),
            count if count > REVISIONS_MAX => return Err(SeriesError::TooManyRevisions { count }),
            _ => {}
        }
        if raw.revisions.iter().map(|r| r.paths.len()).sum::<usize>() > PATHS_TOTAL_MAX {
            return Err(SeriesError::TooManyPaths);
        }
        let of = |(revision, raw)| {
            closure(raw).map_err(|source| SeriesError::Revision { revision, source })
        };
        Ok(Self {
            revisions: raw
                .revisions
                .into_iter()
                .enumerate()
                .map(of)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn closure(raw: RawRevision) -> Result<Closure, RevisionError> {
    if raw.paths.len() > PATHS_MAX {
        return Err(RevisionError::TooManyPaths {
            count: raw.paths.len(),
        });
    }
    let mut seen = HashSet::new();
    let mut paths = Vec::with_capacity(raw.paths.len());
    for raw in raw.paths {
        let path = StorePath::parse(&raw.path)?;
        if !seen.insert(path.clone()) {
            return Err(RevisionError::Duplicate { path });
        }
        if raw.nar_size > NAR_SIZE_MAX {
            let size = raw.nar_size;
            return Err(RevisionError::TooLarge { path, size });
        }
        paths.push(info(path, raw.nar_size, &raw.references)?);
    }
    let roots: Result<Vec<_>, _> = raw
        .roots
        .iter()
        .map(|root| StorePath::parse(root))
        .collect();
    let closure = Closure::new(paths, roots?)?;
    acyclic(&closure)?;
    Ok(closure)
}

fn info(path: StorePath, nar_size: u64, references: &[String]) -> Result<PathInfo, StorePathError> {
    let mut references: Vec<StorePath> = references
        .iter()
        .map(|text| StorePath::parse(text))
        .collect::<Result<_, _>>()?;
    references.sort_unstable();
    references.dedup();
    Ok(PathInfo {
        path,
        // Nothing is read by it.
        nar_hash: Sha256([0; 32]),
        nar_size,
        references,
        deriver: None,
        signatures: Vec::new(),
        ca: None,
    })
}

/// A closure's paths come after what they refer to, but where there is a cycle.
fn acyclic(closure: &Closure) -> Result<(), RevisionError> {
    for (path, references) in closure.dependencies().iter().enumerate() {
        if let Some(&later) = references.iter().find(|&&reference| reference > path) {
            return Err(RevisionError::Cycle {
                path: closure.paths[later].path.clone(),
                user: closure.paths[path].path.clone(),
            });
        }
    }
    Ok(())
}
