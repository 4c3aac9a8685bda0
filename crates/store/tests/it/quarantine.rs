//! Damaged chunks: out of the readers' way, and whole again when they are sent again.

use crate::support::{Fixture, frames, mixed, noise, read_all};
use firn_store::{BlobInfo, Change, DataOptions, EntryKind, Representation, StoreError};
use firn_testkit::damage::{flip_bits, packs};

/// Reads what can be read; what comes out must be right.
fn try_read(fixture: &Fixture, blob: &BlobInfo, content: &[u8]) -> bool {
    match read_all(&fixture.store, blob.id, Representation::Identity, None) {
        Ok(read) => {
            assert!(read == content, "a corrupt byte in a complete response");
            true
        }
        Err(_) => false,
    }
}

fn scrub(fixture: &Fixture) -> u64 {
    let options = DataOptions::default();
    let progress = fixture.store.scrub(&options, &mut |_| true).unwrap();
    assert!(progress.complete);
    progress.chunks_damaged
}

/// Test 9: one bit in each of 500 chunks.
#[test]
fn test_9_bit_rot_is_never_served_found_by_a_scrub_and_healed_by_a_second_push() {
    let fixture = Fixture::new();
    let contents: Vec<Vec<u8>> = (0..40).map(|seed| mixed(seed + 1, 1_200_000)).collect();
    let blobs: Vec<BlobInfo> = contents
        .iter()
        .map(|content| fixture.ingest(content).unwrap())
        .collect();
    for (index, blob) in blobs.iter().enumerate() {
        fixture.publish(&format!("path{index}"), &[blob.id]);
    }
    let chunks = fixture.store.stats().unwrap().chunks;
    assert!(chunks > 520, "{chunks} chunks are too few");
    assert_eq!(flip_bits(fixture.dir.path(), 500), 500);

    // Readers meet some of it; none gets a wrong byte to its end.
    let whole = blobs
        .iter()
        .zip(&contents)
        .filter(|(blob, content)| try_read(&fixture, blob, content))
        .count();
    assert!(whole < blobs.len());
    fixture.store.settle();
    let met = fixture.store.damaged(None, 1000).unwrap();
    assert!(!met.is_empty() && met.iter().all(|chunk| chunk.found_by == "reader"));

    let found = scrub(&fixture);
    assert_eq!(met.len() as u64 + found, 500);
    assert_eq!(fixture.store.damaged(None, 1000).unwrap().len(), 500);
    assert_eq!(
        scrub(&fixture),
        0,
        "what is in quarantine is not found twice"
    );

    // Rules 4 and 9: what cannot be served is not there.
    for (index, (blob, content)) in blobs.iter().zip(&contents).enumerate() {
        let key = format!("path{index}");
        let entry = fixture
            .store
            .entry(fixture.cache.id, EntryKind::Narinfo, &key);
        let present = fixture
            .store
            .entries_present(fixture.cache.id, EntryKind::Narinfo, &[&key]);
        let there = entry.unwrap().is_some();
        assert_eq!(present.unwrap(), [there]);
        assert_eq!(try_read(&fixture, blob, content), there);
    }

    for (blob, content) in blobs.iter().zip(&contents) {
        let again = fixture.ingest(content).unwrap();
        assert_eq!(
            &again, blob,
            "a healed blob is the same in all representations"
        );
        assert!(try_read(&fixture, blob, content));
    }
    assert!(fixture.store.damaged(None, 1000).unwrap().is_empty());
    assert_eq!(scrub(&fixture), 0);
    for index in 0..blobs.len() {
        let key = format!("path{index}");
        let entry = fixture
            .store
            .entry(fixture.cache.id, EntryKind::Narinfo, &key);
        assert!(
            entry.unwrap().is_some(),
            "healing makes visible what was hidden"
        );
    }
}

