//! What is known of an image's revisions, beside the image: an artifact that refers to it.
//!
//! It is found by the image that the tag points at now, or, where there is none that has one, by the tag
//! `dev.firn.history`, which points at what was written last in the repository: so a tag that is new begins with
//! what the others have learned. It makes plans better and is no more than that: whatever cannot be read is
//! none, with a note.

use super::attach::{Artifact, attach};
use crate::{
    error::{ClientError, Result},
    progress::Progress,
    registry::Repository,
};
use firn_formats::oci::{Descriptor, Digest, Manifest};
use firn_image::{
    compose::PlannedImage,
    plan::{HISTORY_BYTES_MAX, History},
};
use std::collections::BTreeMap;

/// Of the artifact and of its one layer.
pub const HISTORY_TYPE: &str = "application/vnd.firn.image.history.v1+json";
/// The tag of what was written last.
pub const HISTORY_TAG: &str = "dev.firn.history";
/// How many revisions a history knows of, on the artifact's manifest and where it is listed.
const REVISIONS_ANNOTATION: &str = "dev.firn.history.revisions";

/// The history of the image that the tag points at, or else of the repository; an empty one if there is none.
pub fn read_history(repository: &Repository, tag: &str, progress: &dyn Progress) -> History {
    match find(repository, tag) {
        Ok(history) => history,
        // A repository that does not exist yet may be denied.
        Err(error @ ClientError::Refused { .. }) => {
            tracing::debug!(%error, "nothing is known of the image");
            History::default()
        }
        Err(error) => {
            progress.note(&format!("the image's history is not used: {error}"));
            History::default()
        }
    }
}

fn find(repository: &Repository, tag: &str) -> Result<History> {
    let image = repository.manifest_digest(tag)?;
    if let Some(image) = image {
        let mut found = repository.referrers(&Digest::parse(&image)?, HISTORY_TYPE)?;
        // Of several the one that knows most.
        found.sort_by_key(|entry| (revisions(entry), entry.digest.to_string()));
        if let Some(entry) = found.pop() {
            return read(repository, &entry.digest.to_string());
        }
    }
    read(repository, HISTORY_TAG)
}

fn revisions(entry: &Descriptor) -> u64 {
    let text = entry.annotations.get(REVISIONS_ANNOTATION);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn read(repository: &Repository, reference: &str) -> Result<History> {
    let Some(raw) = repository.manifest(reference)? else {
        return Ok(History::default());
    };
    let manifest: Manifest = serde_json::from_slice(&raw.bytes)
        .map_err(|source| ClientError::json("manifest of a history", source))?;
    let foreign = || ClientError::BadAnswer {
        url: format!("{}:{reference}", repository.name()),
        what: "it is no history of Firn's".to_owned(),
    };
    let layer = manifest
        .layers
        .iter()
        .find(|layer| layer.media_type == HISTORY_TYPE)
        .filter(|_| manifest.artifact_type.as_deref() == Some(HISTORY_TYPE))
        .ok_or_else(foreign)?;
    let bytes = repository.blob_up_to(&layer.digest, HISTORY_BYTES_MAX as u64)?;
    let bytes = bytes.ok_or_else(foreign)?;
    History::parse(&bytes).map_err(|error| ClientError::BadAnswer {
        url: format!("{}:{reference}", repository.name()),
        what: error.to_string(),
    })
}

/// The history with the planned image in it as the newest revision.
pub fn with_revision(image: &PlannedImage) -> History {
    let mut history = image.spec.history.clone();
    let layers: Vec<Vec<usize>> = image
        .layers
        .iter()
        .filter(|layer| !layer.paths.is_empty())
        .map(|layer| layer.paths.clone())
        .collect();
    history.record(&image.closure, &layers);
    history
}

/// Writes the history of an image that was just pushed, unless it says what was read. An image without its
/// history is whole, so a failure is a note.
pub fn write_history(
    repository: &Repository,
    image: &PlannedImage,
    pushed: &str,
    progress: &dyn Progress,
) {
    let history = with_revision(image);
    if history == image.spec.history {
        return;
    }
    if let Err(error) = write(repository, &history, pushed) {
        progress.note(&format!("the image's history is not kept: {error}"));
    }
}

fn write(repository: &Repository, history: &History, pushed: &str) -> Result<()> {
    let json = history
        .to_json()
        .map_err(|source| ClientError::json("history", source))?;
    let count = history.revisions.to_string();
    let artifact = Artifact {
        media_type: HISTORY_TYPE,
        bytes: &json,
        annotations: BTreeMap::from([(REVISIONS_ANNOTATION.to_owned(), count)]),
    };
    attach(repository, pushed, &artifact, Some(HISTORY_TAG)).map(drop)
}
