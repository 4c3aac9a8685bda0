//! Those who pull: every byte is compared with what it was made of.

use super::entry::Jobs;
use super::http::{Answer, Client};
use super::ledger::{Item, Ledger};
use super::sample::{Random, Seed};
use crate::rigs::Release;
use crate::rigs::nix::Nix;
use firn_formats::Sha256;
use firn_formats::nix::{Compression, NarInfo};
use std::sync::Arc;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(30);

/// Why something was not read.
pub(super) enum Trouble {
    /// The server said so, or was gone.
    Failed(String),
    /// A complete answer that is not what was pushed: there is no excuse for it.
    Wrong(String),
}

impl From<String> for Trouble {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

/// One who pulls.
pub(super) struct Puller {
    /// What is promised.
    pub(super) ledger: Arc<Ledger>,
    /// Reads.
    pub(super) client: Client,
    /// `http://…` of the server.
    pub(super) url: String,
    /// What to pull next.
    pub(super) random: Random,
    /// Restores from the Actions cache.
    pub(super) jobs: Jobs,
    /// Pulls by the real Nix, too.
    pub(super) nix: bool,
}

impl Puller {
    /// Pulls until told to stop.
    pub(super) fn run(mut self) {
        let mut round = 0;
        while !self.ledger.stopped() {
            let Some((cache, item)) = self.ledger.any(&mut self.random) else {
                std::thread::sleep(PAUSE);
                continue;
            };
            round += 1;
            let began = self.ledger.now();
            let read = match &item {
                Item::Path(seed) if self.nix && round % 8 == 0 => {
                    self.realise(&cache, *seed).map(Some)
                }
                item => read_item(&self.client, &self.jobs, &cache, item, self.random.next()),
            };
            judge(&self.ledger, began, &cache, &item, read);
        }
    }

    /// The real Nix checks hashes and signatures, and hashes what it has unpacked again.
    fn realise(&self, cache: &str, seed: Seed) -> Result<u64, Trouble> {
        let key = self.client.get(&format!("/{cache}/public-key"))?;
        if key.status != 200 {
            return Err(Trouble::Failed(format!(
                "the key of {cache}: {}",
                key.status
            )));
        }
        let key = String::from_utf8_lossy(&key.body).trim().to_owned();
        let nix = Nix::new(Release::ALL[(seed.number % 2) as usize]);
        let store = nix.path("store");
        let path = format!("/nix/store/{}", seed.path());
        let outcome = nix.realise(&store, &format!("{}/{cache}", self.url), &key, &[&path]);
        if !outcome.status.success() {
            return Err(Trouble::Failed(outcome.to_string()));
        }
        let verified = nix.verify(&store, &key, &path);
        match verified.status.success() {
            true => Ok(0),
            false => Err(Trouble::Wrong(verified.to_string())),
        }
    }
}

/// Notes what was read, or whether a promise was broken.
pub(super) fn judge(
    ledger: &Ledger,
    began: u64,
    cache: &str,
    item: &Item,
    read: Result<Option<u64>, Trouble>,
) -> bool {
    let read = read.and_then(|bytes| bytes.ok_or_else(|| "it is not there".to_owned().into()));
    match read {
        Ok(bytes) => {
            ledger.count("reads verified", 1);
            ledger.count("bytes verified", bytes);
            return true;
        }
        Err(Trouble::Wrong(what)) => ledger.fault(format!("{cache} {item:?}: wrong: {what}")),
        Err(Trouble::Failed(why)) => {
            if ledger.was_up_since(began) && ledger.promised(cache, item) {
                ledger.fault(format!("{cache} {item:?}: {why}"));
            } else {
                ledger.count("reads broken by a kill or a deletion", 1);
                std::thread::sleep(PAUSE);
            }
        }
    }
    false
}

/// Reads one thing and compares it. `None` if it is not there, and nothing says that it were.
///
/// # Errors
/// If it could not be read, or is another.
pub(super) fn read_item(
    client: &Client,
    jobs: &Jobs,
    cache: &str,
    item: &Item,
    choice: u64,
) -> Result<Option<u64>, Trouble> {
    match item {
        Item::Path(seed) => read_path(client, cache, *seed, choice),
        Item::Image(seed, digest) => read_image(client, cache, *seed, digest),
        Item::Entry(save) => jobs.restore(cache, *save),
    }
}

/// The body of an answer that must be there.
///
/// # Errors
/// If it is not.
pub(super) fn whole(answer: Answer, what: &str) -> Result<Vec<u8>, Trouble> {
    match answer.status {
        200 => Ok(answer.body),
        status => Err(Trouble::Failed(format!(
            "{what}: {status}: {}",
            String::from_utf8_lossy(&answer.body).trim_end()
        ))),
    }
}

/// Reads a path's narinfo and its NAR, compressed or not. `None` if there is no narinfo: a narinfo without its NAR
/// is a failure (rule 4).
///
/// # Errors
/// If it could not be read, or is another.
fn read_path(
    client: &Client,
    cache: &str,
    seed: Seed,
    choice: u64,
) -> Result<Option<u64>, Trouble> {
    let path = seed.path();
    let narinfo = client.get(&format!("/{cache}/{}.narinfo", path.hash()))?;
    if narinfo.status == 404 {
        return Ok(None);
    }
    let text = whole(narinfo, "the narinfo")?;
    let narinfo = NarInfo::parse(&String::from_utf8_lossy(&text))
        .map_err(|error| Trouble::Wrong(error.to_string()))?;
    let sample = seed.sample();
    let same = narinfo.store_path == path
        && narinfo.nar_hash == Sha256::of(&sample.nar)
        && narinfo.nar_size == sample.nar.len() as u64
        && !narinfo.signatures.is_empty();
    if !same {
        return Err(Trouble::Wrong(format!("its narinfo is\n{narinfo}")));
    }
    let plain = choice.is_multiple_of(2);
    let url = match plain {
        true => format!("nar/{}.nar", narinfo.nar_hash.base32()),
        false => narinfo.url.clone(),
    };
    let body = whole(client.get(&format!("/{cache}/{url}"))?, &url)?;
    let nar = match narinfo.compression {
        Compression::Zstd if !plain => zstd::stream::decode_all(&body[..])
            .map_err(|error| Trouble::Wrong(format!("{url}: {error}")))?,
        // Xz is for the real Nix: here its bytes count, and the plain form is compared.
        Compression::Xz if !plain => return read_path(client, cache, seed, 0),
        _ => body,
    };
    match nar == sample.nar {
        true => Ok(Some(nar.len() as u64)),
        false => Err(Trouble::Wrong(format!("{url}: {} bytes differ", nar.len()))),
    }
}

fn read_image(
    client: &Client,
    cache: &str,
    seed: Seed,
    digest: &str,
) -> Result<Option<u64>, Trouble> {
    let answer = client.get(&format!("/v2/{cache}/app/manifests/{digest}"))?;
    if answer.status == 404 {
        return Ok(None);
    }
    let manifest = whole(answer, "the manifest")?;
    if format!("sha256:{}", Sha256::of(&manifest).hex()) != digest {
        return Err(Trouble::Wrong("the manifest is another".to_owned()));
    }
    let layer = format!("sha256:{}", Sha256::of(&seed.sample().nar).hex());
    let blob = whole(
        client.get(&format!("/v2/{cache}/app/blobs/{layer}"))?,
        "the layer",
    )?;
    match blob == seed.sample().nar {
        true => Ok(Some(blob.len() as u64)),
        false => Err(Trouble::Wrong("the layer is another".to_owned())),
    }
}
