//! `firn image`.

mod build;
mod diff;
mod history;
mod index;
mod inspect;
mod layers;
mod lint;
mod list;
mod load;
mod plan;
mod prepare;
mod push;
mod replay;
mod sbom;
mod spec_args;
mod subject;

use crate::{context::Global, failure::Outcome};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the layers an image would have, and what is in them
    Plan(plan::Args),
    /// Compose an image into an OCI layout, an oci-archive or a docker-archive
    Build(build::Args),
    /// Compose an image and push it, to the Firn server or to any registry
    Push(push::Args),
    /// Compose an image into the docker or podman of this machine
    Load(load::Args),
    /// Put one image for several platforms together out of one for each
    Index(index::Args),
    /// Print what an image consists of: a bill of materials
    Sbom(sbom::Args),
    /// List the images of a Firn server's cache
    List(list::Args),
    /// Show an image of a registry, an archive or a layout
    Inspect(inspect::Args),
    /// Say which layers of an image are pushed over another one, and which path or setting caused each
    Diff(diff::Args),
    /// Find what should not be in an image: what it costs, and by way of what it got in
    Lint(lint::Args),
    /// Show what an algorithm would have pushed over a series of revisions, each planned knowing the past alone
    Replay(replay::Args),
}

pub(crate) fn run(global: &Global, command: Command) -> Outcome {
    match command {
        Command::Plan(args) => plan::run(global, &args),
        Command::Build(args) => build::run(global, &args),
        Command::Push(args) => push::run(global, &args),
        Command::Load(args) => load::run(global, &args),
        Command::Index(args) => index::run(global, &args),
        Command::Sbom(args) => sbom::run(global, &args),
        Command::List(args) => list::run(global, &args),
        Command::Inspect(args) => inspect::run(global, &args),
        Command::Diff(args) => diff::run(global, &args),
        Command::Lint(args) => lint::run(global, &args),
        Command::Replay(args) => replay::run(global, &args),
    }
}
