//! An image's repository is a store of its closure: its layers are the packs of the files in them.

use firn_client::{
    credentials::Credential,
    http::Http,
    image::{CONNECTIONS, ImageReport, LayerTrust, RegistryPush, StoreBeside},
    local_store::LocalStore,
    progress::Silent,
    registry::Repository,
    resolve::resolve_all,
    storage::{
        SharedStore, StorageLocation, StoragePushReport, open_storage_with_cache, push_to_storage,
    },
};
use firn_formats::{
    Sha256,
    nix::{NarInfo, SecretKey},
    oci::{Digest, ImageConfig, Manifest, Reference},
    sha256::Sha256Hasher,
};
use firn_image::{
    closure::Closure,
    compose::{
        LAYER_KEY_ANNOTATION, LAYER_SIGNATURE_ANNOTATION, LayerBlob, layer_fingerprint, plan_image,
    },
    encode::Representation,
    spec::{ImageSpec, LayerCompression},
};
use firn_store::{EntryKind, shared::RunReport};
use firn_testkit::rigs::{
    self,
    ghcr::{Asked, Ghcr, Quirks, WRITER},
    registry::Registry,
};
use std::{path::Path, sync::Arc};

/// What a push that has nothing to send may send: questions.
const NEXT_TO_NOTHING: u64 = 16 << 10;

/// This machine's, and no memory of what was read of it.
fn local() -> LocalStore {
    LocalStore::new("/nix/var/nix", "/nix/store")
}

fn closure(of: &rigs::closure::Closure) -> Closure {
    let roots = resolve_all(std::slice::from_ref(&of.root)).expect("a root");
    local().closure(&roots).expect("a closure")
}

struct Place<'a> {
    address: &'a str,
    credentials: Option<&'a str>,
}

impl Place<'_> {
    fn credential(&self) -> Option<Credential> {
        let parse = |text| Credential::parse_basic(text).expect("credentials");
        self.credentials.map(parse)
    }

    fn store(&self, cache: &Path) -> SharedStore {
        let location = StorageLocation::parse(&format!("oci://{}/acme/app", self.address));
        let location = location.expect("a location");
        let store = open_storage_with_cache(&location, self.credential(), cache).expect("a store");
        store.refresh().expect("segments");
        store
    }

    fn image(&self, tag: &str, closure: &Closure, spec: ImageSpec, paths: bool) -> ImageReport {
        self.image_of(&LayerTrust::default(), tag, closure, spec, paths)
    }

    fn repository(&self, tag: &str) -> (Reference, Arc<Repository>) {
        let text = format!("{}/acme/app:{tag}", self.address);
        let reference = Reference::parse(&text).expect("a reference");
        let http = Http::new(CONNECTIONS).expect("http");
        let repository = Repository::of_reference(http, &reference, self.credential());
        let repository = Arc::new(repository.expect("a repository").for_pushing());
        (reference, repository)
    }

    fn image_of(
        &self,
        trust: &LayerTrust,
        tag: &str,
        closure: &Closure,
        spec: ImageSpec,
        paths: bool,
    ) -> ImageReport {
        let (reference, repository) = self.repository(tag);
        let image = plan_image(closure.clone(), spec).expect("a plan");
        let cache = tempfile::tempdir().expect("a folder");
        let beside = StoreBeside::open_with_cache(&repository, &reference, "main", cache.path())
            .expect("a store");
        RegistryPush {
            repository: &repository,
            reference: &reference,
            local: &local(),
            image: &image,
            beside: paths.then_some(&beside),
            trust,
        }
        .push(&Silent)
        .expect("an image")
    }

    fn push(&self, closure: &Closure, cache: &Path) -> (StoragePushReport, RunReport) {
        let store = self.store(cache);
        let run = store.run("a test").expect("a run");
        let pushed = push_to_storage(&store, &run, "main", &local(), closure, &[], &Silent);
        (pushed.expect("a push"), run.publish().expect("a segment"))
    }

    /// Reads the closure on a machine that has never seen it, and checks every NAR's hash.
    fn reads_back(&self, closure: &Closure) {
        let cache = tempfile::tempdir().expect("a folder");
        let store = self.store(cache.path());
        for info in &closure.paths {
            let key = info.path.hash().to_string();
            let entry = store.entry("main", EntryKind::Narinfo, &key).expect("read");
            let entry = entry.unwrap_or_else(|| panic!("{} is not there", info.path));
            let narinfo = NarInfo::parse(std::str::from_utf8(&entry.value).expect("text"));
            assert_eq!(narinfo.expect("a narinfo").nar_hash, info.nar_hash);
            let list = entry.blobs.first().expect("a chunk list");
            let blob = store.blob(list).expect("read").expect("a blob");
            let ids: Vec<_> = blob.list.chunks.iter().map(|chunk| chunk.id).collect();
            let mut hasher = Sha256Hasher::new();
            store
                .read_chunks(&ids, &mut |_, raw| {
                    hasher.update(raw);
                    Ok(())
                })
                .expect("chunks");
            assert_eq!(hasher.finish(), info.nar_hash, "{}", info.path);
        }
    }
}

