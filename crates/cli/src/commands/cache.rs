//! `firn cache`.

pub(crate) mod keep;

use crate::{
    context::Global,
    failure::Outcome,
    output::{show, table},
    units::{ago, bytes, duration, parse_duration, parse_limit_bytes, parse_limit_time},
};
use clap::Subcommand;
use firn_formats::admin::{CacheConfigure, CacheCreate, CacheView, Rotate};
use std::time::Duration;

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
    /// Change what a cache keeps
    Configure(Configure),
    /// Pin a path or an image under a name, so that it never goes; move the name to it
    Pin(keep::Pin),
    /// Let go of what a name pins
    Unpin {
        /// The name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Take away now what a cache's limits do not let stay
    Evict(keep::EvictArgs),
    /// Manage the keys that sign what a cache serves
    #[command(subcommand)]
    Key(Key),
    /// List what was taken away, when and why
    Evictions {
        /// How many, the newest first
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
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
    #[command(flatten)]
    limits: Limits,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Sign with a new key; the old one signs beside it for a while
    Rotate {
        #[arg(value_name = "NAME")]
        name: String,
        /// How long both sign, so that clients have time to learn the new key
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_duration)]
        overlap: Duration,
    },
}

#[derive(Debug, clap::Args)]
struct Limits {
    /// What nobody used for so long goes, such as 30d; `never` keeps it
    #[arg(long, value_name = "TIME", value_parser = parse_limit_time)]
    keep_for: Option<u64>,
    /// Beyond this size what was used least recently goes, such as 50G; `none` is no limit
    #[arg(long, value_name = "SIZE", value_parser = parse_limit_bytes)]
    quota: Option<u64>,
    /// Let each repository of the Actions cache read what the others saved on their default branches
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    actions_shared: Option<bool>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Configure {
    #[arg(value_name = "NAME")]
    name: String,
    /// Nix's priority among substituters; lower wins
    #[arg(long)]
    priority: Option<u32>,
    #[command(flatten)]
    limits: Limits,
    /// How much each repository of the Actions cache may hold; `none` is the default again [default: 10GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_limit_bytes)]
    actions_quota: Option<u64>,
    /// How long an entry of the Actions cache is kept after its last use; `none` is the default again [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = parse_limit_time)]
    actions_keep_for: Option<u64>,
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
                keep_for_seconds: create.limits.keep_for,
                quota_bytes: create.limits.quota,
                actions_shared: create.limits.actions_shared,
            })?;
            show(global.json, &view, text)
        }
        Command::Configure(configure) => {
            let change = CacheConfigure {
                priority: configure.priority,
                keep_for_seconds: configure.limits.keep_for,
                quota_bytes: configure.limits.quota,
                actions_keep_for_seconds: configure.actions_keep_for,
                actions_quota_bytes: configure.actions_quota,
                actions_shared: configure.limits.actions_shared,
            };
            let view = server.cache_configure(&configure.name, &change)?;
            show(global.json, &view, text)
        }
        Command::Key(Key::Rotate { name, overlap }) => {
            let rotate = Rotate {
                overlap_seconds: overlap.as_secs(),
            };
            show(global.json, &server.key_rotate(&name, rotate)?, rotated)
        }
        Command::Pin(pin) => keep::pin(global, &server, &pin),
        Command::Unpin { name } => keep::unpin(global, &server, &name),
        Command::Evict(args) => keep::evict(global, &server, &args),
        Command::Evictions { limit } => keep::evictions(global, &server, limit),
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

fn rotated(view: &CacheView) -> String {
    let keys = view.public_keys.join("\n");
    format!(
        "{keys}\nthe last line is the new key; `firn use {}` makes Nix trust what signs now",
        view.name
    )
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

fn stored(view: &CacheView) -> String {
    match view.quota_bytes {
        Some(quota) => format!(
            "{} of {} ({:.0}%)",
            bytes(view.stored_bytes),
            bytes(quota),
            100.0 * view.stored_bytes as f64 / quota as f64
        ),
        None => bytes(view.stored_bytes),
    }
}

fn keeps(view: &CacheView) -> String {
    match view.keep_for_seconds {
        Some(seconds) if seconds % 86400 == 0 => {
            format!("{} d since the last use", seconds / 86400)
        }
        Some(seconds) => format!("{} since the last use", duration(seconds as f64)),
        None => "for ever".to_owned(),
    }
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
        row("stored", stored(view)),
        row("keeps", keeps(view)),
    ];
    if view.actions_shared {
        let text = "repositories read each other's default branches";
        rows.push(row("Actions", text.to_owned()));
    }
    if view.roots > 0 {
        rows.push(row("pinned names", view.roots.to_string()));
    }
    if let Some(last_at) = view.evicted.last_at {
        let evicted = &view.evicted;
        rows.push(row(
            "taken away",
            format!(
                "{} paths and {} images, {}; the last {}",
                evicted.paths,
                evicted.images,
                bytes(evicted.bytes),
                ago(last_at)
            ),
        ));
    }
    rows.extend(
        view.public_keys
            .iter()
            .map(|key| row("public key", key.clone())),
    );
    table(&rows)
}
