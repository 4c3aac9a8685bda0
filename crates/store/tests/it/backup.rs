//! Backups: what they keep when their source has lost it.

use crate::support::{Fixture, mixed, packs};
use firn_store::{BackupReport, BlobInfo, Replica, Store, StoreError};
use firn_testkit::damage::flip_bit;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

struct Kept {
    fixture: Fixture,
    folder: tempfile::TempDir,
    blobs: Vec<BlobInfo>,
}

impl Kept {
    fn new() -> Self {
        let fixture = Fixture::with(|options| options.pack_bytes_target = 1);
        let blobs: Vec<_> = (1..=3)
            .map(|seed| fixture.ingest(&mixed(seed, 60_000)).unwrap())
            .collect();
        for (index, blob) in blobs.iter().enumerate() {
            fixture.publish(&index.to_string(), &[blob.id]);
        }
        Self {
            fixture,
            folder: tempfile::tempdir().unwrap(),
            blobs,
        }
    }

    fn dest(&self) -> PathBuf {
        self.folder.path().join("backup")
    }

    fn source(&self) -> &Path {
        self.fixture.dir.path()
    }

    fn backup(&self) -> Result<BackupReport, StoreError> {
        Store::backup(self.source(), &self.dest(), false)
    }

    /// Heals all that is damaged from the backup; says how many were.
    fn repair(&self) -> (usize, u64) {
        let damaged = self.fixture.store.damaged(None, 1000).unwrap();
        let replica = Replica::open(&self.dest()).unwrap();
        let frames = damaged
            .iter()
            .filter_map(|chunk| replica.frame(&chunk.id).unwrap());
        let frames = frames.collect();
        (damaged.len(), self.fixture.store.heal(frames).unwrap())
    }

    fn scrub(&self) -> u64 {
        let options = firn_store::DataOptions::default();
        let scrubbed = self.fixture.store.scrub(&options, &mut |_| true);
        scrubbed.unwrap().chunks_damaged
    }
}

/// Found by a check or by the backup itself: the good copy stays until what was lost is healed.
#[test]
fn d2_the_backup_after_a_loss_keeps_the_good_copy() {
    let kept = Kept::new();
    assert_eq!(kept.backup().unwrap().packs_lost, 0);
    let before = packs(&kept.dest());
    assert!(before.len() >= 3);
    for pack in packs(kept.source()) {
        std::fs::remove_file(pack).unwrap();
    }
    // Nobody has noticed yet.
    let report = kept.backup().unwrap();
    assert_eq!(report.packs_deleted, 0);
    assert_eq!(report.packs_kept, before.len() as u64);
    assert_eq!(report.packs_lost, 0, "the backup has them");
    let explain = |_: &_, _: &_, _: &[BlobInfo]| firn_store::Meaning::default();
    let found = kept.fixture.store.check(None, &explain, &mut |_| true);
    assert!(found.unwrap().chunks_quarantined > 0);
    for _ in 0..2 {
        let report = kept.backup().unwrap();
        assert_eq!(report.packs_deleted, 0);
        assert_eq!(packs(&kept.dest()), before);
    }
    let (damaged, healed) = kept.repair();
    assert_eq!((damaged > 0, healed), (true, damaged as u64));
    assert_eq!(kept.fixture.store.damaged(None, 10).unwrap(), []);
    // Once all is whole, what is needed no more goes.
    let report = kept.backup().unwrap();
    assert_eq!(report.packs_deleted, before.len() as u64);
    for blob in &kept.blobs {
        let representation = firn_store::Representation::Zstd;
        crate::support::read_all(&kept.fixture.store, blob.id, representation, None).unwrap();
    }
}

