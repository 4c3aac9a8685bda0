//! `firn pull`.

use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
    units::bytes,
};
use firn_client::{
    ClientError,
    http::ServerUrl,
    nix_config::trusted_keys,
    pull::{BinaryCache, pull_to_folder, pull_with_nix},
    resolve::store_path,
};
use firn_formats::nix::PublicKey;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Store paths
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Another binary cache than the server's
    #[arg(long, value_name = "URL")]
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
    let server = global.server_url()?;
    let (url, token) = match &args.from {
        Some(from) => (ServerUrl::parse(from)?, None),
        None => (
            ServerUrl::parse(&server.join(&global.cache))?,
            global.token(&server)?,
        ),
    };
    let paths = args
        .paths
        .iter()
        .map(|path| store_path(path))
        .collect::<Result<Vec<_>, _>>()?;
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
    let report = match &args.to {
        Some(folder) => {
            keys.extend(trusted_keys());
            pull_to_folder(&cache, &paths, &keys, folder, &global.progress())?
        }
        None => pull_with_nix(&cache, &paths, &keys, global.json)
            .map_err(|error| nix_failure(error, keys.is_empty()))?,
    };
    show(global.json, &report, |report| {
        match (report.paths_fetched, report.paths_total) {
            (Some(fetched), Some(total)) => format!(
                "pulled {fetched} of {total} paths: {} in {:.2} s",
                bytes(report.bytes_received.unwrap_or_default()),
                report.seconds
            ),
            _ => format!("pulled in {:.2} s", report.seconds),
        }
    })
}

/// Nix says itself what is wrong, but not how to tell `firn` which key to trust.
fn nix_failure(error: ClientError, without_keys: bool) -> Failure {
    let maybe_unsigned = without_keys && matches!(error, ClientError::Command { .. });
    let failure = Failure::from(error);
    if !maybe_unsigned {
        return failure;
    }
    failure.hint(
        "Nix takes what a key of its trusted-public-keys has signed: `firn use CACHE` adds the \
         cache's, --trust or --public-key NAME:KEY trusts one for once",
    )
}
