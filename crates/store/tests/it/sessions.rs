//! Sessions, pins and verified blobs.

use crate::support::{Fixture, entry, frames, mixed, noise, publication, read_all};
use firn_chunks::{ChunkId, ChunkList};
use firn_formats::Sha256;
use firn_store::{FreshChunk, Observer, Representation, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn pieces(seed: u64, count: usize) -> Vec<Vec<u8>> {
    (0..count as u64)
        .map(|index| mixed(seed * 1000 + index, 1000 + 997 * index as usize))
        .collect()
}

#[test]
fn rule_10_an_expired_session_takes_no_frames_makes_no_blob_and_publishes_nothing() {
    let fixture = Fixture::with(|options| options.session_ttl = Duration::from_secs(4));
    let (some, list) = frames(&pieces(1, 3), 2);
    let store = &fixture.store;
    store.put_frames(&fixture.session, some.clone()).unwrap();
    std::thread::sleep(Duration::from_millis(4200));
    let gone = |error: Option<StoreError>| matches!(error, Some(StoreError::SessionGone(_)));
    let session = &fixture.session;
    assert!(gone(store.put_frames(session, some).err()));
    assert!(gone(store.pin(session, &[list.chunks[0].id]).err()));
    let verifier = store.verifier(session, list);
    assert!(gone(store.put_blob(session, verifier).err()));
    let nothing = publication(vec![entry("x", &[])]);
    assert!(gone(
        store
            .publish(Some(session), fixture.cache.id, nothing)
            .err()
    ));
    assert!(gone(store.session_touch(&session.id).err()));
}

#[test]
fn a_session_lives_by_its_heartbeats_and_a_closed_one_is_gone() {
    let fixture = Fixture::with(|options| options.session_ttl = Duration::from_secs(6));
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(1500));
        let touched = fixture.store.session_touch(&fixture.session.id).unwrap();
        assert!(touched.expires_in >= Duration::from_secs(3));
    }
    fixture.store.session_close(&fixture.session.id).unwrap();
    let touched = fixture.store.session_touch(&fixture.session.id);
    assert!(matches!(touched, Err(StoreError::SessionGone(_))));
    assert_eq!(fixture.store.stats().unwrap().sessions, 0);
}

