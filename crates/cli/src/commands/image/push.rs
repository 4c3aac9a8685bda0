//! `firn image push`.

use super::{
    history::HistoryArgs,
    load,
    prepare::{Prepared, Rights},
    sbom,
    spec_args::SpecArgs,
};
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
    image::{
        CONNECTIONS, ImageReport, LayerTrust, RegistryPush, StoreBeside, StoredImage, mount_source,
        push_stored, push_to_firn, read_history, write_history,
    },
    local_store::LocalStore,
    registry::Repository,
};
use firn_formats::oci::Reference;
use firn_image::compose::PlannedImage;
use std::{path::PathBuf, sync::Arc};

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("target").args(["to", "name"])))]
#[command(group(clap::ArgGroup::new("named").required(true).multiple(true).args(["name", "to", "spec"])))]
#[command(group(clap::ArgGroup::new("source").required(true).multiple(true).args(["paths", "archive", "spec"])))]
pub(crate) struct Args {
    /// Store paths, links to them, or flake installables
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Push to the Firn server's cache under this name
    #[arg(long, value_name = "NAME:TAG")]
    name: Option<String>,
    /// Push to any registry; no server is needed, and the closure is cached beside the image. Also
    /// docker-daemon:NAME:TAG and containers-storage:NAME:TAG [default: the spec's name]
    #[arg(long, value_name = "REGISTRY/NAME:TAG")]
    to: Option<String>,
    /// Push an image that is there already: an OCI layout, an oci-archive or a docker-archive
    #[arg(long, value_name = "FILE|DIR", conflicts_with_all = ["paths", "spec"])]
    archive: Option<PathBuf>,
    /// Which image of the archive
    #[arg(long, value_name = "NAME:TAG", requires = "archive")]
    archive_name: Option<String>,
    /// Credentials for the registry of --to; - reads them from standard input. All users of the machine see
    /// arguments: rather set FIRN_DEST_CREDS [default: docker's config; for ghcr.io also GITHUB_TOKEN]
    #[arg(
        long,
        value_name = "USER:TOKEN",
        env = "FIRN_DEST_CREDS",
        hide_env_values = true,
        value_parser = crate::dest_creds::parse
    )]
    dest_creds: Option<String>,
    /// Push the image alone, and do not cache the closure's store paths
    #[arg(long)]
    no_paths: bool,
    /// Push a bill of materials beside the image, as an artifact that refers to it
    #[arg(long, value_enum, value_name = "FORM", conflicts_with = "archive")]
    sbom: Option<sbom::Format>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    history: HistoryArgs,
}

/// Where an image goes.
enum Target {
    /// Into the Firn server's cache, by this name.
    Here(String),
    Elsewhere(String),
}

impl Args {
    fn target(&self) -> Outcome<Target> {
        if let Some(to) = &self.to {
            return Ok(Target::Elsewhere(to.clone()));
        }
        if let Some(name) = &self.name {
            return Ok(Target::Here(name.clone()));
        }
        let Some(name) = self.spec.reference()? else {
            return Err(Failure::new("the image has no name").hint(
                "--name NAME:TAG pushes to the Firn server, --to REGISTRY/NAME:TAG anywhere",
            ));
        };
        let reference = Reference::parse(&name).map_err(ClientError::from)?;
        Ok(match reference.registry {
            Some(_) => Target::Elsewhere(name),
            None => Target::Here(name),
        })
    }
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let target = args.target()?;
    if let Target::Elsewhere(to) = &target
        && let Some((into, name)) = load::daemon_of(to)
    {
        if args.archive.is_some() {
            return Err(Failure::new("--archive goes to registries")
                .hint("`docker load --input` and `podman load --input` read the file themselves"));
        }
        return load::push(global, into, name, &args.spec, &args.history, &args.paths);
    }
    let progress = global.progress();
    let report = match (&args.archive, &target) {
        (Some(archive), target) => push_archive(global, args, target, archive, &progress)?,
        (None, Target::Elsewhere(to)) => push_elsewhere(global, args, to, &progress)?,
        (None, Target::Here(name)) => push_here(global, args, name, &progress)?,
    };
    show(global.json, &report, text)
}

