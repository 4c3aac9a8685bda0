//! Reading an OCI layout, an oci-archive or a docker-archive.

use super::{
    DOCKER_MANIFEST_FILE, IMAGE_NAME, INDEX_FILE, LAYOUT_FILE, OutputError, REF_NAME, blob_path,
    docker::DockerImage,
    source::{Document, Files, Place, Source, SourceImage},
    tarball::TarIndex,
};
use crate::compose::descriptor;
use firn_formats::{
    Sha256,
    oci::{
        Descriptor, Digest, Index, Manifest,
        manifest::{AnyManifest, MANIFEST_BYTES_MAX},
        media_type,
    },
    sha256::Sha256Hasher,
};
use flate2::read::MultiGzDecoder;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io::{Read, Seek},
    path::Path,
    sync::Arc,
};

/// Deepest nesting of indexes.
const INDEX_DEPTH_MAX: usize = 4;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Finds the images of a layout folder, an oci-archive or a docker-archive (of `docker save`,
/// podman, skopeo, or nixpkgs' dockerTools; a gzipped one is unpacked into a temporary file).
/// Blobs are not read, but for the layers of a docker-archive that is no OCI layout,
/// which have to be hashed. The names in a `manifest.json` are looked up inside the archive
/// only, so it must be one: in a folder they could lead anywhere.
pub fn read(path: &Path) -> Result<Source, OutputError> {
    let files = if path.is_dir() {
        Files::Folder(path.to_owned())
    } else {
        open_tar(path)?
    };
    let mut source = Source {
        images: Vec::new(),
        files,
        elsewhere: HashMap::new(),
    };
    if source.files.has(LAYOUT_FILE) && source.files.has(INDEX_FILE) {
        read_layout(&mut source)?;
    } else if matches!(source.files, Files::Tar { .. }) && source.files.has(DOCKER_MANIFEST_FILE) {
        read_docker(&mut source)?;
    } else {
        return Err(OutputError::NotAnImage(path.to_owned()));
    }
    Ok(source)
}

fn open_tar(path: &Path) -> Result<Files, OutputError> {
    let io = || OutputError::io(path);
    let mut file = File::open(path).map_err(io())?;
    let mut magic = Vec::new();
    (&mut file).take(2).read_to_end(&mut magic).map_err(io())?;
    file.rewind().map_err(io())?;
    if magic == GZIP_MAGIC {
        let mut unpacked = tempfile::tempfile().map_err(io())?;
        std::io::copy(&mut MultiGzDecoder::new(file), &mut unpacked).map_err(io())?;
        unpacked.rewind().map_err(io())?;
        file = unpacked;
    }
    let index = TarIndex::read(&mut file, path)?;
    Ok(Files::Tar {
        file: Arc::new(file),
        index,
    })
}

fn read_layout(source: &mut Source) -> Result<(), OutputError> {
    let bytes = source.files.read(INDEX_FILE, MANIFEST_BYTES_MAX)?;
    let index: Index = serde_json::from_slice(&bytes).map_err(OutputError::json(INDEX_FILE))?;
    let mut by_digest: BTreeMap<Digest, usize> = BTreeMap::new();
    for entry in &index.manifests {
        let place = match by_digest.get(&entry.digest) {
            Some(&place) => place,
            None => {
                source.images.push(gather(&source.files, entry)?);
                by_digest.insert(entry.digest.clone(), source.images.len() - 1);
                source.images.len() - 1
            }
        };
        let name = [IMAGE_NAME, REF_NAME]
            .iter()
            .find_map(|key| entry.annotations.get(*key));
        source.images[place].names.extend(name.cloned());
    }
    Ok(())
}

/// All documents and blobs below a descriptor, children before parents.
fn gather(files: &Files, top: &Descriptor) -> Result<SourceImage, OutputError> {
    let mut image = SourceImage::default();
    let mut seen = HashSet::new();
    let mut open = vec![(top.clone(), 0)];
    while let Some((entry, depth)) = open.pop() {
        if depth > INDEX_DEPTH_MAX {
            return Err(OutputError::Nested);
        }
        if !seen.insert(entry.digest.clone()) {
            continue;
        }
        let document = read_document(files, &entry)?;
        match AnyManifest::parse(&document.media_type, &document.bytes)? {
            AnyManifest::Manifest(manifest) => {
                let Manifest { config, layers, .. } = *manifest;
                for blob in std::iter::once(config).chain(layers) {
                    if seen.insert(blob.digest.clone()) {
                        image.blobs.push(blob);
                    }
                }
            }
            AnyManifest::Index(index) => {
                open.extend(index.manifests.into_iter().map(|child| (child, depth + 1)));
            }
        }
        image.documents.push(document);
    }
    // A document was pushed before what it names, but for a manifest that two indexes share.
    image.documents.reverse();
    let indexes = [media_type::OCI_INDEX, media_type::DOCKER_MANIFEST_LIST];
    image
        .documents
        .sort_by_key(|document| indexes.contains(&document.media_type.as_str()));
    Ok(image)
}

fn read_document(files: &Files, entry: &Descriptor) -> Result<Document, OutputError> {
    let bytes = files.read(&blob_path(&entry.digest), MANIFEST_BYTES_MAX)?;
    if !entry.digest.matches(&bytes) {
        return Err(OutputError::WrongDigest(entry.digest.clone()));
    }
    Ok(Document {
        media_type: entry.media_type.clone(),
        digest: entry.digest.clone(),
        bytes,
    })
}

/// A docker-archive without a layout: the manifest is made here, as an OCI one.
fn read_docker(source: &mut Source) -> Result<(), OutputError> {
    let bytes = source
        .files
        .read(DOCKER_MANIFEST_FILE, MANIFEST_BYTES_MAX)?;
    let images: Vec<DockerImage> =
        serde_json::from_slice(&bytes).map_err(OutputError::json(DOCKER_MANIFEST_FILE))?;
    let mut hashed: HashMap<String, Descriptor> = HashMap::new();
    for image in images {
        let config = source.files.read(&image.config, MANIFEST_BYTES_MAX)?;
        let config_descriptor = descriptor(
            media_type::OCI_CONFIG,
            Sha256::of(&config).into(),
            config.len() as u64,
        );
        let place = Place::Bytes(config);
        source
            .elsewhere
            .insert(config_descriptor.digest.clone(), place);
        let mut layers = Vec::with_capacity(image.layers.len());
        for path in image.layers {
            let layer = match hashed.get(&path) {
                Some(layer) => layer.clone(),
                None => describe_layer(&source.files, &path)?,
            };
            let place = Place::File(path.clone());
            source.elsewhere.insert(layer.digest.clone(), place);
            hashed.insert(path, layer.clone());
            layers.push(layer);
        }
        let names = image.repo_tags.unwrap_or_default();
        source
            .images
            .push(docker_image(names, config_descriptor, layers)?);
    }
    Ok(())
}

fn docker_image(
    names: Vec<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
) -> Result<SourceImage, OutputError> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: config.clone(),
        layers: layers.clone(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(OutputError::json(DOCKER_MANIFEST_FILE))?;
    let mut seen = HashSet::new();
    Ok(SourceImage {
        names,
        documents: vec![Document {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            digest: Sha256::of(&bytes).into(),
            bytes,
        }],
        blobs: std::iter::once(config)
            .chain(layers)
            .filter(|blob| seen.insert(blob.digest.clone()))
            .collect(),
    })
}

/// Digest, size and compression of a layer's file.
fn describe_layer(files: &Files, path: &str) -> Result<Descriptor, OutputError> {
    let mut reader = files.open(path)?;
    let mut hasher = Sha256Hasher::new();
    let mut block = vec![0; 1 << 20];
    let mut kind = None;
    loop {
        let count = reader
            .read(&mut block)
            .map_err(OutputError::io(path.as_ref()))?;
        let bytes = &block[..count];
        kind.get_or_insert_with(|| layer_type(bytes));
        hasher.update(bytes);
        if count == 0 {
            let kind = kind.unwrap_or(media_type::OCI_LAYER);
            return Ok(descriptor(kind, hasher.finish().into(), reader.size()));
        }
    }
}

fn layer_type(start: &[u8]) -> &'static str {
    if start.starts_with(&GZIP_MAGIC) {
        media_type::OCI_LAYER_GZIP
    } else if start.starts_with(&ZSTD_MAGIC) {
        media_type::OCI_LAYER_ZSTD
    } else {
        media_type::OCI_LAYER
    }
}
