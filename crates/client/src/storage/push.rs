//! Pushing a closure into a store without a server.

mod pipeline;

use super::location::signing_key;
use crate::{error::Result, local_store::LocalStore, progress::Progress, push::work::Work};
use firn_formats::nix::{Compression, NarInfo, PublicKey, SecretKey};
use firn_image::closure::{Closure, PathInfo};
use firn_store::shared::{Run, SharedStore};
use pipeline::Target;
use serde::Serialize;
use std::time::Instant;

/// What a push did; the same names as with a server.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs)]
pub struct StoragePushReport {
    pub paths_total: u64,
    pub paths_pushed: u64,
    /// Signed by an upstream's key, so left there.
    pub paths_upstream: u64,
    pub bytes_total: u64,
    /// Chunks of what had to be pushed.
    pub chunks_total: u64,
    pub chunks_sent: u64,
    /// Frames that were added; what goes out in all, [`Run::publish`] tells.
    pub bytes_sent: u64,
    pub seconds: f64,
}

/// Adds what is missing of a closure to `run`, which the caller publishes: chunks, blobs, narinfos (entries
/// `Narinfo` of `cache`, keyed by the hash part, their value the narinfo's text with
/// `URL: nar/<nar hash, base32>.nar`, `Compression: none`). Paths that one of `upstream_keys` has signed are
/// left out.
///
/// Paths are added references first, each when all of its chunks are in the run: whatever happens, what the
/// run holds can be published.
pub fn push_to_storage(
    store: &SharedStore,
    run: &Run,
    cache: &str,
    local: &LocalStore,
    closure: &Closure,
    upstream_keys: &[PublicKey],
    progress: &dyn Progress,
) -> Result<StoragePushReport> {
    let work = Work::new(local, closure, None);
    push_work(store, run, cache, &work, upstream_keys, progress)
}

/// [`push_to_storage`] of a closure whose chunks are known in part: nothing of those is read again.
pub(crate) fn push_work(
    store: &SharedStore,
    run: &Run,
    cache: &str,
    work: &Work<'_>,
    upstream_keys: &[PublicKey],
    progress: &dyn Progress,
) -> Result<StoragePushReport> {
    let started = Instant::now();
    let closure = work.closure;
    let key = signing_key()?;
    let (missing, upstream) = missing(store, cache, closure, upstream_keys)?;
    let mut report = StoragePushReport {
        paths_total: closure.paths.len() as u64,
        paths_upstream: upstream,
        bytes_total: closure.nar_bytes(),
        ..StoragePushReport::default()
    };
    let target = Target {
        store,
        run,
        cache,
        key: key.as_ref(),
        work,
        paths: &missing,
        progress,
    };
    let bytes = missing.iter().map(|index| work.info(*index).nar_size);
    progress.begin("push", bytes.sum());
    let pushed = target.push(&mut report);
    progress.end();
    work.remember();
    pushed?;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Indices of the paths to push, references first, and how many an upstream has.
fn missing(
    store: &SharedStore,
    cache: &str,
    closure: &Closure,
    upstream_keys: &[PublicKey],
) -> Result<(Vec<usize>, u64)> {
    let hashes: Vec<String> = closure
        .paths
        .iter()
        .map(|info| info.path.hash().to_string())
        .collect();
    let keys: Vec<&str> = hashes.iter().map(String::as_str).collect();
    let present = store.paths_kept(cache, &keys)?;
    let (mut missing, mut upstream) = (Vec::new(), 0);
    for (index, (info, present)) in closure.paths.iter().zip(present).enumerate() {
        if present {
            continue;
        }
        match is_signed_by(info, upstream_keys) {
            true => upstream += 1,
            false => missing.push(index),
        }
    }
    Ok((missing, upstream))
}

/// Whether a signature of the path verifies with one of the keys; a name alone proves nothing.
fn is_signed_by(info: &PathInfo, keys: &[PublicKey]) -> bool {
    if info.signatures.is_empty() || keys.is_empty() {
        return false;
    }
    let fingerprint = narinfo(info).fingerprint();
    info.signatures
        .iter()
        .any(|signature| keys.iter().any(|key| key.verify(&fingerprint, signature)))
}

/// The narinfo as the store keeps it.
fn narinfo(info: &PathInfo) -> NarInfo {
    NarInfo {
        store_path: info.path.clone(),
        url: format!("nar/{}.nar", info.nar_hash.base32()),
        compression: Compression::None,
        file_hash: None,
        file_size: None,
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        references: info.references.clone(),
        deriver: info.deriver.clone(),
        signatures: info.signatures.clone(),
        ca: info.ca.clone(),
    }
}

fn signed_narinfo(info: &PathInfo, key: Option<&SecretKey>) -> NarInfo {
    let mut narinfo = narinfo(info);
    if let Some(key) = key {
        narinfo
            .signatures
            .retain(|signature| signature.key_name != key.name());
        narinfo.signatures.push(key.sign(&narinfo.fingerprint()));
    }
    narinfo
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_formats::{
        Sha256,
        nix::{Signature, StorePath},
    };

    fn info() -> PathInfo {
        let path = StorePath::parse_base_name("00c89v0sz1j42g5sg6mffiwplzccay6p-a");
        PathInfo {
            path: path.expect("a store path"),
            nar_hash: Sha256::of(b"nar"),
            nar_size: 3,
            references: Vec::new(),
            deriver: None,
            signatures: Vec::new(),
            ca: None,
        }
    }

    #[test]
    fn an_upstream_is_known_by_its_key_and_not_by_its_name() {
        let upstream = SecretKey::from_seed("cache.nixos.org-1", [1; 32]);
        let impostor = SecretKey::from_seed("cache.nixos.org-1", [2; 32]);
        let keys = [upstream.public()];
        let mut path = info();
        assert!(!is_signed_by(&path, &keys));
        path.signatures = vec![impostor.sign(&narinfo(&path).fingerprint())];
        assert!(!is_signed_by(&path, &keys));
        path.signatures
            .push(upstream.sign(&narinfo(&path).fingerprint()));
        assert!(is_signed_by(&path, &keys));
        assert!(!is_signed_by(&path, &[]));
        path.nar_size = 4;
        assert!(!is_signed_by(&path, &keys), "it is signed as another path");
    }

    #[test]
    fn our_own_signature_takes_the_place_of_an_older_one() {
        let key = SecretKey::from_seed("team-1", [3; 32]);
        let mut path = info();
        path.signatures = vec![Signature {
            key_name: "team-1".to_owned(),
            bytes: [0; 64],
        }];
        let text = signed_narinfo(&path, Some(&key)).to_string();
        let read = NarInfo::parse(&text).expect("a narinfo");
        assert_eq!(read.signatures.len(), 1);
        assert!(
            key.public()
                .verify(&read.fingerprint(), &read.signatures[0])
        );
        assert_eq!(read.url, format!("nar/{}.nar", path.nar_hash.base32()));
    }
}
