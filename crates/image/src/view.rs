//! An image seen as layers of store paths, wherever it lies: what is compared, judged and drawn.
//!
//! Which paths a layer has is said by the image's own history, whose entries name them; Firn writes it, and so
//! does nixpkgs' dockerTools. Sizes and references are known of what the local store has, sizes also of what a
//! history of Firn's lists.

use crate::{
    closure::Closure,
    compose::{LAYER_KEY_ANNOTATION, PlannedImage},
    plan::History,
};
use firn_formats::{
    nix::{StorePath, store_path::STORE_DIR},
    oci::{Digest, ImageConfig, Manifest},
};
use std::collections::{BTreeMap, HashMap};

/// An image's layers and config.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct View {
    /// Lowest first.
    pub layers: Vec<ViewLayer>,
    pub config: ImageConfig,
    /// Of the config's document; 0 of a plan, which has none yet.
    pub config_bytes: u64,
}

/// One layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ViewLayer {
    /// None of a plan.
    pub digest: Option<Digest>,
    pub diff_id: Option<Digest>,
    /// What the layer is, said without reading it; None of images made elsewhere.
    pub key: Option<String>,
    /// As a registry stores it; of a plan, as NARs.
    pub bytes: u64,
    pub paths: Vec<StorePath>,
    /// What `docker history` shows.
    pub comment: String,
}

impl View {
    /// Of an image that was made.
    pub fn of_documents(manifest: &Manifest, config: &ImageConfig) -> Self {
        let entries = config.history.iter();
        let mut entries = entries.filter(|entry| entry.empty_layer != Some(true));
        let mut diff_ids = config.rootfs.diff_ids.iter();
        let layers = manifest.layers.iter().map(|layer| {
            let entry = entries.next().cloned().unwrap_or_default();
            let comment = entry.created_by.unwrap_or_default();
            let mut paths = store_paths(&comment);
            paths.extend(store_paths(&entry.comment.unwrap_or_default()));
            paths.sort_unstable();
            paths.dedup();
            ViewLayer {
                digest: Some(layer.digest.clone()),
                diff_id: diff_ids.next().cloned(),
                key: layer.annotations.get(LAYER_KEY_ANNOTATION).cloned(),
                bytes: layer.size,
                paths,
                comment,
            }
        });
        Self {
            layers: layers.collect(),
            config: config.clone(),
            config_bytes: manifest.config.size,
        }
    }

    /// Of an image that could be made. Of store paths nothing is read.
    pub fn of_plan(image: &PlannedImage) -> Self {
        let config = image.config();
        let own = (0..image.layers.len()).map(|place| own_layer(image, place));
        Self {
            layers: base_layers(image, &config).chain(own).collect(),
            config,
            config_bytes: 0,
        }
    }

    /// Sum of the layers' sizes.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }

    /// All store paths.
    pub fn paths(&self) -> impl Iterator<Item = &StorePath> {
        self.layers.iter().flat_map(|layer| &layer.paths)
    }
}

impl ViewLayer {
    /// Whether both are the same layer: by digest, or by key where one of them is not made yet, or, where there
    /// are no keys, by their paths.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.digest, &other.digest, &self.key, &other.key) {
            (Some(a), Some(b), _, _) => a == b,
            (_, _, Some(a), Some(b)) => a == b,
            _ => !self.paths.is_empty() && self.has_paths_of(other),
        }
    }

    /// Whether both have the same set of paths.
    pub fn has_paths_of(&self, other: &Self) -> bool {
        let sorted = |layer: &Self| {
            let mut paths = layer.paths.clone();
            paths.sort_unstable();
            paths
        };
        self.paths.len() == other.paths.len() && sorted(self) == sorted(other)
    }
}

fn base_layers(image: &PlannedImage, config: &ImageConfig) -> impl Iterator<Item = ViewLayer> {
    let entries = config.history.iter();
    let mut entries = entries.filter(|entry| entry.empty_layer != Some(true));
    image.base_layers().iter().map(move |layer| {
        let told = entries.next().and_then(|entry| entry.created_by.clone());
        let comment = told.unwrap_or_else(|| "base image".to_owned());
        ViewLayer {
            digest: Some(layer.descriptor.digest.clone()),
            diff_id: Some(layer.diff_id.clone()),
            key: layer
                .descriptor
                .annotations
                .get(LAYER_KEY_ANNOTATION)
                .cloned(),
            bytes: layer.descriptor.size,
            paths: store_paths(&comment),
            comment,
        }
    })
}

fn own_layer(image: &PlannedImage, place: usize) -> ViewLayer {
    let layer = &image.layers[place];
    let infos = || layer.paths.iter().map(|&path| &image.closure.paths[path]);
    ViewLayer {
        digest: None,
        diff_id: None,
        key: Some(layer.key.clone()),
        bytes: match layer.paths.is_empty() {
            true => image.layer_archive(place).map_or(0, |tar| tar.length()),
            false => infos().map(|info| info.nar_size).sum(),
        },
        paths: infos().map(|info| info.path.clone()).collect(),
        comment: layer.comment.clone(),
    }
}

/// Store paths that a text names, absolute or by their base names.
fn store_paths(text: &str) -> Vec<StorePath> {
    let part_of_path =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_' | '?' | '=' | '/');
    let words = text.split(|c: char| !part_of_path(c));
    words
        .filter_map(|word| {
            let inside = word
                .strip_prefix(STORE_DIR)
                .and_then(|w| w.strip_prefix('/'));
            let base = inside.unwrap_or(word).split('/').next()?;
            StorePath::parse_base_name(base).ok()
        })
        .collect()
}

/// What is known of store paths besides their names.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    sizes: HashMap<StorePath, u64>,
    references: HashMap<StorePath, Vec<StorePath>>,
}

impl Facts {
    /// Takes in what a closure says.
    pub fn add_closure(&mut self, closure: &Closure) {
        for info in &closure.paths {
            self.sizes.insert(info.path.clone(), info.nar_size);
            self.references
                .insert(info.path.clone(), info.references.clone());
        }
    }

    /// Takes in the sizes that a history lists of paths of this view.
    pub fn add_history(&mut self, view: &View, history: &History) {
        let names = history.names.values();
        let sizes: BTreeMap<_, u64> = names.map(|name| (name.hash, name.size)).collect();
        for path in view.paths() {
            if let Some(&size) = sizes.get(&path.hash()) {
                self.sizes.entry(path.clone()).or_insert(size);
            }
        }
    }

    /// Of its NAR, in bytes.
    pub fn size(&self, path: &StorePath) -> Option<u64> {
        self.sizes.get(path).copied()
    }

    /// What a path refers to, itself left out; None if that is not known.
    pub fn references(&self, path: &StorePath) -> Option<impl Iterator<Item = &StorePath>> {
        let list = self.references.get(path)?;
        Some(list.iter().filter(move |reference| *reference != path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00000000000000000000000000000000";

    #[test]
    fn layers_of_other_tools_name_their_paths_too() {
        let name = format!("{HASH}-ffmpeg-6.1");
        for text in [
            format!("store paths: {name}, root files"),
            format!("store paths: ['/nix/store/{name}', '/x']"),
            format!("cp /nix/store/{name}/bin/x /"),
        ] {
            let found: Vec<String> = store_paths(&text).iter().map(|p| p.to_string()).collect();
            assert_eq!(found, [name.as_str()], "{text}");
        }
        assert!(store_paths("RUN apt-get install -y ffmpeg").is_empty());
    }
}
