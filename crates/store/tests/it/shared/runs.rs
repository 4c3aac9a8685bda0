//! Runs: checkpoints, what they refuse, and figures.

use super::{KIND, folder, has, place_in, write};
use firn_chunks::segment::{BlobRecord, Record, encode};
use firn_chunks::{EncoderId, FrameRecord, ListId, pack::Placed};
use firn_store::shared::{BLOB_FLAG_NO_ZSTD_DIGEST, SHARED_DOMAIN};
use firn_store::{EntryKind, StoreError};
use firn_testkit::noise;
use firn_testkit::shared_store::{Call, Client, FaultyBackend, frames, put, value_of};
use std::time::{Duration, Instant};

fn blob(list: &firn_chunks::ChunkList) -> BlobRecord {
    BlobRecord {
        domain: SHARED_DOMAIN.into(),
        flags: BLOB_FLAG_NO_ZSTD_DIGEST,
        list: list.clone(),
        identity_sha256: [7; 32],
        zstd_sha256: [0; 32],
        zstd_length: 0,
    }
}

#[test]
fn a_checkpoint_shows_what_is_whole_and_the_rest_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = (
        Client::new(&place_in(dir.path())),
        Client::new(&place_in(dir.path())),
    );
    let run = writer.run("test").unwrap();
    put(&run, KIND, "first").unwrap();
    let pieces = firn_testkit::shared_store::content("half");
    let (half, list) = frames(&pieces);
    run.add_frame(&half[0]).unwrap();
    run.add_blob(blob(&list)).unwrap();
    run.add_entry("main", KIND, "half", &value_of("half"), &[list.id()])
        .unwrap();
    run.checkpoint().unwrap();
    reader.refresh().unwrap();
    assert!(has(&reader, "first") && !has(&reader, "half"));
    half.iter().for_each(|frame| {
        run.add_frame(frame).unwrap();
    });
    put(&run, KIND, "second").unwrap();
    run.checkpoint().unwrap();
    reader.refresh().unwrap();
    assert!(has(&reader, "half") && has(&reader, "second"));
    put(&run, KIND, "third").unwrap();
    let report = run.publish().unwrap();
    reader.refresh().unwrap();
    assert!(has(&reader, "first") && has(&reader, "third"));
    // Four of each, and three that they share.
    assert_eq!(report.frames_new, 4 * 4 + 3, "{report:?}");
}

/// Rule 4.
#[test]
fn a_blob_with_a_missing_chunk_and_an_entry_of_no_blob_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(&place_in(dir.path()));
    let (made, list) = frames(&[noise(1, 100), noise(2, 100)]);
    let run = client.run("test").unwrap();
    run.add_frame(&made[0]).unwrap();
    run.add_blob(blob(&list)).unwrap();
    match run.publish() {
        Err(StoreError::MissingChunks(missing)) => assert_eq!(missing, [list.chunks[1].id]),
        other => panic!("{other:?}"),
    }
    let run = client.run("test").unwrap();
    run.add_entry("main", KIND, "a", b"", &[ListId([3; 32])])
        .unwrap();
    assert!(matches!(run.publish(), Err(StoreError::MissingEntry(_))));
    assert_eq!(client.refresh().unwrap().segments_total, 0);
}

