//! `firn image load`: into the daemon or the storage of this machine, as a stream that lies nowhere whole.

use super::{history::HistoryArgs, prepare::Rights, spec_args::SpecArgs};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
    units::bytes,
};
use firn_client::{local_store::LocalStore, progress::Progress as _};
use firn_image::{
    compose::{AssembledImage, PlannedImage},
    output::{DockerLayout, OutputError, write_docker_archive},
    plan::History,
};
use serde::Serialize;
use std::{
    io::{BufWriter, ErrorKind, Write},
    process::{Child, Command, Stdio},
    time::Instant,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Store paths, links to them, or flake installables
    #[arg(required_unless_present = "spec", value_name = "PATH")]
    paths: Vec<String>,
    /// Whose images it shall be among: that program's, which has to be in PATH
    #[arg(long, value_enum)]
    into: Into,
    /// Name of the image; repeat for more [default: the spec's]
    #[arg(long, value_name = "NAME:TAG")]
    name: Vec<String>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    history: HistoryArgs,
}

/// Who takes images from a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Into {
    Docker,
    Podman,
}

impl Into {
    fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

#[derive(Serialize)]
struct Report {
    image: String,
    into: &'static str,
    /// Of the config: what docker and podman call the image's id.
    id: String,
    layers_total: usize,
    bytes_sent: u64,
    seconds: f64,
}

/// What skopeo calls a daemon: `docker-daemon:NAME:TAG` and `containers-storage:NAME:TAG`.
pub(super) fn daemon_of(to: &str) -> Option<(Into, &str)> {
    let docker = to.strip_prefix("docker-daemon:");
    let podman = to.strip_prefix("containers-storage:");
    docker
        .map(|name| (Into::Docker, name))
        .or(podman.map(|name| (Into::Podman, name)))
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let mut names = args.name.clone();
    if names.is_empty() {
        names.extend(args.spec.reference()?);
    }
    load(
        global,
        args.into,
        &names,
        &args.spec,
        &args.history,
        &args.paths,
    )
}

/// `firn image push --to` a daemon.
pub(super) fn push(
    global: &Global,
    into: Into,
    name: &str,
    spec: &SpecArgs,
    history: &HistoryArgs,
    paths: &[String],
) -> Outcome {
    load(global, into, &[name.to_owned()], spec, history, paths)
}

fn load(
    global: &Global,
    into: Into,
    names: &[String],
    spec: &SpecArgs,
    history: &HistoryArgs,
    paths: &[String],
) -> Outcome {
    let started = Instant::now();
    let store = LocalStore::from_environment();
    let progress = global.progress();
    let known = history.read(global, None, &progress, History::default)?;
    let image = spec.plan(&store, Rights::of(global), paths, known, &progress)?;
    progress.begin(into.program(), image.closure.nar_bytes());
    let sent = send(into, &image, names, &|bytes| progress.advance(bytes));
    progress.end();
    let (assembled, bytes_sent) = sent?;
    history.write(&image)?;
    let report = Report {
        image: names.join(" "),
        into: into.program(),
        id: format!("sha256:{}", assembled.config_digest.hex()),
        layers_total: image.layers.len() + image.base_layers().len(),
        bytes_sent,
        seconds: started.elapsed().as_secs_f64(),
    };
    show(global.json, &report, |report| {
        format!(
            "{} in {}: {} layers, {} ({}), {:.2} s",
            report.image,
            report.into,
            report.layers_total,
            report.id,
            bytes(report.bytes_sent),
            report.seconds
        )
    })
}

/// Writes the archive into the program's standard input; gives the bytes that it took.
fn send(
    into: Into,
    image: &PlannedImage,
    names: &[String],
    watch: &dyn Fn(u64),
) -> Outcome<(AssembledImage, u64)> {
    let mut child = start(into)?;
    let scratch = std::env::temp_dir();
    let mut sent = 0;
    let written = match child.stdin.take() {
        None => return Err(Failure::new(format!("{} takes no input", into.program()))),
        Some(stdin) => {
            let out = Counted {
                out: stdin,
                sent: &mut sent,
                watch,
            };
            let mut out = BufWriter::with_capacity(1 << 20, out);
            // Dropped at the end: then the program knows that there is no more.
            write_docker_archive(&mut out, image, names, DockerLayout::Oci, &scratch)
        }
    };
    let said = child
        .wait_with_output()
        .map_err(|error| Failure::new(format!("{}: {error}", into.program())))?;
    let message = String::from_utf8_lossy(&said.stderr);
    let message = message.lines().last().unwrap_or_default().trim();
    match written {
        Ok(assembled) if said.status.success() => Ok((assembled, sent)),
        // A program that gave up says why better than the broken pipe does.
        Err(error) if !is_broken_pipe(&error) => Err(error.into()),
        _ => Err(Failure::new(format!(
            "`{} load` failed: {message}",
            into.program()
        ))),
    }
}

fn start(into: Into) -> Outcome<Child> {
    let program = into.program();
    let started = Command::new(program)
        .args(["load", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    started.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::new(format!("`{program}` is not in PATH")).hint(
            "`firn image build --format docker-archive` writes a file that it loads elsewhere",
        ),
        _ => Failure::new(format!("{program}: {error}")),
    })
}

fn is_broken_pipe(error: &OutputError) -> bool {
    matches!(error, OutputError::Write(error) if error.kind() == ErrorKind::BrokenPipe)
}

struct Counted<'a, W> {
    out: W,
    sent: &'a mut u64,
    watch: &'a dyn Fn(u64),
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        *self.sent += count as u64;
        (self.watch)(count as u64);
        Ok(count)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
