//! Whatever the order in which segments are taken in, and whatever merging, the same index comes of it.

use super::*;
use crate::shared::{SHARED_DOMAIN, union::Union};
use firn_chunks::segment::{BlobRecord, Covers, Record, Segment};
use firn_chunks::{ChunkId, ChunkList, ChunkRef, EncoderId, FrameRecord, pack::Placed};
use proptest::prelude::*;

const SEGMENTS: usize = 6;

/// Few names, so that records meet.
fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (0u8..3, 0u8..6, 0u64..3, 0u64..2).prop_map(|(pack, chunk, offset, length)| {
            Record::Pack {
                domain: SHARED_DOMAIN.into(),
                pack: format!("pack {pack}"),
                sealed_length: 1000 + length,
                frames: vec![placed(chunk, offset)],
            }
        }),
        (0u8..3, 0u16..3, 0u8..3).prop_map(|(list, flags, digest)| {
            Record::Blob(BlobRecord {
                domain: SHARED_DOMAIN.into(),
                flags: flags << 3,
                list: list_of(list),
                identity_sha256: [digest; 32],
                zstd_sha256: [digest; 32],
                zstd_length: u64::from(digest),
            })
        }),
        (0u8..3, 0u64..3, any::<bool>(), 0i64..2, 0u8..2).prop_map(
            |(key, sequence, deleted, at, value)| Record::Entry {
                cache: "main".into(),
                kind: 1,
                key: format!("key {key}"),
                value: vec![value],
                blobs: vec![[value; 32]],
                sequence,
                at,
                deleted,
            }
        ),
    ]
}

fn placed(chunk: u8, offset: u64) -> Placed {
    Placed {
        offset,
        record: FrameRecord {
            id: ChunkId([chunk; 32]),
            raw_length: 7,
            frame_length: 9,
            encoder: EncoderId::FOREIGN,
            flags: 0,
            checksum: u64::from(chunk),
        },
    }
}

fn list_of(chunk: u8) -> ChunkList {
    let id = ChunkId([chunk; 32]);
    ChunkList {
        chunks: vec![ChunkRef { id, raw_length: 7 }],
    }
}

fn taken(name: &str, records: Vec<Record>, covers: Vec<Covers>) -> Taken {
    let segment = Segment {
        writer: "test".into(),
        at: 1,
        records,
        covers,
        signed: None,
    };
    let preamble = firn_chunks::segment::Preamble {
        writer: &segment.writer,
        at: segment.at,
        covers: &segment.covers,
        key: None,
    };
    Taken {
        name: name.to_owned(),
        bytes: firn_chunks::segment::encode_with(&preamble, &segment.records),
        segment,
        signer: Signer::Nobody,
    }
}