#[test]
fn d2_a_pack_that_rotted_is_healed_from_the_backup_made_after_it_was_found() {
    let kept = Kept::new();
    kept.backup().unwrap();
    let mut flipped = 0;
    for pack in packs(kept.source()) {
        for (offset, length) in firn_testkit::damage::frames(&pack) {
            flip_bit(&pack, offset + length / 2);
            flipped += 1;
        }
    }
    assert_eq!(kept.scrub(), flipped);
    kept.backup().unwrap();
    let (damaged, healed) = kept.repair();
    assert_eq!((damaged as u64, healed), (flipped, flipped));
}

#[test]
fn d2_a_backup_of_packs_that_are_not_mounted_is_refused_and_changes_nothing() {
    let kept = Kept::new();
    kept.backup().unwrap();
    let before = crate::support::files(&kept.dest());
    std::fs::rename(kept.source().join("packs"), kept.source().join("aside")).unwrap();
    std::fs::create_dir(kept.source().join("packs")).unwrap();
    let refused = kept.backup();
    assert!(matches!(refused, Err(StoreError::Away(_))), "{refused:?}");
    assert_eq!(crate::support::files(&kept.dest()), before);
}

#[test]
fn d13_a_key_is_in_the_backup_at_every_moment() {
    let kept = Kept::new();
    let keys = kept.source().join("keys");
    std::fs::create_dir(&keys).unwrap();
    std::fs::write(keys.join("main.secret"), b"first").unwrap();
    kept.backup().unwrap();
    let (copy, done) = (kept.dest().join("keys/main.secret"), AtomicBool::new(false));
    let missed = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut missed = 0;
            while !done.load(Ordering::Relaxed) {
                missed += u32::from(!copy.exists());
            }
            missed
        });
        for _ in 0..40 {
            kept.backup().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    assert_eq!(missed, 0, "looks at which the key was not there");
    // Of the same length, and another.
    std::fs::write(keys.join("main.secret"), b"other").unwrap();
    kept.backup().unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), b"other");
}

#[test]
fn d13_staged_parts_are_copied_once_and_go_when_they_have_gone() {
    let kept = Kept::new();
    let store = &kept.fixture.store;
    let idle = std::time::Duration::from_secs(600);
    let cache = &kept.fixture.cache;
    let staged = store.stage(cache, "me", "key", b"", idle, 9).unwrap();
    let mut part = store.staged_part(&staged.id, idle).unwrap();
    part.write(&[7; 50_000]).unwrap();
    part.finish("a").unwrap();
    // What is under way is nobody's yet.
    let mut under_way = store.staged_part(&staged.id, idle).unwrap();
    under_way.write(b"half").unwrap();
    kept.backup().unwrap();
    let parts = || crate::support::files(&kept.dest().join("staged"));
    let [part] = parts().try_into().unwrap();
    let inode = std::fs::metadata(&part).unwrap().ino();
    kept.backup().unwrap();
    assert_eq!(std::fs::metadata(&part).unwrap().ino(), inode);
    drop(under_way);
    store.staged_end(&staged.id).unwrap();
    kept.backup().unwrap();
    assert_eq!(parts(), Vec::<PathBuf>::new());
}

#[test]
fn d13_keys_that_are_gone_go_and_a_folder_that_is_away_takes_nothing_with_it() {
    let kept = Kept::new();
    let keys = kept.source().join("keys");
    std::fs::create_dir(&keys).unwrap();
    for name in ["main.secret", "gone.secret"] {
        std::fs::write(keys.join(name), name).unwrap();
    }
    kept.backup().unwrap();
    std::fs::remove_file(keys.join("gone.secret")).unwrap();
    kept.backup().unwrap();
    let copies = || crate::support::files(&kept.dest().join("keys"));
    assert_eq!(copies(), [kept.dest().join("keys/main.secret")]);
    // Not mounted, or emptied by mistake.
    std::fs::remove_file(keys.join("main.secret")).unwrap();
    kept.backup().unwrap();
    assert_eq!(copies().len(), 1);
    std::fs::remove_dir(&keys).unwrap();
    kept.backup().unwrap();
    assert_eq!(copies().len(), 1);
    assert!(Store::open(crate::support::options(&kept.dest())).is_ok());
}
