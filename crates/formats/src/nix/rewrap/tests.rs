use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
};

use proptest::prelude::*;

use super::*;

const FORMATS: [Format; 3] = [Format::Xz, Format::Gzip, Format::Brotli];

fn wrap(format: Format, input: &[u8], piece: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(format, input.len() as u64);
    for part in input.chunks(piece) {
        encoder.push(part, &mut out).unwrap();
    }
    encoder.finish(&mut out).unwrap();
    out
}

/// What the format's own tool makes of `wrapped`.
fn unwrap(format: Format, wrapped: &[u8]) -> Vec<u8> {
    let tool = match format {
        Format::Xz => "xz",
        Format::Gzip => "gzip",
        Format::Brotli => {
            let mut out = Vec::new();
            let mut reader = brotli_decompressor::Decompressor::new(wrapped, 4096);
            reader.read_to_end(&mut out).unwrap();
            return out;
        }
    };
    let mut child = Command::new(tool)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(wrapped).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{tool} refused it");
    output.stdout
}

fn sample(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

#[test]
fn the_formats_own_tools_read_it_at_every_boundary() {
    for length in [
        0, 1, 2, 3, 4, 127, 128, 65_534, 65_535, 65_536, 65_537, 131_070, 131_071, 131_072,
        131_073, 1_000_003,
    ] {
        let input = sample(length);
        for format in FORMATS {
            let wrapped = wrap(format, &input, 10_000);
            assert_eq!(unwrap(format, &wrapped), input, "{format:?} {length}");
            assert_eq!(
                wrapped.len() as u64,
                wrapped_length(format, length as u64),
                "{format:?} {length}"
            );
        }
    }
}

#[test]
fn another_length_than_announced_is_an_error() {
    for format in FORMATS {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(format, 3);
        let error = LengthError {
            promised: 3,
            given: 4,
        };
        assert_eq!(encoder.push(b"four", &mut out), Err(error));
        assert!(out.is_empty());
        encoder.push(b"tw", &mut out).unwrap();
        assert!(encoder.finish(&mut out).is_err());
    }
}

#[test]
fn lengths_no_stream_has_do_not_overflow() {
    for format in FORMATS {
        for length in [u64::MAX, u64::MAX - 1, i64::MAX as u64] {
            assert!(wrapped_length(format, length) >= length);
        }
    }
}

proptest! {
    #[test]
    fn pieces_make_no_difference(length in 0usize..200_000, piece in 1usize..100_000) {
        let input = sample(length);
        for format in FORMATS {
            let wrapped = wrap(format, &input, piece);
            prop_assert_eq!(wrapped.len() as u64, wrapped_length(format, length as u64));
            prop_assert!(wrapped == wrap(format, &input, usize::MAX));
        }
    }
}
