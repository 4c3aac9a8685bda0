//! `firn agent`.

use super::serve::parse_address;
use crate::{
    context::Global,
    door::{NixDoor, PassedOn},
    failure::{Failure, Outcome},
    storage::{StorageArgs, refresh, sources},
};
use firn_client::{
    storage::SharedStore,
    substituter::{ServerSource, Substituter, key_of_user, secret_name},
};
use firn_formats::nix::PublicKey;
use firn_server::{
    StartError,
    logging::{self, LogFormat},
    loopback::Loopback,
};
use serde::Serialize;
use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

/// When Nix asks for an unknown path, stores that were not looked at for so long are looked at again.
const REFRESH_AFTER: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    storage: StorageArgs,
    /// Address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8485", value_parser = parse_address)]
    listen: SocketAddr,
    /// Form of the log on standard error: text, json
    #[arg(long, value_name = "FORM", default_value = "text")]
    log_format: LogFormat,
}

/// What is said when it runs.
#[derive(Serialize)]
struct Ready {
    address: SocketAddr,
    url: String,
    public_keys: Vec<String>,
    /// Lines for nix.conf.
    nix_conf: Vec<String>,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    logging::init(args.log_format);
    let server = match global.server_given() {
        Some(_) => Some(Arc::new(ServerSource::new(
            global.connect()?,
            &global.cache,
        )?)),
        None => None,
    };
    let passed_on = match &server {
        Some(server) => Some(PassedOn::new(Arc::clone(server), server_keys(global)?)),
        None => None,
    };
    let stores = stores(&args.storage, server.is_some())?;
    let key = key_of_user()?;
    // The same at each start: it stands in nix.conf.
    let secret = secret_name(&key);
    let substituter = Substituter::new(sources(global, stores), key)?;
    let substituter = Arc::new(substituter.with_refresh_after(REFRESH_AFTER));
    let door = NixDoor::new(&global.cache, Arc::clone(&substituter), passed_on).behind(&secret);
    let keys = door.public_keys();
    let loopback = Loopback::start(args.listen, Arc::new(door)).map_err(failure)?;
    let signals = loopback.catch_signals().map_err(failure)?;
    if !loopback.address().ip().is_loopback() {
        tracing::warn!(
            "whoever reaches this address reads what the stores and the server's cache hold"
        );
    }
    say(global, &ready(global, loopback.address(), &secret, &keys));
    loopback.run_until(signals);
    let stats = substituter.stats();
    tracing::info!(
        nars = stats.nars,
        nar_bytes = stats.nar_bytes,
        bytes_local = stats.bytes_local,
        bytes_fetched = stats.bytes_fetched + server.map_or(0, |server| server.bytes_fetched()),
        "stopped"
    );
    Ok(())
}

/// The stores. One that cannot be reached now may be later; without any other there is nothing to serve.
fn stores(args: &StorageArgs, has_server: bool) -> Outcome<Vec<SharedStore>> {
    let locations = args.locations()?;
    if locations.is_empty() && !has_server {
        return Err(Failure::new("there is nothing to serve")
            .hint("--storage LOCATION names a store, --server URL a Firn server; or both"));
    }
    let (mut stores, mut reached) = (Vec::new(), has_server);
    let mut failed = None;
    for location in &locations {
        let store = args.open(location)?;
        match refresh(&store) {
            Ok(()) => reached = true,
            Err(failure) => {
                tracing::warn!(%location, why = failure.message(), "the store does not answer");
                failed = Some(failure);
            }
        }
        stores.push(store);
    }
    match failed {
        Some(failure) if !reached => Err(failure),
        _ => Ok(stores),
    }
}

fn server_keys(global: &Global) -> Outcome<Vec<PublicKey>> {
    let keys = global.connect()?.public_key(&global.cache)?;
    let keys = keys.lines().filter_map(|line| PublicKey::parse(line).ok());
    Ok(keys.collect())
}

fn ready(global: &Global, address: SocketAddr, secret: &str, keys: &[PublicKey]) -> Ready {
    let url = format!("http://{address}/{secret}/{}", global.cache);
    let public_keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    Ready {
        nix_conf: vec![
            format!("extra-substituters = {url}"),
            format!("extra-trusted-public-keys = {}", public_keys.join(" ")),
        ],
        address,
        url,
        public_keys,
    }
}

fn say(global: &Global, ready: &Ready) {
    let mut stdout = std::io::stdout().lock();
    // Whoever started the agent may not read on; that is no reason not to serve.
    let _written = match global.json {
        true => serde_json::to_string(ready)
            .map_err(std::io::Error::other)
            .and_then(|line| writeln!(stdout, "{line}")),
        false => writeln!(
            stdout,
            "firn {}: a substituter at {}; Ctrl-C stops it\n\n# nix.conf; who may read the URL may read what is served\n{}",
            env!("CARGO_PKG_VERSION"),
            ready.url,
            ready.nix_conf.join("\n")
        ),
    };
    let _flushed = stdout.flush();
}

fn failure(error: StartError) -> Failure {
    let failure = Failure::of(&error);
    match error {
        StartError::Listen { .. } => {
            failure.hint("--listen ADDR takes another address; port 0 takes a free one")
        }
        _ => failure,
    }
}
