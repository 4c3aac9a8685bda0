//! An image's blobs, encoded once.

use super::OutputError;
use crate::{
    archive::{Archive, ArchiveError},
    compose::{AssembledImage, LayerBlob, PlannedImage},
    encode::{Representation, encode_layer},
};
use rayon::prelude::*;
use std::{fs::Permissions, io::Write, os::unix::fs::PermissionsExt, path::Path};
use tempfile::{NamedTempFile, TempPath};

/// Where a layer's bytes are until they are written to their place.
pub(super) enum Content {
    /// A plain tar is composed again instead of being kept.
    Archive(Archive),
    /// Encoded into a file of the scratch folder.
    File(TempPath),
}

pub(super) struct BuiltLayer {
    pub(super) blob: LayerBlob,
    pub(super) content: Content,
}

pub(super) struct BuiltImage {
    pub(super) layers: Vec<BuiltLayer>,
    pub(super) documents: AssembledImage,
}

/// Encodes every layer, several at a time; the order of work does not show in the result.
pub(super) fn build(
    image: &PlannedImage,
    representation: Representation,
    scratch: &Path,
) -> Result<BuiltImage, OutputError> {
    let layers = (0..image.layers.len())
        .into_par_iter()
        .map(|index| build_layer(image.layer_archive(index)?, representation, scratch))
        .collect::<Result<Vec<_>, OutputError>>()?;
    let blobs: Vec<LayerBlob> = layers.iter().map(|layer| layer.blob.clone()).collect();
    let documents = image.assemble_blobs(&blobs)?;
    Ok(BuiltImage { layers, documents })
}

fn build_layer(
    archive: Archive,
    representation: Representation,
    scratch: &Path,
) -> Result<BuiltLayer, OutputError> {
    if representation == Representation::Tar {
        let blob = encode_layer(&archive, None, representation, &mut |_| Ok(()))?;
        return Ok(BuiltLayer {
            blob,
            content: Content::Archive(archive),
        });
    }
    let file = scratch_file(scratch)?;
    let mut writer = std::io::BufWriter::with_capacity(1 << 20, file);
    let sink = &mut |bytes: &[u8]| writer.write_all(bytes);
    let blob = encode_layer(&archive, None, representation, sink)?;
    let file = writer
        .into_inner()
        .map_err(|error| OutputError::io(scratch)(error.into_error()))?;
    Ok(BuiltLayer {
        blob,
        content: Content::File(file.into_temp_path()),
    })
}

/// A file that goes away unless it is persisted; readable by all who may by the umask.
pub(super) fn scratch_file(folder: &Path) -> Result<NamedTempFile, OutputError> {
    tempfile::Builder::new()
        .prefix(".firn-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(OutputError::io(folder))
}

impl Content {
    pub(super) fn copy_to(&self, out: &mut dyn Write) -> Result<(), OutputError> {
        match self {
            Self::Archive(archive) => match archive.stream(&mut |bytes| out.write_all(bytes)) {
                Err(ArchiveError::Sink(error)) => Err(OutputError::Write(error)),
                result => Ok(result?),
            },
            Self::File(path) => {
                let mut file = std::fs::File::open(path).map_err(OutputError::io(path))?;
                std::io::copy(&mut file, out).map_err(OutputError::Write)?;
                Ok(())
            }
        }
    }
}
