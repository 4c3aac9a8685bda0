//! A random workload on a recorded folder, and what it was promised at each moment.

use crate::support::{entry, frames, ingest, mixed, options, publication};
use firn_store::{
    CacheRow, CollectionOptions, EntryKind, NewEntry, Options, Publication, Session, Step, Store,
    StoreError,
};
use firn_testkit::power::{Event, Fault, Kind, Op, Random, Recorder, recorder_of};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

/// How long a lease lasts: short, so that collections find something.
const LEASE: Duration = Duration::from_millis(150);
const SESSION: Duration = Duration::from_secs(60);
/// How long what is staged lives: until somebody ends it.
const STAGED: Duration = Duration::from_secs(600);
/// A failed start is tried again, as a service's is.
const STARTS: usize = 60;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// An entry, and which value it gets; `None` is its deletion.
pub(crate) type Change = (EntryKind, String, Option<u64>);

/// What the workload tells beside what it does.
#[derive(Debug, Clone)]
pub(crate) enum Note {
    /// It asked for all of these, in one transaction.
    Asked(Vec<Change>),
    /// The changes of that note are promised.
    Promised(usize),
    /// A part of what is staged is promised: its name, and its bytes' seed.
    Part(String, String, u64),
    /// It asked for the end of what is staged.
    Ending(String),
    BackupBegun,
    /// The backup of that note is promised.
    BackupDone(usize),
    RebuildBegun,
    RebuildDone,
}

/// What was done, and what was said.
pub(crate) struct Record {
    pub(crate) root: PathBuf,
    pub(crate) events: Vec<Event>,
    pub(crate) notes: Vec<Note>,
    /// Steps that failed, as was asked for.
    pub(crate) failed: usize,
}

pub(crate) fn content(seed: u64) -> Vec<u8> {
    // Neighbours share their first half.
    [mixed(seed / 2, 50_000), mixed(seed + 7_000_000, 30_000)].concat()
}

pub(crate) fn power_options(dir: &Path) -> Options {
    Options {
        pack_bytes_target: 200 << 10,
        session_ttl: SESSION,
        lease: LEASE,
        ..options(dir)
    }
}

/// A folder in memory, if the machine has one: nothing is really synced here.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// Shows the steps of the store's own files to the recorder of their folder.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        firn_store::watch(Box::new(|step, run| match op(step) {
            (_, None) => run(),
            (op, Some(recorder)) => match step {
                // What was copied is known when it is there.
                Step::Copy(path) => recorder.step(op, run).and_then(|()| {
                    let bytes = std::fs::read(path)?;
                    let (path, offset) = ((*path).to_owned(), 0);
                    let write = Op::Write {
                        path,
                        offset,
                        bytes,
                    };
                    recorder.step(write, || Ok(()))
                }),
                _ => recorder.step(op, run),
            },
        }));
    });
}

fn op(step: &Step<'_>) -> (Op, Option<Arc<Recorder>>) {
    let own = |path: &Path| path.to_owned();
    let (path, op) = match step {
        Step::Create { path, truncate } => {
            let (path, truncate) = (own(path), *truncate);
            (path.clone(), Op::Create { path, truncate })
        }
        Step::Write {
            path,
            offset,
            parts,
        } => {
            let bytes = parts.iter().flat_map(|part| part.to_vec()).collect();
            let (path, offset) = (own(path), *offset);
            (
                path.clone(),
                Op::Write {
                    path,
                    offset,
                    bytes,
                },
            )
        }
        Step::Copy(path) => (own(path), Op::Length(own(path), 0)),
        Step::Length(path, length) => (own(path), Op::Length(own(path), *length)),
        Step::Sync(path) => (own(path), Op::Sync(own(path))),
        Step::Rename(from, to) => (own(from), Op::Rename(own(from), own(to))),
        Step::Link(from, to) => (own(from), Op::Link(own(from), own(to))),
        Step::Delete(path) => (own(path), Op::Delete(own(path))),
        Step::MakeFolder(path) => (own(path), Op::MakeFolder(own(path))),
        Step::SyncFolder(path) => (own(path), Op::SyncFolder(own(path))),
    };
    let recorder = recorder_of(&path);
    (op, recorder)
}

