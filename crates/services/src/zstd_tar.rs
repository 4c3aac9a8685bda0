//! Taking in a tar in zstd decoded, so that it shares its chunks with whatever else holds the same files.
//!
//! ```text
//! body ─▶ zstd (any frames) ─▶ tar: regions, references ─▶ chunks ─▶ a blob, served as its own frames
//! ```
//! What comes back is another zstd stream of the very same tar: each byte of it, padding and trailing blocks
//! too, but other frames. Only a client that decodes what it gets may be served that. A body that is anything
//! but whole zstd frames of one whole tar is not for here: the caller keeps it as it came.
//!
//! Memory is bounded by zstd's window and the batches of [`firn_store::Ingest`]; what comes out of a small body
//! is bounded too. Chunks that the store has already are neither compressed nor stored again.

use crate::ServiceError;
use firn_chunks::Format;
use firn_chunks::chunker::FormatError;
use firn_store::{BlobInfo, Session, Store, StoreError};
use std::io::{self, Read};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

/// Log of the largest window, so 128 MiB: the most of any level and of `--long`. A body that wants more, as
/// by `--long=30`, is kept as it is.
const WINDOW_LOG_MAX: u32 = 27;
/// Most bytes that are decoded of one body: several times what 10 GiB of a usual tar hold.
const DECODED_BYTES_MAX: u64 = 128 << 30;
/// A body may always grow to this size, in bytes …
const FREE_BYTES: u64 = 256 << 20;
/// … and beyond it to this many times the bytes that came. Tars of programs come to 3 to 10.
const RATIO_MAX: u64 = 256;
const BUFFER_BYTES: usize = 128 << 10;
/// A frame's and, but for its last four bits, a skippable frame's first bytes (RFC 8878, section 3.1).
const FRAME_MAGIC: u32 = 0xFD2F_B528;
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;

/// Why a body is to be kept as it came.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum NotATar {
    #[error("not a zstd stream")]
    NotZstd,
    #[error("zstd: {0}")]
    Zstd(&'static str),
    #[error("the last zstd frame is cut short")]
    CutShort,
    #[error(transparent)]
    Tar(FormatError),
    #[error("it holds more than {0} bytes")]
    TooLarge(u64),
}

/// Bytes of a zstd tar, known by its first four.
pub fn is_zstd(first: [u8; 4]) -> bool {
    let magic = u32::from_le_bytes(first);
    magic == FRAME_MAGIC || magic & !0xf == SKIPPABLE_MAGIC
}

