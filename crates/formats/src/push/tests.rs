use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn proposals() -> impl Strategy<Value = Vec<Proposal>> {
    let kind = prop_oneof![
        Just(BlobKind::Nar),
        Just(BlobKind::Layer),
        Just(BlobKind::Opaque)
    ];
    let proposal = (kind, vec((any::<[u8; 32]>(), any::<u32>()), 0..9))
        .prop_map(|(kind, chunks)| Proposal { kind, chunks });
    vec(proposal, 0..5)
}

fn answers() -> impl Strategy<Value = Vec<ProposalAnswer>> {
    let answer = (any::<u32>(), vec(any::<bool>(), 0..30))
        .prop_map(|(handle, missing)| ProposalAnswer { handle, missing });
    vec(answer, 0..5)
}

fn encode_all(frames: &[([u8; 32], Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (id, frame) in frames {
        encode_frame(id, frame, &mut body);
    }
    body
}

#[test]
fn the_bytes_are_the_documented_ones() {
    let proposal = Proposal {
        kind: BlobKind::Layer,
        chunks: vec![([7; 32], 0x0102)],
    };
    let expected = [&[1, 2, 1, 0, 0, 0][..], &[7; 32], &[2, 1, 0, 0]].concat();
    assert_eq!(encode_proposals(&[proposal]), expected);
    let mut missing = vec![true, false, true];
    missing.extend([false; 5]);
    missing.push(true);
    let answer = ProposalAnswer { handle: 5, missing };
    assert_eq!(
        encode_answers(&[answer]),
        [1, 5, 0, 0, 0, 9, 0, 0, 0, 0b101, 1]
    );
    let mut body = Vec::new();
    encode_frame(&[9; 32], b"abc", &mut body);
    assert_eq!(body, [&[9; 32][..], &[3, 0, 0, 0], b"abc"].concat());
}

#[test]
fn announcements_larger_than_the_body_are_refused() {
    assert!(decode_proposals(&[]).is_err());
    assert!(decode_proposals(&[2]).is_err());
    assert!(decode_proposals(&[1, 4, 0, 0, 0, 0]).is_err());
    assert!(decode_proposals(&[1, 1, 255, 255, 255, 255]).is_err());
    assert!(decode_answers(&[1, 0, 0, 0, 0, 255, 255, 255, 255]).is_err());
    let frame = [&[0; 32][..], &[255; 4]].concat();
    assert_eq!(decode_frames(&frame).unwrap_err().offset, 36);
}

#[test]
fn api_codes_are_snake_case() {
    let json = serde_json::to_string(&ApiErrorCode::MissingChunks).unwrap();
    assert_eq!(json, r#""missing_chunks""#);
    assert_eq!(ApiErrorCode::MissingChunks.status(), 409);
}

proptest! {
    #[test]
    fn proposals_round_trip(proposals in proposals()) {
        prop_assert_eq!(decode_proposals(&encode_proposals(&proposals)), Ok(proposals));
    }

    #[test]
    fn answers_round_trip(answers in answers()) {
        prop_assert_eq!(decode_answers(&encode_answers(&answers)), Ok(answers));
    }

    #[test]
    fn frames_round_trip(frames in vec((any::<[u8; 32]>(), vec(any::<u8>(), 0..50)), 0..5)) {
        let body = encode_all(&frames);
        let decoded: Vec<_> = decode_frames(&body)
            .unwrap()
            .into_iter()
            .map(|(id, range)| (id, body[range].to_vec()))
            .collect();
        prop_assert_eq!(decoded, frames);
    }

    /// A body cut short is an error, or the shorter list that ends there.
    #[test]
    fn truncations_never_invent(proposals in proposals(), answers in answers(), cut in any::<usize>()) {
        let body = encode_proposals(&proposals);
        if let Ok(fewer) = decode_proposals(&body[..cut % body.len()]) {
            prop_assert!(fewer.len() < proposals.len() && proposals.starts_with(&fewer));
        }
        let body = encode_answers(&answers);
        if let Ok(fewer) = decode_answers(&body[..cut % body.len()]) {
            prop_assert!(fewer.len() < answers.len() && answers.starts_with(&fewer));
        }
    }

    #[test]
    fn foreign_bytes_never_panic(body in vec(any::<u8>(), 0..300)) {
        let _ = decode_proposals(&body);
        let _ = decode_answers(&body);
        if let Ok(frames) = decode_frames(&body) {
            prop_assert!(frames.iter().all(|(_, range)| range.end <= body.len()));
        }
    }
}
