//! `firn actions`: the Actions cache as people look at it.

mod entries;
mod history;
mod summary;

use crate::{
    context::Global,
    failure::{Failure, Outcome},
};
use clap::Subcommand;
use firn_client::api::{ActionsRepository, Server};
use firn_formats::actions::RepositoryName;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List entries
    List(entries::List),
    /// Delete an entry, or all with a key
    Delete(entries::Delete),
    /// Let the next save of a key take the place of the entry that is there
    Replace(entries::Replace),
    /// Show what repositories hold, and what they may
    Usage(entries::UsageArgs),
    /// Count hits, misses and evictions of each key, with their reasons
    History(history::History),
    /// Tell what became of a key: entries, look-ups, evictions
    Why(history::Why),
    /// Write what the cache did for a job to its log and its page
    Summary(summary::Args),
}

/// Which repository.
#[derive(Debug, Clone, clap::Args)]
struct RepositoryArgs {
    /// The repository
    #[arg(long = "repo", env = "GITHUB_REPOSITORY", value_name = "OWNER/NAME")]
    repository: Option<String>,
}

impl RepositoryArgs {
    fn given(&self, global: &Global) -> Outcome<Option<ActionsRepository>> {
        let Some(name) = &self.repository else {
            return Ok(None);
        };
        let name = RepositoryName::parse(name).map_err(|error| Failure::of(&error))?;
        Ok(Some(ActionsRepository {
            cache: global.cache_given(),
            name,
        }))
    }

    fn needed(&self, global: &Global) -> Outcome<ActionsRepository> {
        self.given(global)?.ok_or_else(|| {
            Failure::new("no repository is named")
                .hint("--repo OWNER/NAME; a job's GITHUB_REPOSITORY names it by itself")
                .hint("`firn actions usage` lists the repositories that there are")
        })
    }
}

/// A ref in full; a branch may be given by its name.
fn full_ref(name: &str) -> String {
    match name.starts_with("refs/") {
        true => name.to_owned(),
        false => format!("refs/heads/{name}"),
    }
}

/// The server, with the job's own token where nobody gave another.
fn connect(global: &Global) -> Outcome<Server> {
    let url = global.server_url()?;
    let token = match global.token(&url)? {
        Some(token) => Some(token),
        None => std::env::var("ACTIONS_RUNTIME_TOKEN")
            .ok()
            .filter(|token| !token.is_empty()),
    };
    Ok(Server::new(url, token)?)
}

pub(crate) fn run(global: &Global, command: &Command) -> Outcome {
    match command {
        Command::List(args) => entries::list(global, args),
        Command::Delete(args) => entries::delete(global, args),
        Command::Replace(args) => entries::replace(global, args),
        Command::Usage(args) => entries::usage(global, args),
        Command::History(args) => history::history(global, args),
        Command::Why(args) => history::why(global, args),
        Command::Summary(args) => summary::run(global, args),
    }
}
