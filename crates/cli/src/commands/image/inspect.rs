//! `firn image inspect`.

use super::{
    layers::{self, Row, ShowArgs},
    push::local_reference,
    subject::{self, Kind, Origin},
};
use crate::{
    context::Global,
    failure::Outcome,
    output::{show, table},
    units::bytes,
};
use firn_client::{
    ClientError, credentials::Credential, http::Http, local_store::LocalStore, registry::Repository,
};
use firn_formats::admin::ImageView;
use firn_formats::oci::{ImageConfig, Manifest, Reference};
use firn_image::view::ViewLayer;
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// NAME:TAG in the Firn server's cache, REGISTRY/NAME:TAG, or an archive or layout
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Credentials for another registry [default: docker's config]
    #[arg(long, value_name = "USER:TOKEN")]
    creds: Option<String>,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Serialize)]
struct Report {
    digest: String,
    manifest: Manifest,
    config: ImageConfig,
    layers: Vec<Row>,
    /// What the other images of its cache share with it; of a Firn server's images.
    #[serde(skip_serializing_if = "Option::is_none")]
    sharing: Option<ImageView>,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let progress = global.progress();
    let creds = args.creds.as_deref();
    let others = args.show.others(global, creds, &progress)?;
    let made = subject::made(global, &args.image, creds, &progress)?;
    let facts = made.facts(&LocalStore::from_environment())?;
    let sharing = sharing(global, args)?;
    let mut rows = layers::rows(&made, &facts, &others);
    for (row, layer) in rows.iter_mut().zip(&made.view.layers) {
        row.other_images = others_of(sharing.as_ref(), layer);
    }
    args.show.draw(&args.image, &facts, &rows)?;
    match made.origin {
        Origin::Plan(_) => Ok(()),
        Origin::Made(made) => {
            let report = Report {
                digest: made.digest,
                manifest: made.manifest,
                config: made.config,
                layers: rows,
                sharing,
            };
            show(global.json, &report, text)
        }
    }
}

fn others_of(sharing: Option<&ImageView>, layer: &ViewLayer) -> Option<u64> {
    let digest = layer.digest.as_ref()?.to_string();
    let mut contents = sharing?.contents.iter();
    contents
        .find(|known| known.digest == digest)
        .map(|known| known.other_images)
}

/// What the server says of the image's layers, if it lies in a Firn server's cache under a tag.
fn sharing(global: &Global, args: &Args) -> Outcome<Option<ImageView>> {
    if subject::kind(&args.image) != Kind::Reference {
        return Ok(None);
    }
    let reference = Reference::parse(&args.image).map_err(ClientError::from)?;
    if reference.registry.is_some() || reference.digest.is_some() {
        return Ok(None);
    }
    let tag = reference.tag.as_ref().map_or("latest", |tag| tag.as_str());
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
    out.push_str(&layers::text(&report.layers));
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
