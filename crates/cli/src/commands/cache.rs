//! `firn cache`.

use crate::{
    context::Global,
    failure::Outcome,
    output::{show, table},
    units::bytes,
};
use clap::Subcommand;
use firn_formats::admin::{CacheCreate, CacheView};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a cache
    Create(Create),
    /// List the caches you may see
    List,
    /// Show one cache
    Show {
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Delete a cache and all its entries
    Delete {
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// One or two components, such as main or acme/web
    #[arg(value_name = "NAME")]
    name: String,
    /// Anyone may pull
    #[arg(long, conflicts_with = "private")]
    public: bool,
    /// Only tokens may pull [default]
    #[arg(long)]
    private: bool,
    /// Nix's priority among substituters; lower wins
    #[arg(long, default_value_t = 40)]
    priority: u32,
    /// The domain to share chunks in
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// References signed by this key, `name:base64`, need not be in the cache
    #[arg(long = "upstream-key", value_name = "KEY")]
    upstream_keys: Vec<String>,
}

pub(crate) fn run(global: &Global, command: Command) -> Outcome {
    let server = global.connect()?;
    match command {
        Command::Create(create) => {
            let view = server.cache_create(&CacheCreate {
                name: create.name,
                public: create.public && !create.private,
                priority: create.priority,
                domain: create.domain,
                upstream_keys: create.upstream_keys,
            })?;
            show(global.json, &view, text)
        }
        Command::List => show(global.json, &server.caches()?, |caches| list(caches)),
        Command::Show { name } => show(global.json, &server.cache(&name)?, text),
        Command::Delete { name } => {
            server.cache_delete(&name)?;
            show(global.json, &serde_json::json!({ "deleted": name }), |_| {
                format!("deleted {name}")
            })
        }
    }
}

fn access(view: &CacheView) -> &'static str {
    if view.public { "public" } else { "private" }
}

fn list(caches: &[CacheView]) -> String {
    let rows: Vec<Vec<String>> = caches
        .iter()
        .map(|view| {
            vec![
                view.name.clone(),
                access(view).to_owned(),
                format!("{} paths", view.store_paths),
                format!("{} images", view.images),
                bytes(view.stored_bytes),
            ]
        })
        .collect();
    table(&rows)
}

fn text(view: &CacheView) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("cache", view.name.clone()),
        row("access", access(view).to_owned()),
        row("domain", view.domain.clone()),
        row("priority", view.priority.to_string()),
        row("store paths", view.store_paths.to_string()),
        row("images", view.images.to_string()),
        row("stored", bytes(view.stored_bytes)),
    ];
    rows.extend(
        view.public_keys
            .iter()
            .map(|key| row("public key", key.clone())),
    );
    table(&rows)
}