/// The fault of a workload: none in a third of them.
fn fault(random: &mut Random) -> Option<Fault> {
    let (kind, steps) = match random.below(6) {
        0 => (Kind::Write, 1500),
        1 | 2 => (Kind::Sync, 250),
        3 => (Kind::Name, 150),
        _ => return None,
    };
    Some(Fault {
        kind,
        at: random.below(steps),
        more: [0, 0, 2, 20][random.below(4)],
        errno: [EIO, ENOSPC][random.below(2)],
    })
}

/// Runs the workload of a seed.
pub(crate) fn live(seed: u64, steps: usize) -> Record {
    watch();
    let dir = folder();
    let mut random = Random(seed);
    let fault = fault(&mut random);
    let recorder = Recorder::start(dir.path(), fault);
    let mut life = Life::begin(dir.path(), recorder.clone(), random);
    for _ in 0..steps {
        life.step();
    }
    // One that fails leaves what the next start goes on from.
    let _ = life.store.close();
    let notes = std::mem::take(&mut life.notes);
    drop(life);
    let (events, failed) = recorder.stop();
    Record {
        root: dir.path().to_owned(),
        events,
        notes,
        failed,
    }
}

struct Life {
    root: PathBuf,
    recorder: Arc<Recorder>,
    random: Random,
    store: Store,
    cache: CacheRow,
    notes: Vec<Note>,
    seeds: u64,
    /// Narinfos that are there, as far as it knows.
    keys: Vec<String>,
}

fn open(options: &Options) -> (Store, CacheRow) {
    let mut last = None;
    for _ in 0..STARTS {
        let opened = Store::open(options.clone()).and_then(|store| {
            let cache = match store.cache("main")? {
                Some(cache) => cache,
                None => store.cache_create("main", "public", b"")?,
            };
            Ok((store, cache))
        });
        match opened {
            Ok(opened) => return opened,
            // A rebuild that failed between two names.
            Err(StoreError::DatabaseMissing(_)) => drop(Store::rebuild(options)),
            Err(error) => last = Some(error),
        }
    }
    panic!("the store does not start: {last:?}");
}

impl Life {
    fn begin(root: &Path, recorder: Arc<Recorder>, mut random: Random) -> Self {
        let options = Self::options(root, &mut random);
        let (store, cache) = open(&options);
        Self {
            root: root.to_owned(),
            recorder,
            random,
            store,
            cache,
            notes: Vec::new(),
            seeds: 0,
            keys: Vec::new(),
        }
    }

    fn options(root: &Path, random: &mut Random) -> Options {
        Options {
            segment_interval: Duration::from_millis(5 + random.below(60) as u64),
            ..power_options(&root.join("data"))
        }
    }

    fn note(&mut self, note: Note) -> usize {
        self.notes.push(note);
        let number = self.notes.len() - 1;
        self.recorder.note(number);
        number
    }

    /// A publication: asked for, and promised if it succeeds.
    fn publish(
        &mut self,
        session: Option<&Session>,
        entries: Vec<NewEntry>,
        changes: Vec<Change>,
    ) -> Result<(), StoreError> {
        let deleted = changes.iter().filter(|change| change.2.is_none());
        let new = Publication {
            deletions: deleted.map(|(kind, key, _)| (*kind, key.clone())).collect(),
            entries,
        };
        let asked = self.note(Note::Asked(changes));
        self.store.publish(session, self.cache.id, new)?;
        self.note(Note::Promised(asked));
        Ok(())
    }

    fn seed(&mut self) -> u64 {
        self.seeds += 1;
        self.seeds
    }

