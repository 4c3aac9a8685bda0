//! Upload bodies: decompressed as they come, with limits on what comes out.

use crate::ServiceError;
use firn_formats::nix::Compression;
use firn_formats::sha256::{Sha256, Sha256Hasher};
use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

/// Largest NAR taken in, in bytes.
pub(crate) const NAR_BYTES_MAX: u64 = 256 << 30;
/// A body may always grow to this size, in bytes: sparse files are almost all zeros, and to cut and hash so much
/// takes seconds of work and no memory …
const FREE_OUTPUT_BYTES: u64 = 4 << 30;
/// … and beyond it to this many times the bytes that came.
const RATIO_MAX: u64 = 4096;
/// Memory an xz body may ask for: its highest preset needs 65 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 128 << 20;
/// Log of the largest zstd window: its highest level uses 27, which Nix reads too.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
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

/// Undoes a compression.
fn decoder<'a>(
    format: Compression,
    body: impl Read + 'a,
) -> Result<Box<dyn Read + 'a>, ServiceError> {
    let fault = |source| ServiceError::Decompression {
        format: format.name(),
        source,
    };
    Ok(match format {
        Compression::None => Box::new(body),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(body).map_err(fault)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(fault)?;
            Box::new(decoder)
        }
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY_BYTES_MAX,
                liblzma::stream::CONCATENATED,
            )
            .map_err(|error| fault(error.into()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(body, stream))
        }
        Compression::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(body)),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
        Compression::Brotli => Box::new(brotli_decompressor::Decompressor::new(body, BUFFER_BYTES)),
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
    )?;
    let mut watched = Watched {
        inner: plain,
        came: file.clone(),
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    {
        let mut out = decoder(compression, &mut watched)?;
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

/// Reads a body of bounded size into memory.
pub(crate) fn read_all(
    body: &mut dyn Read,
    encoding: Compression,
    what: &'static str,
    bytes_max: u64,
) -> Result<Vec<u8>, ServiceError> {
    let mut out = Vec::new();
    let too_large = ServiceError::TooLarge {
        what,
        limit: bytes_max,
    };
    decompress(body, encoding, Compression::None, bytes_max, &mut |bytes| {
        out.extend_from_slice(bytes);
        Ok(())
    })
    .map_err(|error| match error {
        ServiceError::TooLarge { .. } => too_large,
        other => other,
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gather(body: &[u8], format: Compression, max: u64) -> Result<Vec<u8>, ServiceError> {
        let mut out = Vec::new();
        decompress(&mut &body[..], Compression::None, format, max, &mut |b| {
            out.extend_from_slice(b);
            Ok(())
        })?;
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

    /// 10 GB of zeros, which come as a megabyte.
    #[test]
    fn n6_a_bomb_stops_where_its_work_is_enough_and_says_what_else_can_be_done() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        let zeros = vec![0_u8; 1 << 20];
        (0..10_000).for_each(|_| encoder.write_all(&zeros).unwrap());
        let body = encoder.finish().unwrap();
        let mut came = 0_u64;
        let format = Compression::Zstd;
        let error = decompress(
            &mut &body[..],
            Compression::None,
            format,
            NAR_BYTES_MAX,
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
