//! `firn image build`.

use super::{history::HistoryArgs, prepare::Rights, spec_args::SpecArgs};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
    units::bytes,
};
use firn_client::{local_store::LocalStore, progress::Progress as _};
use firn_image::{
    compose::AssembledImage,
    output::{DockerLayout, OutputError, write_docker_archive, write_layout, write_oci_archive},
    plan::History,
};
use serde::Serialize;
use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    time::Instant,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Store paths, links to them, or flake installables
    #[arg(required_unless_present = "spec", value_name = "PATH")]
    paths: Vec<String>,
    /// File or folder to write
    #[arg(long, short, value_name = "FILE|DIR")]
    output: PathBuf,
    /// What to write; a folder is always an OCI layout
    #[arg(long, value_enum, default_value = "oci-archive")]
    format: Format,
    /// Name of the image, such as app:1; repeat for more [default: the spec's]
    #[arg(long, value_name = "NAME:TAG")]
    name: Vec<String>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    history: HistoryArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// An OCI layout: a folder
    Oci,
    /// An OCI layout in a tar
    OciArchive,
    /// What `docker load` reads, of any version
    DockerArchive,
    /// The same as Docker wrote it before version 25, without an OCI layout
    DockerLegacy,
}

#[derive(Serialize)]
struct Report {
    output: String,
    digest: String,
    layers_total: usize,
    bytes_total: u64,
    seconds: f64,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let started = Instant::now();
    let store = LocalStore::from_environment();
    let progress = global.progress();
    let history = args
        .history
        .read(global, None, &progress, History::default)?;
    let rights = Rights::of(global);
    let image = args
        .spec
        .plan(&store, rights, &args.paths, history, &progress)?;
    let mut names = args.name.clone();
    if names.is_empty() {
        names.extend(args.spec.reference()?);
    }
    progress.begin("build", 0);
    let docker = |layout| {
        into_file(&args.output, |file, scratch| {
            write_docker_archive(file, &image, &names, layout, scratch)
        })
    };
    let assembled = match args.format {
        Format::Oci => write_layout(&args.output, &image, &names)?,
        Format::OciArchive => into_file(&args.output, |file, scratch| {
            write_oci_archive(file, &image, &names, scratch)
        })?,
        Format::DockerArchive => docker(DockerLayout::Oci)?,
        Format::DockerLegacy => docker(DockerLayout::Legacy)?,
    };
    progress.end();
    args.history.write(&image)?;
    let report = Report {
        output: args.output.display().to_string(),
        digest: format!("sha256:{}", assembled.manifest_digest.hex()),
        layers_total: image.layers.len() + image.base_layers().len(),
        bytes_total: image.closure.nar_bytes(),
        seconds: started.elapsed().as_secs_f64(),
    };
    show(global.json, &report, |report| {
        format!(
            "{}: {} layers of {}, {} ({:.2} s)",
            report.output,
            report.layers_total,
            bytes(report.bytes_total),
            report.digest,
            report.seconds
        )
    })
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Self::of(&error)
    }
}

/// Writes a file whole or not at all; layers are made in its folder, which has the space anyway.
fn into_file(
    path: &Path,
    write: impl FnOnce(&mut dyn std::io::Write, &Path) -> Result<AssembledImage, OutputError>,
) -> Outcome<AssembledImage> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let fault = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&temporary).map_err(fault)?);
    let written = write(&mut file, parent)
        .map_err(Failure::from)
        .and_then(|image| {
            file.flush().map_err(fault)?;
            std::fs::rename(&temporary, path).map_err(fault)?;
            Ok(image)
        });
    if written.is_err() {
        // It is ours and useless now.
        let _removed = std::fs::remove_file(&temporary);
    }
    written
}