fn layers() -> ImageSpec {
    ImageSpec {
        max_layers: 4,
        ..ImageSpec::default()
    }
}

fn sent(asked: &[Asked], what: impl Fn(&Asked) -> bool) -> Vec<u64> {
    asked
        .iter()
        .filter(|asked| asked.method == "PUT" && asked.status == 201 && what(asked))
        .map(|asked| asked.bytes)
        .collect()
}

#[test]
fn caching_a_pushed_image_costs_what_lies_between_the_files() {
    let ghcr = Ghcr::with(Quirks::calm());
    let place = Place {
        address: ghcr.address(),
        credentials: Some(WRITER),
    };
    let (first, second) = (
        closure(&rigs::closure::Closure::first()),
        closure(&rigs::closure::Closure::second()),
    );
    let cold = place.image("1", &first, layers(), true);
    assert_eq!(cold.layers_sent, cold.layers_total, "{cold:?}");
    assert_eq!(cold.layers_reused, 0, "{cold:?}");
    assert_eq!(cold.paths_pushed, first.paths.len() as u64, "{cold:?}");
    let asked = ghcr.asked();
    let uploads = sent(&asked, |asked| asked.path.contains("/blobs/uploads/"));
    let beyond = uploads.iter().sum::<u64>() - cold.bytes_total;
    // Headers and small files of the NARs, and the index of it all.
    assert!(beyond * 20 < cold.bytes_total, "{beyond} of {cold:?}");
    place.reads_back(&first);

    // Another machine has nothing to add, to the store or under another tag.
    let cache = tempfile::tempdir().expect("a folder");
    let (pushed, run) = place.push(&first, cache.path());
    assert_eq!(
        (pushed.paths_pushed, pushed.chunks_sent),
        (0, 0),
        "{pushed:?}"
    );
    assert_eq!(run.bytes_written, 0, "{run:?}");
    ghcr.asked();
    let other = place.image("2", &first, layers(), true);
    assert_eq!(other.layers_reused, other.layers_total, "{other:?}");
    assert!(other.bytes_sent < NEXT_TO_NOTHING, "{other:?}");
    let asked = ghcr.asked();
    assert!(
        sent(&asked, |asked| asked.path.contains("/blobs/")).is_empty(),
        "{asked:?}"
    );
    assert_eq!(
        sent(&asked, |asked| asked.path.contains("/manifests/2")).len(),
        1
    );

    // A new version brings its own layer, and a little for the store.
    let changed = place.image("2", &second, layers(), true);
    assert!((1..=2).contains(&changed.layers_sent), "{changed:?}");
    assert_eq!(changed.paths_pushed, 1, "{changed:?}");
    assert!(
        changed.bytes_sent * 2 < cold.bytes_sent,
        "{changed:?} {cold:?}"
    );
    place.reads_back(&second);
    place.reads_back(&first);
}

#[test]
fn an_image_pushed_without_its_paths_becomes_a_pack_later_and_is_not_sent_again() {
    let registry = Registry::start();
    let place = Place {
        address: registry.address(),
        credentials: None,
    };
    let closure = closure(&rigs::closure::Closure::first());
    let alone = place.image("1", &closure, layers(), false);
    assert_eq!(alone.paths_pushed, 0, "{alone:?}");
    let with_paths = place.image("1", &closure, layers(), true);
    assert_eq!(with_paths.layers_sent, 0, "{with_paths:?}");
    assert_eq!(with_paths.digest, alone.digest);
    assert_eq!(with_paths.paths_pushed, closure.paths.len() as u64);
    assert!(
        with_paths.bytes_sent * 20 < alone.bytes_sent,
        "{with_paths:?}"
    );
    place.reads_back(&closure);
}

#[test]
fn gzip_layers_are_known_by_key_and_their_paths_cached_apart() {
    let registry = Registry::start();
    let place = Place {
        address: registry.address(),
        credentials: None,
    };
    let closure = closure(&rigs::closure::Closure::first());
    let gzip = || ImageSpec {
        compression: LayerCompression::Gzip,
        ..layers()
    };
    let cold = place.image("1", &closure, gzip(), true);
    assert_eq!(cold.layers_sent, cold.layers_total, "{cold:?}");
    place.reads_back(&closure);
    let other = place.image("2", &closure, gzip(), true);
    assert_eq!(other.layers_sent, 0, "{other:?}");
    assert!(other.bytes_sent < NEXT_TO_NOTHING, "{other:?}");
    // In zstd these are other blobs.
    let zstd = place.image("3", &closure, layers(), true);
    assert_eq!(zstd.layers_sent, zstd.layers_total, "{zstd:?}");
}

