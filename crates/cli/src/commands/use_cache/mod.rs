//! `firn use`: makes Nix use a cache, and asks Nix whether it does.

mod remove;
mod token;
mod verify;

use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
};
use firn_client::{
    ClientError,
    api::Server,
    nix_config::{
        ConfigFiles, NetrcToken, NixSettings, UseCache, may_read, nix_is_here, user_is_trusted,
    },
};
use serde::Serialize;
use token::Chosen;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cache's name
    #[arg(value_name = "CACHE")]
    name: String,
    /// Print the lines for nix.conf and netrc, and NixOS's nix.settings, change nothing
    #[arg(long, conflicts_with = "flake")]
    print: bool,
    /// Print the nixConfig block for a flake, change nothing
    #[arg(long)]
    flake: bool,
    /// Take back what `firn use CACHE` has written
    #[arg(long, conflicts_with_all = ["print", "flake"])]
    remove: bool,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    cache: UseCache,
    nix_conf: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    netrc: Option<String>,
    written: bool,
    /// What Nix says; absent where there is no `nix` to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<bool>,
    /// What was done beside that, and what is still to be done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    if args.remove {
        return remove::run(global, &args.name);
    }
    let server = global.connect()?;
    let cache = described(&server, &args.name)?;
    if args.flake {
        return show(global.json, &cache, UseCache::flake_block);
    }
    let mut files = ConfigFiles::of_user()?;
    if args.print {
        return print(global, cache, &files);
    }
    let nix = nix_is_here();
    if nix {
        if !user_is_trusted()? {
            return by_the_system(global, cache, &files);
        }
        files = files.with_settings(&NixSettings::of_user()?)?;
    }
    files
        .check_writable(cache.private)
        .map_err(|error| not_ours(error, &cache, &files))?;
    let mut notes = Vec::new();
    let chosen = match cache.private {
        true => token::choose(&server, &cache, &files, &mut notes)?,
        false => Chosen::Nothing,
    };
    let changed = files.apply(&cache, chosen.to_write())?;
    if nix {
        verify::verify(&cache, &files, changed, &mut notes)?;
    } else {
        notes.push("there is no `nix` in PATH to ask whether it uses the cache".to_owned());
    }
    let report = Report {
        nix_conf: files.nix_conf.display().to_string(),
        netrc: cache.private.then(|| files.netrc.display().to_string()),
        written: true,
        used: nix.then_some(true),
        notes,
        cache,
    };
    show(global.json, &report, text)
}

/// What the server tells of a cache.
fn described(server: &Server, name: &str) -> Outcome<UseCache> {
    let (keys, private) = match server.cache(name) {
        Ok(view) => (view.public_keys, !view.public),
        // Whoever may only pull is still told the public key.
        Err(error) if matches!(error.status(), Some(401 | 403)) => {
            let key = server.public_key(name).map_err(|_| error)?;
            let private = !may_read(server.http(), &server.url().join(name), None)?;
            (key.lines().map(str::to_owned).collect(), private)
        }
        Err(error) => return Err(error.into()),
    };
    Ok(UseCache::new(server.url(), name, keys, private))
}

fn text(report: &Report) -> String {
    let files = match &report.netrc {
        Some(netrc) => format!("{} and {netrc}", report.nix_conf),
        None => report.nix_conf.clone(),
    };
    let url = &report.cache.url;
    let mut text = match (report.used, report.written) {
        (Some(true), true) => format!("Nix uses {url} now: {files}\n"),
        (Some(true), false) => format!("Nix uses {url}: the system's configuration names it\n"),
        _ => format!("{url} is in {files}\n"),
    };
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

/// The lines to paste.
fn lines(cache: &UseCache, files: &ConfigFiles) -> String {
    let mut text = format!("# {}\n", files.nix_conf.display());
    for line in cache.nix_conf_lines(Some(&files.netrc)) {
        text.push_str(&format!("{line}\n"));
    }
    if cache.private {
        text.push_str(&format!(
            "# {}; `firn token create --cache CACHE --allow pull` makes a TOKEN\n{}\n",
            files.netrc.display(),
            cache.netrc_line("TOKEN")
        ));
    }
    text.push_str("# or, on NixOS, configuration.nix\n");
    text.push_str(&cache.nixos_block(Some(&files.netrc)));
    text
}

fn print(global: &Global, cache: UseCache, files: &ConfigFiles) -> Outcome {
    let report = Report {
        nix_conf: files.nix_conf.display().to_string(),
        netrc: cache.private.then(|| files.netrc.display().to_string()),
        written: false,
        used: None,
        notes: Vec::new(),
        cache,
    };
    show(global.json, &report, |report| lines(&report.cache, files))
}

/// A file that somebody else makes, most often NixOS: it is told what to make.
fn not_ours(error: ClientError, cache: &UseCache, files: &ConfigFiles) -> Failure {
    let ours = !matches!(error, ClientError::Unwritable { .. });
    let failure = Failure::from(error);
    if ours {
        return failure;
    }
    failure.hint(format!(
        "nothing was changed; put this where the file comes from:\n{}",
        lines(cache, files)
    ))
}

/// For a user whose substituters the daemon does not take, the system's configuration decides.
fn by_the_system(global: &Global, cache: UseCache, files: &ConfigFiles) -> Outcome {
    let system = NixSettings::of_system()?;
    if !(system.has_substituter(&cache.url) && system.trusts(&cache.public_keys)) {
        let conf = system.netrc_file_default.with_file_name("nix.conf");
        let files = ConfigFiles {
            nix_conf: conf,
            netrc: system.netrc_file.clone(),
            names_netrc: false,
        };
        return Err(Failure::new(format!(
            "Nix would not use {}: the Nix daemon takes substituters from its trusted-users alone, and this user is none",
            cache.url
        ))
        .hint(format!(
            "nothing was changed; an administrator can run `firn use`, or add this and restart the Nix daemon:\n{}",
            lines(&cache, &files)
        )));
    }
    let mut notes = Vec::new();
    if cache.private {
        notes.push(format!(
            "the cache is private: the daemon's {} has to hold a token for {}",
            system.netrc_file.display(),
            cache.host
        ));
    }
    let report = Report {
        nix_conf: files.nix_conf.display().to_string(),
        netrc: None,
        written: false,
        used: Some(true),
        notes,
        cache,
    };
    show(global.json, &report, text)
}

impl Chosen {
    fn to_write(&self) -> Option<NetrcToken<'_>> {
        match self {
            Self::Nothing => None,
            Self::Write { token, id } => Some(NetrcToken {
                token,
                id: id.as_deref(),
            }),
        }
    }
}
