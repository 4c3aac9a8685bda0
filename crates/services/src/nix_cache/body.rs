//! Upload bodies: decompressed as they come, with limits on what comes out.

use super::window::{self, FREE_BYTES};
use crate::ServiceError;
use crate::access::Cache;
use crate::budget::{Budget, Client, Full, Lease};
use brotli_decompressor::BrotliDecoderParameter;
use firn_formats::nix::Compression;
use firn_formats::sha256::{Sha256, Sha256Hasher};
use std::cell::RefCell;
use std::io::{self, Cursor, Read};
use std::rc::Rc;
use std::time::Duration;

/// Largest NAR taken in, in bytes.
pub(crate) const NAR_BYTES_MAX: u64 = 256 << 30;
/// A body may always grow to this size, in bytes: sparse files are almost all zeros, and to cut and hash so much
/// takes seconds of work and no memory …
const FREE_OUTPUT_BYTES: u64 = 4 << 30;
/// … and beyond it to this many times the bytes that came.
const RATIO_MAX: u64 = 4096;
/// A document of so many bytes costs nothing.
const SMALL_BYTES: usize = 256 << 10;
/// How long a body waits for room for its window.
const WINDOW_WITHIN: Duration = Duration::from_secs(60);
const BUFFER_BYTES: usize = 128 << 10;

#[derive(Default)]
struct Came {
    bytes: u64,
    hasher: Option<Sha256Hasher>,
    failed: Option<io::Error>,
}

/// Counts, and if asked hashes, what passes; keeps the cause when the body breaks off, so that it is not
/// taken for a fault of the compression.
struct Watched<R> {
    inner: R,
    came: Rc<RefCell<Came>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut came = self.came.borrow_mut();
        match self.inner.read(out) {
            Ok(count) => {
                came.bytes += count as u64;
                if let Some(hasher) = &mut came.hasher {
                    hasher.update(&out[..count]);
                }
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                came.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

/// Where the windows of a body's decoders are paid for.
pub(crate) struct Room<'a> {
    budget: &'a Budget,
    client: Client,
    lease: RefCell<Option<Lease>>,
}

impl<'a> Room<'a> {
    pub(crate) fn new(budget: &'a Budget, cache: &Cache) -> Self {
        Self::of(budget, Client::known(cache.name()))
    }

    fn of(budget: &'a Budget, client: Client) -> Self {
        Self {
            budget,
            client,
            lease: RefCell::new(None),
        }
    }

    /// Pays for a window, if it is not one that every decoder may have.
    fn pay_for_window(&self, window: u64) -> Result<(), ServiceError> {
        match window <= FREE_BYTES {
            true => Ok(()),
            false => self.pay(window),
        }
    }

    /// Pays for more. Only the first time it waits: afterwards it has what others may wait for.
    fn pay(&self, bytes: u64) -> Result<(), ServiceError> {
        let mut lease = self.lease.borrow_mut();
        let paid = match &mut *lease {
            Some(lease) => lease.grow(bytes),
            None => self
                .budget
                .take_within(&self.client, bytes, WINDOW_WITHIN)
                .map(|taken| *lease = Some(taken)),
        };
        paid.map_err(|Full| ServiceError::Busy)
    }
}

/// Undoes a compression.
fn decoder<'a>(
    format: Compression,
    mut body: impl Read + 'a,
    room: &Room<'_>,
) -> Result<Box<dyn Read + 'a>, ServiceError> {
    let fault = |source| ServiceError::Decompression {
        format: format.name(),
        source,
    };
    let mut first = Vec::new();
    if format != Compression::None {
        // What fails here fails again where it is told from other faults.
        let mut beginning = Read::by_ref(&mut body).take(window::FIRST_BYTES as u64);
        if let Err(error) = beginning.read_to_end(&mut first) {
            return Err(fault(error));
        }
    }
    let window = window::window(format, &first)
        .map_err(|error| fault(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    room.pay_for_window(window)?;
    let body = Cursor::new(first).chain(body);
    Ok(match format {
        Compression::None => Box::new(body),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(body).map_err(fault)?;
            decoder.window_log_max(window::log(window)).map_err(fault)?;
            Box::new(decoder)
        }
        Compression::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(window, liblzma::stream::CONCATENATED)
                    .map_err(|error| fault(error.into()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(body, stream))
        }
        Compression::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(body)),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
        Compression::Brotli => {
            let mut decoder = brotli_decompressor::Decompressor::new(body, BUFFER_BYTES);
            decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
            Box::new(decoder)
        }
        Compression::Lz4 => {
            return Err(ServiceError::BadRequest(
                "lz4 is not taken; use zstd, xz, bzip2, gzip, br or none".to_owned(),
            ));
        }
    })
}