    /// One of the things that clients and a server's own threads do. That it fails is no fault here: what was not
    /// promised need not be.
    fn step(&mut self) {
        let _: Result<(), StoreError> = match self.random.below(20) {
            0..=3 => self.push_stream(),
            4..=7 => self.push_frames(),
            8..=10 => self.push_image(),
            11..=12 => self.save_parts(),
            13 => self.stage_only(),
            14..=15 => self.delete(),
            16..=17 => self.collect(),
            18 => self.backup(),
            _ => self.restart(),
        };
    }

    /// As `nix copy` does: a stream, a leased name, then what makes it visible.
    fn push_stream(&mut self) -> Result<(), StoreError> {
        let seed = self.seed();
        let key = seed.to_string();
        let session = self.store.session_open(&self.cache)?;
        let blob = ingest(&self.store, &session, &content(seed))?;
        let mut name = valued(EntryKind::NarAlias, &key, seed, &[blob.id]);
        name.lease = Some(LEASE);
        let leased = publication(vec![name.clone()]);
        self.store.publish(Some(&session), self.cache.id, leased)?;
        if self.random.below(6) == 0 {
            // Its narinfo never comes.
            return Ok(());
        }
        let mut narinfo = valued(EntryKind::Narinfo, &key, seed, &[blob.id]);
        narinfo.requires = vec![(EntryKind::NarAlias, key.clone())];
        name.lease = None;
        let changes = vec![
            (EntryKind::NarAlias, key.clone(), Some(seed)),
            (EntryKind::Narinfo, key.clone(), Some(seed)),
        ];
        self.publish(Some(&session), vec![name, narinfo], changes)?;
        self.keys.push(key);
        Ok(())
    }

    /// As `firn push` does; sometimes with a key that is there, which gets another value.
    fn push_frames(&mut self) -> Result<(), StoreError> {
        let seed = self.seed();
        let key = match self.random.below(3) {
            0 if !self.keys.is_empty() => self.keys[self.random.below(self.keys.len())].clone(),
            _ => seed.to_string(),
        };
        let bytes = content(seed);
        let pieces: Vec<Vec<u8>> = bytes.chunks(20_000).map(<[u8]>::to_vec).collect();
        let session = self.store.session_open(&self.cache)?;
        let (frames, list) = frames(&pieces, 1);
        let ids: Vec<_> = list.chunks.iter().map(|chunk| chunk.id).collect();
        self.store.pin(&session, &ids)?;
        self.store.put_frames(&session, frames)?;
        let verifier = self.store.verifier(&session, list);
        let blob = self.store.put_blob(&session, verifier)?;
        let entry = valued(EntryKind::Narinfo, &key, seed, &[blob.id]);
        let changes = vec![(EntryKind::Narinfo, key.clone(), Some(seed))];
        self.publish(Some(&session), vec![entry], changes)?;
        self.keys.push(key);
        self.store.session_close(&session.id)
    }

    /// Layers under leases, then a manifest and its tag in one.
    fn push_image(&mut self) -> Result<(), StoreError> {
        let seed = self.seed();
        let session = self.store.session_open(&self.cache)?;
        let mut layers = Vec::new();
        for layer in [seed, seed / 4] {
            let blob = ingest(&self.store, &session, &content(layer))?;
            let mut held = valued(
                EntryKind::RegistryBlob,
                &layer.to_string(),
                layer,
                &[blob.id],
            );
            held.lease = Some(LEASE);
            let leased = publication(vec![held]);
            self.store.publish(Some(&session), self.cache.id, leased)?;
            layers.push(blob.id);
        }
        let (manifest, tag) = (
            format!("app@{seed}"),
            format!("app:{}", self.random.below(3)),
        );
        let mut tagged = valued(EntryKind::Tag, &tag, seed, &[]);
        tagged.requires = vec![(EntryKind::Manifest, manifest.clone())];
        let changes = vec![
            (EntryKind::Manifest, manifest.clone(), Some(seed)),
            (EntryKind::Tag, tag, Some(seed)),
        ];
        let manifest = valued(EntryKind::Manifest, &manifest, seed, &layers);
        self.publish(Some(&session), vec![manifest, tagged], changes)
    }

