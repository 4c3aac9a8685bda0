//! `firn serve`.

use crate::{
    context::Global,
    failure::{Failure, Outcome},
};
use firn_server::{
    Config, StartError, StoreError,
    logging::{self, LogFormat},
};
use std::{
    io::Write as _,
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:8484]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    listen: Option<SocketAddr>,
    /// Configuration (JSON); flags go over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How clients reach the server, if not by its address
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Form of the log on standard error: text, json
    #[arg(long, value_name = "FORM", default_value = "text")]
    log_format: LogFormat,
}

/// `ADDR:PORT`, `HOST:PORT` or `:PORT`, which is all addresses.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let text = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.to_owned(),
    };
    text.to_socket_addrs()
        .map_err(|error| format!("{error}; write 127.0.0.1:8484"))?
        .next()
        .ok_or_else(|| "the name has no address".to_owned())
}

/// The configuration of a server with this command line.
pub(super) fn config(global: &Global, file: Option<&std::path::Path>) -> Outcome<Config> {
    let mut config = match file {
        Some(path) => Config::from_file(path).map_err(|error| Failure::of(&error))?,
        None => Config::default(),
    };
    if let Some(dir) = global.data_given() {
        dir.clone_into(&mut config.data);
    }
    Ok(config)
}

pub(crate) fn run(global: &Global, args: Args) -> Outcome {
    logging::init(args.log_format);
    let mut config = config(global, args.config.as_deref())?;
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if args.public_url.is_some() {
        config.public_url = args.public_url;
    }
    let server = firn_server::start(config).map_err(failure)?;
    let signals = server.catch_signals().map_err(failure)?;
    let mut stdout = std::io::stdout().lock();
    // Whoever started the server may not read on; that is no reason not to serve.
    let _written = if global.json {
        let ready = serde_json::json!({
            "address": server.address(),
            "url": server.url(),
            "admin_token_file": server.admin_token_path(),
        });
        writeln!(stdout, "{ready}")
    } else {
        writeln!(
            stdout,
            "{}\n\n{}",
            first_line(server.url(), server.address()),
            firn_server::welcome(&server)
        )
    };
    let _flushed = stdout.flush();
    drop(stdout);
    server.run_until(signals).map_err(failure)
}

/// Says what runs, where, and how it ends.
fn first_line(url: &str, address: SocketAddr) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let line = format!("firn {version}: a Nix cache and an OCI registry at {url}");
    let own = format!("http://{address}");
    let line = match url == own {
        true => line,
        false => format!("{line}, listening on {address}"),
    };
    let local = address.ip().is_unspecified() && url.starts_with("http://127.0.0.1:");
    match local {
        true => {
            format!("{line}\n--public-url URL says how other machines reach it; Ctrl-C stops it")
        }
        false => format!("{line}; Ctrl-C stops it"),
    }
}

fn failure(error: StartError) -> Failure {
    let hint = match &error {
        StartError::Listen { .. } => "--listen ADDR takes another address; port 0 takes a free one",
        StartError::Store(StoreError::Locked(_)) => {
            "another firn uses the folder; --data DIR takes another"
        }
        StartError::Store(StoreError::NoWriteAheadLog { .. }) => {
            "keep the data folder on a local disk: SQLite needs shared memory, which NFS and the like do not have"
        }
        StartError::Store(StoreError::Database(_) | StoreError::DatabaseMissing(_)) => {
            "`firn rebuild` makes the database anew from packs and segments"
        }
        _ => return Failure::of(&error),
    };
    Failure::of(&error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_where() {
        let line = |url, address: &str| first_line(url, address.parse().expect("an address"));
        let loopback = line("http://127.0.0.1:8484", "127.0.0.1:8484");
        assert!(loopback.ends_with("at http://127.0.0.1:8484; Ctrl-C stops it"));
        let public = line("https://cache.example.org", "0.0.0.0:80");
        assert!(public.contains("https://cache.example.org, listening on 0.0.0.0:80;"));
        assert!(line("http://127.0.0.1:80", "0.0.0.0:80").contains("--public-url"));
    }

    #[test]
    fn addresses_may_leave_out_the_host() {
        let address = |text| parse_address(text).map(|found| found.to_string());
        assert_eq!(address(":80"), Ok("0.0.0.0:80".to_owned()));
        assert_eq!(address("127.0.0.1:0"), Ok("127.0.0.1:0".to_owned()));
        assert!(address("nowhere").is_err());
    }
}