/// The compression of a Content-Encoding header.
pub(crate) fn content_encoding(header: Option<&str>) -> Result<Compression, ServiceError> {
    match header.map(str::trim) {
        None | Some("" | "identity") => Ok(Compression::None),
        Some("gzip" | "x-gzip") => Ok(Compression::Gzip),
        Some("br") => Ok(Compression::Brotli),
        Some("zstd") => Ok(Compression::Zstd),
        Some("xz") => Ok(Compression::Xz),
        Some("bzip2") => Ok(Compression::Bzip2),
        Some(other) => Err(ServiceError::BadRequest(format!(
            "Content-Encoding {other:?} is not known"
        ))),
    }
}

/// Reads a body to its end: undoes `encoding`, then `compression`, and hands on the bytes.
/// Returns the hash of the file, that is of the bytes between the two; `None` if those are the
/// bytes handed on, so that who hashes these need not hash them twice.
pub(crate) fn decompress(
    body: &mut dyn Read,
    encoding: Compression,
    compression: Compression,
    output_bytes_max: u64,
    room: &Room<'_>,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), ServiceError>,
) -> Result<Option<Sha256>, ServiceError> {
    let wire = Rc::new(RefCell::new(Came::default()));
    let file = Rc::new(RefCell::new(Came {
        hasher: (compression != Compression::None).then(Sha256Hasher::new),
        ..Came::default()
    }));
    let plain = decoder(
        encoding,
        Watched {
            inner: body,
            came: wire.clone(),
        },
        room,
    )
    .map_err(|error| broke_off(&wire, &file, encoding, error))?;
    let mut watched = Watched {
        inner: plain,
        came: file.clone(),
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    {
        let decoder = decoder(compression, &mut watched, room);
        let mut out = decoder.map_err(|error| broke_off(&wire, &file, encoding, error))?;
        let mut written = 0u64;
        loop {
            let count = match out.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_fault(&wire, &file, encoding, compression, error)),
            };
            written += count as u64;
            let allowed = FREE_OUTPUT_BYTES.max(wire.borrow().bytes.saturating_mul(RATIO_MAX));
            if written > output_bytes_max {
                return Err(ServiceError::TooLarge {
                    what: "the decompressed body",
                    limit: output_bytes_max,
                });
            }
            if written > allowed {
                return Err(ServiceError::Expands { limit: allowed });
            }
            sink(&buffer[..count])?;
        }
    }
    // What the decoder did not need belongs to the file too.
    loop {
        match watched.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_fault(&wire, &file, encoding, compression, error)),
        }
    }
    let hasher = file.borrow_mut().hasher.take();
    Ok(hasher.map(Sha256Hasher::finish))
}

/// A body that broke off before its decoder was made has no fault of compression.
fn broke_off(
    wire: &RefCell<Came>,
    file: &RefCell<Came>,
    encoding: Compression,
    error: ServiceError,
) -> ServiceError {
    if let Some(source) = wire.borrow_mut().failed.take() {
        return ServiceError::Interrupted(source);
    }
    match file.borrow_mut().failed.take() {
        Some(source) => ServiceError::Decompression {
            format: encoding.name(),
            source,
        },
        None => error,
    }
}

fn read_fault(
    wire: &RefCell<Came>,
    file: &RefCell<Came>,
    encoding: Compression,
    compression: Compression,
    error: io::Error,
) -> ServiceError {
    if let Some(source) = wire.borrow_mut().failed.take() {
        return ServiceError::Interrupted(source);
    }
    if let Some(source) = file.borrow_mut().failed.take() {
        return ServiceError::Decompression {
            format: encoding.name(),
            source,
        };
    }
    ServiceError::Decompression {
        format: compression.name(),
        source: error,
    }
}

