//! A cache in a temporary folder, and paths made of nothing.

use firn_formats::Sha256;
use firn_formats::admin::{CacheConfigure, RootPin};
use firn_formats::nix::nar::Writer;
use firn_formats::nix::{Compression, NarInfo, StorePath, base32};
use firn_services::nix_cache::{HashText, hash_text};
use firn_services::{Cache, ServiceError, Services};
use firn_store::{EntryKind, Options, Store, TimeSources};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The clocks of a machine that is never started anew.
#[derive(Default)]
pub struct Machine {
    wall: Arc<AtomicI64>,
    boot: Arc<AtomicI64>,
}

impl Machine {
    pub fn new() -> Self {
        let machine = Self::default();
        // Some day of 2026.
        machine.step(20_500 * 24 * 3_600_000);
        machine
    }

    fn sources(&self) -> TimeSources {
        let (wall, boot) = (self.wall.clone(), self.boot.clone());
        TimeSources::new(
            move || wall.load(Ordering::SeqCst),
            move || boot.load(Ordering::SeqCst),
            1,
        )
    }

    /// Somebody sets the wall clock.
    pub fn step(&self, milliseconds: i64) {
        self.wall.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// Time passes.
    pub fn pass(&self, milliseconds: i64) {
        self.boot.fetch_add(milliseconds, Ordering::SeqCst);
        self.step(milliseconds);
    }
}

/// Services with the cache `main`. Leases end at once unless said otherwise.
pub struct Fixture {
    pub services: Services,
    folder: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with_lease(Duration::ZERO)
    }

    pub fn with_lease(lease: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let services = open(folder.path(), lease);
        Self { services, folder }
    }

    /// On a machine whose clocks go as they are told.
    pub fn on(machine: &Machine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path(), Duration::ZERO);
        let store = Store::open_with_time(options, machine.sources()).unwrap();
        let services = Services::open(store, folder.path()).unwrap();
        Self { services, folder }
    }

    /// Closes everything and opens it again.
    pub fn restarted(self) -> Self {
        let Self { services, folder } = self;
        services.store.close().unwrap();
        drop(services);
        let services = open(folder.path(), Duration::ZERO);
        Self { services, folder }
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Closes the store, makes its database anew from the segments, and opens it again.
    pub fn rebuilt(self) -> Self {
        let Self { services, folder } = self;
        services.store.close().unwrap();
        drop(services);
        Store::rebuild(&options(folder.path(), Duration::ZERO)).unwrap();
        let services = open(folder.path(), Duration::ZERO);
        Self { services, folder }
    }

    pub fn cache(&self) -> Arc<Cache> {
        let access = &self.services.access;
        let anyone = firn_services::Identity::Anonymous;
        access
            .authorize(&anyone, "main", firn_formats::admin::Right::Pull)
            .unwrap()
    }

    pub fn configure(&self, keep_for: Option<u64>, quota: Option<u64>) {
        let change = CacheConfigure {
            priority: None,
            keep_for_seconds: keep_for,
            quota_bytes: quota,
            ..CacheConfigure::default()
        };
        let cache = self.cache();
        self.services
            .access
            .cache_configure(&cache, &change)
            .unwrap();
        self.services.retention.reconfigured(&cache);
    }

    /// Publishes a path as `nix copy` does.
    pub fn push(&self, path: &Path) -> Result<(), ServiceError> {
        let nix = &self.services.nix_cache;
        let cache = self.cache();
        let name = path.narinfo.url.strip_prefix("nar/").unwrap();
        nix.put_nar(&cache, name, None, &mut path.nar.as_slice())?;
        let narinfo = path.narinfo.to_string();
        nix.put_narinfo(&cache, &path.hash(), None, &mut narinfo.as_bytes())?;
        Ok(())
    }

    /// As a client that reads the narinfo.
    pub fn pull(&self, path: &Path) -> bool {
        let nix = &self.services.nix_cache;
        nix.narinfo(&self.cache(), &path.hash()).unwrap().is_some()
    }

    pub fn has(&self, path: &Path) -> bool {
        let key = path.path.hash().to_string();
        let present =
            self.services
                .store
                .entries_present(self.cache().row.id, EntryKind::Narinfo, &[&key]);
        present.unwrap() == [true]
    }

    pub fn pin(&self, name: &str, path: &Path, keep: Option<u32>) -> Result<(), ServiceError> {
        let request = RootPin {
            name: name.to_owned(),
            path: Some(path.path.to_string()),
            image: None,
            keep,
        };
        let pinned = self.services.retention.pin(&self.cache(), &request);
        pinned.map(drop)
    }

    pub fn stored_bytes(&self) -> u64 {
        let usage = self.services.store.cache_usage(self.cache().row.id);
        usage.unwrap().stored_bytes
    }

    pub fn keys(&self, kind: EntryKind) -> Vec<String> {
        let entries = self
            .services
            .store
            .entries(self.cache().row.id, kind, "", None, 10_000);
        entries
            .unwrap()
            .into_iter()
            .map(|entry| entry.key)
            .collect()
    }

    /// Every narinfo's references are here, and its NAR can be read to the end.
    pub fn check_whole(&self, paths: &[Path]) {
        for path in paths.iter().filter(|path| self.has(path)) {
            let cache = self.cache();
            let nix = &self.services.nix_cache;
            let text = nix.narinfo(&cache, &path.hash()).unwrap().unwrap();
            let narinfo = NarInfo::parse(std::str::from_utf8(&text).unwrap()).unwrap();
            for reference in &narinfo.references {
                let found = paths.iter().find(|path| path.path == *reference).unwrap();
                assert!(self.has(found), "{} needs {reference}", path.path);
            }
            for url in [&narinfo.url, &path.narinfo.url] {
                let name = url.strip_prefix("nar/").unwrap();
                let source = nix.nar(&cache, name).unwrap();
                let source = source.unwrap_or_else(|| panic!("{} lacks {url}", path.path));
                let mut reader = self
                    .services
                    .store
                    .read(source.blob.id, firn_store::Representation::Identity, None)
                    .unwrap();
                let mut bytes = Vec::new();
                while let Some(block) = reader.next_block().unwrap() {
                    bytes.extend_from_slice(&block);
                }
                assert_eq!(bytes, path.nar);
            }
        }
    }
}

