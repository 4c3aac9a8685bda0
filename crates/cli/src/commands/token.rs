//! `firn token`.

use crate::{
    context::Global,
    failure::Outcome,
    output::{show, table},
    units::parse_duration,
};
use clap::{Subcommand, ValueEnum};
use firn_formats::actions::Scope;
use firn_formats::admin::{ActionsGrant, Right, Rotate, TokenCreate, TokenView};
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token; it is shown this once. --cache takes a pattern such as `acme/*`
    Create(Create),
    /// List tokens
    List,
    /// Sign tokens with a new key; those made before, the admin's own too, end after the overlap
    Rotate {
        /// How long tokens made before are good still
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_duration)]
        overlap: Duration,
    },
    /// Revoke a token
    Revoke {
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// What it may do, separated by commas [default: pull,push]
    #[arg(long, value_enum, value_delimiter = ',')]
    allow: Vec<Allow>,
    /// When it ends, such as 12h or 30d [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires: Option<Duration>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// For the Actions cache of a repository; it then may nothing else unless --allow says so
    #[arg(long, value_name = "OWNER/NAME", requires = "scope")]
    actions_repo: Option<String>,
    /// A ref, or a branch's name: where entries are saved and first looked for. Further ones are only read, the last
    /// of them is the default branch
    #[arg(long, value_name = "REF", requires = "actions_repo")]
    scope: Vec<String>,
    /// Save nothing in the first scope either
    #[arg(long, requires = "actions_repo")]
    read_only: bool,
}

impl Create {
    fn actions(&self) -> Option<ActionsGrant> {
        let scopes = self.scope.iter().enumerate().map(|(place, name)| {
            let name = match name.starts_with("refs/") {
                true => name.clone(),
                false => format!("refs/heads/{name}"),
            };
            match place == 0 && !self.read_only {
                true => Scope::write(&name),
                false => Scope::read(&name),
            }
        });
        Some(ActionsGrant {
            repository: self.actions_repo.clone()?,
            scopes: scopes.collect(),
        })
    }

    fn allow(&self) -> Vec<Right> {
        let asked = self.allow.iter().map(|allow| Right::from(*allow));
        match self.actions_repo {
            None if self.allow.is_empty() => vec![Right::Pull, Right::Push],
            _ => asked.collect(),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Allow {
    Pull,
    /// New images under new tags, without moving any
    Create,
    Push,
    Delete,
    Admin,
}

impl From<Allow> for Right {
    fn from(allow: Allow) -> Self {
        match allow {
            Allow::Pull => Self::Pull,
            Allow::Create => Self::Create,
            Allow::Push => Self::Push,
            Allow::Delete => Self::Delete,
            Allow::Admin => Self::Admin,
        }
    }
}

pub(crate) fn run(global: &Global, command: Command) -> Outcome {
    let server = global.connect()?;
    match command {
        Command::Create(create) => {
            let created = server.token_create(&TokenCreate {
                caches: global.cache.split(',').map(str::to_owned).collect(),
                allow: create.allow(),
                actions: create.actions(),
                expires_in: create.expires.map(|time| time.as_secs()),
                note: create.note,
            })?;
            show(global.json, &created, |created| created.token.clone())
        }
        Command::List => show(global.json, &server.tokens()?, |tokens| list(tokens)),
        Command::Rotate { overlap } => {
            let rotated = server.token_key_rotate(Rotate {
                overlap_seconds: overlap.as_secs(),
            })?;
            show(global.json, &rotated, |rotated| {
                format!(
                    "tokens made before are good until {}; the server's admin.token is a new one",
                    rotated.old_tokens_until
                )
            })
        }
        Command::Revoke { id } => {
            server.token_revoke(&id)?;
            show(global.json, &serde_json::json!({ "revoked": id }), |_| {
                format!("revoked {id}")
            })
        }
    }
}

fn list(tokens: &[TokenView]) -> String {
    let rows: Vec<Vec<String>> = tokens
        .iter()
        .map(|token| {
            let rights: Vec<String> = token
                .allow
                .iter()
                .map(|right| format!("{right:?}").to_lowercase())
                .collect();
            let ends = match (&token.expires, token.revoked) {
                (_, true) => "revoked".to_owned(),
                (Some(expires), _) => format!("until {expires}"),
                (None, _) => "for ever".to_owned(),
            };
            vec![
                token.id.clone(),
                token.caches.join(","),
                rights.join(","),
                ends,
                token.note.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&rows)
}
