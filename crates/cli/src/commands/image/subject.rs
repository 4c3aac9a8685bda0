//! What a command looks at: an image of a registry, an archive or layout, or a plan of PATHs.

use super::{inspect, prepare::Rights, spec_args::SpecArgs};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
};
use firn_client::{
    image::{StoredImage, read_history},
    local_store::LocalStore,
    progress::Progress,
    registry::Repository,
};
use firn_formats::{
    Sha256,
    nix::{StorePath, store_path::STORE_DIR},
    oci::{Digest, ImageConfig, Index, Manifest},
};
use firn_image::{
    compose::PlannedImage,
    plan::History,
    view::{Facts, View},
};
use std::path::Path;

/// Where an image is looked for, by what is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An archive or a layout.
    File,
    /// A store path, or what leads to one.
    Paths,
    /// `[REGISTRY/]NAME[:TAG]`.
    Reference,
}

/// An image, and what is known of it.
pub(super) struct Subject {
    pub(super) view: View,
    /// What travels with it; empty where there is none.
    pub(super) history: History,
    pub(super) origin: Origin,
}

/// What it was read out of.
pub(super) enum Origin {
    Plan(Box<PlannedImage>),
    Made(Box<Documents>),
}

/// An image that was made.
pub(super) struct Documents {
    /// Of the manifest; of an index, of its first one.
    pub(super) digest: String,
    pub(super) manifest: Manifest,
    pub(super) config: ImageConfig,
}

/// Files come first, then what leads into the store, then flake installables; all else is a reference.
pub(super) fn kind(text: &str) -> Kind {
    let path = Path::new(text);
    let below_store = |path: &Path| path.starts_with(STORE_DIR);
    let real = path.canonicalize().ok();
    match real {
        Some(real) if real.is_file() && StoredImage::open(path, None).is_ok() => Kind::File,
        Some(real) if real.join("oci-layout").is_file() => Kind::File,
        Some(real) if real.is_file() && !below_store(&real) && !path.is_symlink() => Kind::File,
        Some(_) => Kind::Paths,
        None if below_store(path) || text.contains('#') || path.is_symlink() => Kind::Paths,
        None if StorePath::parse_base_name(text).is_ok() => Kind::Paths,
        None if text.starts_with(['.', '/']) => Kind::Paths,
        None => Kind::Reference,
    }
}

/// Reads an image that was made.
pub(super) fn made(
    global: &Global,
    image: &str,
    creds: Option<&str>,
    progress: &dyn Progress,
) -> Outcome<Subject> {
    if kind(image) == Kind::File {
        let (manifest, config) = StoredImage::open(Path::new(image), None)?.documents()?;
        return subject(&manifest, &config, History::default());
    }
    let (repository, tag) = inspect::repository(global, image, creds)?;
    let (manifest, config) = documents(&repository, image, &tag)?;
    let history = read_history(&repository, &tag, progress);
    subject(&manifest, &config, history)
}

/// Plans an image of PATHs, by what is known of it.
pub(super) fn planned(
    spec: &SpecArgs,
    store: &LocalStore,
    rights: Rights<'_>,
    paths: &[String],
    history: History,
    progress: &dyn Progress,
) -> Outcome<Subject> {
    let plan = spec.plan(store, rights, paths, history, progress)?;
    Ok(Subject {
        view: View::of_plan(&plan),
        history: plan.spec.history.clone(),
        origin: Origin::Plan(Box::new(plan)),
    })
}

impl Subject {
    pub(super) fn plan(&self) -> Option<&PlannedImage> {
        match &self.origin {
            Origin::Plan(plan) => Some(plan),
            Origin::Made(_) => None,
        }
    }

    /// What the machine's store, the plan and the history know of its paths.
    pub(super) fn facts(&self, store: &LocalStore) -> Outcome<Facts> {
        let mut facts = Facts::default();
        self.add_facts(store, &mut facts)?;
        Ok(facts)
    }

    pub(super) fn add_facts(&self, store: &LocalStore, facts: &mut Facts) -> Outcome {
        match self.plan() {
            Some(plan) => facts.add_closure(&plan.closure),
            None => {
                let paths: Vec<StorePath> = self.view.paths().cloned().collect();
                facts.add_closure(&store.closure_of_valid(&paths)?);
                facts.add_history(&self.view, &self.history);
            }
        }
        Ok(())
    }
}

/// The bytes of a registry's image, the first of an index, and of its config.
fn documents(repository: &Repository, image: &str, tag: &str) -> Outcome<(Vec<u8>, Vec<u8>)> {
    let absent = || Failure::new(format!("there is no image {image}"));
    let raw = repository.manifest(tag)?.ok_or_else(absent)?;
    let bytes = match serde_json::from_slice::<Index>(&raw.bytes) {
        Ok(index) if !index.manifests.is_empty() => {
            let digest = index.manifests[0].digest.to_string();
            repository.manifest(&digest)?.ok_or_else(absent)?.bytes
        }
        _ => raw.bytes,
    };
    let manifest: Manifest = parse(&bytes)?;
    let config = repository.blob(&manifest.config.digest)?;
    Ok((bytes, config))
}

fn subject(bytes: &[u8], config: &[u8], history: History) -> Outcome<Subject> {
    let manifest: Manifest = parse(bytes)?;
    let config: ImageConfig = parse(config)?;
    Ok(Subject {
        view: View::of_documents(&manifest, &config),
        history,
        origin: Origin::Made(Box::new(Documents {
            digest: Digest::from(Sha256::of(bytes)).to_string(),
            manifest,
            config,
        })),
    })
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Outcome<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::new(format!("malformed manifest or config: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_told_by_what_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("image.tar"), "no image").expect("file");
        std::fs::create_dir(path("layout")).expect("folder");
        std::fs::write(path("layout/oci-layout"), "{}").expect("file");
        let name = format!("{}-app", "0".repeat(32));
        std::os::unix::fs::symlink(format!("/nix/store/{name}"), path("result")).expect("link");
        for (text, wanted) in [
            (path("image.tar"), Kind::File),
            (path("layout"), Kind::File),
            (path("result"), Kind::Paths),
            (format!("/nix/store/{name}"), Kind::Paths),
            (name, Kind::Paths),
            (".#app".to_owned(), Kind::Paths),
            ("./gone".to_owned(), Kind::Paths),
            ("app:1".to_owned(), Kind::Reference),
            ("ghcr.io/acme/app:1".to_owned(), Kind::Reference),
        ] {
            assert_eq!(kind(&text), wanted, "{text}");
        }
    }
}
