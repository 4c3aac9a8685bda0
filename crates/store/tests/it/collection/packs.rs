//! Packs rewritten and deleted.

use super::*;

/// A pack of 40 chunks, of which one in ten lives.
fn mostly_dead() -> Fixture {
    let mut fixture = unleased();
    for seed in 0..40_u64 {
        fixture.put(&seed.to_string(), &[seed]);
    }
    fixture.unpin();
    (0..40_u64)
        .filter(|seed| seed % 10 != 0)
        .for_each(|seed| fixture.delete(&seed.to_string()));
    fixture
}

#[test]
fn a_pack_that_is_mostly_dead_is_rewritten_and_the_folder_returns_to_what_is_live() {
    let fixture = mostly_dead();
    let digests: Vec<_> = (0..4).map(|n| fixture.digest(n * 10)).collect();
    let before = fixture.pack_bytes();
    let report = collect(&fixture.store);
    assert_eq!(
        (report.packs_rewritten, report.packs_deleted),
        (1, 1),
        "{report:?}"
    );
    let live = fixture.store.stats().unwrap().chunk_stored_bytes;
    let after = fixture.pack_bytes();
    assert!(after < before / 5, "{after} of {before}");
    assert!(after - live < 1000, "{after} for {live}");
    for n in 0..4 {
        fixture.check(&(n * 10).to_string(), &[n * 10]);
        assert_eq!(fixture.digest(n * 10), digests[n as usize]);
    }
    // There is nothing to do a second time.
    let report = collect(&fixture.store);
    assert_eq!((report.packs_rewritten, report.packs_deleted), (0, 0));
}

impl Fixture {
    fn digest(&self, seed: u64) -> (firn_formats::Sha256, u64) {
        let key = seed.to_string();
        let entry = self.store.entry(self.cache.id, EntryKind::Narinfo, &key);
        let blob = self
            .store
            .blob(entry.unwrap().unwrap().blobs[0])
            .unwrap()
            .unwrap();
        (blob.zstd_sha256, blob.zstd_length)
    }
}

#[test]
fn rule_9_readers_finish_what_they_began_and_later_ones_find_the_new_place() {
    let fixture = mostly_dead();
    let entry = fixture
        .store
        .entry(fixture.cache.id, EntryKind::Narinfo, "0")
        .unwrap();
    let blob = entry.unwrap().blobs[0];
    // One that has begun, and a layout that is remembered.
    let mut reader = fixture
        .store
        .read(blob, Representation::Identity, None)
        .unwrap();
    let report = collect(&fixture.store);
    assert_eq!((report.packs_rewritten, report.packs_deleted), (1, 1));
    let mut out = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        out.extend_from_slice(&block);
    }
    assert!(out == content(&[0]));
    fixture.check("0", &[0]);
}

#[test]
fn rule_7_a_pack_waits_for_its_grace() {
    let fixture = mostly_dead();
    let patient = CollectionOptions {
        grace: Duration::from_millis(1500),
        ..eager()
    };
    let report = fixture.store.collect(&patient, &|_| true).unwrap();
    assert_eq!(
        (report.packs_rewritten, report.packs_waiting),
        (1, 1),
        "{report:?}"
    );
    assert_eq!(report.packs_deleted, 0);
    assert_eq!(pack_files(fixture.dir.path()).len(), 2);
    fixture.check("0", &[0]);
    std::thread::sleep(Duration::from_millis(1600));
    let report = fixture.store.collect(&patient, &|_| true).unwrap();
    assert_eq!(
        (report.packs_deleted, report.packs_waiting),
        (1, 0),
        "{report:?}"
    );
    assert_eq!(pack_files(fixture.dir.path()).len(), 1);
    fixture.check("0", &[0]);
}

#[test]
fn a_delete_that_comes_after_the_same_content_was_sent_again_takes_nothing() {
    let mut fixture = unleased();
    fixture.put("1", &[1, 2, 3]);
    fixture.unpin();
    fixture.delete("1");
    let old = pack_files(fixture.dir.path());
    // It stops right before the file is deleted, and the same content comes back.
    let at_file = |step| step != firn_store::CollectionStep::DeleteFile;
    assert!(fixture.store.collect(&eager(), &at_file).unwrap().stopped);
    assert_eq!(pack_files(fixture.dir.path()), old);
    fixture.put("1", &[1, 2, 3]);
    fixture.unpin();
    let report = collect(&fixture.store);
    assert_eq!(report.packs_deleted, 1);
    assert!(!old[0].exists());
    fixture.check("1", &[1, 2, 3]);
    assert_eq!(fixture.count("chunks"), 3);
}

#[test]
fn a_pack_with_a_damaged_frame_is_left_as_it_is() {
    let fixture = mostly_dead();
    // Sealed, so that it is not written to.
    fixture.store.close().unwrap();
    let pack = pack_files(fixture.dir.path()).remove(0);
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let mut options = crate::support::options(fixture.dir.path());
    options.lease = Duration::ZERO;
    let dir = &fixture.dir;
    let (cache, store) = (fixture.cache.clone(), fixture.store);
    drop(store);
    let store = Store::open(options).unwrap();
    let report = store.collect(&eager(), &|_| true).unwrap();
    assert_eq!(
        (report.packs_damaged, report.packs_rewritten),
        (1, 0),
        "{report:?}"
    );
    assert_eq!(report.packs_deleted, 0);
    assert!(pack.starts_with(dir.path()) && pack.exists());
    check(&store, cache.id, "30", &[30]);
}