/// All that the index would answer, as text.
fn dump(index: &Index) -> Vec<String> {
    let queries = [
        "SELECT name || ' ' || length FROM packs ORDER BY 1",
        "SELECT hex(chunk) || ' ' || name || ' ' || \"offset\" || ' ' || checksum
         FROM frames JOIN packs ON id = pack ORDER BY 1",
        "SELECT hex(id) || ' ' || flags || ' ' || hex(identity) || ' ' || zstd_length
         FROM blobs ORDER BY 1",
        "SELECT key || ' ' || sequence || ' ' || deleted || ' ' || at || ' ' || hex(value)
             || ' ' || hex(blobs) FROM entries ORDER BY 1",
    ];
    let rows = |connection: &Connection| {
        let mut all = Vec::new();
        for query in queries {
            let mut statement = connection.prepare(query)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            all.extend(rows.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(all)
    };
    index.read(rows).unwrap()
}

/// The index of segments that all come at once.
fn index_of(segments: &[Vec<Record>]) -> (tempfile::TempDir, Index) {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let all: Vec<Taken> = segments
        .iter()
        .enumerate()
        .map(|(number, records)| taken(&name(number), records.clone(), Vec::new()))
        .collect();
    index
        .take_in(&names(0..segments.len()), &all, &[], 1)
        .unwrap();
    (dir, index)
}

fn name(number: usize) -> String {
    format!("{number:016x}-x")
}

fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(name).collect()
}

fn union_of<'a>(segments: impl IntoIterator<Item = &'a Vec<Record>>) -> Vec<Record> {
    let mut union = Union::default();
    segments
        .into_iter()
        .for_each(|records| union.add(records.clone()));
    union.into_records()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn order_and_merging_change_nothing(
        records in prop::collection::vec((record(), 0..SEGMENTS), 0..40),
        order in Just((0..SEGMENTS).collect::<Vec<_>>()).prop_shuffle(),
        merged in prop::collection::vec(any::<bool>(), SEGMENTS),
    ) {
        let mut segments = vec![Vec::new(); SEGMENTS];
        for (record, segment) in records {
            segments[segment].push(record);
        }
        let expected = dump(&index_of(&segments).1);
        prop_assert_eq!(&dump(&index_of(&[union_of(&segments)]).1), &expected, "the union as a segment");

        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
        let mut listing = Vec::new();
        for number in order {
            listing.push(name(number));
            let one = [taken(&name(number), segments[number].clone(), Vec::new())];
            index.take_in(&listing, &one, &[], 1).unwrap();
        }
        prop_assert_eq!(&dump(&index), &expected, "one by one");

        // Some are merged, then they go; then all is merged, and the first merge goes.
        let chosen: Vec<usize> = (0..SEGMENTS).filter(|number| merged[*number]).collect();
        let covers = |names: Vec<String>| vec![Covers { segments: names, dropped: false }];
        let merge = union_of(chosen.iter().map(|number| &segments[*number]));
        let merge = taken("ffff000000000000-x", merge, covers(names(chosen.clone())));
        listing.push(merge.name.clone());
        index.take_in(&listing, &[merge], &[], 1).unwrap();
        prop_assert_eq!(&dump(&index), &expected, "merged");
        listing.retain(|name| chosen.iter().all(|number| *name != self::name(*number)));
        index.take_in(&listing, &[], &[], 1).unwrap();
        prop_assert_eq!(&dump(&index), &expected, "merged, and the others gone");
        let whole = taken("ffff000000000001-x", union_of(&segments), covers(listing.clone()));
        listing = vec![whole.name.clone()];
        index.take_in(&listing, &[whole], &[], 1).unwrap();
        prop_assert_eq!(&dump(&index), &expected, "all in one");
    }

    #[test]
    fn what_only_lost_segments_told_is_forgotten(
        records in prop::collection::vec((record(), 0..SEGMENTS), 0..40),
        lost in prop::collection::vec(any::<bool>(), SEGMENTS),
        compacted: bool,
    ) {
        let mut segments = vec![Vec::new(); SEGMENTS];
        for (record, segment) in records {
            segments[segment].push(record);
        }
        let (_dir, index) = index_of(&segments);
        let kept: Vec<usize> = (0..SEGMENTS).filter(|number| !lost[*number]).collect();
        let left: Vec<Vec<Record>> = kept.iter().map(|number| segments[*number].clone()).collect();
        if compacted {
            // A compaction covers all and leaves out what the lost ones told.
            let covers = vec![Covers { segments: names(0..SEGMENTS), dropped: true }];
            let whole = taken("ffff000000000001-x", union_of(&left), covers);
            let mut listing = names(0..SEGMENTS);
            listing.push(whole.name.clone());
            index.take_in(&listing, &[whole], &[], 1).unwrap();
        } else {
            index.take_in(&names(kept), &[], &[], 1).unwrap();
        }
        prop_assert_eq!(dump(&index), dump(&index_of(&left).1));
    }
}

/// The segment that covered another goes, and nothing covers that one any more.
#[test]
fn a_segment_that_comes_back_is_read_again() {
    let (_dir, index) = index_of(&[Vec::new()]);
    let covers = vec![Covers {
        segments: names([0]),
        dropped: false,
    }];
    let merge = taken("ffff000000000001-x", Vec::new(), covers);
    let both = [name(0), merge.name.clone()];
    assert!(!index.take_in(&both, &[merge], &[], 1).unwrap().again);
    assert_eq!(index.live().unwrap().len(), 1);
    assert!(index.take_in(&names([0]), &[], &[], 1).unwrap().again);
    assert!(!index.known().unwrap().contains(&name(0)));
}