fn options(dir: &std::path::Path, lease: Duration) -> Options {
    Options {
        dir: dir.to_owned(),
        pack_bytes_target: 32 << 20,
        session_ttl: Duration::from_secs(600),
        lease,
        segment_interval: Duration::from_secs(3600),
        layout_cache_bytes: 1 << 20,
    }
}

pub fn open(dir: &std::path::Path, lease: Duration) -> Services {
    let store = Store::open(options(dir, lease)).unwrap();
    Services::open(store, dir).unwrap()
}

/// A path to push.
#[derive(Clone)]
pub struct Path {
    pub path: StorePath,
    pub nar: Vec<u8>,
    pub narinfo: NarInfo,
}

impl Path {
    /// A file of `size` bytes of noise.
    pub fn new(name: &str, size: usize, references: &[&StorePath]) -> Self {
        let digest = Sha256::of(name.as_bytes());
        let hash = base32::encode(&digest.0[..20]);
        let path = StorePath::parse_base_name(&format!("{hash}-{name}")).unwrap();
        let nar = nar(&noise(name, size));
        let digest = Sha256::of(&nar);
        let narinfo = NarInfo {
            store_path: path.clone(),
            url: format!("nar/{}.nar", digest.base32()),
            compression: Compression::None,
            file_hash: None,
            file_size: Some(nar.len() as u64),
            nar_hash: digest,
            nar_size: nar.len() as u64,
            references: references.iter().map(|&path| path.clone()).collect(),
            deriver: None,
            signatures: Vec::new(),
            ca: None,
        };
        Self { path, nar, narinfo }
    }

    pub fn hash(&self) -> HashText {
        hash_text(&self.path.hash().to_string()).unwrap()
    }
}

pub fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 32);
    let mut block = Sha256::of(seed.as_bytes());
    while out.len() < length {
        out.extend_from_slice(&block.0);
        block = Sha256::of(&block.0);
    }
    out.truncate(length);
    out
}

fn nar(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.file_begin(&mut out, false, content.len() as u64);
    out.extend_from_slice(content);
    writer.file_end(&mut out, content.len() as u64);
    out
}