fn text(report: &ImageReport) -> String {
    let mut out = format!(
        "{}@{}: {} of {} layers sent, {} already exist, {} of {}, {:.2} s",
        report.image,
        report.digest,
        report.layers_sent,
        report.layers_total,
        report.layers_reused,
        bytes(report.bytes_sent),
        bytes(report.bytes_total),
        report.seconds
    );
    if report.paths_pushed > 0 {
        out.push_str(&format!("\n{} store paths cached", report.paths_pushed));
    }
    out
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

fn push_here(global: &Global, args: &Args, name: &str, progress: &Bar) -> Outcome<ImageReport> {
    let (name, tag) = local_reference(name)?;
    let server = global.connect()?;
    let store = LocalStore::from_environment();
    let prepared = args
        .spec
        .prepare(&store, Rights::of(global), &args.paths, progress)?;
    let repository = Repository::of_server(&server, &global.cache, &name)?;
    let sent_before = repository.http().bytes_sent();
    let image = plan(global, args, &store, prepared, &repository, &tag, progress)?;
    let mut report = push_to_firn(
        &server,
        &global.cache,
        &store,
        &image,
        &name,
        &tag,
        !args.no_paths,
        progress,
    )?;
    keep_beside(args, &repository, &image, &report, progress)?;
    report.bytes_sent = repository.http().bytes_sent() - sent_before;
    Ok(report)
}

/// By what the repository, or what was asked for, knows of the image.
fn plan(
    global: &Global,
    args: &Args,
    store: &LocalStore,
    prepared: Prepared,
    repository: &Repository,
    tag: &str,
    progress: &Bar,
) -> Outcome<PlannedImage> {
    let creds = args.dest_creds.as_deref();
    let own = || read_history(repository, tag, progress);
    let history = args.history.read(global, creds, progress, own)?;
    prepared.plan(store, history, progress)
}

/// What travels with the image.
fn keep_beside(
    args: &Args,
    repository: &Repository,
    image: &PlannedImage,
    report: &ImageReport,
    progress: &Bar,
) -> Outcome {
    if let Some(format) = args.sbom {
        let (spec, closure) = (&image.spec, &image.closure);
        sbom::put(
            repository,
            spec,
            closure,
            &report.digest,
            &report.image,
            format,
        )?;
    }
    if args.history.is_kept() {
        write_history(repository, image, &report.digest, progress);
    }
    args.history.write(image)
}

fn push_elsewhere(global: &Global, args: &Args, to: &str, progress: &Bar) -> Outcome<ImageReport> {
    let local = LocalStore::from_environment();
    let rights = Rights {
        global,
        to: args.dest_creds.as_deref().map(|creds| (to, creds)),
    };
    let prepared = args.spec.prepare(&local, rights, &args.paths, progress)?;
    let (mut repository, reference) = elsewhere(args, to)?;
    let base = prepared.spec.base.as_ref();
    if let Some(from) = base.and_then(|base| mount_source(base, repository.registry())) {
        repository = repository.mounting_from(&from);
    }
    let repository = Arc::new(repository);
    let tag = reference.tag.as_ref().map_or("latest", |tag| tag.as_str());
    let sent_before = repository.http().bytes_sent();
    let image = plan(global, args, &local, prepared, &repository, tag, progress)?;
    let beside = match args.no_paths {
        true => None,
        false => Some(StoreBeside::open(&repository, &reference, &global.cache)?),
    };
    let trust = LayerTrust::from_environment()?;
    let push = RegistryPush {
        repository: &repository,
        reference: &reference,
        local: &local,
        image: &image,
        beside: beside.as_ref(),
        trust: &trust,
    };
    let mut report = push.push(progress)?;
    if report.layers_not_believed > 0 {
        eprintln!(
            "note: no trusted key has signed what the image under this tag says of {} of its layers; they were made \
             here and compared",
            report.layers_not_believed
        );
    }
    keep_beside(args, &repository, &image, &report, progress)?;
    report.bytes_sent = repository.http().bytes_sent() - sent_before;
    Ok(report)
}

fn elsewhere(args: &Args, to: &str) -> Outcome<(Repository, Reference)> {
    let reference = Reference::parse(&in_small_letters(to)).map_err(ClientError::from)?;
    let credential = args
        .dest_creds
        .as_deref()
        .map(Credential::parse_basic)
        .transpose()?;
    let http = Http::new(CONNECTIONS)?;
    let repository = Repository::of_reference(http, &reference, credential)?.for_pushing();
    Ok((repository, reference))
}

/// Names of repositories have small letters, but those of GitHub's owners, which workflows put there, may
/// have others. A tag stays as it is.
fn in_small_letters(to: &str) -> String {
    let name_begins = to.rfind('/').map_or(0, |slash| slash + 1);
    let tail = to.get(name_begins..).unwrap_or_default();
    let name_ends = tail
        .find([':', '@'])
        .map_or(to.len(), |at| name_begins + at);
    let (name, tag) = to.split_at(name_ends);
    format!("{}{tag}", name.to_ascii_lowercase())
}

fn push_archive(
    global: &Global,
    args: &Args,
    target: &Target,
    archive: &std::path::Path,
    progress: &Bar,
) -> Outcome<ImageReport> {
    let stored = StoredImage::open(archive, args.archive_name.as_deref())?;
    let name = match target {
        Target::Here(name) => name,
        Target::Elsewhere(to) => {
            let (repository, reference) = elsewhere(args, to)?;
            let tag = reference.tag.as_ref().map_or("latest", |tag| tag.as_str());
            return Ok(push_stored(&repository, to, tag, &stored, progress)?);
        }
    };
    let (name, tag) = local_reference(name)?;
    let server = global.connect()?;
    let repository = Repository::of_server(&server, &global.cache, &name)?;
    let display = format!("{}/{}/{name}:{tag}", server.url().authority(), global.cache);
    Ok(push_stored(&repository, &display, &tag, &stored, progress)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_may_have_capital_letters() {
        for (given, name) in [
            ("ghcr.io/Acme/App:V1", "ghcr.io/acme/app:V1"),
            ("LOCALHOST:5000/A", "localhost:5000/a"),
            ("a/B@sha256:0", "a/b@sha256:0"),
            ("app", "app"),
        ] {
            assert_eq!(in_small_letters(given), name);
        }
    }

    #[test]
    fn the_text_says_what_existed() {
        let report = ImageReport {
            image: "r/a:1".to_owned(),
            digest: "sha256:0".to_owned(),
            layers_total: 5,
            layers_sent: 1,
            layers_reused: 4,
            paths_pushed: 2,
            ..ImageReport::default()
        };
        let text = text(&report);
        assert!(
            text.contains("1 of 5 layers sent, 4 already exist"),
            "{text}"
        );
        assert!(text.ends_with("2 store paths cached"), "{text}");
    }
}