#[test]
fn expired_sessions_and_their_pins_are_reaped() {
    let fixture = Fixture::with(|options| {
        options.session_ttl = Duration::from_secs(2);
        options.segment_interval = Duration::from_millis(200);
    });
    let (some, _) = frames(&pieces(2, 3), 2);
    fixture.store.put_frames(&fixture.session, some).unwrap();
    assert_eq!(fixture.store.stats().unwrap().sessions, 1);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while fixture.store.stats().unwrap().sessions > 0 {
        assert!(std::time::Instant::now() < deadline, "nobody reaped it");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn pin_tells_what_is_missing_in_the_domain_of_the_session_only() {
    let fixture = Fixture::new();
    let (some, list) = frames(&pieces(3, 4), 2);
    let ids: Vec<ChunkId> = list.chunks.iter().map(|chunk| chunk.id).collect();
    let put = fixture
        .store
        .put_frames(&fixture.session, some[..2].to_vec());
    assert_eq!(put.unwrap(), 2);
    let missing = fixture.store.pin(&fixture.session, &ids).unwrap();
    assert_eq!(missing, [false, false, true, true]);
    let private = fixture.store.cache_create("acme", "acme", b"").unwrap();
    let stranger = fixture.store.session_open(&private).unwrap();
    let missing = fixture.store.pin(&stranger, &ids).unwrap();
    assert_eq!(missing, [true; 4]);
    let verifier = fixture.store.verifier(&stranger, list);
    let blob = fixture.store.put_blob(&stranger, verifier);
    assert!(matches!(blob, Err(StoreError::MissingChunks(ids)) if ids.len() == 4));
}

#[test]
fn rule_2_a_blob_is_hashed_from_fresh_and_stored_frames_alike() {
    let fixture = Fixture::new();
    let content = pieces(4, 40);
    let (some, list) = frames(&content, 2);
    let raw: HashMap<ChunkId, Vec<u8>> = list
        .chunks
        .iter()
        .zip(&content)
        .map(|(chunk, raw)| (chunk.id, raw.clone()))
        .collect();
    let identity = content.concat();
    let zstd: Vec<u8> = some
        .iter()
        .flat_map(|frame| frame.frame().to_vec())
        .collect();
    let mut verifier = fixture.store.verifier(&fixture.session, list.clone());
    for (index, batch) in some.chunks(7).enumerate() {
        fixture
            .store
            .put_frames(&fixture.session, batch.to_vec())
            .unwrap();
        // Every other batch is found in the store only.
        let fresh = |id: &ChunkId| {
            let frame = batch.iter().find(|frame| frame.record().id == *id)?;
            (index % 2 == 0).then(|| FreshChunk {
                raw: &raw[id],
                frame,
            })
        };
        verifier.advance(&fresh).unwrap();
    }
    let blob = fixture.store.put_blob(&fixture.session, verifier).unwrap();
    assert_eq!(blob.identity_sha256, Sha256::of(&identity));
    assert_eq!(blob.identity_length, identity.len() as u64);
    assert_eq!(blob.zstd_sha256, Sha256::of(&zstd));
    assert_eq!(blob.zstd_length, zstd.len() as u64);
    let id = blob.id;
    assert!(read_all(&fixture.store, id, Representation::Zstd, None).unwrap() == zstd);
    assert!(read_all(&fixture.store, id, Representation::Identity, None).unwrap() == identity);
    assert_eq!(fixture.store.chunk_list(id).unwrap(), list);
    // Known now: answered without a look at the chunks.
    let again = fixture.store.verifier(&fixture.session, list);
    assert_eq!(
        fixture.store.put_blob(&fixture.session, again).unwrap(),
        blob
    );
}

#[test]
fn the_digest_is_of_the_frames_that_are_held_not_of_those_that_came_second() {
    let fixture = Fixture::new();
    let content = vec![mixed(5, 60_000)];
    let (first, list) = frames(&content, 1);
    let (second, _) = frames(&content, 9);
    assert_ne!(first[0].frame(), second[0].frame());
    let (store, session) = (&fixture.store, &fixture.session);
    assert_eq!(store.put_frames(session, first.clone()).unwrap(), 1);
    let mut verifier = store.verifier(session, list);
    let fresh = FreshChunk {
        raw: &content[0],
        frame: &second[0],
    };
    verifier.advance(&|_| Some(fresh)).unwrap();
    assert_eq!(store.put_frames(session, second).unwrap(), 0);
    let blob = store.put_blob(session, verifier).unwrap();
    assert_eq!(blob.zstd_sha256, Sha256::of(first[0].frame()));
}

#[test]
fn rule_2_a_blob_with_missing_chunks_or_wrong_lengths_is_refused() {
    let fixture = Fixture::new();
    let (some, list) = frames(&pieces(6, 5), 2);
    let (store, session) = (&fixture.store, &fixture.session);
    store.put_frames(session, some[..4].to_vec()).unwrap();
    let result = store.put_blob(session, store.verifier(session, list.clone()));
    assert!(matches!(result, Err(StoreError::MissingChunks(ids)) if ids == [list.chunks[4].id]));
    let mut lying = ChunkList {
        chunks: list.chunks[..4].to_vec(),
    };
    lying.chunks[2].raw_length += 1;
    let result = store.put_blob(session, store.verifier(session, lying));
    assert!(
        matches!(result, Err(StoreError::WrongList(_))),
        "{result:?}"
    );
    assert_eq!(store.stats().unwrap().blobs, 0);
}

#[test]
fn pinning_many_chunks_takes_little_time() {
    let fixture = Fixture::new();
    let content: Vec<Vec<u8>> = (0..15_000).map(|index| noise(index, 40)).collect();
    let (some, list) = frames(&content, 1);
    let ids: Vec<ChunkId> = list.chunks.iter().map(|chunk| chunk.id).collect();
    let put = fixture.store.put_frames(&fixture.session, some);
    assert_eq!(put.unwrap(), 15_000);
    let start = std::time::Instant::now();
    let missing = fixture.store.pin(&fixture.session, &ids).unwrap();
    eprintln!("pinning 15,000 chunks took {:?}", start.elapsed());
    assert!(missing.iter().all(|missing| !missing));
    // Generous: this is to catch a statement a chunk on the writer, not a busy machine.
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[derive(Default)]
struct Kept(Vec<u8>);

impl Observer for Kept {
    fn read(&mut self, raw: &[u8]) {
        self.0.extend_from_slice(raw);
    }
}

#[test]
fn an_observer_reads_every_byte_once_also_where_hashing_begins_again() {
    let fixture = Fixture::new();
    let (store, session) = (&fixture.store, &fixture.session);
    let content: Vec<Vec<u8>> = (0..5).map(|seed| mixed(40 + seed, 60_000)).collect();
    let (first, list) = frames(&content, 1);
    let (second, _) = frames(&content, 9);
    store.put_frames(session, first).unwrap();
    let kept = Arc::new(Mutex::new(Kept::default()));
    let mut verifier = store.verifier(session, list.clone());
    verifier.observe(kept.clone());
    // Frames that are not the ones held: in the end all is hashed anew.
    let fresh = |id: &ChunkId| {
        let index = list.chunks.iter().position(|chunk| chunk.id == *id)?;
        (index < 3).then(|| FreshChunk {
            raw: &content[index],
            frame: &second[index],
        })
    };
    verifier.advance(&fresh).unwrap();
    let blob = store.put_blob(session, verifier).unwrap();
    assert!(kept.lock().unwrap().0 == content.concat());

    assert!(!blob.nar);
    store.mark_nars(vec![blob.id]).unwrap();
    assert!(store.blob(blob.id).unwrap().unwrap().nar);
    // Of a known list nothing is read; what was found before is told.
    let kept = Arc::new(Mutex::new(Kept::default()));
    let mut verifier = store.verifier(session, list);
    verifier.observe(kept.clone());
    assert!(store.put_blob(session, verifier).unwrap().nar);
    assert!(kept.lock().unwrap().0.is_empty());
}
