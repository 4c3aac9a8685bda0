//! `firn image push`.

use super::spec_args::SpecArgs;
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
    progress::Bar,
    units::bytes,
};
use firn_client::{
    ClientError,
    credentials::Credential,
    http::Http,
    image::{ImageReport, StoredImage, push_stored, push_to_firn, push_to_registry},
    local_store::LocalStore,
    registry::Repository,
};
use firn_formats::oci::Reference;
use std::path::PathBuf;

/// Connections to a registry.
const CONNECTIONS: usize = 4;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("target").required(true).args(["to", "name"])))]
#[command(group(clap::ArgGroup::new("source").required(true).args(["paths", "archive"])))]
pub(crate) struct Args {
    /// Store paths, links to them, or flake installables
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Push to the Firn server's cache under this name
    #[arg(long, value_name = "NAME:TAG")]
    name: Option<String>,
    /// Push to any registry
    #[arg(long, value_name = "REGISTRY/NAME:TAG")]
    to: Option<String>,
    /// Push an image that is there already: an OCI layout, an oci-archive or a docker-archive
    #[arg(long, value_name = "FILE|DIR")]
    archive: Option<PathBuf>,
    /// Which image of the archive
    #[arg(long, value_name = "NAME:TAG", requires = "archive")]
    archive_name: Option<String>,
    /// Credentials for the registry of --to [default: docker's config]
    #[arg(long, value_name = "USER:TOKEN")]
    dest_creds: Option<String>,
    /// Do not publish the closure's store paths
    #[arg(long)]
    no_paths: bool,
    #[command(flatten)]
    spec: SpecArgs,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let progress = global.progress();
    let report = match (&args.archive, &args.to) {
        (Some(archive), _) => push_archive(global, args, archive, &progress)?,
        (None, Some(to)) => push_elsewhere(args, to, &progress)?,
        (None, None) => push_here(global, args, &progress)?,
    };
    show(global.json, &report, |report| {
        format!(
            "{}@{}: {} of {} layers sent, {} of {}, {:.2} s",
            report.image,
            report.digest,
            report.layers_sent,
            report.layers_total,
            bytes(report.bytes_sent),
            bytes(report.bytes_total),
            report.seconds
        )
    })
}

/// `name:tag` without a registry.
pub(super) fn local_reference(name: &str) -> Outcome<(String, String)> {
    let reference = Reference::parse(name).map_err(ClientError::from)?;
    if reference.registry.is_some() {
        return Err(Failure::new(format!("{name} names a registry"))
            .hint("--name is a name in the Firn server's cache; --to pushes to any registry"));
    }
    let tag = reference
        .tag
        .map_or_else(|| "latest".to_owned(), |tag| tag.as_str().to_owned());
    Ok((reference.name.as_str().to_owned(), tag))
}

fn push_here(global: &Global, args: &Args, progress: &Bar) -> Outcome<ImageReport> {
    let (name, tag) = local_reference(args.name.as_deref().unwrap_or_default())?;
    let server = global.connect()?;
    let store = LocalStore::from_environment();
    let image = args.spec.plan(&store, &args.paths, progress)?;
    Ok(push_to_firn(
        &server,
        &global.cache,
        &store,
        &image,
        &name,
        &tag,
        !args.no_paths,
        progress,
    )?)
}

fn push_elsewhere(args: &Args, to: &str, progress: &Bar) -> Outcome<ImageReport> {
    let (repository, reference) = elsewhere(args, to)?;
    let store = LocalStore::from_environment();
    let image = args.spec.plan(&store, &args.paths, progress)?;
    Ok(push_to_registry(&repository, &reference, &image, progress)?)
}

fn elsewhere(args: &Args, to: &str) -> Outcome<(Repository, Reference)> {
    let reference = Reference::parse(to).map_err(ClientError::from)?;
    let credential = args
        .dest_creds
        .as_deref()
        .map(Credential::parse_basic)
        .transpose()?;
    let repository = Repository::of_reference(Http::new(CONNECTIONS)?, &reference, credential)?;
    Ok((repository, reference))
}

fn push_archive(
    global: &Global,
    args: &Args,
    archive: &std::path::Path,
    progress: &Bar,
) -> Outcome<ImageReport> {
    let stored = StoredImage::open(archive, args.archive_name.as_deref())?;
    if let Some(to) = &args.to {
        let (repository, reference) = elsewhere(args, to)?;
        let tag = reference.tag.as_ref().map_or("latest", |tag| tag.as_str());
        return Ok(push_stored(&repository, to, tag, &stored, progress)?);
    }
    let (name, tag) = local_reference(args.name.as_deref().unwrap_or_default())?;
    let server = global.connect()?;
    let repository = Repository::of_server(&server, &global.cache, &name)?;
    let display = format!("{}/{}/{name}:{tag}", server.url().authority(), global.cache);
    Ok(push_stored(&repository, &display, &tag, &stored, progress)?)
}
