//! `firn use`.

use crate::{context::Global, failure::Outcome, output::show};
use firn_client::nix_config::{ConfigFiles, UseCache};
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cache's name
    #[arg(value_name = "CACHE")]
    name: String,
    /// Print the lines for nix.conf and netrc, change nothing
    #[arg(long, conflicts_with = "flake")]
    print: bool,
    /// Print the nixConfig block for a flake, change nothing
    #[arg(long)]
    flake: bool,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    cache: UseCache,
    nix_conf: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    netrc: Option<String>,
    written: bool,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let server = global.connect()?;
    let (keys, private) = match server.cache(&args.name) {
        Ok(view) => (view.public_keys, !view.public),
        // Whoever may only pull is still told the public key.
        Err(error) if matches!(error.status(), Some(401 | 403)) => {
            let key = server.public_key(&args.name).map_err(|_| error)?;
            (key.lines().map(str::to_owned).collect(), false)
        }
        Err(error) => return Err(error.into()),
    };
    let cache = UseCache::new(server.url(), &args.name, keys, private);
    if args.flake {
        return show(global.json, &cache, UseCache::flake_block);
    }
    let files = ConfigFiles::of_user()?;
    if !args.print {
        files.apply(&cache, server.token())?;
    }
    let report = Report {
        nix_conf: files.nix_conf.display().to_string(),
        netrc: private.then(|| files.netrc.display().to_string()),
        written: !args.print,
        cache,
    };
    show(global.json, &report, |report| {
        if report.written {
            let mut text = format!("Nix uses {} now: {}", report.cache.url, report.nix_conf);
            if let Some(netrc) = &report.netrc {
                text.push_str(&format!(" and {netrc}"));
            }
            return text;
        }
        let mut text = format!("# {}\n", report.nix_conf);
        for line in report.cache.nix_conf_lines(Some(&files.netrc)) {
            text.push_str(&format!("{line}\n"));
        }
        if let Some(netrc) = &report.netrc {
            let token = server.token().unwrap_or("TOKEN");
            text.push_str(&format!("# {netrc}\n{}\n", report.cache.netrc_line(token)));
        }
        text
    })
}
