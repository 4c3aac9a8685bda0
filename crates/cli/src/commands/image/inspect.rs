//! `firn image inspect`.

use super::push::local_reference;
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::{show, table},
    units::bytes,
};
use firn_client::{
    ClientError, credentials::Credential, http::Http, image::StoredImage, registry::Repository,
};
use firn_formats::admin::ImageView;
use firn_formats::oci::{Digest, ImageConfig, Index, Manifest, Reference};
use serde::Serialize;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// NAME:TAG in the Firn server's cache, REGISTRY/NAME:TAG, or an archive or layout
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Credentials for another registry [default: docker's config]
    #[arg(long, value_name = "USER:TOKEN")]
    creds: Option<String>,
}

#[derive(Serialize)]
struct Report {
    digest: String,
    manifest: Manifest,
    config: ImageConfig,
    /// What the other images of its cache share with it; of a Firn server's images.
    #[serde(skip_serializing_if = "Option::is_none")]
    sharing: Option<ImageView>,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let path = Path::new(&args.image);
    let report = if path.exists() {
        from_file(path)?
    } else {
        from_registry(global, args)?
    };
    show(global.json, &report, text)
}

fn malformed(what: &str, error: &serde_json::Error) -> Failure {
    Failure::new(format!("malformed {what}: {error}"))
}

fn from_file(path: &Path) -> Outcome<Report> {
    let stored = StoredImage::open(path, None)?;
    let (bytes, config) = stored.documents()?;
    read(&bytes, &config)
}

fn from_registry(global: &Global, args: &Args) -> Outcome<Report> {
    let (repository, tag) = repository(global, &args.image, args.creds.as_deref())?;
    let absent = || Failure::new(format!("there is no image {}", args.image));
    let raw = repository.manifest(&tag)?.ok_or_else(absent)?;
    let bytes = match serde_json::from_slice::<Index>(&raw.bytes) {
        Ok(index) if !index.manifests.is_empty() => {
            let digest = index.manifests[0].digest.to_string();
            repository.manifest(&digest)?.ok_or_else(absent)?.bytes
        }
        _ => raw.bytes,
    };
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| malformed("manifest", &error))?;
    let mut report = read(&bytes, &repository.blob(&manifest.config.digest)?)?;
    report.sharing = sharing(global, args, &tag)?;
    Ok(report)
}

/// What the server says of the image's layers, if it lies in a Firn server's cache under a tag.
fn sharing(global: &Global, args: &Args, tag: &str) -> Outcome<Option<ImageView>> {
    let reference = Reference::parse(&args.image).map_err(ClientError::from)?;
    if reference.registry.is_some() || reference.digest.is_some() {
        return Ok(None);
    }
    let image = format!("{}:{tag}", reference.name.as_str());
    let found = global.connect()?.images(&global.cache, Some(&image))?;
    Ok(found.into_iter().next())
}

/// An image's repository, and its tag or digest.
pub(super) fn repository(
    global: &Global,
    image: &str,
    creds: Option<&str>,
) -> Outcome<(Repository, String)> {
    let reference = Reference::parse(image).map_err(ClientError::from)?;
    let wanted = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.as_str().to_owned(),
        (None, None) => "latest".to_owned(),
    };
    if reference.registry.is_some() {
        let credential = creds.map(Credential::parse_basic).transpose()?;
        let repository = Repository::of_reference(Http::new(1)?, &reference, credential)?;
        return Ok((repository, wanted));
    }
    let (name, _) = local_reference(image)?;
    let repository = Repository::of_server(&global.connect()?, &global.cache, &name)?;
    Ok((repository, wanted))
}

fn read(manifest: &[u8], config: &[u8]) -> Outcome<Report> {
    Ok(Report {
        digest: Digest::from(firn_formats::Sha256::of(manifest)).to_string(),
        manifest: serde_json::from_slice(manifest)
            .map_err(|error| malformed("manifest", &error))?,
        config: serde_json::from_slice(config).map_err(|error| malformed("config", &error))?,
        sharing: None,
    })
}

fn text(report: &Report) -> String {
    let run = &report.config.config;
    let words = |words: &Option<Vec<String>>| words.as_ref().map(|words| words.join(" "));
    let facts = [
        ("digest", Some(report.digest.clone())),
        (
            "platform",
            Some(format!(
                "{}/{}",
                report.config.os, report.config.architecture
            )),
        ),
        ("entrypoint", words(&run.entrypoint)),
        ("cmd", words(&run.cmd)),
        ("user", run.user.clone()),
        ("workdir", run.working_dir.clone()),
        ("env", (!run.env.is_empty()).then(|| run.env.join(" "))),
    ];
    let rows: Vec<Vec<String>> = facts
        .into_iter()
        .filter_map(|(name, value)| Some(vec![name.to_owned(), value?]))
        .collect();
    let mut out = table(&rows);
    let history = report
        .config
        .history
        .iter()
        .filter(|entry| entry.empty_layer != Some(true));
    let comments: Vec<String> = history
        .map(|entry| entry.created_by.clone().unwrap_or_default())
        .collect();
    let layers: Vec<Vec<String>> = report
        .manifest
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let digest = layer.digest.to_string();
            let comment = comments.get(index).cloned().unwrap_or_default();
            vec![
                digest.chars().take(19).collect(),
                bytes(layer.size),
                shared(report, &digest),
                comment.chars().take(100).collect(),
            ]
        })
        .collect();
    out.push_str(&table(&layers));
    out.push_str(&format!(
        "{} layers, {}",
        report.manifest.layers.len(),
        bytes(report.manifest.layers.iter().map(|layer| layer.size).sum())
    ));
    if let Some(sharing) = &report.sharing {
        let own = bytes(sharing.own_bytes);
        out.push_str(&format!(", {own} in no other image of the cache"));
    }
    out
}

fn shared(report: &Report, digest: &str) -> String {
    let contents = report.sharing.iter().flat_map(|sharing| &sharing.contents);
    let mut found = contents.filter(|layer| layer.digest == digest);
    match found.next().map(|layer| layer.other_images) {
        None => String::new(),
        Some(0) => "its own".to_owned(),
        Some(1) => "in 1 other".to_owned(),
        Some(count) => format!("in {count} others"),
    }
}
