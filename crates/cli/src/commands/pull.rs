//! `firn pull`.

use crate::{
    context::Global,
    door::PassedOn,
    failure::{Failure, Outcome},
    output::show,
    storage::{LocalCache, StorageArgs},
    units::bytes,
};
use firn_client::{
    ClientError,
    http::ServerUrl,
    nix_config::{nix_is_here, trusted_keys, user_is_trusted},
    pull::{BinaryCache, Chunks, PullReport, pull_to_folder, pull_with_nix},
    resolve::store_path,
    storage::StorageLocation,
    substituter::{ServerSource, Substituter, new_key},
};
use firn_formats::nix::{PublicKey, StorePath};
use std::{path::PathBuf, sync::Arc};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Store paths
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    #[command(flatten)]
    storage: StorageArgs,
    /// Another binary cache than the server's
    #[arg(long, value_name = "URL", conflicts_with = "storage")]
    from: Option<String>,
    /// Unpack into DIR/nix/store instead of the local store; needs no Nix
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Trust a key, `name:base64`
    #[arg(long = "public-key", value_name = "KEY")]
    public_keys: Vec<String>,
    /// Trust the key that the server names
    #[arg(long)]
    trust: bool,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let paths = args
        .paths
        .iter()
        .map(|path| store_path(path))
        .collect::<Result<Vec<_>, _>>()?;
    let stores = match args.from {
        Some(_) => Vec::new(),
        None => args.storage.instead_of_server(global)?,
    };
    let report = match stores.is_empty() {
        true => from_cache(global, args, &paths)?,
        false => from_stores(global, args, &paths, &stores)?,
    };
    show(global.json, &report, |report| {
        match (report.paths_fetched, report.paths_total) {
            (Some(fetched), Some(total)) => format!(
                "pulled {fetched} of {total} paths: {} in {:.2} s",
                bytes(report.bytes_received.unwrap_or_default()),
                report.seconds
            ),
            (Some(fetched), None) => format!(
                "pulled {fetched} paths: {} in {:.2} s",
                bytes(report.bytes_received.unwrap_or_default()),
                report.seconds
            ),
            _ => format!("pulled in {:.2} s", report.seconds),
        }
    })
}

/// Through a substituter of this process: what the machine has is not fetched.
fn from_stores(
    global: &Global,
    args: &Args,
    paths: &[StorePath],
    locations: &[StorageLocation],
) -> Outcome<PullReport> {
    let local = LocalCache::start(global, args.storage.open_all(locations)?, None)?;
    let cache = BinaryCache::new(ServerUrl::parse(&local.url)?, None)?;
    let keys = [local.substituter.public_key()];
    let pulled = match &args.to {
        Some(folder) => pull_to_folder(&cache, None, paths, &keys, folder, &global.progress()),
        None => pull_with_nix(&cache, paths, &keys, global.json),
    };
    let mut report = pulled.map_err(|error| named(error, locations))?;
    let stats = local.substituter.stats();
    report.paths_fetched.get_or_insert(stats.nars);
    report.bytes_received = Some(stats.bytes_fetched);
    Ok(report)
}

/// The user knows the stores, not the port between them and us.
fn named(error: ClientError, locations: &[StorageLocation]) -> Failure {
    let names: Vec<String> = locations.iter().map(ToString::to_string).collect();
    match error {
        ClientError::NotCached { path, .. } => Failure::from(ClientError::NotCached {
            path,
            url: names.join(", "),
        }),
        error => error.into(),
    }
}

fn from_cache(global: &Global, args: &Args, paths: &[StorePath]) -> Outcome<PullReport> {
    let server = global.server_url()?;
    let (url, token) = match &args.from {
        Some(from) => (ServerUrl::parse(from)?, None),
        None => (
            ServerUrl::parse(&server.join(&global.cache))?,
            global.token(&server)?,
        ),
    };
    let mut keys = args
        .public_keys
        .iter()
        .map(|key| PublicKey::parse(key))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::of(&error).hint("a public key is NAME:BASE64"))?;
    if args.trust {
        if args.from.is_some() {
            return Err(Failure::new("--trust asks a Firn server, not other caches")
                .hint("--public-key NAME:KEY trusts the key of any cache"));
        }
        let key = global.connect()?.public_key(&global.cache)?;
        keys.extend(key.lines().filter_map(|line| PublicKey::parse(line).ok()));
    }
    let cache = BinaryCache::new(url, token)?;
    let server = match args.from {
        None => Some(Arc::new(ServerSource::new(
            global.connect()?,
            &global.cache,
        )?)),
        Some(_) => None,
    };
    match (&args.to, server) {
        (Some(folder), server) => {
            keys.extend(trusted_keys());
            let chunks = server.map(chunks).transpose()?;
            let (chunks, progress) = (chunks.as_ref(), global.progress());
            Ok(pull_to_folder(
                &cache, chunks, paths, &keys, folder, &progress,
            )?)
        }
        (None, Some(server)) => through_door(global, &cache, server, paths, &keys),
        (None, None) => pull_with_nix(&cache, paths, &keys, global.json)
            .map_err(|error| nix_failure(error, keys.is_empty())),
    }
}

fn chunks(server: Arc<ServerSource>) -> Outcome<Chunks> {
    let key = new_key("firn-pull-1")?;
    Ok(Chunks {
        substituter: Arc::new(Substituter::new(Vec::new(), key)?),
        server,
    })
}

/// Nix asks a door of this process, which fetches of the server's NARs what the machine's store paths lack.
fn through_door(
    global: &Global,
    cache: &BinaryCache,
    server: Arc<ServerSource>,
    paths: &[StorePath],
    keys: &[PublicKey],
) -> Outcome<PullReport> {
    // What is wrong is said of the server, not of the door.
    cache.check()?;
    let passed_on = PassedOn::new(Arc::clone(&server), Vec::new());
    let local = LocalCache::start(global, Vec::new(), Some(passed_on))?;
    let door = BinaryCache::new(ServerUrl::parse(&local.url)?, None)?;
    let mut report = pull_with_nix(&door, paths, keys, global.json)
        .map_err(|error| nix_failure(error, keys.is_empty()))?;
    report
        .paths_fetched
        .get_or_insert(local.substituter.stats().nars);
    report.bytes_received = Some(server.bytes_fetched());
    Ok(report)
}

/// Nix says itself what is wrong, but not how to tell `firn` which key to trust.
fn nix_failure(error: ClientError, without_keys: bool) -> Failure {
    let is_command = matches!(error, ClientError::Command { .. });
    let maybe_unsigned = without_keys && is_command;
    let failure = Failure::from(error);
    if !maybe_unsigned {
        return match is_command && nix_is_here() && matches!(user_is_trusted(), Ok(false)) {
            true => failure.hint(
                "the Nix daemon takes keys from its trusted-users alone, and this user is none: an administrator \
                 can put the key into the daemon's nix.conf (`firn use CACHE` says how); --to DIR needs no daemon",
            ),
            false => failure,
        };
    }
    failure.hint(
        "Nix takes what a key of its trusted-public-keys has signed: `firn use CACHE` adds the \
         cache's, --trust or --public-key NAME:KEY trusts one for once",
    )
}
