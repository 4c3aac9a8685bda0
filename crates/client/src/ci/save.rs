//! What a job sends at its end: new paths, other folders, and then the entry of its key, in one publication.

use super::{
    entry::{CiEntry, FolderEntry},
    error::Result,
    folder::{Place, save_folder},
};
use crate::{
    local_store::LocalStore,
    progress::Progress,
    storage::{StoragePushReport, push_to_storage},
};
use firn_formats::nix::{PublicKey, StorePath};
use firn_image::closure::{Closure, PathInfo};
use firn_store::{
    EntryKind,
    shared::{Run, SharedStore},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Bytes of NARs that are pushed between two looks at the clock.
const BATCH_BYTES: u64 = 256 << 20;

/// An entry that nothing has changed is written again after so many seconds.
const RENEWED_AFTER: i64 = 86_400;

/// What is to be saved.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct SaveRequest<'a> {
    pub store: &'a SharedStore,
    pub cache: &'a str,
    pub local: &'a LocalStore,
    pub key: &'a str,
    /// What became valid in this job, or what the user names.
    pub roots: Vec<StorePath>,
    /// Hash parts in the order in which the substituter was asked for them.
    pub used: Vec<String>,
    pub folders: &'a [Place],
    pub upstream_keys: &'a [PublicKey],
    /// The entry of the key, if restore or another job has made one.
    pub existing: Option<CiEntry>,
    /// The time of the run without a cache, if the matched entry tells.
    pub seconds_cold: Option<f64>,
    /// Since restore.
    pub seconds: f64,
    pub job: &'a str,
    /// Nothing is begun after it, and what is done is published.
    pub deadline: Instant,
}

/// What was saved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct SaveReport {
    pub key: String,
    /// Nothing was new, so nothing was sent.
    pub unchanged: bool,
    /// The deadline came first: some paths were sent, the entry was not written.
    pub incomplete: bool,
    /// Why nothing was sent, if this job may not or could not write.
    pub refused: Option<String>,
    pub paths_total: u64,
    /// Of those, not in the store and with no upstream's signature.
    pub paths_new: u64,
    pub paths_pushed: u64,
    pub paths_upstream: u64,
    pub bytes_total: u64,
    pub chunks_total: u64,
    pub chunks_sent: u64,
    /// To the place of the store, packs and index.
    pub bytes_sent: u64,
    pub folders: u64,
    pub folder_bytes: u64,
    /// Folders that could not be kept, and why.
    pub folders_failed: Vec<String>,
    pub requests: u64,
    pub seconds: f64,
    /// When save ended, in milliseconds since 1970.
    pub ended_at: u64,
}

