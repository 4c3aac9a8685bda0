//! The docker-archive of before Docker 25, and of nixpkgs' dockerTools: no blobs by digest, but
//! `<config>.json`, `<diff id>/layer.tar`, a `manifest.json` that names them, and `repositories` for what is older
//! still. Layers may be gzip: what reads such archives looks at their beginning.

use super::{
    DOCKER_MANIFEST_FILE, OutputError, below, build::BuiltImage, docker, layout::tag_of,
    tarball::TarWriter,
};
use crate::{
    base::BaseLayer,
    compose::{AssembledImage, PlannedImage},
};
use firn_formats::oci::Digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

const REPOSITORIES_FILE: &str = "repositories";
const VERSION: &[u8] = b"1.0";

enum Layer<'a> {
    Below(&'a BaseLayer),
    Own(usize),
}

pub(super) fn write(
    out: &mut dyn Write,
    image: &PlannedImage,
    built: BuiltImage,
    names: &[String],
) -> Result<AssembledImage, OutputError> {
    let below = image.base_layers().iter();
    let below = below.map(|layer| (hex(&layer.diff_id), Layer::Below(layer)));
    let own = built.layers.iter().enumerate();
    let own = own.map(|(index, layer)| (hex(&layer.blob.diff_id), Layer::Own(index)));
    let layers: Vec<(String, Layer<'_>)> = below.chain(own).collect();
    let mut tar = TarWriter::new(out);
    let mut written = BTreeSet::new();
    for (folder, layer) in &layers {
        if !written.insert(folder.as_str()) {
            continue;
        }
        tar.directory(folder)?;
        tar.file(&format!("{folder}/VERSION"), VERSION)?;
        let path = format!("{folder}/layer.tar");
        match layer {
            Layer::Below(layer) => {
                let size = layer.descriptor.size;
                tar.file_of(&path, size, &mut |out| below::copy(image, layer, out))?;
            }
            Layer::Own(index) => {
                let layer = &built.layers[*index];
                tar.file_of(&path, layer.blob.size, &mut |out| {
                    layer.content.copy_to(out)
                })?;
            }
        }
    }
    let config = format!("{}.json", built.documents.config_digest.hex());
    tar.file(&config, &built.documents.config)?;
    let files = layers
        .iter()
        .map(|(folder, _)| format!("{folder}/layer.tar"));
    let manifest = docker::manifest(config, names, files.collect())?;
    tar.file(DOCKER_MANIFEST_FILE, &manifest)?;
    if let (Some((top, _)), false) = (layers.last(), names.is_empty()) {
        tar.file(REPOSITORIES_FILE, &repositories(names, top)?)?;
    }
    tar.finish()?;
    Ok(built.documents)
}

fn hex(digest: &Digest) -> String {
    let text = digest.to_string();
    text.split_once(':')
        .map_or_else(|| text.clone(), |(_, hex)| hex.to_owned())
}

/// `{name: {tag: the topmost layer}}`.
fn repositories(names: &[String], top: &str) -> Result<Vec<u8>, OutputError> {
    let mut all: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for name in names {
        let tag = tag_of(name);
        let suffix = format!(":{tag}");
        let repository = name.strip_suffix(suffix.as_str()).unwrap_or(name);
        all.entry(repository).or_default().insert(tag, top);
    }
    serde_json::to_vec(&all).map_err(OutputError::json(REPOSITORIES_FILE))
}