/// Reads a body to its end into a blob whose identity is the tar. The blob is durable and under a lease; of a
/// body that is none, nothing visible is left.
///
/// # Errors
/// If the body breaks off ([`ServiceError::Interrupted`]), or the store fails.
pub fn take_in(
    store: &Store,
    session: &Session,
    body: &mut dyn Read,
) -> Result<Result<BlobInfo, NotATar>, ServiceError> {
    match try_take_in(store, session, body) {
        Ok(blob) => Ok(Ok(blob)),
        Err(Stop::NotATar(why)) => Ok(Err(why)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

enum Stop {
    NotATar(NotATar),
    Failed(ServiceError),
}

impl From<NotATar> for Stop {
    fn from(why: NotATar) -> Self {
        Self::NotATar(why)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Format(fault) => Self::NotATar(NotATar::Tar(fault)),
            error => Self::Failed(error.into()),
        }
    }
}

fn try_take_in(store: &Store, session: &Session, body: &mut dyn Read) -> Result<BlobInfo, Stop> {
    let mut ingest = store.ingest(session, Format::Tar);
    decode(body, DECODED_BYTES_MAX, &mut |bytes| {
        Ok(ingest.write(bytes)?)
    })?;
    Ok(ingest.finish()?)
}

/// Hands on what the frames of `body` hold.
fn decode(
    body: &mut dyn Read,
    bytes_max: u64,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut context = DCtx::create();
    context
        .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
        .map_err(zstd_fault)?;
    let mut input = vec![0; BUFFER_BYTES];
    let mut output = vec![0; BUFFER_BYTES];
    let (mut came, mut went) = (0u64, 0u64);
    // What zstd says it wants next; 0 where a frame has ended.
    let mut wanted = 1;
    loop {
        let count = fill(body, &mut input)?;
        if came == 0 && !input.first_chunk().is_some_and(|first| is_zstd(*first)) {
            return Err(NotATar::NotZstd.into());
        }
        if count == 0 {
            break;
        }
        came += count as u64;
        let limit = bytes_max.min(FREE_BYTES.max(came.saturating_mul(RATIO_MAX)));
        let mut source = InBuffer::around(&input[..count]);
        loop {
            let mut room = OutBuffer::around(&mut output[..]);
            wanted = context
                .decompress_stream(&mut room, &mut source)
                .map_err(zstd_fault)?;
            let made = room.as_slice();
            went += made.len() as u64;
            if went > limit {
                return Err(NotATar::TooLarge(limit).into());
            }
            let full = made.len() == BUFFER_BYTES;
            sink(made)?;
            // A full buffer may mean that there is more to come of what was taken already.
            if source.pos() == count && (wanted == 0 || !full) {
                break;
            }
        }
    }
    match wanted {
        0 => Ok(()),
        _ => Err(NotATar::CutShort.into()),
    }
}

fn zstd_fault(code: usize) -> Stop {
    NotATar::Zstd(get_error_name(code)).into()
}

/// Fills the buffer unless the body ends before; how much of it.
fn fill(body: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, Stop> {
    let mut filled = 0;
    while filled < buffer.len() {
        match body.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Stop::Failed(ServiceError::Interrupted(error))),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(body: &[u8], max: u64) -> Result<Vec<u8>, NotATar> {
        let mut out = Vec::new();
        let mut body = body;
        let stopped = decode(&mut body, max, &mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        match stopped {
            Ok(()) => Ok(out),
            Err(Stop::NotATar(why)) => Err(why),
            Err(Stop::Failed(error)) => panic!("{error}"),
        }
    }

    fn skippable(content: &[u8]) -> Vec<u8> {
        let mut out = 0x184D_2A53_u32.to_le_bytes().to_vec();
        out.extend_from_slice(&(content.len() as u32).to_le_bytes());
        out.extend_from_slice(content);
        out
    }

    fn frame(content: &[u8], level: i32) -> Vec<u8> {
        zstd::stream::encode_all(content, level).unwrap()
    }

    #[test]
    fn a_bomb_stops_at_its_cap() {
        let zeros = vec![0u8; 4 << 20];
        let body = frame(&zeros, 3);
        assert!(matches!(
            decoded(&body, 1 << 20),
            Err(NotATar::TooLarge(1_048_576))
        ));
        assert_eq!(decoded(&body, 8 << 20).unwrap(), zeros);
        let mut zeros = io::repeat(0).take(FREE_BYTES + 1);
        let body = zstd::stream::encode_all(&mut zeros, 1).unwrap();
        assert!((body.len() as u64) < FREE_BYTES / RATIO_MAX);
        let stopped = decode(&mut body.as_slice(), u64::MAX, &mut |_| Ok(()));
        assert!(matches!(stopped, Err(Stop::NotATar(NotATar::TooLarge(_)))));
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        for (log, taken) in [(27, true), (28, false)] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            io::Write::write_all(&mut encoder, b"little, but nobody said so before").unwrap();
            let body = encoder.finish().unwrap();
            let result = decoded(&body, 1 << 20);
            assert_eq!(result.is_ok(), taken, "{log}: {result:?}");
        }
    }

    #[test]
    fn what_is_not_whole_frames_is_refused() {
        let good = frame(b"bytes", 3);
        assert!(matches!(decoded(&[], 99), Err(NotATar::NotZstd)));
        assert!(matches!(
            decoded(b"\x1f\x8b\x08\0 a gzip", 99),
            Err(NotATar::NotZstd)
        ));
        for cut in 4..good.len() {
            assert!(matches!(decoded(&good[..cut], 99), Err(NotATar::CutShort)));
        }
        for tail in [&b"x"[..], b"garbage", &good[..6], &[0; 512]] {
            let body = [&good[..], tail].concat();
            assert!(decoded(&body, 99).is_err(), "{tail:?}");
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_no_other_kind_of_body() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let good = frame(&[7; 1000], 3);
        let stopped = decode(&mut good.chain(Broken), 9999, &mut |_| Ok(()));
        assert!(matches!(
            stopped,
            Err(Stop::Failed(ServiceError::Interrupted(_)))
        ));
    }

    proptest! {
        #[test]
        fn any_frames_are_joined(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9000), 1..300usize, 1..5i32, any::<bool>()), 1..6)
        ) {
            let (mut body, mut content) = (Vec::new(), Vec::new());
            for (part, times, level, skip) in parts {
                let part = part.repeat(times);
                if skip {
                    body.extend_from_slice(&skippable(&part[..part.len().min(200_000)]));
                }
                body.extend_from_slice(&frame(&part, level));
                content.extend_from_slice(&part);
            }
            prop_assert_eq!(decoded(&body, 1 << 30).unwrap(), content);
        }

        #[test]
        fn any_bytes_survive(mut body in prop::collection::vec(any::<u8>(), 0..300), magic: bool) {
            if magic && body.len() >= 4 {
                body[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
            }
            let _ = decoded(&body, 1 << 20);
        }

        #[test]
        fn a_damaged_body_never_decodes_to_something_else(at in 0usize..10_000, flip in 1u8..) {
            let content: Vec<u8> = (0u32..20_000).flat_map(|n| (n * n).to_le_bytes()).collect();
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(true).unwrap();
            io::Write::write_all(&mut encoder, &content).unwrap();
            let mut body = encoder.finish().unwrap();
            let at = at % body.len();
            body[at] ^= flip;
            if let Ok(out) = decoded(&body, 1 << 20) {
                prop_assert_eq!(out, content);
            }
        }
    }
}
