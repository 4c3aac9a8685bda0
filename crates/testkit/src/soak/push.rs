//! Those who push: by `firn push`, by the real Nix, and by plain requests, with images and without.

use super::entry::{Jobs, Save};
use super::http::Client;
use super::ledger::{Item, Ledger};
use super::sample::{Random, Sample, Seed};
use crate::rigs::Release;
use crate::rigs::nix::Nix;
use crate::rigs::program::{Outcome, run};
use crate::rigs::serve::User;
use firn_formats::Sha256;
use firn_formats::nix::Compression;
use firn_formats::oci::media_type::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Paths pushed together: each refers to those before it.
const BATCH: u64 = 3;
/// How long to wait before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(60);

/// How somebody pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `firn push` from a Nix store of its own.
    Firn,
    /// `nix copy` of alternating ages.
    Nix,
    /// PUTs of NARs and narinfos.
    Requests,
    /// The same, and an image of each batch by the registry's protocol.
    RequestsAndImages,
    /// The same, and an entry of the Actions cache of each batch.
    RequestsAndEntries,
}

/// One who pushes, generation after generation, each into a cache of its own; old ones are deleted.
pub(super) struct Pusher {
    /// Its number.
    pub(super) index: usize,
    /// How.
    pub(super) way: Way,
    /// The run's seed.
    pub(super) run: u64,
    /// Batches in a generation.
    pub(super) batches: u64,
    /// Generations kept; none is ever deleted if zero.
    pub(super) keep: u64,
    /// Who gives out numbers.
    pub(super) numbers: Arc<AtomicU64>,
    /// What is promised.
    pub(super) ledger: Arc<Ledger>,
    /// With the right to do all this.
    pub(super) client: Client,
    /// Saves into the Actions cache.
    pub(super) jobs: Jobs,
    /// `http://…` of the server.
    pub(super) url: String,
    /// Its token.
    pub(super) token: String,
    /// The binary under test.
    pub(super) binary: String,
}

impl Pusher {
    /// Pushes until told to stop.
    pub(super) fn run(self) {
        for generation in 0.. {
            let cache = format!("soak-{}-{generation}", self.index);
            let made = self.insist(&format!("making {cache}"), || {
                let body = json!({"name": cache, "public": true}).to_string();
                let answer = self.client.send(
                    "POST",
                    "/api/v1/caches",
                    Some("application/json"),
                    body.as_bytes(),
                )?;
                // One that an answer was lost of is there.
                if answer.status == 409 {
                    Ok(())
                } else {
                    answer.taken("a cache")
                }
            });
            if !made {
                return;
            }
            for _ in 0..self.batches {
                if self.ledger.stopped() || !self.push_batch(&cache, generation) {
                    return;
                }
            }
            if self.keep > 0 && generation >= self.keep {
                self.delete(&format!("soak-{}-{}", self.index, generation - self.keep));
            }
        }
    }