/// Reads a body of bounded size into memory, which `room` pays for where it is much.
pub(crate) fn read_all(
    body: &mut dyn Read,
    encoding: Compression,
    what: &'static str,
    bytes_max: u64,
    room: &Room<'_>,
) -> Result<Vec<u8>, ServiceError> {
    let mut out = Vec::new();
    let too_large = ServiceError::TooLarge {
        what,
        limit: bytes_max,
    };
    let mut keep = |bytes: &[u8]| {
        let (held, wanted) = (out.capacity(), out.len() + bytes.len());
        if wanted > held {
            let capacity = wanted.max(held * 2);
            if wanted > SMALL_BYTES {
                // For a moment the old bytes are there too; to count them would refuse documents that there is room for.
                room.pay((capacity - held) as u64)?;
            }
            out.reserve_exact(capacity - out.len());
        }
        out.extend_from_slice(bytes);
        Ok(())
    };
    let encoded = Compression::None;
    decompress(body, encoding, encoded, bytes_max, room, &mut keep).map_err(
        |error| match error {
            ServiceError::TooLarge { .. } => too_large,
            other => other,
        },
    )?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gather(body: &[u8], format: Compression, max: u64) -> Result<Vec<u8>, ServiceError> {
        let mut out = Vec::new();
        let budget = crate::budget::memory();
        let room = Room::of(&budget, Client::known("test"));
        let none = Compression::None;
        decompress(&mut &body[..], none, format, max, &room, &mut |b| {
            out.extend_from_slice(b);
            Ok(())
        })?;
        drop(room);
        assert_eq!(budget.held(), 0);
        Ok(out)
    }

    #[test]
    fn a_bomb_stops_at_its_cap() {
        let zeros = vec![0u8; 4 << 20];
        let body = zstd::bulk::compress(&zeros, 3).unwrap();
        assert!(matches!(
            gather(&body, Compression::Zstd, 1 << 20),
            Err(ServiceError::TooLarge { .. })
        ));
        assert_eq!(gather(&body, Compression::Zstd, 8 << 20).unwrap(), zeros);
    }

    /// A brotli stream that says it has a window of a gigabyte, in bytes that decode to nothing.
    #[test]
    fn s9_a_large_window_of_brotli_is_refused_with_a_reason() {
        let mut body = vec![0x11, 0x1e];
        body.extend([0; 155]);
        let error = gather(&body, Compression::Brotli, 1 << 20).unwrap_err();
        assert!(error.chain().contains("16 MiB"), "{}", error.chain());
        assert_eq!(error.code(), firn_formats::push::ApiErrorCode::BadRequest);
    }

    #[test]
    fn s9_a_document_in_memory_is_paid_for() {
        let budget = crate::budget::memory();
        let room = Room::of(&budget, Client::known("test"));
        let text = vec![b' '; 5 << 20];
        let read = read_all(&mut &text[..], Compression::None, "it", 64 << 20, &room).unwrap();
        assert_eq!(read.len(), text.len());
        assert!(budget.held() >= 5 << 20, "{}", budget.held());
        let others = budget.try_take(&Client::known("other"), 80 << 20);
        assert!(others.is_ok());
        let again = Room::of(&budget, Client::known("other"));
        let busy = read_all(&mut &text[..], Compression::None, "it", 64 << 20, &again);
        drop(others);
        assert!(busy.is_ok_and(|read| read.len() == text.len()));
    }

    /// 10 GB of zeros, which come as a megabyte.
    #[test]
    fn n6_a_bomb_stops_where_its_work_is_enough_and_says_what_else_can_be_done() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        let zeros = vec![0_u8; 1 << 20];
        (0..10_000).for_each(|_| encoder.write_all(&zeros).unwrap());
        let body = encoder.finish().unwrap();
        let mut came = 0_u64;
        let budget = crate::budget::memory();
        let room = Room::of(&budget, Client::known("test"));
        let error = decompress(
            &mut &body[..],
            Compression::None,
            Compression::Zstd,
            NAR_BYTES_MAX,
            &room,
            &mut |bytes| {
                came += bytes.len() as u64;
                Ok(())
            },
        )
        .unwrap_err();
        assert!(came <= FREE_OUTPUT_BYTES, "{came}");
        assert!(matches!(error, ServiceError::Expands { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("compression=none") && message.contains("firn push"));
    }

    #[test]
    fn every_format_comes_back_and_none_takes_garbage() {
        let text = b"a NAR, say ".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&text).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&text).unwrap();
        for (format, body) in [
            (Compression::Gzip, gzip.finish().unwrap()),
            (Compression::Xz, xz.finish().unwrap()),
            (Compression::Bzip2, bzip2.finish().unwrap()),
            (Compression::Zstd, zstd::bulk::compress(&text, 1).unwrap()),
            (Compression::None, text.clone()),
        ] {
            assert_eq!(gather(&body, format, 1 << 20).unwrap(), text, "{format:?}");
            if format != Compression::None {
                let cut = &body[..body.len() / 2];
                assert!(gather(cut, format, 1 << 20).is_err(), "{format:?} cut");
                assert!(gather(b"garbage, garbage", format, 1 << 20).is_err());
            }
        }
    }
}
