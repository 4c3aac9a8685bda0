//! `firn image index`.

use super::{inspect, push::local_reference};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
    units::{bytes, parse_pair},
};
use firn_client::{
    ClientError,
    credentials::Credential,
    http::Http,
    image::{CONNECTIONS, IndexReport, IndexSource, StoredImage, push_index},
    registry::Repository,
};
use firn_formats::oci::Reference;
use std::{path::Path, sync::Arc};

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("target").required(true).args(["to", "name"])))]
pub(crate) struct Args {
    /// Images, one for each platform: REGISTRY/NAME:TAG, NAME:TAG in the Firn server's cache, layouts or archives
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Put the index into any registry
    #[arg(long, value_name = "REGISTRY/NAME:TAG")]
    to: Option<String>,
    /// Put the index into the Firn server's cache
    #[arg(long, value_name = "NAME:TAG")]
    name: Option<String>,
    /// Credentials for the registry of --to, and for images that lie there; - reads them from standard input. All
    /// users of the machine see arguments: rather set FIRN_DEST_CREDS [default: docker's config]
    #[arg(
        long,
        value_name = "USER:TOKEN",
        env = "FIRN_DEST_CREDS",
        hide_env_values = true,
        value_parser = crate::dest_creds::parse
    )]
    dest_creds: Option<String>,
    /// Annotation of the index
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    annotation: Vec<(String, String)>,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let sources = args
        .images
        .iter()
        .map(|image| source(global, args, image))
        .collect::<Outcome<Vec<_>>>()?;
    let (mut repository, display, tag) = target(global, args)?;
    for source in &sources {
        if let IndexSource::Remote {
            repository: other, ..
        } = source
            && other.is_beside(&repository)
        {
            repository = repository.mounting_from(other.name());
        }
    }
    let progress = global.progress();
    let annotations = args.annotation.iter().cloned().collect();
    let pushed = push_index(
        &repository,
        &display,
        &tag,
        &sources,
        annotations,
        &progress,
    );
    show(global.json, &pushed?, text)
}

fn text(report: &IndexReport) -> String {
    format!(
        "{}@{}: {}, {} blobs sent, {}, {:.2} s",
        report.image,
        report.digest,
        report.platforms.join(" "),
        report.blobs_sent,
        bytes(report.bytes_sent),
        report.seconds
    )
}

/// The repository, what the index is called, and its tag.
fn target(global: &Global, args: &Args) -> Outcome<(Repository, String, String)> {
    if let Some(name) = &args.name {
        let (name, tag) = local_reference(name)?;
        let server = global.connect()?;
        let repository = Repository::of_server(&server, &global.cache, &name)?;
        let display = format!("{}/{}/{name}:{tag}", server.url().authority(), global.cache);
        return Ok((repository, display, tag));
    }
    let to = args.to.as_deref().unwrap_or_default();
    let reference = Reference::parse(to).map_err(ClientError::from)?;
    let credential = args.dest_creds.as_deref().map(Credential::parse_basic);
    let http = Http::new(CONNECTIONS)?;
    let repository = Repository::of_reference(http, &reference, credential.transpose()?)?;
    let tag = reference
        .tag
        .as_ref()
        .map_or_else(|| "latest".to_owned(), |tag| tag.as_str().to_owned());
    Ok((repository.for_pushing(), reference.to_string(), tag))
}

fn source(global: &Global, args: &Args, image: &str) -> Outcome<IndexSource> {
    let path = Path::new(image);
    if path.exists() {
        return Ok(IndexSource::Stored(StoredImage::open(path, None)?));
    }
    if image.starts_with(['/', '.']) {
        return Err(Failure::new(format!("{image}: there is no such file")));
    }
    let registry = |image: &str| image.split('/').next().map(str::to_owned);
    let same = |to: &String| registry(to) == registry(image);
    let creds = args.dest_creds.as_deref();
    let creds = creds.filter(|_| args.to.as_ref().is_some_and(same));
    let (repository, wanted) = inspect::repository(global, image, creds)?;
    Ok(IndexSource::Remote {
        repository: Arc::new(repository),
        wanted,
    })
}
