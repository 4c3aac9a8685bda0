//! The commands, one file each.

mod actions;
mod agent;
mod backup;
mod cache;
mod check;
mod ci;
mod gc;
mod image;
mod login;
mod pull;
mod push;
mod rebuild;
mod serve;
mod stats;
mod status;
mod token;
mod use_cache;
mod watch_store;

use crate::{context::Global, failure::Outcome};
use clap::{Parser, Subcommand};

/// A build cache for Nix containers: a Nix binary cache, an OCI registry and layered images over one store.
#[derive(Debug, Parser)]
#[command(name = "firn", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the Nix cache, the registry and the API on one address
    Serve(serve::Args),
    /// Cache the closures of store paths
    Push(push::Args),
    /// Bring closures into the local store, or into a folder without Nix
    Pull(pull::Args),
    /// Configure Nix for a cache: nix.conf and netrc, or a flake's nixConfig
    Use(use_cache::Args),
    /// Serve stores to the Nix of this machine, fetching only chunks that it has not
    Agent(agent::Args),
    /// Say what of a closure is cached
    Status(status::Args),
    /// Keep a token for a server
    Login(login::Args),
    /// Cache a CI job's Nix store without a server
    #[command(subcommand)]
    Ci(Box<ci::Command>),
    /// Send new store paths while work goes on
    WatchStore(watch_store::Args),
    /// Compose layered images
    #[command(subcommand)]
    Image(Box<image::Command>),
    /// Look at the Actions cache: entries, hits and misses, what went and why
    #[command(subcommand)]
    Actions(actions::Command),
    /// Manage caches
    #[command(subcommand)]
    Cache(cache::Command),
    /// Manage tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Check a store, say what damage breaks, and heal it from a copy
    Check(check::Args),
    /// Copy a server's folder while it works
    Backup(backup::Args),
    /// Take away what nothing needs any more, in a server or in a store without one
    Gc(gc::Args),
    /// Show what is stored, and what deduplication saves
    Stats(stats::Args),
    /// Make the database anew from packs and segments; the server must not be running
    Rebuild(rebuild::Args),
}

/// Runs the command that was given.
pub(crate) fn run(cli: Cli) -> Outcome {
    let global = &cli.global;
    crate::dest_creds::warn_of_arguments();
    if !matches!(cli.command, Command::Serve(_) | Command::Agent(_)) {
        log_if_asked();
    }
    match cli.command {
        Command::Serve(args) => serve::run(global, args),
        Command::Push(args) => push::run(global, &args),
        Command::Pull(args) => pull::run(global, &args),
        Command::Use(args) => use_cache::run(global, &args),
        Command::Agent(args) => agent::run(global, &args),
        Command::Status(args) => status::run(global, &args),
        Command::Login(args) => login::run(global, &args),
        Command::Ci(command) => ci::run(global, &command),
        Command::WatchStore(args) => watch_store::run(global, &args),
        Command::Image(command) => image::run(global, *command),
        Command::Actions(command) => actions::run(global, &command),
        Command::Cache(command) => cache::run(global, command),
        Command::Token(command) => token::run(global, command),
        Command::Check(args) => check::run(global, &args),
        Command::Backup(args) => backup::run(global, &args),
        Command::Gc(args) => gc::run(global, &args),
        Command::Stats(args) => stats::run(global, &args),
        Command::Rebuild(args) => rebuild::run(global, &args),
    }
}