    /// Parts in any order, promised one by one.
    fn stage(&mut self, seed: u64) -> Result<String, StoreError> {
        let bytes = content(seed);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let key = format!("staged {seed}");
        let staged = self.store.stage(&self.cache, "o", &key, b"", STAGED, 99)?;
        for (name, bytes) in [("b", second), ("a", first)] {
            let mut part = self.store.staged_part(&staged.id, STAGED)?;
            part.write(bytes)?;
            part.finish(name)?;
            self.note(Note::Part(staged.id.clone(), name.to_owned(), seed));
        }
        Ok(staged.id)
    }

    fn stage_only(&mut self) -> Result<(), StoreError> {
        let seed = self.seed();
        self.stage(seed).map(drop)
    }

    /// As an Actions client does: parts, a blob of them, what makes it visible, the end.
    fn save_parts(&mut self) -> Result<(), StoreError> {
        let seed = self.seed();
        let id = self.stage(seed)?;
        let session = self.store.session_open(&self.cache)?;
        let blob = ingest(&self.store, &session, &content(seed))?;
        let key = seed.to_string();
        let saved = valued(EntryKind::ActionsEntry, &key, seed, &[blob.id]);
        let changes = vec![(EntryKind::ActionsEntry, key, Some(seed))];
        self.publish(Some(&session), vec![saved], changes)?;
        self.note(Note::Ending(id.clone()));
        self.store.staged_end(&id)
    }

    fn delete(&mut self) -> Result<(), StoreError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let key = self.keys.swap_remove(self.random.below(self.keys.len()));
        let changes =
            [EntryKind::Narinfo, EntryKind::NarAlias].map(|kind| (kind, key.clone(), None));
        self.publish(None, Vec::new(), changes.to_vec())
    }

    fn collect(&mut self) -> Result<(), StoreError> {
        std::thread::sleep(LEASE);
        let options = CollectionOptions {
            grace: Duration::ZERO,
            dead_percent: [0, 20, 50][self.random.below(3)],
            dead_bytes_min: 0,
            compact_always: self.random.below(2) == 0,
            ..CollectionOptions::default()
        };
        self.store.collect(&options, &|_| true).map(drop)
    }

    fn backup(&mut self) -> Result<(), StoreError> {
        let begun = self.note(Note::BackupBegun);
        let link = self.random.below(2) == 0;
        Store::backup(&self.root.join("data"), &self.root.join("backup"), link)?;
        self.note(Note::BackupDone(begun));
        Ok(())
    }

    /// Closed and opened again, sometimes with a new database.
    fn restart(&mut self) -> Result<(), StoreError> {
        // Segments may lack the last minute of a store that was not closed, and so does a rebuild.
        let closed = self.store.close().is_ok();
        let options = Self::options(&self.root, &mut self.random);
        let rebuild = self.random.below(2) == 0 && closed;
        // The last clone of the store holds the folder: it goes when the next one takes its place.
        let elsewhere = folder();
        self.store = Store::open(power_options(elsewhere.path()))?;
        if rebuild {
            self.note(Note::RebuildBegun);
            let _ = Store::rebuild(&options);
        }
        (self.store, self.cache) = open(&options);
        if rebuild {
            self.note(Note::RebuildDone);
        }
        Ok(())
    }
}

pub(crate) fn valued(
    kind: EntryKind,
    key: &str,
    seed: u64,
    blobs: &[firn_store::BlobId],
) -> NewEntry {
    NewEntry {
        kind,
        value: seed.to_string().into(),
        ..entry(key, blobs)
    }
}
