use super::*;
use proptest::prelude::*;

/// Bytes that no encoder shrinks, the same on every machine.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn text(length: usize) -> Vec<u8> {
    (0u32..)
        .flat_map(|line| {
            format!("line {line}: {}\n", line.wrapping_mul(2_654_435_761)).into_bytes()
        })
        .take(length)
        .collect()
}

/// A change here means that the zstd library's output changed: frames already stored stay
/// as they are, new ones differ; say so in the changelog before taking the new values.
#[test]
fn frames_are_golden() {
    let inputs = [
        Vec::new(),
        text(100),
        text(65_536),
        text(CHUNK_BYTES_MAX),
        noise(65_536),
    ];
    let mut actual = String::new();
    for level in [1, 2, 3] {
        let mut encoder = Encoder::new(level);
        for input in &inputs {
            let frame = encoder.encode(input);
            let hash = ChunkId::of(frame.frame()).to_string();
            actual += &format!(
                "{level} {} {} {}\n",
                input.len(),
                frame.frame().len(),
                &hash[..16]
            );
        }
    }
    assert_eq!(actual, include_str!("frame_golden.txt"));
}

#[test]
fn encoder_id_tells_version_and_level() {
    let id = EncoderId::this_build(2);
    assert_eq!(id.0 & 0xff, 130);
    assert_eq!(id.0 >> 8, zstd_safe::version_number());
    assert_eq!(Encoder::new(2).encode(b"x").record().encoder, id);
}

#[test]
fn noise_becomes_raw_blocks_with_little_overhead() {
    let raw = noise(CHUNK_BYTES_MAX);
    let frame = Encoder::new(2).encode(&raw);
    assert!(frame.frame().len() <= raw.len() + 64);
    assert_eq!(zstd_safe::compress_bound(CHUNK_BYTES_MAX), FRAME_BYTES_MAX);
}

#[test]
fn a_frame_of_raw_blocks_decodes() {
    for length in [0, 1, 255, 128 << 10, (128 << 10) + 1, CHUNK_BYTES_MAX] {
        let raw = noise(length);
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        store_raw(&raw, &mut frame);
        Decoder::new().decode(&frame, &mut out).unwrap();
        assert_eq!(out, raw);
    }
}

#[test]
fn header_has_the_size_and_no_checksum() {
    let frame = Encoder::new(2).encode(&text(5000));
    assert_eq!(content_length(frame.frame()), Ok(5000));
    assert_eq!(frame.frame()[4] & 0b100, 0, "no checksum of zstd's own");
}

#[test]
fn anything_but_one_frame_is_refused() {
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    let good = Encoder::new(2).encode(&text(5000)).frame().to_vec();
    let twice = [good.clone(), good.clone()].concat();
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
    let before = [&skippable[..], &good].concat();
    let after = [&good[..], &skippable].concat();
    let cut = &good[..good.len() - 1];
    for bad in [
        &twice[..],
        &before,
        &after,
        cut,
        &[],
        &good[..5],
        &skippable,
    ] {
        assert!(
            decoder.decode(bad, &mut out).is_err(),
            "{} bytes",
            bad.len()
        );
    }
    decoder.decode(&good, &mut out).unwrap();
    assert_eq!(out, text(5000));
}

#[test]
fn size_window_and_dictionary_are_bounded() {
    let header = |descriptor: u8, rest: &[u8]| {
        let mut frame = FRAME_MAGIC.to_le_bytes().to_vec();
        frame.push(descriptor);
        frame.extend_from_slice(rest);
        content_length(&frame)
    };
    let mut huge = u64::MAX.to_le_bytes().to_vec();
    assert_eq!(
        header(0b1110_0000, &huge),
        Err(FrameError::TooLarge { claimed: u64::MAX })
    );
    huge.fill(0);
    assert_eq!(header(0b1110_0000, &huge), Ok(0));
    assert!(
        matches!(header(0, &[0; 8]), Err(FrameError::Malformed(_))),
        "no content size"
    );
    assert!(
        matches!(header(0b1000_0001, &[0; 8]), Err(FrameError::Malformed(_))),
        "dictionary"
    );
    assert!(
        matches!(header(0b1000_1000, &[0; 8]), Err(FrameError::Malformed(_))),
        "reserved"
    );
    let eight_mib = 13 << 3;
    assert_eq!(header(0b1000_0000, &[eight_mib, 7, 0, 0, 0]), Ok(7));
    assert!(matches!(
        header(0b1000_0000, &[eight_mib + 1, 7, 0, 0, 0]),
        Err(FrameError::Malformed(_))
    ));
}

#[test]
fn verify_refuses_another_content() {
    let frame = Encoder::new(2).encode(b"one").frame().clone();
    let declared = ChunkId::of(b"two");
    let refused = Decoder::new().verify(declared, frame, &mut Vec::new());
    let actual = ChunkId::of(b"one");
    assert_eq!(
        refused.unwrap_err(),
        FrameError::WrongId { declared, actual }
    );
}

#[test]
fn verify_into_takes_exactly_the_declared_length() {
    let raw = text(5000);
    let frame = Encoder::new(2).encode(&raw).frame().clone();
    let id = ChunkId::of(&raw);
    let mut decoder = Decoder::new();
    for wrong in [4999, 5001] {
        let mut out = vec![0; wrong];
        assert!(decoder.verify_into(id, frame.clone(), &mut out).is_err());
    }
    let mut out = vec![7; 5000];
    let verified = decoder.verify_into(id, frame.clone(), &mut out).unwrap();
    assert_eq!((verified.frame(), out), (&frame, raw));
    let other = ChunkId::of(b"other");
    let refused = decoder.verify_into(other, frame, &mut vec![0; 5000]);
    assert!(matches!(refused, Err(FrameError::WrongId { .. })));
}

proptest! {
    #[test]
    fn round_trip(raw in prop::collection::vec(any::<u8>(), 0..4096), level in 1..4) {
        let frame = Encoder::new(level).encode(&raw);
        let mut out = vec![9; 10_000];
        let verified = Decoder::new()
            .verify(ChunkId::of(&raw), frame.frame().clone(), &mut out)
            .unwrap();
        prop_assert_eq!(verified.record().raw_length as usize, raw.len());
        prop_assert_eq!(verified.record().checksum, frame.record().checksum);
        prop_assert_eq!(out, raw);
    }

    /// A context that was used before makes the same frames as a new one.
    #[test]
    fn frames_do_not_depend_on_what_was_encoded_before(lengths in prop::collection::vec(0usize..100_000, 1..6)) {
        let mut reused = Encoder::new(2);
        for length in lengths {
            let raw = text(length);
            let (first, second) = (reused.encode(&raw), Encoder::new(2).encode(&raw));
            prop_assert_eq!(first.frame(), second.frame());
        }
    }

    #[test]
    fn any_bytes_survive(mut bytes in prop::collection::vec(any::<u8>(), 0..300), magic: bool) {
        if magic && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        }
        let mut out = Vec::new();
        if Decoder::new().decode(&bytes, &mut out).is_ok() {
            prop_assert!(out.len() <= CHUNK_BYTES_MAX);
        }
    }

    #[test]
    fn a_damaged_frame_never_verifies_as_another_chunk(at in 0usize..1000, flip in 1u8..) {
        let raw = text(1000);
        let mut frame = Encoder::new(2).encode(&raw).frame().to_vec();
        let at = at % frame.len();
        frame[at] ^= flip;
        let mut out = Vec::new();
        if Decoder::new().verify(ChunkId::of(&raw), frame.into(), &mut out).is_ok() {
            prop_assert_eq!(out, raw);
        }
    }
}