/// Frames that lie in something else, such as an image's layer, are read from there.
#[test]
fn a_stored_pack_serves_what_lies_in_it() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(&place_in(dir.path()));
    let (made, list) = frames(&[noise(1, 5000), noise(2, 100)]);
    let glue = noise(9, 777);
    let mut file = tempfile::tempfile().unwrap();
    let mut bytes = glue.clone();
    let mut placed = Vec::new();
    for frame in &made {
        placed.push(Placed {
            offset: bytes.len() as u64,
            record: *frame.record(),
        });
        bytes.extend_from_slice(frame.frame());
        bytes.extend_from_slice(&glue);
    }
    file.write_all(&bytes).unwrap();
    let pack = client
        .backend()
        .put_pack(&file, bytes.len() as u64)
        .unwrap();
    let run = client.run("image").unwrap();
    run.add_stored_pack(pack, &placed).unwrap();
    run.publish().unwrap();

    let other = Client::new(&place_in(dir.path()));
    other.refresh().unwrap();
    let run = other.run("closure").unwrap();
    for frame in &made {
        assert!(!run.add_frame(frame).unwrap(), "it is there already");
    }
    run.add_blob(blob(&list)).unwrap();
    assert_eq!(run.publish().unwrap().packs, 0);
    let ids: Vec<_> = list.chunks.iter().map(|chunk| chunk.id).collect();
    let mut read = Vec::new();
    other
        .read_chunks(&ids, &mut |_, raw| {
            read.extend_from_slice(raw);
            Ok(())
        })
        .unwrap();
    assert!(read == [noise(1, 5000), noise(2, 100)].concat());
}

/// Two hundred jobs at once, none of which saw another's segment; and the one that merges them all.
#[test]
fn two_hundred_segments_are_read_and_merged_in_a_second() {
    const SEGMENTS: u64 = 200;
    const CHUNKS: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let backend = folder(dir.path());
    for segment in 0..SEGMENTS {
        let (records, _) = records_of(segment, CHUNKS);
        let bytes = encode("test", 1, &records);
        backend.publish(1000 + segment, &bytes, &[]).unwrap();
    }
    let client = Client::new(&place_in(dir.path()));
    let started = Instant::now();
    let refreshed = client.refresh().unwrap();
    let read = started.elapsed();
    assert_eq!(refreshed.segments_new, SEGMENTS);
    assert_eq!(
        client.entries("main", KIND, "").unwrap().len() as u64,
        SEGMENTS
    );
    let started = Instant::now();
    write(&client, EntryKind::CiKey, "another");
    let merged = started.elapsed();
    println!(
        "{SEGMENTS} segments with {CHUNKS} frames each: read in {read:?}, merged in {merged:?}"
    );
    // Generous, since tests run beside each other and not fully optimised.
    assert!(
        read + merged < Duration::from_secs(8),
        "{read:?}, {merged:?}"
    );
    let counting = FaultyBackend::new(folder(dir.path()));
    let reader = Client::on(counting.clone());
    reader.refresh().unwrap();
    assert!(counting.count(Call::Segment) <= 4);
    assert_eq!(
        reader.entries("main", KIND, "").unwrap().len() as u64,
        SEGMENTS
    );
}

/// What a run of so many chunks tells.
fn records_of(seed: u64, chunks: u64) -> (Vec<Record>, ListId) {
    let ids =
        (0..chunks).map(|chunk| firn_chunks::ChunkId::of(&(seed << 20 | chunk).to_le_bytes()));
    let frames: Vec<Placed> = ids
        .enumerate()
        .map(|(index, id)| Placed {
            offset: 24 + 20_000 * index as u64,
            record: FrameRecord {
                id,
                raw_length: 60_000,
                frame_length: 20_000,
                encoder: EncoderId::FOREIGN,
                flags: 0,
                checksum: seed ^ index as u64,
            },
        })
        .collect();
    let list = firn_chunks::ChunkList {
        chunks: frames
            .iter()
            .map(|placed| firn_chunks::ChunkRef {
                id: placed.record.id,
                raw_length: placed.record.raw_length,
            })
            .collect(),
    };
    let id = list.id();
    let records = vec![
        Record::Pack {
            domain: SHARED_DOMAIN.into(),
            pack: format!("{seed:032x}"),
            sealed_length: 3_000_000,
            frames,
        },
        Record::Blob(blob(&list)),
        Record::Entry {
            cache: "main".into(),
            kind: KIND as u16,
            key: format!("{seed:032}"),
            value: noise(seed, 600),
            blobs: vec![id.0],
            sequence: 5000 + seed,
            at: 1,
            deleted: false,
        },
    ];
    (records, id)
}
