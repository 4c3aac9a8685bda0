//! `firn ci`.

pub(super) mod args;
mod daemon;
mod door;
mod restore;
mod save;
mod summary;

use crate::{
    context::Global,
    failure::{Failure, Outcome},
};
use firn_client::ci::{CiError, hash_files::HashFilesError};

/// The commands of `firn ci`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Serve the store to this job's Nix, and bring back other folders
    Restore(restore::Args),
    /// Send what is new, under the job's key, and stop serving
    Save(save::Args),
    /// Say what the cache was worth to this job
    Summary(summary::Args),
    /// The substituter that restore leaves behind
    #[command(hide = true)]
    Daemon(daemon::Args),
}

pub(crate) fn run(global: &Global, command: &Command) -> Outcome {
    match command {
        Command::Restore(args) => restore::run(global, args),
        Command::Save(args) => save::run(global, args),
        Command::Summary(args) => summary::run(global, args),
        Command::Daemon(args) => daemon::run(global, args),
    }
}

impl From<CiError> for Failure {
    fn from(error: CiError) -> Self {
        let hint = match error {
            CiError::Client(error) => return error.into(),
            CiError::Store(ref error) => return Self::of(error),
            CiError::HashFiles(HashFilesError::NoMatch { .. }) => {
                "patterns are as in hashFiles: relative to the working directory; is the file \
                 committed, and checked out before this step? **/flake.lock finds it in every folder"
            }
            CiError::Glob(_) | CiError::HashFiles(HashFilesError::Glob(_)) => {
                "patterns are as in hashFiles: *, ?, [a-z], ** and ! in front to exclude"
            }
            _ => return Self::of(&error),
        };
        Self::of(&error).hint(hint)
    }
}