    /// Tries until it is done; false if told to stop, or if the server failed without having been killed.
    fn insist(&self, what: &str, mut step: impl FnMut() -> Result<(), String>) -> bool {
        loop {
            let began = self.ledger.now();
            let Err(error) = step() else { return true };
            if self.ledger.was_up_since(began) {
                self.ledger.fault(format!("{what} failed: {error}"));
                return false;
            }
            self.ledger.count("failed while the server was down", 1);
            if self.ledger.stopped() {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn delete(&self, cache: &str) {
        self.ledger.forget_cache(cache);
        let gone = self.insist(&format!("deleting {cache}"), || {
            let path = format!("/api/v1/caches/{cache}");
            let answer = self.client.send("DELETE", &path, None, b"")?;
            if answer.status == 404 {
                Ok(())
            } else {
                answer.taken("a deletion")
            }
        });
        self.ledger.count("caches deleted", u64::from(gone));
    }

    fn push_batch(&self, cache: &str, generation: u64) -> bool {
        let first = self.numbers.fetch_add(BATCH, Ordering::SeqCst);
        let seeds: Vec<Seed> = (0..BATCH)
            .map(|depth| Seed {
                run: self.run,
                generation,
                number: first + depth,
                depth,
            })
            .collect();
        let samples: Vec<Sample> = seeds.iter().map(|seed| seed.sample()).collect();
        seeds
            .iter()
            .for_each(|seed| self.ledger.attempt(cache, Item::Path(*seed)));
        let what = format!("{:?} into {cache}", self.way);
        let pushed = match self.way {
            Way::Firn => self.push_from_store(&what, &samples, |store, root| {
                self.firn_push(store, cache, root)
            }),
            Way::Nix => self.push_from_store(&what, &samples, |store, root| {
                self.nix_copy(store, cache, root, first)
            }),
            Way::Requests | Way::RequestsAndImages | Way::RequestsAndEntries => {
                self.insist(&what, || self.put_all(cache, &samples))
            }
        };
        if !pushed {
            return false;
        }
        self.ledger
            .acknowledge(cache, seeds.iter().map(|seed| Item::Path(*seed)));
        let bytes: usize = samples.iter().map(|sample| sample.nar.len()).sum();
        self.ledger.count("paths pushed", BATCH);
        self.ledger.count("bytes pushed", bytes as u64);
        match self.way {
            Way::RequestsAndImages => self.push_image(cache, seeds[0], &samples[0]),
            Way::RequestsAndEntries => self.save_entry(cache, seeds[0]),
            Way::Firn | Way::Nix | Way::Requests => true,
        }
    }

    /// Puts the paths into a Nix store of their own and lets a real client push from there.
    #[allow(clippy::expect_used)]
    fn push_from_store(
        &self,
        what: &str,
        samples: &[Sample],
        mut push: impl FnMut(&Path, &str) -> Outcome,
    ) -> bool {
        let store = tempfile::tempdir().expect("a temporary folder");
        let mut exported: Vec<u8> = samples.iter().flat_map(Sample::exported).collect();
        exported.extend_from_slice(&[0; 8]);
        let file = store.path().join("exported");
        std::fs::write(&file, exported).expect("cannot write");
        let nix = Nix::new(Release::Bookworm);
        let input = std::fs::File::open(&file).expect("it was written");
        run(nix
            .command("nix-store")
            .arg("--store")
            .arg(store.path())
            .arg("--import")
            .stdin(input))
        .ok();
        let root = format!("/nix/store/{}", samples[samples.len() - 1].path);
        let pushed = self.insist(what, || {
            let outcome = push(store.path(), &root);
            match outcome.status.success() {
                true => Ok(()),
                false => Err(outcome.to_string()),
            }
        });
        // Nix makes its paths read-only; root removes them all the same.
        drop(store);
        pushed
    }

    fn firn_push(&self, store: &Path, cache: &str, root: &str) -> Outcome {
        let user = User::alone(&self.binary);
        run(user
            .command()
            .env("FIRN_SERVER", &self.url)
            .env("FIRN_TOKEN", &self.token)
            .env("NIX_STATE_DIR", store.join("nix/var/nix"))
            .env("NIX_STORE_DIR", store.join("nix/store"))
            .args(["push", "--cache", cache, root]))
    }

    fn nix_copy(&self, store: &Path, cache: &str, root: &str, number: u64) -> Outcome {
        let release = Release::ALL[(number / BATCH % 2) as usize];
        let nix = Nix::new(release);
        nix.netrc("127.0.0.1", &self.token);
        let compression = ["zstd", "none", "xz"][(number / BATCH % 3) as usize];
        let target = format!("{}/{cache}?compression={compression}", self.url);
        run(nix
            .command("nix")
            .args(["copy", "--to", &target, "--store"])
            .arg(store)
            .arg(root))
    }

    fn put_all(&self, cache: &str, samples: &[Sample]) -> Result<(), String> {
        for (index, sample) in samples.iter().enumerate() {
            let compression = match index % 2 {
                0 => Compression::Zstd,
                _ => Compression::None,
            };
            let (file, narinfo) = sample.upload(compression);
            self.client
                .put(&format!("/{cache}/{}", narinfo.url), None, &file)?;
            let hash = sample.path.hash();
            let text = narinfo.to_string();
            self.client
                .put(&format!("/{cache}/{hash}.narinfo"), None, text.as_bytes())?;
        }
        Ok(())
    }

    /// An image of one layer, the archive's bytes; the image before it is deleted.
    fn push_image(&self, cache: &str, seed: Seed, sample: &Sample) -> bool {
        let config = json!({"number": seed.number}).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest(&config), "size": config.len()},
            "layers": [{"mediaType": OCI_LAYER, "digest": digest(&sample.nar), "size": sample.nar.len()}],
        })
        .to_string()
        .into_bytes();
        let pushed = self.insist(&format!("an image into {cache}"), || {
            for blob in [&config, &sample.nar] {
                let path = format!("/v2/{cache}/app/blobs/uploads/?digest={}", digest(blob));
                let stream = Some("application/octet-stream");
                self.client
                    .send("POST", &path, stream, blob)?
                    .taken(&path)?;
            }
            let path = format!("/v2/{cache}/app/manifests/v{}", seed.number);
            self.client.put(&path, Some(OCI_MANIFEST), &manifest)
        });
        if pushed {
            let item = Item::Image(seed, digest(&manifest));
            self.ledger.acknowledge(cache, [item]);
            self.ledger.count("images pushed", 1);
        }
        pushed && self.delete_one(cache, seed)
    }

    /// An entry that holds the first path's archive; what is tried again gets a key of its own.
    fn save_entry(&self, cache: &str, seed: Seed) -> bool {
        let mut save = Save { seed, attempt: 0 };
        let saved = self.insist(&format!("an entry into {cache}"), || {
            save.attempt += 1;
            self.ledger.attempt(cache, Item::Entry(save));
            self.jobs.save(cache, save)
        });
        if saved {
            self.ledger.acknowledge(cache, [Item::Entry(save)]);
            self.ledger.count("Actions entries saved", 1);
        }
        saved && self.delete_one(cache, seed)
    }

    /// Every other image, and every other entry, goes again.
    fn delete_one(&self, cache: &str, seed: Seed) -> bool {
        let mut items: Vec<_> = self
            .ledger
            .all()
            .into_iter()
            .filter(|(of, item)| of == cache && !matches!(item, Item::Path(_)))
            .map(|(_, item)| item)
            .collect();
        let mut random = Random::new(seed.number);
        if self.keep == 0 || items.len() < 3 || random.below(2) == 0 {
            return true;
        }
        let item = items.swap_remove(random.below(items.len() as u64) as usize);
        self.ledger.forget(cache, &item);
        self.insist("deleting", || match &item {
            Item::Image(_, digest) => self.delete_image(cache, digest),
            Item::Entry(save) => self.jobs.delete(cache, *save),
            Item::Path(_) => Ok(()),
        })
    }

    fn delete_image(&self, cache: &str, digest: &str) -> Result<(), String> {
        let path = format!("/v2/{cache}/app/manifests/{digest}");
        let answer = self.client.send("DELETE", &path, None, b"")?;
        match answer.status {
            404 => Ok(()),
            _ => answer.taken(&path),
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::of(bytes).hex())
}
