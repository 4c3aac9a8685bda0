use super::*;
use crate::{ChunkId, ChunkRef, EncoderId, FrameRecord};
use proptest::prelude::*;

fn placed() -> impl Strategy<Value = Placed> {
    let fields = (
        any::<[u8; 32]>(),
        0u64..1 << 40,
        0u32..1 << 20,
        0u32..1 << 20,
    );
    (fields, any::<(u32, u16, u64)>()).prop_map(
        |((id, offset, raw_length, frame_length), (encoder, flags, checksum))| Placed {
            offset,
            record: FrameRecord {
                id: ChunkId(id),
                raw_length,
                frame_length,
                encoder: EncoderId(encoder),
                flags,
                checksum,
            },
        },
    )
}

fn list() -> impl Strategy<Value = ChunkList> {
    prop::collection::vec(any::<([u8; 32], u32)>(), 0..5).prop_map(|chunks| ChunkList {
        chunks: chunks
            .into_iter()
            .map(|(id, raw_length)| ChunkRef {
                id: ChunkId(id),
                raw_length,
            })
            .collect(),
    })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..20)
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (".{0,9}", ".{0,9}", bytes(), any::<(i64, bool)>()).prop_map(
            |(name, domain, config, (at, deleted))| Record::Cache {
                name,
                domain,
                config,
                at,
                deleted
            }
        ),
        (
            ".{0,9}",
            ".{0,9}",
            any::<u64>(),
            prop::collection::vec(placed(), 0..5)
        )
            .prop_map(|(domain, pack, sealed_length, frames)| Record::Pack {
                domain,
                pack,
                sealed_length,
                frames
            }),
        (".{0,9}", any::<(u16, [u8; 32], [u8; 32], u64)>(), list()).prop_map(
            |(domain, (flags, identity_sha256, zstd_sha256, zstd_length), list)| {
                Record::Blob(BlobRecord {
                    domain,
                    flags,
                    list,
                    identity_sha256,
                    zstd_sha256,
                    zstd_length,
                })
            }
        ),
        (
            (".{0,9}", ".{0,9}", bytes()),
            prop::collection::vec(any::<[u8; 32]>(), 0..4),
            any::<(u16, u64, i64, bool)>()
        )
            .prop_map(
                |((cache, key, value), blobs, (kind, sequence, at, deleted))| {
                    Record::Entry {
                        cache,
                        kind,
                        key,
                        value,
                        blobs,
                        sequence,
                        at,
                        deleted,
                    }
                }
            ),
    ]
}

/// A segment with one section of these raw bytes.
fn segment_of(section: &[u8]) -> Vec<u8> {
    let empty = encode("w", 1, &[]);
    let mut out = empty[..empty.len() - 32].to_vec();
    put_section(&mut CCtx::create(), &mut Vec::new(), section, &mut out);
    seal(out)
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let checksum = blake3::hash(&out);
    out.extend_from_slice(checksum.as_bytes());
    out
}

#[test]
fn unknown_records_are_skipped_only_where_they_say_so() {
    let mut section = Vec::new();
    let known = Record::Cache {
        name: "main".into(),
        domain: "public".into(),
        config: vec![1],
        at: 5,
        deleted: false,
    };
    section.extend_from_slice(&(codec::SKIPPABLE | 77).to_le_bytes());
    codec::put_bytes(&mut section, b"from a later version");
    codec::put_record(&mut section, &known);
    assert_eq!(decode(&segment_of(&section)).unwrap().records, [known]);
    section[1] = 0;
    assert_eq!(
        decode(&segment_of(&section)).unwrap_err().to_string(),
        "malformed segment: record type 77 is not known"
    );
}

#[test]
fn many_records_take_several_sections() {
    let record = Record::Cache {
        name: "x".repeat(1 << 20),
        domain: String::new(),
        config: Vec::new(),
        at: 0,
        deleted: true,
    };
    let records = vec![record; 9];
    assert_eq!(decode(&encode("w", -1, &records)).unwrap().records, records);
}

