//! `firn login`.

use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
};
use firn_client::{api::Server, credentials::CredentialsFile, http::ServerUrl};
use serde::Serialize;
use std::io::{BufRead as _, IsTerminal as _};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's URL
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// Read the token from standard input
    #[arg(long)]
    token_stdin: bool,
}

#[derive(Serialize)]
struct Report {
    server: String,
    caches: Vec<String>,
    allow: Vec<firn_formats::admin::Right>,
    file: String,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let url = match &args.url {
        Some(url) => ServerUrl::parse(url)?,
        None => global.server_url()?,
    };
    let token = read_token(args)?;
    let file = CredentialsFile::of_user()
        .ok_or_else(|| Failure::new("neither XDG_CONFIG_HOME nor HOME is set"))?;
    let server = Server::new(url, Some(token.clone()))?;
    let who = server.whoami()?;
    if who.anonymous {
        return Err(
            Failure::new(format!("{} does not know this token", server.url()))
                .hint("`firn token create` makes one, given an admin's rights"),
        );
    }
    file.store(server.url(), &token)?;
    let report = Report {
        server: server.url().to_string(),
        caches: who.caches,
        allow: who.allow,
        file: file.path().display().to_string(),
    };
    show(global.json, &report, |report| {
        let rights: Vec<String> = report
            .allow
            .iter()
            .map(|right| format!("{right:?}").to_lowercase())
            .collect();
        format!(
            "logged in to {}: may {} {}; the token is kept in {}",
            report.server,
            rights.join(", "),
            report.caches.join(", "),
            report.file
        )
    })
}

fn read_token(args: &Args) -> Outcome<String> {
    if !args.token_stdin
        && let Ok(token) = std::env::var("FIRN_TOKEN")
        && !token.trim().is_empty()
    {
        return Ok(token.trim().to_owned());
    }
    if std::io::stdin().is_terminal() {
        eprintln!("token:");
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    match line.trim() {
        "" => Err(Failure::new("no token was given")
            .hint("`firn login URL --token-stdin < FILE`, or set FIRN_TOKEN")),
        token => Ok(token.to_owned()),
    }
}
