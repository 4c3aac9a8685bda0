//! `firn image sbom`, and `--sbom` of a push.

use super::{
    prepare::{Rights, whole_second},
    spec_args::SpecArgs,
};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
};
use firn_client::{
    image::{Artifact, attach},
    local_store::LocalStore,
    registry::Repository,
};
use firn_image::{
    closure::Closure,
    sbom::{Sbom, SbomFormat},
    spec::ImageSpec,
};
use std::{collections::BTreeMap, io::Write as _, path::PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Store paths, links to them, or flake installables
    #[arg(required_unless_present = "spec", value_name = "PATH")]
    paths: Vec<String>,
    /// Form of the document
    #[arg(long, value_enum, default_value = "spdx")]
    format: Format,
    /// Name of the image in it [default: the spec's, or that of the first PATH]
    #[arg(long, value_name = "NAME:TAG")]
    name: Option<String>,
    /// File to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    spec: SpecArgs,
}

/// In which form a bill of materials is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// SPDX 2.3 (JSON)
    Spdx,
    /// CycloneDX 1.6 (JSON)
    Cyclonedx,
}

impl From<Format> for SbomFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Spdx => Self::Spdx,
            Format::Cyclonedx => Self::CycloneDx,
        }
    }
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let store = LocalStore::from_environment();
    let progress = global.progress();
    let rights = Rights::of(global);
    let prepared = args.spec.prepare(&store, rights, &args.paths, &progress)?;
    let name = match &args.name {
        Some(name) => Some(name.clone()),
        None => args.spec.reference()?,
    };
    let json = document(
        &prepared.spec,
        &prepared.closure,
        name.as_deref(),
        args.format,
    )?;
    match &args.output {
        Some(path) => std::fs::write(path, json)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display()))),
        None => {
            let mut stdout = std::io::stdout().lock();
            Ok(stdout
                .write_all(&json)
                .and_then(|()| stdout.write_all(b"\n"))?)
        }
    }
}

fn document(
    spec: &ImageSpec,
    closure: &Closure,
    name: Option<&str>,
    format: Format,
) -> Outcome<Vec<u8>> {
    let first = closure.roots.first().map_or("image", |root| root.name());
    // Both forms want UTC, and no leap second.
    let created = match spec.created.parse() {
        Ok(time) => whole_second(time),
        Err(_) => spec.created.clone(),
    };
    let sbom = Sbom {
        name: name.unwrap_or(first),
        created: &created,
        closure,
    };
    sbom.to_json(format.into())
        .map_err(|error| Failure::of(&error))
}

/// Puts the bill beside an image that was just pushed.
pub(super) fn put(
    repository: &Repository,
    spec: &ImageSpec,
    closure: &Closure,
    pushed: &str,
    name: &str,
    format: Format,
) -> Outcome {
    let bytes = document(spec, closure, Some(name), format)?;
    let artifact = Artifact {
        media_type: SbomFormat::from(format).media_type(),
        bytes: &bytes,
        annotations: BTreeMap::from([(
            "org.opencontainers.image.created".to_owned(),
            spec.created.clone(),
        )]),
    };
    attach(repository, pushed, &artifact, None)?;
    Ok(())
}
