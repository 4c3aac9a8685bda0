//! A layer's bytes as they are stored and sent, made locally: the tar itself, deterministic
//! gzip, or concatenated zstd frames, one a chunk.
//!
//! All stream: a few MiB are held, and the digests are known at the end. Whoever needs
//! them first encodes into a file, or twice: equal archives give equal bytes.

mod gzip;
mod zstd;

use crate::{
    archive::{Archive, ArchiveError},
    compose::LayerBlob,
    spec::LayerCompression,
};
use firn_chunks::{ChunkList, boundaries, pack::Placed};
use firn_formats::{oci::media_type, sha256::Sha256Hasher};
use std::{collections::HashSet, io};

/// In which form a layer's tar lies in a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Representation {
    /// As it is.
    Tar,
    /// As the store's gzip representation: zlib-rs at level 6, a header without name and time.
    Gzip,
    /// As the store's zstd representation: the frames of its chunks.
    Zstd,
}

impl Representation {
    /// The layer's media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Tar => media_type::OCI_LAYER,
            Self::Gzip => media_type::OCI_LAYER_GZIP,
            Self::Zstd => media_type::OCI_LAYER_ZSTD,
        }
    }
}

impl From<LayerCompression> for Representation {
    fn from(compression: LayerCompression) -> Self {
        match compression {
            LayerCompression::Zstd => Self::Zstd,
            LayerCompression::Gzip => Self::Gzip,
            LayerCompression::None => Self::Tar,
        }
    }
}

/// Takes an encoded layer's bytes.
pub type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// Encodes a layer. `list` is its chunk list, where it is known; only zstd needs one, and
/// reads the archive once more to make it. Fails with [`ArchiveError::Changed`] when files
/// are not what they were when the list was made.
pub fn encode_layer(
    archive: &Archive,
    list: Option<&ChunkList>,
    representation: Representation,
    sink: &mut Sink<'_>,
) -> Result<LayerBlob, ArchiveError> {
    let mut out = Digested::new(sink);
    let mut tar = Sha256Hasher::new();
    match (representation, list) {
        (Representation::Tar, _) => archive.stream(&mut |bytes| out.put(bytes))?,
        (Representation::Gzip, _) => gzip::encode(archive, &mut tar, &mut out)?,
        (Representation::Zstd, Some(list)) => {
            zstd::encode(archive, list, &mut tar, &mut out, &mut |_| ())?;
        }
        (Representation::Zstd, None) => {
            let list = archive.chunk(boundaries::V1, &|_| None)?;
            zstd::encode(archive, &list, &mut tar, &mut out, &mut |_| ())?;
        }
    }
    Ok(out.finish(archive, representation, tar))
}

/// A layer in zstd, and where in its blob the frames of its chunks lie: such a blob can serve as a pack.
#[derive(Debug, Clone)]
pub struct PackedLayer {
    /// The layer.
    pub blob: LayerBlob,
    /// Each distinct chunk's first frame, in order.
    pub frames: Vec<Placed>,
}

/// Encodes a layer as [`encode_layer`] does in zstd, byte for byte, given its chunk list.
pub fn encode_packed_layer(
    archive: &Archive,
    list: &ChunkList,
    sink: &mut Sink<'_>,
) -> Result<PackedLayer, ArchiveError> {
    let mut out = Digested::new(sink);
    let mut tar = Sha256Hasher::new();
    let mut frames = Vec::new();
    let mut seen = HashSet::new();
    zstd::encode(archive, list, &mut tar, &mut out, &mut |placed| {
        if seen.insert(placed.record.id) {
            frames.push(placed);
        }
    })?;
    Ok(PackedLayer {
        blob: out.finish(archive, Representation::Zstd, tar),
        frames,
    })
}

/// A sink that counts and hashes what goes through.
struct Digested<'a, 'b> {
    sink: &'a mut Sink<'b>,
    hasher: Sha256Hasher,
    size: u64,
}

impl<'a, 'b> Digested<'a, 'b> {
    fn new(sink: &'a mut Sink<'b>) -> Self {
        Self {
            sink,
            hasher: Sha256Hasher::new(),
            size: 0,
        }
    }
    /// The layer that went through; `tar` is the hash of its archive, unless that is what went through.
    fn finish(
        self,
        archive: &Archive,
        representation: Representation,
        tar: Sha256Hasher,
    ) -> LayerBlob {
        let digest = self.hasher.finish();
        let diff_id = match representation {
            Representation::Tar => digest,
            _ => tar.finish(),
        };
        LayerBlob {
            representation,
            digest: digest.into(),
            size: self.size,
            diff_id: diff_id.into(),
            tar_size: archive.length(),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        (self.sink)(bytes)
    }
}

impl io::Write for Digested<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
