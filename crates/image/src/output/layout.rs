//! Writing: an OCI layout as a folder or a tar, with or without Docker's `manifest.json`; and Docker's older
//! layout, without OCI's.

use super::{
    DOCKER_MANIFEST_FILE, IMAGE_NAME, INDEX_FILE, LAYOUT_FILE, LAYOUT_TEXT, OutputError, REF_NAME,
    below, blob_path,
    build::{BuiltImage, Content, build, scratch_file},
    docker, legacy,
    tarball::TarWriter,
};
use crate::{
    base::BaseLayer,
    compose::{AssembledImage, PlannedImage, descriptor},
    encode::Representation,
    spec::LayerCompression,
};
use firn_formats::oci::{Index, media_type};
use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

/// Writes an OCI layout into a folder, which is made if need be. Blobs of an earlier
/// image stay; the index names this image alone. `names` are `name:tag`.
pub fn write_layout(
    folder: &Path,
    image: &PlannedImage,
    names: &[String],
) -> Result<AssembledImage, OutputError> {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(OutputError::io(&blobs))?;
    let built = build(image, image.spec.compression.into(), &blobs)?;
    let BuiltImage { layers, documents } = built;
    for layer in layers {
        let path = folder.join(blob_path(&layer.blob.digest));
        match layer.content {
            Content::File(file) => file
                .persist(&path)
                .map_err(|error| OutputError::io(&path)(error.error))?,
            Content::Archive(_) => put_file(&path, &mut |out| layer.content.copy_to(out))?,
        }
    }
    for layer in image.base_layers() {
        let path = folder.join(blob_path(&layer.descriptor.digest));
        if !path.is_file() {
            put_file(&path, &mut |out| below::copy(image, layer, out))?;
        }
    }
    for (path, bytes) in document_blobs(&documents) {
        put_bytes(&folder.join(path), bytes)?;
    }
    put_bytes(&folder.join(LAYOUT_FILE), LAYOUT_TEXT.as_bytes())?;
    put_bytes(&folder.join(INDEX_FILE), &index(&documents, names)?)?;
    Ok(documents)
}

/// Writes an OCI layout as a tar. Encoded layers lie in files of `scratch` until then.
pub fn write_oci_archive(
    out: &mut dyn Write,
    image: &PlannedImage,
    names: &[String],
    scratch: &Path,
) -> Result<AssembledImage, OutputError> {
    let built = build(image, image.spec.compression.into(), scratch)?;
    write_archive(out, image, built, names, false)
}

/// Which docker-archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DockerLayout {
    /// An OCI layout with a `manifest.json` beside it, as Docker itself writes since version 25.
    Oci,
    /// `<config>.json`, `<layer>/layer.tar`, `manifest.json` and `repositories`, as before.
    Legacy,
}

/// Writes a docker-archive, for `docker load` of any version, podman and skopeo. Layers
/// are plain tars, or gzip if the spec says so; then `scratch` holds them meanwhile. A base's layers are as they
/// are.
pub fn write_docker_archive(
    out: &mut dyn Write,
    image: &PlannedImage,
    names: &[String],
    layout: DockerLayout,
    scratch: &Path,
) -> Result<AssembledImage, OutputError> {
    let representation = match image.spec.compression {
        LayerCompression::Gzip => Representation::Gzip,
        LayerCompression::Zstd | LayerCompression::None => Representation::Tar,
    };
    let built = build(image, representation, scratch)?;
    match layout {
        DockerLayout::Oci => write_archive(out, image, built, names, true),
        DockerLayout::Legacy => legacy::write(out, image, built, names),
    }
}

enum Blob<'a> {
    Bytes(&'a [u8]),
    Layer { content: &'a Content, size: u64 },
    Below(&'a BaseLayer),
}

fn write_archive(
    out: &mut dyn Write,
    image: &PlannedImage,
    built: BuiltImage,
    names: &[String],
    docker: bool,
) -> Result<AssembledImage, OutputError> {
    let mut blobs: BTreeMap<String, Blob<'_>> = BTreeMap::new();
    for layer in &built.layers {
        let blob = Blob::Layer {
            content: &layer.content,
            size: layer.blob.size,
        };
        blobs.insert(blob_path(&layer.blob.digest), blob);
    }
    for layer in image.base_layers() {
        blobs.insert(blob_path(&layer.descriptor.digest), Blob::Below(layer));
    }
    for (path, bytes) in document_blobs(&built.documents) {
        blobs.insert(path, Blob::Bytes(bytes));
    }
    let mut tar = TarWriter::new(out);
    tar.directory("blobs")?;
    tar.directory("blobs/sha256")?;
    for (path, blob) in blobs {
        match blob {
            Blob::Bytes(bytes) => tar.file(&path, bytes)?,
            Blob::Layer { content, size } => {
                tar.file_of(&path, size, &mut |out| content.copy_to(out))?;
            }
            Blob::Below(layer) => {
                let size = layer.descriptor.size;
                tar.file_of(&path, size, &mut |out| below::copy(image, layer, out))?;
            }
        }
    }
    tar.file(INDEX_FILE, &index(&built.documents, names)?)?;
    if docker {
        let below = image.base_layers().iter();
        let layers: Vec<String> = below
            .map(|layer| &layer.descriptor.digest)
            .chain(built.layers.iter().map(|layer| &layer.blob.digest))
            .map(blob_path)
            .collect();
        let config = blob_path(&built.documents.config_digest.into());
        let manifest = docker::manifest(config, names, layers)?;
        tar.file(DOCKER_MANIFEST_FILE, &manifest)?;
    }
    tar.file(LAYOUT_FILE, LAYOUT_TEXT.as_bytes())?;
    tar.finish()?;
    Ok(built.documents)
}

fn document_blobs(documents: &AssembledImage) -> [(String, &[u8]); 2] {
    [
        (
            blob_path(&documents.config_digest.into()),
            documents.config.as_slice(),
        ),
        (
            blob_path(&documents.manifest_digest.into()),
            documents.manifest.as_slice(),
        ),
    ]
}

/// The index: the manifest once for each name, or once without any.
fn index(documents: &AssembledImage, names: &[String]) -> Result<Vec<u8>, OutputError> {
    let plain = descriptor(
        documents.manifest_media_type,
        documents.manifest_digest.into(),
        documents.manifest.len() as u64,
    );
    let named = |name: &String| {
        let mut descriptor = plain.clone();
        descriptor.annotations = BTreeMap::from([
            (REF_NAME.to_owned(), tag_of(name).to_owned()),
            (IMAGE_NAME.to_owned(), name.clone()),
        ]);
        descriptor
    };
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: match names {
            [] => vec![plain],
            names => names.iter().map(named).collect(),
        },
        subject: None,
        annotations: BTreeMap::new(),
    };
    serde_json::to_vec(&index).map_err(OutputError::json(INDEX_FILE))
}

pub(super) fn tag_of(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => "latest",
    }
}

fn put_bytes(path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
    put_file(path, &mut |out| {
        out.write_all(bytes).map_err(OutputError::Write)
    })
}

/// Writes a file beside its place, then moves it there.
fn put_file(
    path: &Path,
    content: &mut dyn FnMut(&mut dyn Write) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    let mut file = scratch_file(&folder)?;
    content(&mut file)?;
    file.persist(path)
        .map_err(|error| OutputError::io(path)(error.error))?;
    Ok(())
}
