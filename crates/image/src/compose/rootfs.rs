//! The files at an image's root: links to what the roots have, copies, users, temporary directories.
//!
//! What is copied comes first and wins, then come links ([`farm`]), then what is generated; nothing that is
//! there is replaced. Over a base image everything goes into the base's own directories, whose modes and
//! owners stay.

mod copies;
mod entries;
mod farm;
mod generated;

pub(super) use entries::{RootEntries, RootEntry, RootNode};

use crate::{archive::ArchiveError, closure::Closure, spec::ImageSpec};
use firn_formats::nix::StorePath;
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// A place of the root directory that several roots claim.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RootConflict {
    /// Absolute, in the image.
    pub path: PathBuf,
    /// The root that has it.
    pub kept: StorePath,
    /// The root whose entry is not linked.
    pub dropped: StorePath,
}

/// All root files that the spec asks for, and what could not be linked.
pub(super) fn collect(
    store_dir: &Path,
    closure: &Closure,
    spec: &ImageSpec,
) -> Result<(RootEntries, Vec<RootConflict>), ArchiveError> {
    let tree = spec.base.as_ref().and_then(|base| base.tree.clone());
    let mut entries = RootEntries::over(tree);
    let generated = generated::of(spec);
    let mut conflicts = copies::copy(store_dir, &spec.copy_to_root, &mut entries)?;
    if spec.root_links {
        let real = farm::real_directories(&generated);
        conflicts.extend(farm::link(store_dir, closure, real, &mut entries)?);
    }
    for entry in generated {
        entries.generate(entry);
    }
    entries.rule(&spec.rules);
    Ok((entries, conflicts))
}

/// A store path whose files decide what lies at the root has to be on this machine.
fn must_be_here(store_dir: &Path, path: &StorePath) -> Result<(), ArchiveError> {
    let local = store_dir.join(path.to_string());
    match std::fs::symlink_metadata(&local) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(ArchiveError::Absent(path.clone()))
        }
        Err(error) => Err(ArchiveError::io(&local)(error)),
    }
}