/// Saves. The caller has refreshed the store.
///
/// # Errors
/// If the local store cannot be read, or the place cannot be written.
pub fn save(request: &SaveRequest<'_>, progress: &dyn Progress) -> Result<SaveReport> {
    let started = Instant::now();
    let requests = request.store.backend().requests();
    let mut report = SaveReport {
        key: request.key.to_owned(),
        ..SaveReport::default()
    };
    let closure = request.local.closure(&request.roots)?;
    let split = split(request, &closure)?;
    report.paths_total = closure.paths.len() as u64;
    report.paths_upstream = split.upstream.len() as u64;
    report.paths_new = split.missing.len() as u64;
    report.bytes_total = closure.nar_bytes();
    if is_unchanged(request, &split) {
        report.unchanged = true;
        report.seconds = started.elapsed().as_secs_f64();
        return Ok(report);
    }
    let run = request.store.run(request.job)?;
    report.incomplete = !push_batches(request, &closure, &split, &run, progress, &mut report)?;
    if !report.incomplete {
        let entry = entry(request, &closure, &split, &run, &mut report)?;
        let lists: Vec<_> = entry
            .folders
            .iter()
            .filter_map(FolderEntry::list_id)
            .collect();
        let value = entry.encode()?;
        run.add_entry(request.cache, EntryKind::CiKey, request.key, &value, &lists)?;
    }
    let published = run.publish()?;
    report.bytes_sent = published.bytes_written;
    report.requests = request.store.backend().requests() - requests;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// The closure by what must be done with it: indices.
struct Split {
    upstream: HashSet<usize>,
    missing: Vec<usize>,
}

fn split(request: &SaveRequest<'_>, closure: &Closure) -> Result<Split> {
    let upstream: HashSet<usize> = closure
        .paths
        .iter()
        .enumerate()
        .filter(|(_, info)| is_signed(info, request.upstream_keys))
        .map(|(index, _)| index)
        .collect();
    let ours: Vec<usize> = (0..closure.paths.len())
        .filter(|index| !upstream.contains(index))
        .collect();
    let hashes: Vec<String> = ours
        .iter()
        .map(|index| closure.paths[*index].path.hash().to_string())
        .collect();
    let keys: Vec<&str> = hashes.iter().map(String::as_str).collect();
    let present = request.store.paths_kept(request.cache, &keys)?;
    let missing = ours
        .iter()
        .zip(present)
        .filter(|(_, present)| !present)
        .map(|(index, _)| *index)
        .collect();
    Ok(Split { upstream, missing })
}

/// Whether one of the keys has signed a path.
pub(crate) fn is_signed(info: &PathInfo, keys: &[PublicKey]) -> bool {
    if info.signatures.is_empty() || keys.is_empty() {
        return false;
    }
    let fingerprint = firn_formats::nix::narinfo::fingerprint(
        &info.path,
        &info.nar_hash,
        info.nar_size,
        &info.references,
    );
    let signed = |key: &PublicKey| {
        info.signatures
            .iter()
            .any(|signature| key.verify(&fingerprint, signature))
    };
    keys.iter().any(signed)
}

/// An exact key with all paths in the store and all folders in the entry, which was written of late: `firn gc` tells by
/// that which keys, and which paths, are in use.
fn is_unchanged(request: &SaveRequest<'_>, split: &Split) -> bool {
    let fresh = |entry: &&CiEntry| is_fresh(entry, now());
    let Some(existing) = request.existing.as_ref().filter(fresh) else {
        return false;
    };
    let kept = |place: &Place| {
        let there = existing
            .folders
            .iter()
            .any(|folder| folder.path == place.name);
        there || !place.path.exists()
    };
    split.missing.is_empty() && request.folders.iter().all(kept)
}

/// Pushes what is missing, references first, in batches. False if the deadline came.
fn push_batches(
    request: &SaveRequest<'_>,
    closure: &Closure,
    split: &Split,
    run: &Run,
    progress: &dyn Progress,
    report: &mut SaveReport,
) -> Result<bool> {
    let mut missing = split.missing.iter().copied().peekable();
    while missing.peek().is_some() {
        if Instant::now() >= request.deadline {
            return Ok(false);
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(index) = missing.next_if(|_| bytes < BATCH_BYTES) {
            bytes += closure.paths[index].nar_size;
            batch.push(closure.paths[index].clone());
        }
        // The references of a batch are in an earlier one, in the store, or upstream.
        let batch = Closure {
            roots: Vec::new(),
            paths: batch,
        };
        let pushed = push_to_storage(
            request.store,
            run,
            request.cache,
            request.local,
            &batch,
            request.upstream_keys,
            progress,
        )?;
        add(report, &pushed);
    }
    Ok(true)
}

fn add(report: &mut SaveReport, pushed: &StoragePushReport) {
    report.paths_pushed += pushed.paths_pushed;
    report.chunks_total += pushed.chunks_total;
    report.chunks_sent += pushed.chunks_sent;
}

fn is_fresh(entry: &CiEntry, now: i64) -> bool {
    now.saturating_sub(entry.updated_at) < RENEWED_AFTER
}

/// Seconds since 1970.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}

fn entry(
    request: &SaveRequest<'_>,
    closure: &Closure,
    split: &Split,
    run: &Run,
    report: &mut SaveReport,
) -> Result<CiEntry> {
    let now = now();
    let ours = || {
        closure
            .paths
            .iter()
            .enumerate()
            .filter(|(index, _)| !split.upstream.contains(index))
    };
    let paths: Vec<String> = ours()
        .map(|(_, info)| info.path.hash().to_string())
        .collect();
    let referrers = closure.referrers();
    let is_root = |index: &usize| referrers.get(*index).is_some_and(Vec::is_empty);
    Ok(CiEntry {
        roots: ours()
            .filter(|(index, _)| is_root(index))
            .map(|(_, info)| info.path.to_string())
            .collect(),
        used: used(&request.used, request, &paths),
        paths,
        folders: folders(request, run, report)?,
        created_at: request
            .existing
            .as_ref()
            .map_or(now, |existing| existing.created_at),
        updated_at: now,
        job: request.job.to_owned(),
        bytes: ours().map(|(_, info)| info.nar_size).sum(),
        seconds_cold: request.seconds_cold.unwrap_or(request.seconds),
        ..CiEntry::new()
    })
}

/// What was asked for, in that order, and then what was built, in the order in which it became valid; only
/// what the store holds.
fn used(asked: &[String], request: &SaveRequest<'_>, paths: &[String]) -> Vec<String> {
    let held: HashSet<&str> = paths.iter().map(String::as_str).collect();
    let mut seen = HashSet::new();
    let built = request.roots.iter().map(|path| path.hash().to_string());
    asked
        .iter()
        .cloned()
        .chain(built)
        .filter(|hash| held.contains(hash.as_str()) && seen.insert(hash.clone()))
        .collect()
}

/// A folder that cannot be kept is told of, and does not keep the paths from being saved; what the entry
/// knew of it stays.
fn folders(
    request: &SaveRequest<'_>,
    run: &Run,
    report: &mut SaveReport,
) -> Result<Vec<FolderEntry>> {
    let known = request.existing.iter().flat_map(|entry| &entry.folders);
    let mut kept: Vec<FolderEntry> = Vec::new();
    for place in request.folders {
        if !place.path.exists() {
            continue;
        }
        match save_folder(request.store, run, &place.path) {
            Ok(saved) => {
                report.folders += 1;
                report.folder_bytes += saved.bytes;
                kept.push(FolderEntry {
                    path: place.name.clone(),
                    list: FolderEntry::list_text(saved.list),
                    bytes: saved.bytes,
                    files: saved.files,
                });
            }
            Err(error) if error.is_about_a_folder() => {
                report
                    .folders_failed
                    .push(format!("{}: {error}", place.name));
            }
            Err(error) => return Err(error),
        }
    }
    let others: Vec<FolderEntry> = known
        .filter(|known| kept.iter().all(|folder| folder.path != known.path))
        .cloned()
        .collect();
    kept.extend(others);
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_renewed_once_a_day() {
        let written = CiEntry {
            updated_at: 1_000_000,
            ..CiEntry::new()
        };
        assert!(is_fresh(&written, 1_000_000 + 86_399));
        assert!(!is_fresh(&written, 1_000_000 + 86_400));
        let read = CiEntry::parse(&written.encode().expect("json")).expect("an entry");
        assert!(!is_fresh(&read, i64::MAX));
    }
}