#[test]
fn every_damaged_byte_is_noticed() {
    let good = encode("writer", 7, &[]);
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 4;
        assert!(decode(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn a_section_is_no_larger_than_it_says_and_is_bounded() {
    let good = segment_of(&[]);
    assert_eq!(decode(&good).unwrap().records, []);
    let start = encode("w", 1, &[]).len() - 32;
    let zeros = segment_of(&vec![0; 1 << 20]);
    for claimed in [0u32, 1, 1 << 21, u32::MAX] {
        let mut lying = zeros[..zeros.len() - 32].to_vec();
        lying[start..start + 4].copy_from_slice(&claimed.to_le_bytes());
        assert!(decode(&seal(lying)).is_err(), "{claimed}");
    }
}

proptest! {
    #[test]
    fn round_trip(writer in ".{0,20}", at: i64, records in prop::collection::vec(record(), 0..6)) {
        let decoded = decode(&encode(&writer, at, &records)).unwrap();
        let (covers, signed) = (Vec::new(), None);
        prop_assert_eq!(decoded, Segment { writer, at, records, covers, signed });
    }

    #[test]
    fn any_section_survives(section in prop::collection::vec(any::<u8>(), 0..200), kind in 1u16..5, typed: bool) {
        let mut section = section;
        if typed && section.len() >= 6 {
            let length = section.len() as u32 - 6;
            section[..2].copy_from_slice(&kind.to_le_bytes());
            section[2..6].copy_from_slice(&length.to_le_bytes());
        }
        let _ = decode(&segment_of(&section));
        let _ = decode(&section);
    }

    #[test]
    fn a_record_damaged_before_sealing_survives(records in prop::collection::vec(record(), 1..3), at: usize, value: u8) {
        let mut section = Vec::new();
        records.iter().for_each(|record| codec::put_record(&mut section, record));
        let at = at % section.len();
        section[at] = value;
        let _ = decode(&segment_of(&section));
    }
}

fn signing(covers: &[Covers], key: Option<&SecretKey>, records: &[Record]) -> Vec<u8> {
    let preamble = Preamble {
        writer: "w",
        at: 1,
        covers,
        key,
    };
    encode_with(&preamble, records)
}

#[test]
fn a_segment_tells_what_it_covers_and_who_signed_it() {
    let covers = [
        Covers {
            segments: vec!["a".into(), "b".into()],
            dropped: false,
        },
        Covers {
            segments: vec!["c".into()],
            dropped: true,
        },
    ];
    let (key, other) = (
        SecretKey::from_seed("k-1", [1; 32]),
        SecretKey::from_seed("k-1", [2; 32]),
    );
    let signed = decode(&signing(&covers, Some(&key), &[])).unwrap();
    assert_eq!(signed.covers, covers);
    let signature = signed.signed.unwrap();
    assert_eq!(signature.key_name(), "k-1");
    assert!(signature.by(&key.public()) && !signature.by(&other.public()));
    let unsigned = decode(&signing(&covers, None, &[])).unwrap();
    assert_eq!((unsigned.covers, unsigned.signed), (covers.to_vec(), None));
}

/// With the checksum made right again, the signature still is not.
#[test]
fn a_changed_byte_before_the_signature_is_noticed() {
    let key = SecretKey::from_seed("k-1", [1; 32]);
    let good = signing(&[], Some(&key), &[]);
    let section = encode("w", 1, &[]).len() - 32;
    for at in 0..section {
        let mut changed = good[..good.len() - 32].to_vec();
        changed[at] ^= 1;
        if let Ok(segment) = decode(&seal(changed)) {
            assert!(!segment.signed.unwrap().by(&key.public()), "byte {at}");
        }
    }
}

#[test]
fn nothing_unsigned_hides_beside_or_after_a_signature() {
    let key = SecretKey::from_seed("k-1", [1; 32]);
    let mut follows = signing(&[], Some(&key), &[]);
    follows.truncate(follows.len() - 32);
    let mut beside = Vec::new();
    let covers = Covers::default();
    codec::put_covers(&mut beside, &covers);
    put_section(&mut CCtx::create(), &mut Vec::new(), &beside, &mut follows);
    let refused = decode(&seal(follows)).unwrap_err();
    assert_eq!(refused.0, "something follows its signature", "after it");
    let signature = key.sign("anything");
    let mut before = beside.clone();
    codec::put_signature(&mut before, &signature);
    let mut after = Vec::new();
    codec::put_signature(&mut after, &signature);
    codec::put_covers(&mut after, &covers);
    for section in [before, after] {
        let refused = decode(&segment_of(&section)).unwrap_err();
        assert_eq!(refused.0, "its signature does not stand alone");
    }
}