/// Two blobs share a chunk, whose frame is lost; another encoder's takes its place.
#[test]
fn a_frame_of_another_encoder_gives_blobs_a_new_zstd_representation() {
    let fixture = Fixture::new();
    let pieces = [noise(1, 60_000), vec![b'x'; 100_000], noise(2, 60_000)];
    let (mut stored, list) = frames(&pieces, 2);
    // One that no level of this library makes: with a checksum of zstd's.
    stored[1] = foreign(list.chunks[1].id, &pieces[1]);
    fixture.store.put_frames(&fixture.session, stored).unwrap();
    let verifier = fixture.store.verifier(&fixture.session, list.clone());
    let before = fixture.store.put_blob(&fixture.session, verifier).unwrap();
    fixture.publish("path", &[before.id]);
    fixture.store.on_remade(|entry, before, after| {
        assert_eq!(before.id, after.id);
        match entry.kind {
            EntryKind::Narinfo => Change::Value(after.zstd_sha256.hex().into()),
            _ => Change::Keep,
        }
    });
    assert_eq!(flip_bits(fixture.dir.path(), 2), 2);
    assert_eq!(scrub(&fixture), 2);
    let missing = {
        let ids: Vec<_> = list.chunks.iter().map(|chunk| chunk.id).collect();
        fixture.store.pin(&fixture.session, &ids).unwrap()
    };
    assert_eq!(missing, [true, true, false]);
    let read = read_all(&fixture.store, before.id, Representation::Zstd, None);
    assert!(
        matches!(read, Err(StoreError::MissingChunks(_))),
        "{read:?}"
    );

    // The same encoder at another level: the lost frame is made again out of it.
    let (other, _) = frames(&pieces[..1], 9);
    fixture.store.put_frames(&fixture.session, other).unwrap();
    let same = fixture.store.damaged(None, 10).unwrap();
    assert_eq!(same.len(), 1);
    // What takes the place of the foreign frame is another one.
    let (other, _) = frames(&pieces[1..2], 2);
    fixture.store.put_frames(&fixture.session, other).unwrap();
    fixture.store.settle();

    let after = fixture.store.blob(before.id).unwrap().unwrap();
    assert_ne!(after.zstd_sha256, before.zstd_sha256);
    assert_eq!(after.identity_sha256, before.identity_sha256);
    let entry = fixture
        .store
        .entry(fixture.cache.id, EntryKind::Narinfo, "path")
        .unwrap()
        .unwrap();
    assert_eq!(entry.value, after.zstd_sha256.hex().as_bytes());
    let zstd = read_all(&fixture.store, after.id, Representation::Zstd, None).unwrap();
    assert_eq!(firn_formats::Sha256::of(&zstd), after.zstd_sha256);
    let identity = read_all(&fixture.store, after.id, Representation::Identity, None);
    assert!(identity.unwrap() == pieces.concat());

    // A rebuild believes the later digest.
    let options = crate::support::options(fixture.dir.path());
    drop(fixture.store);
    firn_store::Store::rebuild(&options).unwrap();
    let store = firn_store::Store::open(options).unwrap();
    let found = store.blob_by_digest(fixture.cache.domain, &after.zstd_sha256);
    assert!(found.unwrap().is_some());
}

fn foreign(id: firn_chunks::ChunkId, raw: &[u8]) -> firn_chunks::VerifiedFrame {
    let frame = zstd_frame(raw);
    let mut out = Vec::new();
    let verified = firn_chunks::Decoder::new().verify(id, frame.into(), &mut out);
    verified.unwrap()
}

fn zstd_frame(raw: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = std::process::Command::new("zstd")
        .args([
            "-q",
            "-c",
            "--check",
            &format!("--stream-size={}", raw.len()),
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("this test needs the zstd program");
    child.stdin.take().unwrap().write_all(raw).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[test]
fn a_rotten_chunk_that_counts_as_present_is_asked_for_by_the_push_that_meets_it() {
    let fixture = Fixture::new();
    let pieces = [noise(1, 60_000), noise(2, 60_000)];
    let (stored, _) = frames(&pieces[..1], 2);
    fixture.store.put_frames(&fixture.session, stored).unwrap();
    flip_bits(fixture.dir.path(), 1);
    let (fresh, list) = frames(&pieces, 2);
    fixture
        .store
        .put_frames(&fixture.session, fresh[1..].to_vec())
        .unwrap();
    let verifier = fixture.store.verifier(&fixture.session, list.clone());
    let made = fixture.store.put_blob(&fixture.session, verifier);
    let Err(StoreError::MissingChunks(missing)) = made else {
        panic!("{made:?}");
    };
    assert_eq!(missing, [list.chunks[0].id]);
    fixture.store.put_frames(&fixture.session, fresh).unwrap();
    let verifier = fixture.store.verifier(&fixture.session, list);
    fixture.store.put_blob(&fixture.session, verifier).unwrap();
}

#[test]
fn reading_data_stops_resumes_and_comes_in_parts() {
    let fixture = Fixture::with(|options| options.pack_bytes_target = 300_000);
    for seed in 0..12 {
        fixture.ingest(&noise(seed + 1, 400_000)).unwrap();
    }
    assert!(packs(fixture.dir.path()).len() >= 6);
    let all = fixture.store.stats().unwrap().chunk_stored_bytes;
    let read = |options: &DataOptions| fixture.store.scrub(options, &mut |_| true).unwrap();
    let parts: Vec<_> = (1..=3)
        .map(|part| DataOptions {
            part: (part, 3),
            ..DataOptions::default()
        })
        .map(|options| read(&options).bytes_read)
        .collect();
    assert!(parts.iter().all(|bytes| *bytes > 0), "{parts:?}");
    assert_eq!(parts.iter().sum::<u64>(), all);

    let some = DataOptions {
        bytes_max: Some(1),
        resume: true,
        ..DataOptions::default()
    };
    let (mut bytes, mut rounds) = (0, 0);
    loop {
        let progress = read(&some);
        bytes += progress.bytes_read;
        rounds += 1;
        assert_eq!(progress.bytes_done, bytes);
        if progress.complete {
            break;
        }
    }
    assert_eq!(bytes, all);
    assert!(rounds > 5, "{rounds}");

    let slow = DataOptions {
        bytes_per_second_max: Some(all * 4),
        ..DataOptions::default()
    };
    let began = std::time::Instant::now();
    read(&slow);
    assert!(began.elapsed().as_millis() > 200);
}