#[test]
fn a_registry_that_fails_now_and_then_gets_the_image_all_the_same() {
    let ghcr = Ghcr::start();
    let place = Place {
        address: ghcr.address(),
        credentials: Some(WRITER),
    };
    let closure = closure(&rigs::closure::Closure::first());
    let cold = place.image("1", &closure, layers(), true);
    assert_eq!(cold.layers_sent, cold.layers_total, "{cold:?}");
    let asked = ghcr.asked();
    let dropped = asked.iter().filter(|asked| asked.status == 0).count();
    assert!(dropped > 0, "{asked:?}");
    let again = place.image("1", &closure, layers(), true);
    assert_eq!(again.layers_sent, 0, "{again:?}");
    place.reads_back(&closure);
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed("team-1", [seed; 32])
}

/// Whoever may push may write any digest beside a layer's key. It is taken from those only whose keys are trusted,
/// and what is not taken is made and compared, not sent again.
#[test]
fn a_strangers_word_on_a_layer_is_not_taken() {
    let registry = Registry::start();
    let place = Place {
        address: registry.address(),
        credentials: None,
    };
    let closure = closure(&rigs::closure::Closure::first());
    let writer = LayerTrust::new(Some(key(1)), Vec::new());
    let reader = LayerTrust::new(None, vec![key(1).public()]);
    let stranger = LayerTrust::new(Some(key(2)), Vec::new());
    let push = |trust: &LayerTrust| place.image_of(trust, "1", &closure, layers(), false);
    let first = push(&writer);
    assert_eq!(
        (first.layers_sent, first.layers_not_believed),
        (first.layers_total, 0)
    );
    // Those who trust the writer know all of it, and make the same image of it.
    for trust in [&writer, &reader] {
        let again = push(trust);
        assert_eq!(
            (again.layers_sent, again.layers_not_believed),
            (0, 0),
            "{again:?}"
        );
        assert_eq!(again.digest, first.digest);
    }
    // Another's key of the same name: everything is made, is there already, and is signed anew.
    let theirs = push(&stranger);
    assert_eq!(
        theirs.layers_not_believed, theirs.layers_total,
        "{theirs:?}"
    );
    assert_eq!(theirs.layers_sent, 0, "{theirs:?}");
    assert_ne!(theirs.digest, first.digest);

    // The right key, a wrong blob; with the writer's signature of the right one, and with a stranger's.
    push(&writer);
    for signed_by_stranger in [false, true] {
        let wrong = falsify(&place, signed_by_stranger.then(|| key(2)));
        let mended = push(&writer);
        assert_eq!(mended.layers_not_believed, 1, "{mended:?}");
        assert_eq!(mended.layers_sent, 0, "{mended:?}");
        assert_eq!(mended.digest, first.digest, "the wrong layer is not in it");
        assert_ne!(mended.digest, format!("sha256:{}", wrong.hex()));
    }
    // Without keys, whoever may push is believed.
    falsify(&place, None);
    assert_ne!(push(&LayerTrust::default()).digest, first.digest);
}

/// Puts another blob in the place of the first layer's; gives the manifest's hash.
fn falsify(place: &Place<'_>, signer: Option<SecretKey>) -> Sha256 {
    let (_, repository) = place.repository("1");
    let raw = repository.manifest("1").expect("read").expect("an image");
    let mut manifest: Manifest = serde_json::from_slice(&raw.bytes).expect("a manifest");
    let blob = b"not what the key says";
    let digest: Digest = Sha256::of(blob).into();
    repository.put_blob(&digest, blob).expect("a blob");
    let layer = manifest.layers.first_mut().expect("a layer");
    layer.digest = digest;
    layer.size = blob.len() as u64;
    if let Some(signer) = signer {
        let config = repository.blob(&manifest.config.digest).expect("a config");
        let config: ImageConfig = serde_json::from_slice(&config).expect("a config");
        let blob = LayerBlob {
            representation: Representation::Zstd,
            digest: layer.digest.clone(),
            size: layer.size,
            diff_id: config.rootfs.diff_ids[0].clone(),
            tar_size: 0,
        };
        let text = layer_fingerprint(&layer.annotations[LAYER_KEY_ANNOTATION], &blob);
        let signature = signer.sign(&text).to_string();
        layer
            .annotations
            .insert(LAYER_SIGNATURE_ANNOTATION.to_owned(), signature);
    }
    let bytes = serde_json::to_vec(&manifest).expect("json");
    repository
        .put_manifest("1", "application/vnd.oci.image.manifest.v1+json", &bytes)
        .expect("put");
    Sha256::of(&bytes)
}