/// Commands that end soon log only if `FIRN_LOG` says what.
fn log_if_asked() {
    if let Ok(filter) = std::env::var("FIRN_LOG") {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_writer(std::io::stderr)
            .init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }

    /// The commands of the README: `$ firn …` in its examples, and the first column of its table.
    fn readme() -> Vec<String> {
        let text = include_str!("../../../../README.md");
        let shown = text.lines().filter_map(|line| {
            let (_, arguments) = line.strip_prefix("$ ")?.split_once("firn ")?;
            let line = arguments.split(" #").next().unwrap_or_default();
            Some(line.replace('\'', ""))
        });
        let listed = text.lines().flat_map(|line| {
            let command = line
                .strip_prefix("| `firn ")
                .and_then(|line| line.split('`').next());
            let (first, others) = command
                .unwrap_or_default()
                .split_once("\\|")
                .unwrap_or((command.unwrap_or_default(), ""));
            let group = first.rsplit_once(' ').map_or("", |(group, _)| group);
            let mut all = vec![first.to_owned()];
            all.extend(
                others
                    .split("\\|")
                    .filter(|other| !other.is_empty())
                    .map(|other| format!("{group} {other}")),
            );
            all.into_iter().filter(|line| !line.is_empty())
        });
        shown.chain(listed).collect()
    }

    #[test]
    fn the_readme_is_true_of_commands_and_flags() {
        let lines = readme();
        assert!(lines.len() > 25, "{lines:?}");
        for line in lines {
            let words = line.split_whitespace();
            let parsed = Cli::try_parse_from(std::iter::once("firn").chain(words));
            // The table leaves out what a command cannot do without.
            let incomplete = |error: &clap::Error| {
                error.kind() == clap::error::ErrorKind::MissingRequiredArgument
            };
            assert!(
                parsed.as_ref().err().is_none_or(incomplete),
                "{line}: {}",
                parsed.map(|_| ()).unwrap_err()
            );
        }
    }

    #[test]
    fn the_contract_of_arguments_holds() {
        for line in [
            "firn serve --listen 127.0.0.1:0 --data d --public-url https://x --log-format json",
            "firn rebuild --data d",
            "firn push ./result /nix/store/x --json --server http://x --cache acme/web",
            "firn push ./result --storage /s --dest-creds u:p --upstream-key cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
            "firn pull x --to d --public-key a:b --trust",
            "firn pull x --storage /s --storage oci://ghcr.io/a/b --to d",
            "firn status ./result --storage s3://b/p",
            "firn agent --storage /s --storage ./t --server http://x --listen 127.0.0.1:0 --json",
            "firn use main --flake",
            "firn use main --print --server https://x",
            "firn status ./result",
            "firn login http://x --token-stdin",
            "firn image push --name app:1 --entrypoint app --cmd --flag --env A=B --max-layers 5 ./r",
            "firn image push --to 127.0.0.1:5000/a/b:1 --dest-creds u:p --algorithm popularity ./r",
            "firn image push --archive f.tar --name a:1",
            "firn image build --output d --format oci --compression gzip ./r",
            "firn image plan ./r --json",
            "firn image inspect app:1",
            "firn actions list --repo acme/app --ref main --key nix- --json",
            "firn actions delete nix-1 --repo acme/app --ref refs/heads/main",
            "firn actions delete --all --repo acme/app",
            "firn actions replace nix-1 --repo acme/app",
            "firn actions usage",
            "firn actions history --repo acme/app --since 7d",
            "firn actions why nix-1 --repo acme/app",
            "firn actions summary --repo acme/app --ref main --key nix- --since 1h",
            "firn cache create ci --actions-shared",
            "firn cache configure ci --actions-shared=false",
            "firn cache create acme/web --private",
            "firn cache list",
            "firn cache create a --keep-for 30d --quota 50G",
            "firn cache configure main --keep-for never --quota none --priority 30",
            "firn cache pin main ./result --keep 5",
            "firn cache pin app --image app:1 --cache acme/web",
            "firn cache pin --list",
            "firn cache unpin main",
            "firn cache evict --dry-run",
            "firn cache evictions --limit 5 --json",
            "firn cache show main",
            "firn cache delete main",
            "firn token create --cache acme/* --allow pull,push --expires 30d --json",
            "firn token list",
            "firn token revoke x",
            "firn token rotate --overlap 7d",
            "firn cache key rotate main --overlap 30d",
            "firn gc --storage /srv/firn --dry-run --grace 1d --keys-unused-for 30d",
            "firn gc --server http://a --dry-run --grace 1h --dead 20",
            "firn check",
            "firn check --data d --read-data --rate 50M --resume",
            "firn check --read-data=1/7 --server http://x --json",
            "firn check --storage /s --read-data",
            "firn check --repair-from /backup",
            "firn backup /backup --data d --copy",
            "firn stats",
            "firn ci restore --storage /s --key k --key-files **/flake.lock a.nix --restore-key a- --restore-key b",
            "firn ci restore --storage oci://ghcr.io/a/b --key k --path ~/.cache/nix --path x --json",
            "firn ci save --deadline 5m --root ./result --upstream-key none",
            "firn ci summary --json",
            "firn watch-store --storage /s --include a* --exclude b --max-size 2G",
            "firn watch-store --hook --queue /q",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(
                parsed.is_ok(),
                "{line}: {}",
                parsed.map(|_| ()).unwrap_err()
            );
        }
        for line in [
            "firn",
            "firn push",
            "firn image push ./r",
            "firn image push --to a/b:1 --name a:1 ./r",
            "firn image build ./r",
            "firn token create --allow fly",
            "firn cache pin main",
            "firn cache pin main ./r --image a:1",
            "firn cache configure main --quota 0",
            "firn token create --allow pull --expires soon",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
